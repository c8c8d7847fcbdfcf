//! The whole pipeline on the smallest form of the tiny recipe, through the real program: killed, resumed, on one thread and on two.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

/// A few seconds' worth of the tiny recipe: every stage is there, with states and journals written often.
const SMALLEST: [&str; 22] = [
    "cold_start.traces=200",
    "teacher.phase[0].steps=25",
    "teacher.phase[1].steps=6",
    "teacher.phase[1].prompts_per_step=4",
    "teacher.phase[1].num_generations=4",
    "sample.problems=40",
    "filter.correct=false",
    "filter.language={ min = 0.0 }",
    "filter.readable=false",
    "filter.finished=false",
    "student.phase[0].steps=20",
    "student.phase[1].steps=15",
    "student.phase[2].steps=5",
    "student.phase[2].prompts_per_step=4",
    "student.phase[2].num_generations=4",
    "student.phase[2].num_iterations=2",
    "student.phase[2].beta=0.02",
    "student.phase[2].reference_reset=2",
    "evaluate.arithmetic={ problems = 24, n = 2, temperature = 1.0, max_tokens = 40 }",
    "execution.save_steps=3",
    "execution.grpo_save_steps=3",
    "execution.checkpoints=2",
];

/// The teacher's attempts are sampled beside its updates.
const AHEAD: &str = "teacher.phase[1].one_step_off_policy=true";

/// What the tiny recipe has not: a phase that learns the teacher's distributions, on its own attempts and on text.
const DISTILLATION: &str = r#"
[[student.phase]]
method = "kd"
data = "cold-start"
lmbda = 0.5
beta = 0.3
steps = 8
batch_size = 5
max_tokens = 40
"#;

/// The tiny recipe with that phase as the student's last.
fn recipe() -> &'static Path {
    static WRITTEN: LazyLock<PathBuf> = LazyLock::new(|| {
        let tiny = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/tiny.toml")).unwrap();
        let (before, after) = tiny.split_once("[[control]]").unwrap();
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tiny-and-distillation.toml");
        std::fs::write(&path, format!("{before}{DISTILLATION}\n[[control]]{after}")).unwrap();
        path
    });
    &WRITTEN
}

fn distill(run: &Path, extra: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
    command.arg("run").arg(recipe()).arg("--run").arg(run).args(extra);
    for pair in SMALLEST {
        command.args(["--set", pair]);
    }
    command.env_remove("DISTILL_DATA").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn finish(run: &Path, extra: &[&str]) -> Output {
    let output = distill(run, extra).output().unwrap();
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    output
}

/// Everything in a run whose bytes must not depend on how it was made: weights, shards, manifests, results, probes, metrics without their clocks.
fn contents(run: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(root: &Path, folder: &Path, out: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                walk(root, &path, out);
            } else if name == "metrics.jsonl" {
                out.insert(path.strip_prefix(root).unwrap().to_owned(), without_clocks(&path));
            } else if !["DONE", ".lock", "report.json", "report.md", "recipe.toml", "date.json"].contains(&name.as_str()) {
                out.insert(path.strip_prefix(root).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(run, run, &mut out);
    out
}

fn without_clocks(path: &Path) -> Vec<u8> {
    let mut lines = String::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let mut record: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        let is_clock = |key: &str| key.ends_with("per_second");
        record.retain(|key, _| !is_clock(key));
        record.values_mut().filter_map(serde_json::Value::as_object_mut).for_each(|inner| inner.retain(|key, _| !is_clock(key)));
        lines += &serde_json::to_string(&record).unwrap();
        lines.push('\n');
    }
    lines.into_bytes()
}

fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (contents(a), contents(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "the same files");
    assert!(a.len() > 60, "only {} files were compared", a.len());
    for (path, bytes) in &a {
        assert!(*bytes == b[path], "{} differs", path.display());
    }
}

/// Ends a run after a while, by SIGKILL or by the polite SIGTERM; `None` where it had ended by itself before.
fn interrupt(mut child: Child, after: Duration, signal: &str) -> Option<i32> {
    std::thread::sleep(after);
    if child.try_wait().unwrap().is_some() {
        return None;
    }
    Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status().unwrap();
    child.wait().unwrap().code().or(Some(-9))
}

#[test]
fn a_run_that_is_killed_again_and_again_ends_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    let begin = std::time::Instant::now();
    finish(&whole, &["--threads", "2", "--set", AHEAD]);
    let all = begin.elapsed();
    // SIGKILL at twelve moments spread over a run, then once politely, then to the end on another number of threads.
    let mut kills = 0;
    for i in 1..=12u32 {
        let child = distill(&killed, &["--threads", "2", "--set", AHEAD]).spawn().unwrap();
        kills += u32::from(interrupt(child, all.mul_f64(0.01 + 0.01 * f64::from(i % 4)), "KILL").is_some());
    }
    // How long a run takes depends on what else the machine does, so the moments are early ones.
    assert!(kills >= 4, "only {kills} runs were killed before they ended");
    let child = distill(&killed, &["--threads", "2", "--set", AHEAD]).spawn().unwrap();
    if let Some(code) = interrupt(child, all.mul_f64(0.1), "TERM") {
        assert_eq!(code, 143, "a polite stop ends with its own exit code");
    }
    finish(&killed, &["--threads", "1", "--set", AHEAD]);
    assert_same(&whole, &killed);
}

#[test]
fn a_finished_run_does_nothing_and_its_report_is_a_function_of_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let first = finish(&run, &["--json"]).stdout;
    let before = contents(&run);
    let report = std::fs::read(run.join("report.json")).unwrap();
    std::fs::remove_file(run.join("report.md")).unwrap();
    let second = finish(&run, &["--json"]).stdout;
    assert_eq!(first, second);
    assert_eq!(report, std::fs::read(run.join("report.json")).unwrap());
    assert!(run.join("report.md").exists());
    assert!(before == contents(&run));
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    let models: Vec<&str> = report["evaluation"].as_array().unwrap().iter().map(|e| e["model"].as_str().unwrap()).collect();
    assert_eq!(models, ["base", "teacher", "student-base", "student-unfiltered", "student-sft", "student"]);
    assert_eq!(report["evaluation"][0]["problems"], 24);
}

#[test]
fn trainer_and_sampler_agree_at_every_step() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    finish(&run, &["--set", "student.phase[2].dynamic_sampling=2", "--set", "student.phase[2].loss_type=\"dapo\""]);
    let (mut steps, mut updates, mut wasted) = (0, 0, 0);
    for phase in ["teacher/grpo", "student/grpo"] {
        for line in std::fs::read_to_string(run.join(phase).join("metrics.jsonl")).unwrap().lines() {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(record["mismatch_max"].as_f64().unwrap() < 1e-4, "{phase}: {line}");
            updates += usize::from(record["grad_norm"].as_f64().is_some_and(f64::is_finite));
            wasted += record["wasted"].as_u64().unwrap();
            steps += 1;
        }
    }
    assert_eq!(steps, 6 + 5);
    assert!(updates >= 5 && wasted > 0, "{updates} steps changed weights, {wasted} attempts were thrown away");
}
