//! The command line and the recipe: what is refused before anything is done.

use super::fixture::Place;
use expect_test::expect;

#[test]
fn help_lists_the_commands_that_exist() {
    let place = Place::new();
    let help = place.distill("--help").ok().stdout;
    let listed = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let names: Vec<&str> = listed.filter_map(|l| l.split_whitespace().next()).collect();
    assert_eq!(names, ["run", "train-teacher", "sample", "filter", "train-student", "evaluate", "show", "help"]);
    for name in &names {
        place.distill(&format!("help {name}")).ok();
    }
    for name in ["init", "fetch", "verify", "export", "doctor"] {
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
        ("execution.slots=1000000000000", "here, got 1000000000000: each takes "),
        ("execution.slots=9223372036854775807", "here, got 9223372036854775807: each takes "),
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
    place.write("mine/recipe.toml", "# mine\nname = \"mine\"\n");
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
        78: error: the recipe has 10 problems:
          problems.task: "arithmetik" is not a task (arithmetic, gsm8k, math, math500, aime24, aime25, countdown, countdown-tiny, knights) and no file is given
          sample.top_k must be a number of tokens, or 0 for off, got -1
          sample.max_tokens: invalid type: string "many", expected usize (got "many")
          sample.top_p must be in (0, 1], got 1.5
          sample.n must be at least 1, got 0
          sample.temperatur is not a key, did you mean temperature?
          filter.corect is not a key, did you mean correct?
          evaluate.tasks: "gsm9k" is not a task (arithmetic, gsm8k, math, math500, aime24, aime25, countdown, countdown-tiny, knights); give it a file
          filter.language.min must be in [0, 1], got 2
          sed is not a key, did you mean seed?
    "#]]);
    assert!(!place.path("runs").exists(), "nothing was made");
}

#[test]
fn overrides_are_held_against_the_same_rules() {
    let place = Place::new();
    let fails = |set: &str, expect: expect_test::Expect| place.distill(&format!("run tiny.toml --set {set}")).fails(expect);
    fails(
        "sample.nn=3",
        expect![[r#"
        78: error: sample.nn is not a key, did you mean n?
    "#]],
    );
    fails(
        "sample.n",
        expect![[r#"
        78: error: --set wants key=value, got "sample.n"
    "#]],
    );
    fails(
        "sample.n=x",
        expect![[r#"
        78: error: sample.n: invalid type: string "x", expected u32 (got "x")
    "#]],
    );
    fails(
        "filter.length={max=3,mn=1}",
        expect![[r#"
        78: error: filter.length: unknown field `mn`, expected `min` or `max` (got { max = 3, mn = 1 })
    "#]],
    );
    fails(
        "teacher.phase[7].steps=3",
        expect![[r#"
        78: error: --set teacher.phase[7].steps: phase has 2 entries
    "#]],
    );
    fails(
        "teacher.phase[0.steps=3",
        expect![[r#"
        78: error: --set teacher.phase[0.steps: phase[0 is not a list place such as phase[0]
    "#]],
    );
    fails(
        "student.phase[1].learning_rate=-1",
        expect![[r#"
        78: error: student.phase[1].learning_rate must be more than 0, got -1
    "#]],
    );
    place.distill("run nothere.toml").fails(expect![[r#"
        78: error: cannot read the recipe nothere.toml: No such file or directory (os error 2)
    "#]]);
    place.write("broken.toml", "name = \n");
    place.distill("run broken.toml").fails(expect![[r#"
        78: error: the recipe is not valid TOML: TOML parse error at line 1, column 8
          |
        1 | name = 
          |        ^
        string values must be quoted, expected literal string

    "#]]);
    let plan = place.distill("run tiny.toml --plan --set sample.temperature=0.9 --set student.phase[0].steps=7").ok().stdout;
    assert!(plan.contains("temperature = 0.9\n") && plan.contains("steps = 7\n"), "{plan}");
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
