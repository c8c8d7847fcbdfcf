//! The command line and the recipe: what is refused before anything is done.

use super::fixture::Place;
use expect_test::expect;

#[test]
fn help_lists_the_commands_that_exist() {
    let place = Place::new();
    let help = place.distill("--help").ok().stdout;
    let listed = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let entries = listed.filter(|l| l.starts_with("  ") && !l.starts_with("   "));
    let names: Vec<&str> = entries.filter_map(|l| l.split_whitespace().next()).collect();
    assert_eq!(
        names,
        [
            "run",
            "init",
            "train-teacher",
            "sample",
            "filter",
            "judge",
            "train-student",
            "evaluate",
            "show",
            "verify",
            "merge",
            "doctor",
            "help"
        ]
    );
    for name in &names {
        place.distill(&format!("help {name}")).ok();
    }
    for name in ["fetch", "export"] {
        assert!(!help.contains(&format!("  {name} ")), "{name} is in the help");
        place.distill(name).exits(2);
    }
}

#[test]
fn a_wrong_command_line_exits_2() {
    let place = Place::new();
    for (args, part) in [
        ("--nonsense", "unexpected argument '--nonsense'"),
        ("run tiny.toml --threads 0", "0 is not in 1..=65535"),
        ("filter", "<INPUT>"),
        ("sample", "--teacher <MODEL>"),
        ("sample tiny.toml -n 3", "cannot be used with"),
        ("train-student --student x", "--traces <SHARDS>"),
        ("train-student tiny.toml --student x", "cannot be used with"),
        ("evaluate --student x", "--tasks <TASKS>"),
        ("evaluate --tasks gsm8k", "--student <MODEL>"),
        ("sample --teacher x --task gsm8k --fields question=q,answer=a", "'--task <NAME>' cannot be used with"),
        ("sample --teacher x --task gsm8k --verify math", "'--task <NAME>' cannot be used with '--verify <CHECK>'"),
        ("evaluate --student x --problems p --fields question", "\"question\" is none of question=NAME, answer=NAME, id=NAME"),
        ("evaluate --student x --problems p --fields qestion=q", "\"qestion=q\" is none of"),
        ("run --set sample.n", "it wants KEY=VALUE, such as sample.n=8"),
        ("run --set =3", "\"\" is not a key"),
        ("run --set teacher.phase[0.steps=3", "phase[0 is not a list place such as phase[0]"),
        ("sample --teacher x --task gsm8k -n -3", "-3 is not in 1..="),
        ("sample --teacher x --task gsm8k -n 0", "0 is not in 1..="),
        ("sample --teacher x --task gsm8k --max-tokens -1", "-1 is not in 1..="),
        ("sample --teacher x --task gsm8k --limit -1", "-1 is not in 1..="),
        ("run --threads -2", "-2 is not in 1..=65535"),
        ("show x -n -1", "-1 is not in 0.."),
    ] {
        let output = place.distill(args).exits(2);
        assert!(output.stderr.contains(part), "{output:?}");
    }
    assert!(!place.path("runs").exists());
}

/// Settings that would waste a run, or leave its folder, are refused before anything is done.
#[test]
fn settings_that_cannot_mean_anything_are_refused() {
    let place = Place::new();
    for (i, (setting, part)) in [
        ("control[0].name=\"../../evil\"", "control[0].name must be letters, digits, '-', '_' or '.', got \"../../evil\""),
        ("control[0].name=sft", "control[0].name must be another name: the report uses this one"),
        ("evaluate.tasks=[\"../x\"]", "evaluate.tasks must be names of letters, digits, '-', '_' or '.', got \"../x\""),
        ("evaluate.tasks=[\"arithmetic\",\"arithmetic\"]", "evaluate.tasks: \"arithmetic\" is there twice"),
        ("problems.levels=[9]", "problems.levels must be from 3 to 5 for arithmetic, got [9]"),
        ("teacher.phase[1].reference_reset=4", "teacher.phase[1].reference_reset: there is no reference to reset where beta is 0"),
        ("teacher.phase[1].overlong_penalty={buffer=0,factor=1.0}", "overlong_penalty.buffer must be from 1 to max_tokens, got 0"),
        ("teacher.phase[1].epsilon=0.0", "teacher.phase[1].epsilon must be more than 0, got 0"),
        ("sample.max_tokens=128", "max_tokens 128 leaves no room for a prompt in the model's 128 positions"),
        ("execution.slots=0", "execution.slots must be from 1 to 65536, got 0"),
        ("execution.slots=9223372036854775807", "execution.slots must be from 1 to 65536, got 9223372036854775807"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut command = place.command();
        command.args(["run", "tiny.toml", "--run", &format!("run{i}"), "--set", setting]);
        let output = place.output(setting, &mut command).exits(78);
        assert!(output.stderr.contains(part), "{setting}: {output:?}");
    }
    let threads = place.distill("run tiny.toml --run threads --threads 65535").exits(78);
    assert!(threads.stderr.starts_with("error: --threads must be at most ") && threads.stderr.contains("here, got 65535"), "{threads:?}");
    assert!(!place.path("threads").exists());
    assert!(!place.path("../evil").exists() && !place.path("x").exists());
    place.write("mine/recipe.toml", "# mine\nname = \"mine\"\n[teacher]\nmodel = \"x\"\n");
    let output = place.distill("train-teacher mine/recipe.toml --run mine").exits(78);
    assert!(output.stderr.contains("mine/recipe.toml is not as a run has written it, and would be overwritten"), "{output:?}");
    assert!(place.read("mine/recipe.toml").starts_with(b"# mine"));
}

#[test]
fn every_problem_of_a_recipe_is_reported_at_once() {
    let place = Place::new();
    place.write(
        "bad.toml",
        r#"
name = "bad"
sed = 1
[problems]
task = "arithmetik"
[sample]
n = 0
temperatur = 1.0
top_p = 1.5
top_k = -1
max_tokens = "many"
[filter]
corect = true
language = { min = 2.0 }
[evaluate]
tasks = ["gsm9k"]
"#,
    );
    place.distill("run bad.toml").fails(expect![[r#"
        78: error: bad.toml has 10 problems:
          problems.task: "arithmetik" is not a task (arithmetic, gsm8k, math, math500, aime24, aime25, countdown, countdown-tiny, knights, humaneval, mbpp) and no file is given
          sample.top_k must be a number of tokens, or 0 for off, got -1
          sample.max_tokens must be a whole number, got "many"
          sample.top_p must be in (0, 1], got 1.5
          sample.n must be at least 1, got 0
          sample.temperatur is not a key, did you mean temperature?
          filter.corect is not a key, did you mean correct?
          evaluate.tasks: "gsm9k" is not a task (arithmetic, gsm8k, math, math500, aime24, aime25, countdown, countdown-tiny, knights, humaneval, mbpp); give it a file
          sed is not a key, did you mean seed?
          filter.language.min must be in [0, 1], got 2
    "#]]);
    assert!(!place.path("runs").exists(), "nothing was made");
}

/// One mistake, one error, in the words of whoever wrote the recipe: what only follows from it is not reported, and no type of ours is named.
#[test]
fn one_mistake_is_one_error_in_plain_words() {
    let place = Place::new();
    let tiny = String::from_utf8(place.read("tiny.toml")).expect("text");
    let check = |from: &str, to: &str, expected: &str| {
        assert!(tiny.contains(from), "{from}");
        place.write("t.toml", tiny.replacen(from, to, 1));
        let output = place.distill("run t.toml --run run").exits(78);
        assert_eq!(output.stderr, format!("error: t.toml: {expected}\n"), "{from} -> {to}");
    };
    check("seed = 0", "seed = -1", "seed must be a whole number, 0 or more, got -1");
    check("seed = 0", "seed = 0.5", "seed must be a whole number, got 0.5");
    check("n = 2\n", "n = 5000000000\n", "sample.n must be a whole number from 0 to 4294967295, got 5000000000");
    check("learning_rate = 3e-3", "learning_rate = \"3e-3\"", "teacher.phase[0].learning_rate must be a number, got \"3e-3\"");
    check("finished = true", "finished = 1", "filter.finished must be true or false, got 1");
    check("reward = \"tiny\"", "reward = 3", "teacher.phase[1].reward must be text in quotes, got 3");
    check("name = \"tiny-tiny\"", "name = 3", "name must be text in quotes, got 3");
    check("task = \"arithmetic\"", "task = 3", "problems.task must be text in quotes, got 3");
    check("task = \"arithmetic\"", "tsk = \"arithmetic\"", "problems.tsk is not a key, did you mean task?");
    check("[problems]", "[problem]", "problem is not a key, did you mean problems?");
    check("[cold_start]", "[coldstart]", "coldstart is not a key, did you mean cold_start?");
    check("[teacher]\nmodel", "[teacher]\nmodle", "teacher.modle is not a key, did you mean model?");
    check("shape = {", "shpe = {", "teacher.shpe is not a key, did you mean shape?");
    check("layers = 2", "layers = \"2\"", "teacher.shape.layers must be a whole number, got \"2\"");
    check("layers = 2, ", "", "teacher.shape.layers is missing");
    check("layers = 2", "layers = 2, leyers = 2", "teacher.shape.leyers is not a key, did you mean layers?");
    check("data = \"cold-start\"", "data = 5", "teacher.phase[0].data must be text in quotes, got 5");
    check("method = \"grpo\"", "method = \"grop\"", "teacher.phase[1].method must be sft, kd or grpo, got \"grop\"");
    check("tasks = [\"arithmetic\"]", "tasks = \"arithmetic\"", "evaluate.tasks must be a list, got \"arithmetic\"");
    check("tasks = [\"arithmetic\"]", "task = [\"arithmetic\"]", "evaluate.task is not a key, did you mean tasks?");
    check("tasks = [\"arithmetic\"]", "tasks = [1]", "evaluate.tasks[0] must be text in quotes, got 1");
    check("tasks = [\"arithmetic\"]", "tasks = [\"gsm8k\"]", "evaluate.arithmetic: evaluate.tasks does not name this task");
    check("tasks = [\"arithmetic\"]", "tasks = [\"arithmetic\"]\ntop_p = 2.0", "evaluate.top_p must be in (0, 1], got 2");
    check("[[control]]\nname", "[[control]]\nnme", "control[0].nme is not a key, did you mean name?");
    check(
        "[[student.phase]]\nmethod = \"sft\"",
        "[[student.phase]]\nmthod = \"sft\"",
        "student.phase[1].mthod is not a key, did you mean method?",
    );
    assert!(!place.path("run").exists());
}

#[test]
fn a_recipe_with_nothing_to_do_is_refused() {
    let place = Place::new();
    place.write("empty.toml", "name = \"empty\"\n[problems]\ntask = \"arithmetic\"\n");
    place.write("student.toml", "name = \"s\"\n[student]\nmodel = \"x\"\n");
    for (args, part) in [
        ("run empty.toml", "empty.toml: neither [teacher] nor [student] is there"),
        ("run empty.toml --plan", "empty.toml: neither [teacher] nor [student] is there"),
        ("sample student.toml", "student.toml: [teacher] is missing"),
        ("train-teacher student.toml", "student.toml: [teacher] is missing"),
        ("train-student empty.toml", "empty.toml: [student] is missing"),
        ("evaluate student.toml", "student.toml: [evaluate] is missing"),
    ] {
        let output = place.distill(args).exits(78);
        assert!(output.stderr.contains(part), "{args}: {output:?}");
    }
    assert!(!place.path("runs").exists(), "nothing was made");
}

/// Of a flag's value the flag is named, of `--set` its key, of the file the file.
#[test]
fn a_problem_is_told_where_it_was_written() {
    let place = Place::new();
    for (args, part) in [
        (
            "sample --teacher x --task arithmetic --temperature -1",
            "error: --temperature: sample.temperature must be 0 (greedy) or more, got -1",
        ),
        ("sample --teacher x --task arithmetic --top-p -0.5", "error: --top-p: sample.top_p must be in (0, 1], got -0.5"),
        ("evaluate --student x --tasks gsm8k,arithmetic --top-p 2", "error: --top-p: evaluate.top_p must be in (0, 1], got 2"),
        ("sample --teacher x --task arithmetic --prompt r2", "error: --prompt: sample.prompt must be one of "),
        ("sample --teacher x --task arithmetik", "error: --task: problems.task: \"arithmetik\" is not a task"),
        ("run tiny.toml --set sample.top_p=3", "error: --set sample.top_p must be in (0, 1], got 3"),
    ] {
        let output = place.distill(args).exits(78);
        assert!(output.stderr.starts_with(part) && output.stderr.lines().count() == 1, "{args}: {output:?}");
    }
}

#[test]
fn overrides_are_held_against_the_same_rules() {
    let place = Place::new();
    let fails = |set: &str, expect: expect_test::Expect| place.distill(&format!("run tiny.toml --set {set}")).fails(expect);
    fails(
        "sample.nn=3",
        expect![[r#"
            78: error: --set sample.nn is not a key, did you mean n?
        "#]],
    );
    fails(
        "sample.n=x",
        expect![[r#"
            78: error: --set sample.n must be a whole number, got "x"
        "#]],
    );
    fails(
        "filter.length={max=3,mn=1}",
        expect![[r#"
            78: error: --set filter.length.mn is not a key, did you mean min?
        "#]],
    );
    fails(
        "teacher.phase[7].steps=3",
        expect![[r#"
            78: error: --set teacher.phase[7].steps: phase has 2 entries, counted from 0
        "#]],
    );
    fails(
        "student.phase[1].learning_rate=-1",
        expect![[r#"
            78: error: --set student.phase[1].learning_rate must be more than 0, got -1
        "#]],
    );
    place.distill("run nothere.toml").fails(expect![[r#"
        78: error: cannot read the recipe nothere.toml: No such file or directory (os error 2)
    "#]]);
    place.write("broken.toml", "name = \n");
    place.distill("run broken.toml").fails(expect![[r#"
        78: error: broken.toml is not valid TOML: TOML parse error at line 1, column 8
          |
        1 | name = 
          |        ^
        string values must be quoted, expected literal string

    "#]]);
    let plan = place.distill("run tiny.toml --plan --set sample.temperature=0.9 --set student.phase[0].steps=7").ok().stdout;
    assert!(plan.contains("temperature = 0.9\n") && plan.contains("steps = 7\n"), "{plan}");
}

#[test]
fn every_flag_and_argument_says_what_it_is() {
    let place = Place::new();
    let mut command = place.command();
    let mut help = |name: &str| {
        let output = place.output(name, command.args([name, "-h"]).env("COLUMNS", "100"));
        command = place.command();
        output.ok().stdout
    };
    for name in ["run", "train-teacher", "sample", "filter", "train-student", "evaluate", "show"] {
        let text = help(name);
        let is_entry = |l: &str| l.trim_start().starts_with(['-', '[', '<']) && l.len() - l.trim_start().len() <= 6;
        assert!(text.lines().filter(|l| is_entry(l)).count() > 8, "{text}");
        for (i, line) in text.lines().enumerate().filter(|(_, l)| is_entry(l)) {
            let beside = line.trim().split_once("  ").is_some_and(|(_, rest)| !rest.trim().is_empty());
            let below = text.lines().nth(i + 1).is_some_and(|next| next.starts_with("          "));
            assert!(beside || below, "{name}: nothing is said of {line:?}\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }
}

#[test]
fn every_shipped_recipe_has_a_plan_without_network() {
    let place = Place::new();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let mut recipes: Vec<_> = std::fs::read_dir(folder).expect("recipes/").map(|e| e.expect("an entry").path()).collect();
    recipes.retain(|p| p.extension().is_some_and(|e| e == "toml"));
    assert!(recipes.len() >= 6, "{recipes:?}");
    for recipe in recipes {
        let plan = place.distill(&format!("run {} --plan", recipe.display())).ok().stdout;
        assert!(plan.contains("# plan: runs/") && plan.contains("traces"), "{plan}");
        let json = place.distill(&format!("run {} --plan --json", recipe.display())).ok().json();
        assert!(json["stages"].as_array().is_some_and(|s| s.len() >= 3), "{json:#}");
    }
    assert!(!place.path("runs").exists(), "a plan does nothing");
}
