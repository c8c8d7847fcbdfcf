use super::*;
use crate::shard::{Entry, SealOptions, Source, seal};
use crate::trace::Trace;
use expect_test::expect_file;
use serde_json::{Value, json};
use std::fs;

/// A run directory that a test writes.
struct Run(tempfile::TempDir);

impl Run {
    /// A recipe and nothing else.
    fn new(recipe: &str) -> Self {
        let run = Self(tempfile::tempdir().unwrap());
        run.put("recipe.toml", recipe);
        run
    }

    /// A small but complete run, planted like the tiny recipe.
    fn whole() -> Self {
        let run = Self::new(RECIPE);
        for (stage, seconds, counts) in [
            ("teacher/sft", 31.2, json!({"steps": 20, "traces": 16000})),
            ("teacher/grpo", 12.04, json!({"steps": 10})),
            ("traces", 2.5, json!({"problems": 3, "traces": 6, "unusable": ["a|b"]})),
            ("student/sft", 244.0, json!({"steps": 20})),
            ("student/grpo", 7300.0, json!({})),
            ("controls/student-unfiltered", 4.0, json!({})),
        ] {
            run.done(stage, json!({"seconds": seconds, "counts": counts, "inputs": {"traces": "0123"}}));
        }
        run.metrics("teacher/sft", 20, |x| json!({"loss": 2.5 - 2.0 * x, "grad_norm": 1.0, "tokens": 640}));
        run.metrics("teacher/grpo", 10, grpo);
        run.metrics("student/grpo", 3, grpo);
        run.corpus();
        // Of 40 problems the first so many are solved.
        for (model, sampled, greedy) in [
            ("base", 10, 8),
            ("teacher", 26, 32),
            ("student-base", 9, 11),
            ("student-unfiltered", 21, 29),
            ("student-sft", 29, 33),
            ("student", 36, 40),
        ] {
            run.evaluate(model, "arithmetic", 40, &|i| (1, u32::from(i < sampled), i < greedy));
        }
        run.evaluate("teacher", "riddles", 4, &|i| (8, 2 * i, i > 2));
        run.evaluate("student", "riddles", 4, &|i| (8, i, i > 3));
        run
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn put(&self, file: &str, text: &str) {
        let path = self.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn done(&self, stage: &str, mut value: Value) {
        value["stage"] = stage.into();
        self.put(&format!("{stage}/DONE"), &value.to_string());
    }

    /// `record` gets how far the phase is, from 0 to 1.
    fn metrics(&self, stage: &str, steps: usize, record: fn(f64) -> Value) {
        let line = |step: usize| {
            let mut value = record(step as f64 / (steps - 1) as f64);
            value["step"] = step.into();
            format!("{value}\n")
        };
        self.put(&format!("{stage}/metrics.jsonl"), &(0..steps).map(line).collect::<String>());
    }

    /// `outcome` says of a problem: attempts, correct ones, greedy.
    fn evaluate(&self, model: &str, task: &str, problems: u32, outcome: &dyn Fn(u32) -> (u32, u32, bool)) {
        let outcomes: Vec<_> = (0..problems).map(outcome).collect();
        let n = f64::from(problems);
        let rate = outcomes.iter().map(|(a, c, _)| f64::from(*c) / f64::from(*a)).sum::<f64>() / n;
        let greedy = outcomes.iter().filter(|o| o.2).count() as f64 / n;
        let around = |p: f64| {
            let half = 1.96 * (p * (1.0 - p) / n).sqrt();
            [(p - half).max(0.0), (p + half).min(1.0)]
        };
        let pass_at_k = if outcomes[0].0 > 1 { json!({"1": rate, "8": 0.75}) } else { json!({}) };
        let stage = format!("evaluation/{model}-{task}");
        self.done(
            &stage,
            json!({"seconds": 1.5, "counts": {"problems": problems}, "inputs": {}, "result": {
                "model": model, "task": task, "problems": problems, "samples": outcomes[0].0, "pass_at_1": rate, "ci95": around(rate),
                "greedy": greedy, "greedy_ci95": around(greedy), "maj_at_n": rate, "pass_at_k": pass_at_k, "mean_tokens": 22.345,
                "truncated": 0.025, "no_answer": 0.05, "language_share": 1.0}}),
        );
        let line = |(i, (attempts, correct, greedy)): (usize, &(u32, u32, bool))| {
            json!({"problem": format!("{task}/test/{i:02}"), "attempts": attempts, "correct": correct, "greedy": greedy}).to_string() + "\n"
        };
        self.put(&format!("{stage}/results.jsonl"), &outcomes.iter().enumerate().map(line).collect::<String>());
    }

    /// Three kept traces and three dropped ones. Model output is hostile: it closes a code block and moves the cursor.
    fn corpus(&self) {
        let funnel = [("input", 6), ("correct", 5), ("language", 4), ("exact_duplicate", 3)]
            .map(|(step, count)| json!({"step": step, "count": count, "by_pass_rate": [0, 0, 1, 0, 1, count - 2]}));
        self.done("corpus", json!({"seconds": 0.1, "counts": {"kept": 3, "dropped": 3}, "inputs": {}, "funnel": funnel}));
        let wrong = json!({"rule": "correct", "value": "wrong: different_number (4, asked for 1)", "threshold": "correct"});
        let hostile = "<think>7+4 is 11\n```\n\u{1b}[2J11-2得9\n9-5 is 4\n</think><answer>4</answer>";
        let kept = [0, 1, 2].map(|problem| trace(problem, 0, "<think>7+4 is 11\n11-2 is 9\n9-8 is 1\n</think><answer>1</answer>", None));
        let dropped = [
            trace(0, 1, "<think>得</think><answer>1</answer>", Some(json!({"rule": "language", "value": "0.5", "threshold": "1"}))),
            trace(2, 1, hostile, Some(wrong)),
            trace(3, 0, "same", Some(json!({"rule": "exact_duplicate"}))),
        ];
        for (dir, kind, traces) in [("corpus", "corpus", kept), ("corpus/dropped", "dropped", dropped)] {
            let dir = self.path().join(dir);
            fs::create_dir_all(&dir).unwrap();
            let entries = traces.into_iter().map(|trace| Ok(Entry { trace, tokens: None }));
            seal(&dir, entries, |trace| trace.id.clone(), &SealOptions::new(kind, vec![Source::default()])).unwrap();
        }
    }
}

fn grpo(x: f64) -> Value {
    json!({"accuracy": 0.25 + 0.5 * x, "loss": 0.0, "reward": {"format": [1.0, 0.0], "total": [0.3 + 0.5 * x, 0.2]}, "entropy": 0.9 - 0.4 * x, "kl": 0.0,
        "length": 22.0, "truncated": 0.02, "language": 0.5 + 0.4 * x, "without_spread": 0.1, "mismatch_mean": 3e-7, "grad_norm": 0.5})
}

fn trace(problem: u32, attempt: u32, response: &str, dropped: Option<Value>) -> Trace {
    let mut value = json!({
        "id": format!("arithmetic/train/{problem}#{attempt}"), "problem": format!("arithmetic/train/{problem}"), "attempt": attempt,
        "task": "arithmetic", "question": "what is 7+4-2-8", "gold": "1", "messages": [], "response": response,
        "verdict": {"verdict": "correct", "answer": "1"}, "prompt_tokens": 9, "completion_tokens": 22, "finish": "stop",
        "language": {"target": "en", "share": 1.0}
    });
    if let Some(reason) = dropped {
        value["dropped"] = reason;
    }
    serde_json::from_value(value).unwrap()
}

const RECIPE: &str = r#"
name = "small"
seed = 7
[problems]
task = "arithmetic"
[sample]
problems = 3
n = 2
temperature = 1.0
[cold_start]
traces = 16000
left_to_right = 0.6
slip = 0.15
skip = 0.1
mixed_language = 0.5
[teacher]
model = "fresh"
[[teacher.phase]]
name = "sft"
method = "sft"
[[teacher.phase]]
name = "grpo"
method = "grpo"
[student]
model = "fresh"
[[student.phase]]
name = "sft"
method = "sft"
[[student.phase]]
name = "grpo"
method = "grpo"
[[control]]
name = "student-unfiltered"
data = "unfiltered"
[evaluate]
tasks = ["arithmetic", "riddles"]
"#;

/// Without the version, which is no property of a run.
fn unversioned(run: &Path) -> Report {
    Report { version: "VERSION".into(), ..Report::of(run).unwrap() }
}

#[test]
fn a_whole_run_becomes_this_report() {
    let run = Run::whole();
    let report = unversioned(run.path());
    expect_file!["golden/report.md"].assert_eq(&markdown(&report));
    expect_file!["golden/terminal.txt"].assert_eq(&terminal(&report, Path::new("runs/small"), 100));
    for columns in 56..200 {
        let picture = terminal(&report, Path::new("runs/small"), columns);
        let widest = picture.lines().map(text::width).max().unwrap();
        assert!(widest <= columns && widest + 24 > columns.min(160), "{columns}: {widest}\n{picture}");
        assert!(picture.chars().all(|c| c == '\n' || !c.is_control()), "{picture:?}");
    }
}

#[test]
fn the_report_is_a_pure_function_of_the_run_directory() {
    let (run, copy) = (Run::whole(), Run::whole());
    write(run.path()).unwrap();
    write(copy.path()).unwrap();
    for file in ["report.json", "report.md"] {
        let [first, second] = [&run, &copy].map(|run| fs::read(run.path().join(file)).unwrap());
        assert_eq!(String::from_utf8(first).unwrap(), String::from_utf8(second).unwrap());
    }
    let again = write(run.path()).unwrap();
    let read: Report = serde_json::from_slice(&fs::read(run.path().join("report.json")).unwrap()).unwrap();
    assert_eq!(read, again);
    assert_eq!(fs::read_to_string(run.path().join("report.md")).unwrap(), markdown(&read));
}

#[test]
fn the_keys_of_report_json_are_stable() {
    let run = Run::whole();
    let json = serde_json::to_value(unversioned(run.path())).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    for (value, expected) in [
        (&json, "recipe version setup stages funnel evaluation comparison curves kept dropped"),
        (&json["stages"][0], "name seconds counts inputs"),
        (&json["funnel"][0], "step count by_pass_rate"),
        (
            &json["evaluation"][0],
            "model task problems samples n pass_at_1 ci95 greedy greedy_ci95 maj_at_n maj_at_n_ci95 pass_at_k pass_at_k_ci95 mean_tokens mean_tokens_ci95 truncated truncated_ci95 no_answer no_answer_ci95 undecided language_share language_share_ci95",
        ),
        (
            &json["comparison"][0],
            "teacher student task metric difference difference_ci95 recovery ci95 both teacher_only student_only neither p_value",
        ),
    ] {
        assert_eq!(keys(value), expected);
    }
}

#[test]
fn every_pair_of_models_that_exists_is_compared() {
    let report = unversioned(Run::whole().path());
    let pairs: Vec<String> = report.comparison.iter().map(|r| format!("{} {} {} {}", r.task, r.teacher, r.student, r.metric)).collect();
    let expected = [
        ("arithmetic", "teacher student"),
        ("arithmetic", "teacher student-sft"),
        ("arithmetic", "base teacher"),
        ("arithmetic", "student-base student-sft"),
        ("arithmetic", "student-unfiltered student-sft"),
        ("arithmetic", "student-sft student"),
        ("arithmetic", "teacher student-base"),
        ("riddles", "teacher student"),
    ];
    let expected: Vec<String> =
        expected.iter().flat_map(|(task, pair)| ["sampled", "greedy"].map(|m| format!("{task} {pair} {m}"))).collect();
    assert_eq!(pairs, expected);
    // 26 and 36 of 40 sampled, the 26 among the 36.
    let first = &report.comparison[0];
    assert_eq!([first.both, first.teacher_only, first.student_only, first.neither], [26.0, 0.0, 10.0, 4.0]);
    assert_eq!((first.difference, first.recovery), (0.25, Some(36.0 / 26.0)));
    assert_eq!(first.p_value, 2.0 / 1024.0);
    // 8 attempts each: 0, 2, 4, 6 against 0, 1, 2, 3.
    let riddles = &report.comparison[14];
    assert_eq!((riddles.both, riddles.recovery, riddles.difference), ((2.0 + 8.0 + 18.0) / 64.0, Some(0.5), -0.1875));
    assert_eq!(report.comparison[15].recovery, None, "1 of 4 is not told from 0");
    // The interval lies below 0, but 3 differences of one sign are no evidence: p = 2 / 8.
    assert_eq!((riddles.p_value, riddles.difference_ci95[1] < 0.0, riddles.shown()), (0.25, true, None));
    assert_eq!(first.shown(), Some(std::cmp::Ordering::Greater));
}

#[test]
fn parts_that_are_missing_are_left_out() {
    const ALL: [&str; 8] =
        ["Result", "Evaluation", "Paired comparisons", "What the numbers", "From attempts", "One kept", "Training", "Stages"];
    for (missing, gone) in [
        (&["evaluation"][..], &["Result", "Evaluation", "Paired comparisons", "What the numbers"][..]),
        (&["corpus"], &["From attempts", "One kept"]),
        (&["evaluation/student-arithmetic", "evaluation/student-sft-arithmetic", "evaluation/student-riddles", "student"], &["Result"]),
        (&["teacher", "traces", "corpus", "student", "controls", "evaluation"], &ALL),
        (&["corpus/dropped"], &[]),
        (&["teacher/grpo/metrics.jsonl"], &[]),
    ] {
        let run = Run::whole();
        for part in missing {
            let path = run.path().join(part);
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        let report = unversioned(run.path());
        let text = markdown(&report);
        for title in ALL {
            assert_eq!(text.contains(&format!("\n## {title}")), !gone.contains(&title), "{missing:?} {title}\n{text}");
        }
        assert!(terminal(&report, run.path(), 100).contains("distill sample"), "{missing:?}");
    }
}

#[test]
fn unfinished_stages_are_not_reported() {
    let run = Run::whole();
    fs::remove_file(run.path().join("corpus/DONE")).unwrap();
    fs::remove_file(run.path().join("evaluation/student-arithmetic/DONE")).unwrap();
    fs::create_dir_all(run.path().join("evaluation/.student-arithmetic.tmp")).unwrap();
    run.put("evaluation/.student-arithmetic.tmp/DONE", "{");
    let report = unversioned(run.path());
    assert!(report.stages.iter().all(|stage| stage.name != "corpus") && report.funnel.is_empty() && report.kept.is_none());
    assert!(report.evaluation.iter().all(|e| (e.model.as_str(), e.task.as_str()) != ("student", "arithmetic")));
    assert_eq!(report.headline("arithmetic", "greedy").unwrap().student, "student-sft");
}

#[test]
fn a_damaged_file_is_named() {
    let results = "evaluation/teacher-arithmetic/results.jsonl";
    for (file, content, expected) in [
        ("recipe.toml", "name = 3", "recipe.toml is not a recipe"),
        ("teacher/grpo/DONE", "{", "teacher/grpo/DONE is not JSON"),
        ("teacher/grpo/DONE", "{}", "teacher/grpo/DONE is damaged; remove it to run the stage again: missing field `seconds`"),
        ("corpus/DONE", r#"{"seconds": 1, "funnel": [{"step": "input"}]}"#, "corpus/DONE is damaged"),
        ("corpus/manifest.json", "{}", "corpus/manifest.json"),
        ("corpus/dropped/00000.jsonl.zst", "", "corpus/dropped/00000.jsonl.zst"),
        ("teacher/sft/metrics.jsonl", "{}\n{\"loss\": ", "teacher/sft/metrics.jsonl:2 is damaged"),
        ("evaluation/teacher-arithmetic/DONE", r#"{"seconds": 1, "result": {"model": "teacher"}}"#, "teacher-arithmetic/DONE is damaged"),
        (results, "{\"problem\": \"a\"}\n", "results.jsonl:1 is damaged"),
        (results, "{\"problem\":\"a\",\"attempts\":1,\"correct\":2,\"greedy\":true}\n", "results.jsonl:1: 2 correct of 1 attempts"),
        (results, "{\"problem\":\"a\",\"attempts\":1,\"correct\":1,\"greedy\":true}\n", "results.jsonl: 1 problems, DONE says 40"),
    ] {
        let run = Run::whole();
        run.put(file, content);
        let error = format!("{:#}", Report::of(run.path()).unwrap_err());
        assert!(error.contains(expected), "{file}: {error}");
    }
    let run = Run::whole();
    let text = fs::read_to_string(run.path().join(results)).unwrap();
    run.put(results, &text.replacen("\"greedy\":true", "\"greedy\":false", 3));
    let error = format!("{:#}", Report::of(run.path()).unwrap_err());
    assert!(error.contains("results.jsonl: greedy is 0.725, DONE says 0.8: the file was exchanged"), "{error}");
    let run = Run::whole();
    let row = "{\"problem\":\"a\",\"attempts\":1,\"correct\":1,\"greedy\":true}\n".repeat(2);
    run.put(results, &row);
    assert!(format!("{:#}", Report::of(run.path()).unwrap_err()).contains("results.jsonl:2: a was there before"));
    let run = Run::whole();
    run.evaluate("student", "arithmetic", 39, &|_| (1, 1, true));
    let error = format!("{:#}", Report::of(run.path()).unwrap_err());
    assert!(error.contains("teacher-arithmetic with ") && error.contains("same problems"), "{error}");
}

#[test]
fn a_folder_without_a_recipe_is_not_a_run() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Report::of(dir.path()).unwrap_err().to_string().contains("is not a run directory"));
    let report = unversioned(Run::new("name = \"empty\"").path());
    assert_eq!(markdown(&report).matches("## ").count(), 1, "only how it was made");
}

#[test]
fn published_figures_stand_beside_a_task_that_has_them() {
    let run = Run::new("name = \"plain\"\n[student]\nmodel = \"Qwen/Qwen2.5-0.5B@main\"\n[evaluate]\ntasks = [\"aime24\"]");
    run.evaluate("teacher", "aime24", 4, &|i| (1, u32::from(i < 2), i < 2));
    let text = markdown(&unversioned(run.path()));
    assert!(text.contains("| DeepSeek-R1 | pass@1 | 79.8 |") && text.contains("the table above is of 4 problems"), "{text}");
    assert!(!text.contains("planted"), "{text}");
    // On the terminal the run's own model comes first, then what is nearest to the 50 % that the last one reaches.
    let picture = terminal(&unversioned(run.path()), run.path(), 100);
    let shown: Vec<&str> = picture.lines().skip_while(|line| !line.starts_with("published on aime24")).skip(2).take(6).collect();
    assert_eq!(shown[0], "    0.3  Qwen2.5-0.5B, avg@32: SimpleRL-Zoo (arXiv 2503.18892)", "{picture}");
    assert!(shown[1].starts_with("    0.7  Qwen2.5-0.5B + SimpleRL-Zoo") && shown[2].starts_with("   50.0  DAPO"), "{picture}");
    assert!(!terminal(&unversioned(Run::whole().path()), run.path(), 100).contains("published"));
}

#[test]
fn tasks_that_the_recipe_no_longer_names_are_not_reported() {
    let run = Run::whole();
    run.put("recipe.toml", &RECIPE.replace("\"arithmetic\", \"riddles\"]", "\"gsm8k\", \"riddles\"]"));
    run.evaluate("teacher", "gsm8k-sample", 4, &|i| (1, u32::from(i < 2), i < 2));
    let report = unversioned(run.path());
    assert_eq!(report.tasks(), ["gsm8k-sample", "riddles"]);
    assert!(report.comparison.iter().all(|row| row.task == "riddles"));
    assert!(report.stages.iter().all(|stage| !stage.name.ends_with("-arithmetic")));
}

/// Before and after on a task that was not trained on: all solved, then none.
#[test]
fn what_was_forgotten_is_told_and_a_gate_holds_only_where_it_was_not() {
    let recipe = |gate: &str| {
        format!(
            "name = \"f\"\n[problems]\ntask = \"arithmetic\"\n[student]\nmodel = \"m\"\n[evaluate]\ntasks = [\"arithmetic\", \"riddles\"]\n{gate}"
        )
    };
    let run = Run::new(&recipe(""));
    let measured = |model: &str, task: &str, solved: u32| run.evaluate(model, task, 40, &|i| (1, u32::from(i < solved), i < solved));
    // What is trained on is no matter here, whatever became of it.
    measured("student-base", "arithmetic", 40);
    measured("student", "arithmetic", 0);
    for (after, gate, finding, holds) in [
        (38, "max_drop = 0.2", Finding::Kept, true),
        (39, "", Finding::NotShown, true),
        (5, "max_drop = 0.2", Finding::Forgotten, false),
        (5, "", Finding::Forgotten, true),
    ] {
        run.put("recipe.toml", &recipe(gate));
        measured("student-base", "riddles", 40);
        measured("student", "riddles", after);
        let report = Report::of(run.path()).unwrap();
        let [row] = &report.forgetting[..] else { panic!("{:?}", report.forgetting) };
        assert_eq!((row.task.as_str(), row.before.as_str(), row.after.as_str()), ("riddles", "student-base", "student"));
        assert_eq!(row.finding, finding, "{row:?}");
        assert_eq!(report.gate().is_ok(), holds);
        let (page, text) = (markdown(&report), terminal(&report, run.path(), 100));
        let told = finding.in_words(report.max_drop);
        assert!(page.contains("## Tasks that were not trained on") && page.contains(told), "{page}");
        assert!(text.replace("\n  ", " ").contains(told), "{text}");
    }
    run.put("recipe.toml", &recipe("max_drop = 0.2"));
    let error = Report::of(run.path()).unwrap().gate().unwrap_err().to_string();
    assert!(error.starts_with("the forgetting gate does not hold: student on riddles (-88 ["), "{error}");
}
