//! The same command again: what is kept, what is refused, what is only extended.

use super::fixture::{Place, TEACHER};
use distill::model::text::Text;
use distill::shard::Entry;
use expect_test::expect;

#[test]
fn a_finished_run_does_nothing() {
    let place = Place::with_run();
    let (before, report) = (place.written("run", "DONE"), place.read("run/report.json"));
    assert_eq!(before.len(), 12, "{before:?}");
    let again = place.distill("run tiny.toml --run run").ok();
    assert_eq!(place.written("run", "DONE"), before);
    assert_eq!(place.read("run/report.json"), report);
    assert!(again.stdout.contains("report   run/report.md"), "{again:?}");
    assert!(!place.path("run/superseded").exists());
}

#[test]
fn a_changed_meaning_is_refused_by_name_and_forced_without_loss() {
    let place = Place::with_run();
    let (done, traces) = (place.written("run", "DONE"), place.lines("run/traces"));
    place.distill("run tiny.toml --run run --set sample.temperature=0.9 --set filter.correct=true").fails(expect![[r#"
        78: error: run was begun with another recipe; these keys change what its results mean:
          filter.correct: false -> true
          sample.temperature: 1.0 -> 0.9
        choose another --run, or --force to move what they reach to run/superseded
    "#]]);
    assert_eq!(place.written("run", "DONE"), done);
    let forced = place.distill("run tiny.toml --run run --set sample.temperature=0.9 --force").ok();
    assert!(forced.stderr.contains("traces was made from other inputs; moved to run/superseded/0/traces"), "{forced:?}");
    assert_eq!(place.lines("run/superseded/0/traces"), traces);
    assert_ne!(place.lines("run/traces"), traces);
    let kept = |stage: &str| done.iter().all(|d| !d.0.ends_with(format!("{stage}/DONE")) || place.written("run", "DONE").contains(d));
    assert!(kept("teacher/grpo") && kept("student/base") && !kept("run/traces") && !kept("run/corpus"));
}

#[test]
fn a_run_keeps_its_first_day() {
    let place = Place::with_run();
    place.copy_model(TEACHER, "m");
    let mut config = place.json("m/tokenizer_config.json");
    let shown = "{%- if strftime_now('%Y') != '1970' %}{{ raise_exception('today is in ' ~ strftime_now('%Y')) }}{%- endif %}";
    config["chat_template"] = format!("{shown}{}", config["chat_template"].as_str().expect("a template")).into();
    place.write("m/tokenizer_config.json", config.to_string());
    let ask = "sample --teacher m --task arithmetic --limit 4 -n 1 --max-tokens 8 --out out";
    assert!(place.distill(ask).exits(78).stderr.contains("today is in 20"));
    let begun = place.read("out/date.json");
    place.distill(ask).exits(78);
    assert_eq!(place.read("out/date.json"), begun);
    place.write("out/date.json", "{\"unix_seconds\": \"1970\"}");
    place.distill(ask).fails(expect![[r#"
        78: error: out/date.json: unix_seconds must be an integer, got "1970"; remove the file to take today
    "#]]);
    place.write("out/date.json", "{\"unix_seconds\": 3600}");
    place.distill(ask).ok();
    assert_eq!(place.traces("out/traces").len(), 4);
}

#[test]
fn a_run_keeps_the_commit_that_a_branch_stood_for() {
    let place = Place::with_run();
    let (old, new) = ("1111111111111111111111111111111111111111", "2222222222222222222222222222222222222222");
    let hub = "hf/hub/models--some--model";
    place.copy_model(TEACHER, &format!("{hub}/snapshots/{old}"));
    place.copy_model("run/teacher/base", &format!("{hub}/snapshots/{new}"));
    place.write(&format!("{hub}/refs/main"), old);
    let ask = |n: u32, out: &str| {
        let args = format!("sample --teacher some/model --task arithmetic --limit 4 -n {n} --max-tokens 8 --out {out}");
        place.distill(&args).ok()
    };
    ask(1, "out");
    assert_eq!(place.json("out/models.json"), serde_json::json!({"some/model@main": old}));
    let first = place.lines("out/traces");
    place.write(&format!("{hub}/refs/main"), new);
    ask(2, "out");
    let manifest = String::from_utf8(place.read("out/traces/manifest.json")).expect("UTF-8");
    assert!(manifest.contains(&format!("some/model@{old}")) && !manifest.contains(new), "{manifest}");
    let second = place.lines("out/traces");
    assert!(second.len() == 8 && first.iter().all(|line| second.contains(line)), "the first attempts stay");
    assert!(!place.path("out/superseded").exists());
    ask(1, "other");
    assert_eq!(place.json("other/models.json"), serde_json::json!({"some/model@main": new}), "a new run takes the branch as it is");
}

#[test]
fn execution_keys_are_free() {
    let place = Place::with_run();
    let done = place.written("run", "DONE");
    place.distill("run tiny.toml --run run --set execution.slots=3 --set execution.micro_batch_tokens=64 --threads 1").ok();
    assert_eq!(place.written("run", "DONE"), done);
}

#[test]
fn a_cache_that_is_too_small_costs_time_and_changes_nothing() {
    let place = Place::with_run();
    let tight = place.distill("run tiny.toml --run tight --set execution.cache_tokens=160 --set execution.slots=40").ok();
    assert!(tight.stderr.contains("sample: the cache was full, and "), "{tight:?}");
    for file in ["traces/00000.jsonl.zst", "traces/00000.tokens.zst", "teacher/grpo/model.safetensors", "student/sft/model.safetensors"] {
        assert!(place.read(&format!("tight/{file}")) == place.read(&format!("run/{file}")), "{file}");
    }
    let plan = |set: &str| {
        place.distill(&format!("sample tiny.toml --run other --plan --json{set}")).ok().json()["stages"][0]["cache_bytes"].clone()
    };
    assert!(plan(" --set execution.cache_tokens=1").as_u64() < plan("").as_u64());
}

#[test]
fn an_extension_samples_only_the_difference() {
    let place = Place::with_run();
    let before = place.lines("run/traces");
    let tokens = distill::shard::Tokens::open(place.path("run/traces")).expect("tokens").get("arithmetic/sample/3#1").expect("readable");
    place.distill("run tiny.toml --run run --set sample.n=3").ok();
    let after = place.lines("run/traces");
    let (old, new): (Vec<_>, Vec<_>) = after.into_iter().partition(|line| before.contains(line));
    assert_eq!(old, before);
    assert!(new.len() == 12 && new.iter().all(|line| line.contains(r#""attempt":2,"#)), "{new:?}");
    let now = distill::shard::Tokens::open(place.path("run/traces")).expect("tokens").get("arithmetic/sample/3#1").expect("readable");
    assert_eq!(now, tokens);
    place.distill("sample tiny.toml --run run --set sample.n=3 --set sample.problems=14").ok();
    assert_eq!(place.traces("run/traces").len(), 42);
    let direct = Place::new();
    direct.distill("train-teacher tiny.toml --run run --set sample.n=3 --set sample.problems=14").ok();
    direct.distill("sample tiny.toml --run run --set sample.n=3 --set sample.problems=14").ok();
    assert!(direct.lines("run/traces") == place.lines("run/traces"), "as if it had been asked for at once");
    assert_eq!(direct.json("run/traces/manifest.json"), place.json("run/traces/manifest.json"));
}

#[test]
fn attempts_beyond_a_smaller_extent_do_not_stay() {
    let place = Place::with_run();
    let before = place.lines("run/traces");
    let less = place.distill("sample tiny.toml --run run --set sample.n=1").ok();
    assert!(less.stderr.contains("moved to run/superseded/0/traces"), "{less:?}");
    let first: Vec<_> = before.into_iter().filter(|line| line.contains(r#""attempt":0,"#)).collect();
    assert_eq!(place.lines("run/traces"), first);
}

/// A problem is its question and reference, not its name: old attempts at another question are not attempts at this one.
#[test]
fn edited_problems_are_sampled_again() {
    let place = Place::with_run();
    let rows = |names: &[&str]| names.iter().map(|q| format!("{{\"question\": \"what is {q}\", \"answer\": 2}}\n")).collect::<String>();
    let sample = |names: &[&str]| {
        place.write("own.jsonl", rows(names));
        place.distill(&format!("sample --teacher {TEACHER} --problems own.jsonl --verify number -n 2 --max-tokens 8 --out own")).ok();
        let traces = place.traces("own/traces");
        let asked: Vec<&str> = traces.iter().map(|t| &t.question["what is ".len()..]).collect();
        let wanted: Vec<&str> = names.iter().flat_map(|q| [*q, *q]).collect();
        assert_eq!(asked, wanted);
    };
    sample(&["1+1", "3-1", "2*1"]);
    sample(&["1+1", "3-1", "2*1", "5-3"]); // an extension
    assert!(!place.path("own/superseded").exists());
    sample(&["1+1", "4-2", "2*1", "5-3"]);
    sample(&["1+1", "2*1", "5-3"]);
    sample(&["5-3", "1+1"]);
}

#[test]
fn a_recipe_that_failed_before_its_first_result_may_be_corrected() {
    let place = Place::with_run();
    place.distill("sample --teacher nothere --task arithmetic --limit 2 -n 1 --max-tokens 4 --out new").exits(78);
    place.distill(&format!("sample --teacher {TEACHER} --task arithmetic --limit 2 -n 1 --max-tokens 4 --out new")).ok();
    assert!(!place.path("new/superseded").exists());
}

#[test]
fn a_run_directory_in_use_is_a_reason_to_wait() {
    let place = Place::new();
    place.write("run/.lock", "4711\n");
    let lock = std::fs::File::open(place.path("run/.lock")).expect("the lock");
    lock.lock().expect("locked by this test");
    place.distill("run tiny.toml --run run").fails(expect![[r#"
        75: error: run is in use by process 4711; wait until it ends or choose another --run
    "#]]);
    drop(lock);
    place.distill("train-teacher tiny.toml --run run").ok();
    place.write("file", "");
    place.distill("run tiny.toml --run file").fails(expect![[r#"
        78: error: cannot lock file/.lock: File exists (os error 17)
    "#]]);
}

/// A journal that holds more attempts than the recipe asks for by now gives as many as are asked for.
#[test]
fn fewer_attempts_than_a_journal_holds_are_as_many_as_are_asked_for() {
    let place = Place::with_run();
    let sample = |n: u32| format!("sample --teacher {TEACHER} --task arithmetic --limit 100 --max-tokens 24 -n {n} --out s");
    let command = place.command();
    let mut shell = std::process::Command::new("sh");
    let script = "ulimit -f 16; exec \"$0\" \"$@\"";
    shell.arg("-c").arg(script).arg(command.get_program()).args(sample(4).split(' ')).current_dir(place.path(""));
    // Without SIGXFSZ being ignored this would end without a message.
    let full = place.output("a file limit", &mut shell).exits(1);
    assert!(full.stderr.contains("s/traces/journal was not written: the disk is full or a size limit is reached"), "{full:?}");
    place.distill(&sample(2)).ok();
    let traces = place.traces("s/traces");
    assert_eq!(traces.len(), 200);
    assert!(traces.iter().all(|t| t.attempt < 2));
}

/// What was in the journal when the stop was asked for is not sampled again, and the end is as if nothing had happened.
#[test]
fn sampling_that_is_stopped_in_the_middle_loses_nothing() {
    let place = Place::new();
    place.distill("train-teacher tiny.toml --run run").ok();
    let sample =
        |out: &str| format!("sample --teacher {TEACHER} --task arithmetic --limit 3000 --max-tokens 24 -n 2 --threads 1 -v --out {out}");
    let journal = place.path("s/traces/journal");
    let size = || std::fs::metadata(&journal).map_or(0, |m| m.len());
    let stopped = place.stopped(&sample("s"), || size() > 20_000).exits(143);
    assert!(stopped.stderr.contains("stopped; nothing is lost. The same command goes on from here"), "{stopped:?}");
    assert!(stopped.stderr.contains("--limit 3000 --max-tokens 24 -n 2 --threads 1 -v --out s"), "{stopped:?}");
    let mut kept = 0;
    let found = distill::shard::journal::scan(&journal, |entry: Entry, _| {
        kept += entry.trace.completion_tokens as u64;
        Ok(())
    });
    let found = found.expect("a journal");
    assert!(found.rows > 64 && found.torn_bytes == 0 && found.damaged.is_empty(), "{found:?}");
    let rest = place.distill(&sample("s")).ok();
    let tokens = place.json("s/traces/DONE")["counts"]["tokens"].as_u64().expect("a number");
    assert!(rest.stderr.contains(&format!("sample: {} tokens at", tokens - kept)), "{kept} of {tokens} were kept: {rest:?}");
    place.distill(&sample("whole")).ok();
    for file in ["00000.jsonl.zst", "00000.tokens.zst", "manifest.json"] {
        assert!(place.read(&format!("s/traces/{file}")) == place.read(&format!("whole/traces/{file}")), "{file}");
    }
}

/// A student from elsewhere, without a template, ends up talking as its teacher does.
#[test]
fn a_student_in_its_teachers_template_goes_through_a_whole_run() {
    let place = Place::with_run();
    place.copy_model("run/student/base", "m");
    let mut config = place.json("m/tokenizer_config.json");
    assert!(config.as_object_mut().and_then(|c| c.remove("chat_template")).is_some());
    config["eos_token"] = "<pad>".into();
    place.write("m/tokenizer_config.json", config.to_string());
    let mut model = place.json("m/config.json");
    model["eos_token_id"] = 0.into(); // <pad>
    place.write("m/config.json", model.to_string());
    let recipe = String::from_utf8(place.read("tiny.toml")).expect("text");
    let (before, student) = recipe.split_once("[student]\n").expect("a student");
    let (_, phases) = student.split_once("\n\n").expect("phases");
    place.write("other.toml", format!("{before}[student]\nmodel = \"m\"\ntemplate = \"teacher\"\n\n{phases}"));
    place.distill("run other.toml --run other").ok();
    let text = |folder: &str| Text::from_folder(&place.path(folder)).expect("a tokenizer");
    let (own, teacher) = (text("m"), text("other/teacher/grpo"));
    assert!(own.template_hash().is_none() && own.end_id() != teacher.end_id());
    for folder in ["other/student/base", "other/student/sft", "other/controls/unfiltered"] {
        let student = text(folder);
        assert_eq!((student.template_hash(), student.end_id()), (teacher.template_hash(), teacher.end_id()), "{folder}");
        assert!(own.stop_ids().iter().all(|id| student.stop_ids().contains(id)), "{folder} still stops where it did");
    }
    for model in ["student-base", "student"] {
        let source = &place.json(&format!("other/evaluation/{model}-arithmetic/sampled/manifest.json"))["sources"][0];
        assert_eq!(source["template_hash"].as_str(), teacher.template_hash().as_deref(), "{model}");
    }
    let done = place.written("other", "DONE");
    place.distill("run other.toml --run other").ok();
    assert_eq!(place.written("other", "DONE"), done);
}

/// A stage that lost its marks is neither taken nor deleted.
#[test]
fn traces_without_their_marker_are_moved_and_not_deleted() {
    let place = Place::with_run();
    let traces = place.lines("run/traces");
    std::fs::remove_file(place.path("run/traces/DONE")).expect("it was there");
    place.distill("run tiny.toml --run run").ok();
    assert_eq!(place.lines("run/superseded/0/traces"), traces);
    assert_eq!(place.lines("run/traces"), traces, "the same draws give the same traces");
}

#[test]
fn a_recipe_that_trains_on_what_it_measures_is_refused() {
    let place = Place::new();
    let own = "{\"question\": \"what is 1+2\", \"answer\": \"3\"}\n";
    place.write("own.jsonl", own);
    place.write("held.jsonl", own);
    let recipe = String::from_utf8(place.read("tiny.toml")).expect("text").replace("[cold_start]\ntraces = 60", "");
    let recipe = recipe.replace("data = \"cold-start\"", "data = \"own-traces\"");
    let recipe = recipe.replace("task = \"arithmetic\"", "file = \"own.jsonl\"\nverify = \"number\"");
    let recipe =
        recipe.replace("tasks = [\"arithmetic\"]", "tasks = [\"test\"]").replace("arithmetic = {", "test = { file = \"held.jsonl\",");
    place.write("leak.toml", recipe);
    let output = place.distill("run leak.toml --run leak").exits(78);
    assert!(output.stderr.contains("1 of the 1 problems of evaluate.test are also trained on"), "{output:?}");
}
