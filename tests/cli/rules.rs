//! The user's own rule: a command as verifier, and `init`, which proposes a rule for a file of problems.

use super::fixture::{Output, Place};
use distill::recipe::Recipe;

/// A verifier that says yes to everything and pays a half.
const YES: &str = r#"while read -r line; do echo '{"correct": true, "answer": "7", "reward": 0.5}'; done"#;

/// A place with a model and three problems.
fn place() -> Place {
    let place = Place::new();
    place.distill("train-teacher tiny.toml --run run").ok();
    let line = |n: u32| format!("{{\"question\": \"{n}+4\", \"answer\": [{n}]}}\n");
    place.write("mine.jsonl", (1..4).map(line).collect::<String>());
    place
}

/// Samples with a command as verifier.
fn sample(place: &Place, command: &str) -> Output {
    let check = format!("{{ command = {command} }}");
    let args = "sample --teacher run --problems mine.jsonl -n 2 --max-tokens 16 --out out --verify";
    place.output(args, place.command().args(args.split(' ')).arg(check))
}

#[test]
fn a_command_judges_pays_and_is_named_in_the_manifest() {
    let place = place();
    place.write("check.sh", YES);
    sample(&place, r#"["sh", "check.sh"]"#).ok();
    let manifest = place.json("out/traces/manifest.json");
    let verifier = manifest["sources"][0]["verifier"].as_str().expect("text").to_owned();
    assert!(verifier.contains(", command: sh check.sh@"), "{verifier}");
    let traces = place.traces("out/traces");
    assert_eq!(traces.len(), 6);
    for trace in &traces {
        assert!(trace.verdict.as_ref().is_some_and(distill::trace::Verdict::is_correct), "{:?}", trace.verdict);
        assert_eq!((trace.rewards["command"].as_f64(), trace.rewards["total"].as_f64()), (Some(0.5), Some(1.0)));
        assert_eq!(trace.answer.as_deref(), Some("7"));
    }
    // Done is done; another script is another judge.
    let again = sample(&place, r#"["sh", "check.sh"]"#).ok();
    assert!(!again.stderr.contains("superseded"), "{}", again.stderr);
    place.write("check.sh", YES.replace("0.5", "0.25"));
    let changed = sample(&place, r#"["sh", "check.sh"]"#).ok();
    assert!(changed.stderr.contains("traces was made from other inputs; moved to out/superseded/0/traces"), "{}", changed.stderr);
    assert_eq!(place.traces("out/traces")[0].rewards["command"].as_f64(), Some(0.25));
}

#[test]
fn a_command_that_cannot_judge_stops_the_stage() {
    let place = place();
    for (command, part) in [
        (r#"["no-such-program-anywhere"]"#, "it does not start: No such file or directory"),
        (r#"["sh", "no-such-script.sh"]"#, "no-such-script.sh"),
        (r#"["sh", "-c", "read x; exit 4"]"#, "failures in a row"),
    ] {
        let output = sample(&place, command).exits(78);
        assert!(output.stderr.contains("verifier unavailable: ") && output.stderr.contains(part), "{output:?}");
        assert!(!place.path("out/traces/manifest.json").exists());
    }
    for (check, part) in [
        ("{ command = [] }", "--verify: problems.verify: command must name a program"),
        ("{ comand = [\"x\"] }", "comand is not a key, did you mean"),
        ("{ command = [\"x\"], deadline = 0 }", "deadline must be above 0"),
        ("regex:[a", "unclosed character class"),
        ("maths", "unknown check \"maths\"; known are number, math, exact, choice, regex, regex:PATTERN"),
    ] {
        let args = "sample --teacher run --problems mine.jsonl --out other --verify";
        let output = place.output(args, place.command().args(args.split(' ')).arg(check)).exits(78);
        assert!(output.stderr.contains(part), "{output:?}");
    }
    let paid = "reward = \"command\" is what a program of yours pays";
    let output = place.distill("sample --teacher run --task arithmetic --set sample.reward=command --set sample.problems=2").exits(78);
    assert!(output.stderr.contains(paid), "{output:?}");
}

/// The check of a recipe with these lines in `[problems]`, or all that is wrong with it.
fn check(verify: &str) -> Result<String, String> {
    let text = format!("name = \"a\"\n[problems]\nfile = \"mine.jsonl\"\nverify = {verify}\n");
    let recipe = Recipe::parse(&text, &[]).map_err(|error| error.to_string())?;
    let again = Recipe::parse(&recipe.to_toml(), &[]).map_err(|error| error.to_string())?;
    assert_eq!(recipe.problems.verify, again.problems.verify, "{verify}");
    Ok(recipe.problems.verify.expect("it is there").to_string())
}

#[test]
fn a_recipe_names_its_rule() {
    for name in ["number", "math", "exact", "choice", "regex", "regex:\\\\d+ km", "countdown", "knights", "code"] {
        assert_eq!(check(&format!("\"{name}\"")), Ok(name.replace("\\\\", "\\")));
    }
    let command = r#"{ command = ["python", "check.py"] }"#;
    assert_eq!(check(command).as_deref(), Ok(command));
    assert!(check(r#"{ command = ["a b", "c\"d"], deadline = 0.5 }"#).is_ok());
    let text = "name = \"a\"\n[problems]\nfile = \"mine.jsonl\"\nverify = { command = [\"x\"] }\n[sample]\nreward = \"command\"\n";
    assert!(Recipe::parse(text, &[]).is_ok());
    for (verify, part) in [
        ("7", "problems.verify must be a check (number, math, exact"),
        ("\"numbr\"", "problems.verify: unknown check \"numbr\"; known are number"),
        ("\"regex:(\"", "problems.verify: \"(\" is no pattern: unclosed group"),
        ("{ command = \"x\" }", "problems.verify.command must be a list, got \"x\""),
        ("{ command = [\"x\"], dedline = 3 }", "problems.verify.dedline is not a key, did you mean deadline?"),
        ("{ command = [\"x\"], deadline = -1 }", "problems.verify: deadline must be above 0"),
        ("{ deadline = 3 }", "problems.verify.command is missing"),
    ] {
        let error = check(verify).expect_err(verify);
        assert!(error.contains(part), "{verify}: {error}");
    }
}

/// What `init` prints at 80 columns.
fn init(place: &Place, args: &str) -> Output {
    let args = format!("init {args} --student S");
    place.output(&args, place.command().env("COLUMNS", "80").args(args.split_whitespace()))
}

#[test]
fn init_shows_what_it_found_and_writes_a_recipe_that_is_valid() {
    let place = Place::new();
    let lines = [
        r#"{"id": 1, "question": "What is 7+4?", "answer": "11"}"#,
        r#"{"id": 2, "question": "What is 7+5?", "answer": "about twelve"}"#,
        r#"{"id": 3, "question": "几加四等于十?", "answer": "6"}"#,
        r#"{"id": 4, "question": "What is 1/2 + 1/3?", "answer": "\\frac{5}{6}"}"#,
        r#"{"id": 5, "question": "What comes next?", "answer": "\\frac{5}{"}"#,
        r#"{"id": 5, "question": "What is 7+6?", "answer": "13"}"#,
        r#"{"id": 7, "question": "What is 7+7?", "answer": "14"}"#,
    ];
    place.write("mine.jsonl", lines.join("\n"));
    let page = init(&place, "mine.jsonl --teacher Org/Teacher").ok().stdout;
    for part in [
        "problems    7 lines of mine.jsonl\n",
        "fields      question = question, answer = answer, id = id\n",
        "language    en 4, zh 1\n",
        "verify      math: ",
        "references  5 of 7 can be used\n",
        "doubtful    1 not understood; only the same text would be right\n            line 5: ",
        "BROKEN      1 line stops a run: mend or remove it first\n            line 6: the id \"mine/5\" is already that of line 5\n",
        "prompts     without a chat template, since Org/Teacher is no local folder\n",
        "--- prompt 3 of 3 ---\n",
        "wrote mine.toml\nnext: distill run mine.toml --plan\n",
    ] {
        assert!(page.contains(part), "{part}\n{page}");
    }
    assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
    let recipe = String::from_utf8(place.read("mine.toml")).expect("UTF-8");
    let parsed = Recipe::parse(&recipe, &[]).expect("valid");
    assert_eq!((parsed.name.as_str(), parsed.problems.verify.map(|check| check.to_string())), ("mine", Some("math".into())));
}

#[test]
fn init_writes_over_nothing_unless_it_is_told_to() {
    let place = Place::new();
    place.write("mine.jsonl", r#"{"question": "q", "answer": "C"}"#);
    place.write("mine.toml", "mine");
    let refused = init(&place, "mine.jsonl --teacher T").exits(78);
    assert!(refused.stderr.contains("mine.toml is there already; --force writes over it, --out names another file"), "{refused:?}");
    assert_eq!(place.read("mine.toml"), b"mine");
    init(&place, "mine.jsonl --teacher T --out other.toml").ok();
    let recipe = String::from_utf8(place.read("other.toml")).expect("UTF-8");
    assert!(recipe.contains("verify = \"choice\""), "{recipe}");
    init(&place, "mine.jsonl --teacher T --force").ok();
    assert_eq!(String::from_utf8(place.read("mine.toml")).expect("UTF-8").replace("mine.toml", "other.toml"), recipe);
}

#[test]
fn init_refuses_what_it_cannot_read() {
    let place = Place::new();
    place.write("nested.jsonl", r#"{"prompt": "q", "extra": {"answer": "C"}}"#);
    place.write("empty.jsonl", "\n");
    place.write("useless.jsonl", r#"{"question": "q", "answer": "5", "n": 1}"#);
    for (args, part) in [
        ("nested.jsonl --teacher T", "the answers lie in extra.answer, inside of another field"),
        ("empty.jsonl --teacher T", "empty.jsonl is empty"),
        ("missing.jsonl --teacher T", "cannot read the problems missing.jsonl"),
        (
            "useless.jsonl --teacher T --fields question=n",
            "no problem of useless.jsonl can be used; line 1: field n is a number, expected text",
        ),
    ] {
        let refused = init(&place, args).exits(78);
        assert!(refused.stderr.contains(part), "{refused:?}");
    }
    place.distill("init useless.jsonl --teacher T").exits(2);
}

/// The recipe does as it says, with the little model that knows sums; a run directory stands for its last model.
#[test]
fn the_recipe_of_init_runs_and_its_prompts_have_the_template_of_a_folder() {
    let place = place();
    let lines: String = (1..9).map(|n| format!("{{\"question\": \"{n}+4\", \"answer\": {}}}\n", n + 4)).collect();
    place.write("sums.jsonl", lines);
    let args = "init sums.jsonl --teacher run --student run/teacher/grpo --json";
    let found: serde_json::Value = serde_json::from_str(&place.distill(args).ok().stdout).expect("JSON");
    assert_eq!((found["verify"].as_str(), found["usable"].as_u64(), found["languages"]["en"].as_u64()), (Some("number"), Some(8), Some(8)));
    assert_eq!(found["prompts"].as_array().map(Vec::len), Some(3));
    let page = place.distill("init sums.jsonl --teacher run --student run/teacher/grpo --force").ok().stdout;
    assert!(page.contains("prompts     in the teacher's chat template") || page.contains("prompts     as they are"), "{page}");
    place.distill("run sums.toml --plan").ok();
    place.distill("run sums.toml --run sums --set filter.correct=false --set filter.finished=false").ok();
    assert!(place.path("sums/student/sft/model.safetensors").exists());
}
