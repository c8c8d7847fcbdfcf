//! Bits that flip, files that are cut, disks that fill up: what is still good is said, and nothing that was good is lost.

use super::fixture::{Place, TEACHER};
use expect_test::{Expect, expect};

const SHARD: &str = "run/traces/00000.jsonl.zst";

#[test]
fn a_damaged_shard_is_named_with_its_frame() {
    let place = Place::new();
    place.distill("train-teacher tiny.toml --run run").ok();
    place.distill("sample tiny.toml --run run").ok();
    let whole = place.read(SHARD);
    let mut flipped = whole.clone();
    *flipped.last_mut().expect("not empty") ^= 4;
    let filter = |bytes: &[u8], expect: Expect| {
        place.write(SHARD, bytes);
        place.distill("filter tiny.toml --run run").fails(expect);
        assert!(!place.path("run/corpus/DONE").exists());
    };
    filter(
        &flipped,
        expect![[r#"
        1: error: run/traces/00000.jsonl.zst: frame 1 of 1 is damaged (Restored data doesn't match checksum); the 0 rows before it are good
    "#]],
    );
    filter(
        &whole[..whole.len() / 2],
        expect![[r#"
        1: error: run/traces/00000.jsonl.zst: frame 1 of 1 is damaged (the file ends inside it); the 0 rows before it are good
    "#]],
    );
    place.write(SHARD, "");
    for args in ["filter tiny.toml --run run", "show run/traces"] {
        let output = place.distill(args).exits(1);
        assert!(output.stderr.contains(&format!("{SHARD}: 0 rows in 0 frames and 0 bytes, the manifest says 24, 1 and ")), "{output:?}");
    }
    place.write(SHARD, &whole);
    place.distill("filter tiny.toml --run run").ok();
    assert!(place.path("run/corpus/DONE").exists());
}

#[test]
fn a_damaged_manifest_or_marker_is_named() {
    let place = Place::with_run();
    let whole = place.read("run/traces/manifest.json");
    let said = "run/traces/manifest.json is damaged or edited: its bytes are not those that the stage's DONE names; restore it, or make the \
                stage again with --force, which moves what is there to superseded/";
    for bytes in [&b"{\"version\""[..], &[&whole[..], b"\n"].concat()] {
        place.write("run/traces/manifest.json", bytes);
        for args in ["filter run/traces --out kept", "filter tiny.toml --run run", "run tiny.toml --run run", "show run/traces"] {
            let output = place.distill(args).exits(1);
            assert!(output.stderr.contains(said), "{output:?}");
        }
    }
    std::fs::remove_file(place.path("run/traces/manifest.json")).expect("it was there");
    place.distill("filter run/traces --out kept").fails(expect![[r#"
        1: error: run/traces/manifest.json is missing, though the stage's DONE names it; restore it, or make the stage again with --force, which moves what is there to superseded/
    "#]]);
    std::fs::remove_file(place.path("run/traces/DONE")).expect("it was there");
    place.distill("filter run/traces --out kept").fails(expect![[r#"
        78: error: run/traces holds no finished shards (no manifest.json in it, nor in run/traces/traces or run/traces/corpus)
    "#]]);
    place.write("run/teacher/base/DONE", "");
    place.distill("run tiny.toml --run run").fails(expect![[r#"
        1: error: run/teacher/base/DONE is not JSON; remove it to run the stage again: EOF while parsing a value at line 1 column 0
    "#]]);
}

/// Without its manifest a corpus was passed over, and the student learnt from all traces.
#[test]
fn a_corpus_that_lost_its_manifest_is_never_passed_over_in_silence() {
    let place = Place::with_run();
    let (corpus, done) = (place.lines("run/corpus"), place.written("run", "DONE"));
    std::fs::remove_file(place.path("run/corpus/manifest.json")).expect("it was there");
    let train = format!("train-student --student {TEACHER} --traces run --out out --set student.phase[0].steps=1");
    for args in [&train, "run tiny.toml --run run", "train-student tiny.toml --run run"] {
        let output = place.distill(args).exits(1);
        assert!(
            output.stderr.contains("run/corpus/manifest.json is missing, though the stage's DONE names it; restore it, or"),
            "{output:?}"
        );
    }
    assert_eq!(place.written("run", "DONE"), done, "nothing was moved or made again");
    let forced = place.distill("run tiny.toml --run run --force").ok();
    assert!(forced.stderr.contains("corpus has a damaged manifest; moved to run/superseded/0/corpus"), "{forced:?}");
    assert!(place.path("run/superseded/0/corpus/00000.jsonl.zst").exists(), "nothing is lost");
    assert_eq!(place.lines("run/corpus"), corpus);
    let again = |d: &&(std::path::PathBuf, std::time::SystemTime)| !place.written("run", "DONE").contains(d);
    assert_eq!(done.iter().filter(again).count(), 1, "only the corpus was made again");
}

/// A state counts on the lines of metrics before it, and its cursor on the steps of its phase.
#[test]
fn a_phase_does_not_resume_where_its_files_contradict_each_other() {
    const TRAIN: &str = "train-teacher tiny.toml --run run --set teacher.phase[0].steps=1500 --set execution.save_steps=50";
    const METRICS: &str = "run/teacher/base/metrics.jsonl";
    const CURSOR: &str = "run/teacher/base/state/cursor.json";
    let place = Place::new();
    let ready = place.path(CURSOR);
    place.stopped(TRAIN, || ready.exists()).exits(143);
    let metrics = String::from_utf8(place.read(METRICS)).expect("text");
    let cursor = place.json(CURSOR);
    let step = cursor["cursor"]["step"].as_u64().expect("a step");
    let lines: Vec<&str> = metrics.split_inclusive('\n').collect();
    assert_eq!(lines.len() as u64, step);
    let says = |text: String, gap: usize| {
        place.write(METRICS, &text);
        let output = place.distill(TRAIN).exits(1);
        let said = format!(
            "{METRICS}: the line of step {gap} is missing or out of its place, and the state goes on at step {step}; restore the file, or remove run/teacher/base/state to train"
        );
        assert!(output.stderr.contains(&said), "{output:?}");
        assert!(place.read(METRICS) == text.into_bytes(), "nothing was changed");
    };
    says(lines[1..].concat(), 0);
    says([&lines[..7], &lines[8..]].concat().concat(), 7);
    says(lines[..lines.len() - 1].concat(), lines.len() - 1);
    says([&lines[..3], &[lines[4], lines[3]], &lines[5..]].concat().concat(), 3);
    says(String::new(), 0);
    place.write(METRICS, &metrics);
    let mut beyond = cursor.clone();
    beyond["cursor"]["step"] = 1501.into();
    place.write(CURSOR, beyond.to_string());
    place.distill(TRAIN).fails(expect![[r#"
        1: error: run/teacher/base/state/cursor.json is damaged: it says step 1501 of a phase of 1500 steps; remove run/teacher/base/state to take the phase from its start
    "#]]);
    place.write(CURSOR, cursor.to_string());
    place.distill(TRAIN).ok();
    let steps = String::from_utf8(place.read(METRICS)).expect("text").lines().count();
    assert_eq!(steps, 1500);
}

/// The limit on the size of a file stands for a full disk: both refuse a write in the middle of a stage.
#[test]
fn a_full_disk_loses_nothing() {
    const RUN: &str = "run tiny.toml --run run --set sample.problems=100";
    let place = Place::new();
    let limited = |blocks: u32| {
        let command = place.command();
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        let mut shell = std::process::Command::new("sh");
        shell.arg("-c").arg(script).arg(command.get_program()).args(RUN.split(' ')).current_dir(place.path(""));
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(key, value),
                None => shell.env_remove(key),
            };
        }
        place.output(RUN, &mut shell).exits(1)
    };
    limited(0).fails(expect![[r#"
        1: error: run/.lock was not written: the disk is full or a size limit is reached; free some space and run the same command again: File too large (os error 27)
    "#]]);
    limited(2).fails(expect![[r#"
        1: error: run/recipe.toml was not written: the disk is full or a size limit is reached; free some space and run the same command again: File too large (os error 27)
    "#]]);
    place.distill(&RUN.replace("run tiny.toml", "train-teacher tiny.toml")).ok();
    let done = place.written("run", "DONE");
    let full = limited(8);
    assert!(full.stderr.contains("run/traces/journal was not written: the disk is full or a size limit is reached"), "{full:?}");
    place.distill(RUN).ok();
    assert!(done.len() == 2 && done.iter().all(|d| place.written("run", "DONE").contains(d)), "what was done is not done again");
    let undisturbed = Place::new();
    undisturbed.distill(RUN).ok();
    for file in ["traces/manifest.json", "corpus/manifest.json", "student/sft/model.safetensors"] {
        assert_eq!(place.read(&format!("run/{file}")), undisturbed.read(&format!("run/{file}")), "{file}");
    }
}
