//! `show`, and every stage by flags instead of a recipe.

use super::fixture::{Place, TEACHER};
use expect_test::expect;
use serde_json::Value;

#[test]
fn show_prints_runs_shards_problems_and_drops() {
    let place = Place::with_run();
    let show = |args: &str| place.distill(&format!("show {args}")).ok().stdout;
    let run = show("run");
    for part in ["run run (recipe tiny-tiny, seed 0)", "teacher/grpo ", "controls/unfiltered ", "evaluation/student-arithmetic", "report "]
    {
        assert!(run.contains(part), "{part:?} is not in\n{run}");
    }
    assert_eq!(run.lines().filter(|l| l.split_whitespace().nth(1) == Some("done")).count(), 12, "{run}");
    let evaluated: Vec<&str> = run.lines().filter_map(|l| l.trim().strip_prefix("evaluation/")?.split("-arithmetic").next()).collect();
    assert_eq!(evaluated, ["base", "teacher", "student-base", "student-unfiltered", "student"], "{run}");
    let shards = show("run/traces -n 2");
    assert!(shards.starts_with("run/traces: traces of 24 rows in 1 shards, "), "{shards}");
    assert_eq!(shards.matches("── arithmetic/sample/").count(), 2, "{shards}");
    assert_eq!(show("run/traces/00000.jsonl.zst -n 30").matches("── arithmetic/sample/").count(), 24);
    let sampled = show("run --problem arithmetic/sample/3");
    assert!(sampled.contains("── arithmetic/sample/3#0 ") && sampled.contains("── arithmetic/sample/3#1 "), "{sampled}");
    let probe: Value =
        serde_json::from_slice(place.read("run/student/sft/probes.jsonl").split(|b| *b == b'\n').next().expect("a line")).expect("JSON");
    let id = probe["trace"]["problem"].as_str().expect("an id");
    let held_out = show(&format!("run --problem {id}"));
    for part in [
        "evaluation/teacher-arithmetic/greedy",
        "teacher/base, greedy after step 0",
        "teacher/base, greedy after step 6",
        "student/sft, greedy after step 3",
    ] {
        assert!(held_out.contains(part), "{part:?} is not in\n{held_out}");
    }
    let dropped = show("run --dropped finished -n 2");
    assert_eq!(dropped.matches("   dropped: finished (length, asked for stop)").count(), 2, "{dropped}");
    place.distill("show run --dropped nonsense").fails(expect![[r#"
        1: error: no trace was dropped by "nonsense"; there are: finished (18)
    "#]]);
    place.distill("show run --problem nonsense").fails(expect![[r#"
        1: error: no attempt at problem "nonsense" in run; ids are what `distill show run` prints before the #
    "#]]);
    let file = "run/traces/00000.jsonl.zst";
    assert_eq!(show(&format!("{file} --problem arithmetic/sample/3")).matches("── arithmetic/sample/3#").count(), 2);
    place.distill(&format!("show {file} --dropped finished")).fails(expect![[r#"
        1: error: run/traces/00000.jsonl.zst: no trace here was dropped; what a filter drops lies in corpus/dropped of its run: `distill show RUN --dropped finished`
    "#]]);
    let of_dropped = show("run/corpus/dropped/00000.jsonl.zst --dropped finished -n 1");
    assert!(of_dropped.contains("   dropped: finished (length, asked for stop)"), "{of_dropped}");
    place.distill("show nothere").fails(expect![[r#"
        1: error: nothere does not exist; show wants a run directory, a folder of shards or a file of traces
    "#]]);
}

#[test]
fn every_screen_keeps_to_the_columns() {
    let place = Place::with_run();
    let question = "what is ".to_owned() + &"1+".repeat(40) + "1";
    place.write("long.jsonl", format!("{{\"question\": \"{question}\", \"answer\": 101}}\n"));
    place.distill(&format!("sample --teacher {TEACHER} --problems long.jsonl --verify number -n 1 --max-tokens 4 --out long")).exits(0);
    for columns in [60, 80, 140] {
        for args in [
            "show run",
            "show run --dropped finished",
            "show run --problem arithmetic/sample/3",
            "show run/traces",
            "show long",
            "run --plan",
        ] {
            let mut command = place.command();
            let output = place.output(args, command.args(args.split(' ')).env("COLUMNS", columns.to_string())).ok().stdout;
            // The resolved recipe stands on top of a plan as it is in its file.
            let screen = output.split("# plan").last().unwrap_or_default();
            let longest = screen.lines().map(|line| line.chars().count()).max().unwrap_or(0);
            assert!(longest <= columns && (args != "show run" || longest > columns - 24), "{args} at {columns}: {longest}\n{screen}");
        }
    }
}

/// Chats as SFT trainers store them, alone and beside traces.
#[test]
fn chats_are_shown_and_learnt_from() {
    let place = Place::with_run();
    let general = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/general.jsonl");
    let shown = place.distill(&format!("show {} -n 30", general.display())).ok().stdout;
    assert_eq!(shown.matches("── general/").count(), 10, "{shown}");
    assert!(shown.contains("── general/1#0  not judged\nHow do I keep basil alive"), "{shown}");
    let chat =
        r#"{"messages": [{"role": "user", "content": "what is 1+1"}, {"role": "assistant", "content": "<think>1+1 is 2</think>2"}]}"#;
    place.write("mixed.jsonl", format!("{chat}\n{}\n", place.lines("run/traces").join("\n")));
    let train = "train-student --student run/student/base --traces mixed.jsonl --out mixed --set student.phase[0].steps=2";
    let trained = place.distill(train).ok();
    assert!(trained.stdout.starts_with("mixed/student/sft: examples 25, "), "{trained:?}");
}

/// Where a person names a known task and no file, the full training file is taken if it is there, and what was taken is said.
#[test]
fn the_file_of_a_known_task_is_found_and_named() {
    let place = Place::with_run();
    let sample = |out: &str, data: Option<&str>| {
        let args = format!("sample --teacher {TEACHER} --task gsm8k --limit 1 -n 1 --max-tokens 4 --out {out}");
        let mut command = place.command();
        command.args(args.split(' '));
        if let Some(folder) = data {
            command.env("DISTILL_DATA", place.path(folder));
        }
        place.output(&args, &mut command)
    };
    place.write("data/gsm8k_test.jsonl", "{\"question\": \"what is 2+2\", \"answer\": \"#### 4\"}\n");
    let missing = sample("missing", Some("data")).exits(78);
    assert!(missing.stderr.contains("no gsm8k_train.jsonl in HERE/data for the task gsm8k"), "{missing:?}");
    place.write("data/gsm8k_train.jsonl", "{\"question\": \"what is 3+2\", \"answer\": \"#### 5\"}\n");
    let full = sample("full", Some("data")).ok();
    assert_eq!(full.stderr, "gsm8k: problems of HERE/data/gsm8k_train.jsonl\n");
    assert_eq!(place.traces("full/traces")[0].question, "what is 3+2");
    let plan = format!("sample --teacher {TEACHER} --task gsm8k --plan --json");
    assert!(place.distill(&plan).ok().json()["stages"][0]["what"].as_str().expect("text").starts_with("20 problems"));
}

#[test]
fn a_model_is_structured_in_the_report() {
    let place = Place::with_run();
    let inputs = |stage: usize| place.json("run/report.json")["stages"][stage]["inputs"]["model"].clone();
    let shape = serde_json::json!({"hidden_size": 32, "layers": 2, "heads": 4, "kv_heads": 2, "intermediate_size": 64, "positions": 128});
    assert_eq!(inputs(0), serde_json::json!({"fresh": "teacher", "shape": shape, "seed": 0}));
    assert_eq!(inputs(1), place.json("run/teacher/base/DONE")["model_hash"]);
}

#[test]
fn everything_that_is_shown_is_json_too() {
    let place = Place::with_run();
    let json = |args: &str| place.distill(&format!("{args} --json")).ok().json();
    assert_eq!(json("show run")["stages"].as_array().map(Vec::len), Some(12));
    assert_eq!(json("show run/traces -n 1")["traces"][0]["id"], "arithmetic/sample/0#0");
    assert_eq!(json("show run --problem arithmetic/sample/3")["attempts"].as_array().map(Vec::len), Some(2));
    assert_eq!(json("show run --dropped finished -n 1")[0]["dropped"]["rule"], "finished");
    assert_eq!(json("run tiny.toml --run run"), place.json("run/report.json"));
    assert_eq!(json("filter tiny.toml --run run"), place.json("run/corpus/DONE"));
}

#[test]
fn stages_work_by_flags_alone() {
    let place = Place::with_run();
    let sample =
        format!("sample --teacher {TEACHER} --task arithmetic --limit 10 -n 2 --temperature 0.7 --top-p 0.9 --max-tokens 20 --out a");
    let sampled = place.distill(&sample).ok();
    assert!(sampled.stdout.starts_with("a/traces: problems 10, attempts 20, tokens "), "{sampled:?}");
    let source = &place.json("a/traces/manifest.json")["sources"][0];
    assert_eq!(source["sampling"]["params"]["max_tokens"], 20, "{source:#}");

    place.distill("filter a --out b").ok();
    let counts = &place.json("b/corpus/DONE")["counts"];
    assert_eq!(counts["kept"].as_u64().zip(counts["dropped"].as_u64()).map(|(kept, dropped)| kept + dropped), Some(20), "{counts}");
    assert!(place.distill("show b").ok().stdout.contains("corpus"));
    place.distill("filter a --out none --set filter.correct=false --set filter.finished=false --set filter.length={max=0}").ok();
    let dropped = place.distill("show none --dropped length -n 30").ok().stdout;
    assert_eq!(dropped.matches("── arithmetic/sample/").count(), 20, "{dropped}");
    let train = |traces: &str| format!("train-student --student run/student/base --traces {traces} --out c --set student.phase[0].steps=3");
    let empty = place.distill(&train("none")).exits(1);
    assert!(empty.stderr.contains("there is nothing to train on"), "{empty:?}");

    std::fs::remove_dir_all(place.path("c")).expect("it was made");
    let trained = place.distill(&train("a")).ok();
    assert!(trained.stdout.starts_with("c/student/sft: examples 20, "), "{trained:?}");
    for file in ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "metrics.jsonl", "DONE"] {
        assert!(place.path(&format!("c/student/sft/{file}")).exists(), "{file}");
    }
    let evaluate = format!("evaluate --student c --teacher {TEACHER} --tasks arithmetic --limit 8 --max-tokens 20 --out d");
    let report = place.distill(&evaluate).ok();
    assert!(report.stdout.contains("report   d/report.md"), "{report:?}");
    let evaluation = &place.json("d/report.json")["evaluation"];
    assert_eq!((&evaluation[0]["model"], &evaluation[1]["problems"]), (&"teacher".into(), &8.into()), "{evaluation:#}");

    let stored = "evaluate --student c --teacher d/evaluation/teacher-arithmetic --tasks arithmetic --limit 8 --max-tokens 20 --out e";
    place.distill(stored).ok();
    assert_eq!(place.json("e/report.json")["comparison"], place.json("d/report.json")["comparison"]);
    // What was measured otherwise is no partner for a comparison.
    for (setting, said) in
        [("--max-tokens 21", "max tokens 20, stop none there"), ("--max-tokens 20 --prompt r1", "prompt is plain there and r1 here")]
    {
        let other = place.distill(&format!("{} --out f", stored.replace("--max-tokens 20 --out e", setting))).exits(78);
        assert!(other.stderr.contains("d/evaluation/teacher-arithmetic was not measured as arithmetic"), "{other:?}");
        assert!(other.stderr.contains(said) && other.stderr.contains("give the same settings"), "{other:?}");
        assert!(!place.path("f/evaluation").exists());
    }
}
