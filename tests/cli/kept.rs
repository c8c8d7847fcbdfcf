//! Models that a phase keeps as it goes on, and a phase that gives itself up.

use super::fixture::{Place, TEACHER};
use distill::model;
use std::path::Path;

/// Names in a folder, in order, hidden ones too.
fn names(place: &Place, folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(place.path(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let mut names: Vec<String> = entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The numbers of a model, which has to be there whole.
fn numbers(folder: &Path) -> Vec<f32> {
    let model = model::load(folder, &candle_core::Device::Cpu).unwrap_or_else(|e| panic!("{}: {e:#}", folder.display()));
    model.tensors().iter().flat_map(|(_, t)| t.flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect()
}

/// A model folder in bf16, with a tokenizer.
fn is_half(place: &Place, folder: &str, of: &str) {
    assert_eq!(place.json(&format!("{folder}/config.json"))["torch_dtype"], "bfloat16");
    assert!(place.path(&format!("{folder}/tokenizer.json")).exists());
    let bytes = |folder: &str| place.read(&format!("{folder}/model.safetensors"));
    let header = String::from_utf8_lossy(&bytes(folder)[8..400]).into_owned();
    assert!(header.contains("\"dtype\":\"BF16\"") && !header.contains("\"F32\""), "{header}");
    assert!(bytes(folder).len() < bytes(of).len() * 6 / 10);
}

#[test]
fn the_last_checkpoints_are_there_and_are_the_models_of_their_steps() {
    let place = Place::new();
    // A rate that does not depend on how many steps there are.
    let train = |run: &str, steps: usize, more: &str| {
        let args = format!(
            "train-teacher tiny.toml --run {run} --set teacher.phase[0].steps={steps} --set teacher.phase[0].schedule=constant \
             --set teacher.phase[1].steps=10 --set execution.save_steps=2 --set execution.grpo_save_steps=3{more}"
        );
        place.distill(&args).ok()
    };
    train("run", 9, " --set execution.checkpoints=2");
    assert_eq!(names(&place, "run/teacher/base/checkpoints"), ["000006", "000008"]);
    assert_eq!(names(&place, "run/teacher/grpo/checkpoints"), ["000006", "000009"]);
    for phase in ["base", "grpo"] {
        is_half(&place, &format!("run/teacher/{phase}/checkpoints/000006"), &format!("run/teacher/{phase}"));
    }
    train("six", 6, "");
    assert!(!place.path("six/teacher/base/checkpoints").exists(), "nobody asked for one");
    let whole = numbers(&place.path("six/teacher/base"));
    let far = |steps: &str| {
        let half = numbers(&place.path(&format!("run/teacher/base/checkpoints/{steps}")));
        half.iter().zip(&whole).filter(|(half, x)| (*half - *x).abs() > x.abs() / 256.0).count()
    };
    assert_eq!(far("000006"), 0, "six steps of nine are the six of six, rounded");
    assert!(far("000008") > whole.len() / 10);
    // They are no part of what the phase is: asked for or not, and how often, is free to change.
    assert_eq!(place.json("run/teacher/base/DONE")["counts"]["steps"], 9);
    let done = place.written("run", "DONE");
    train("run", 9, " --set execution.checkpoints=5 --set execution.checkpoint_steps=1");
    assert_eq!((place.written("run", "DONE"), names(&place, "run/teacher/base/checkpoints").len()), (done, 2));
    train("often", 9, " --set execution.checkpoints=3 --set execution.checkpoint_steps=1");
    assert_eq!(names(&place, "often/teacher/base/checkpoints"), ["000006", "000007", "000008"]);
    for file in ["teacher/base/checkpoints/000008/model.safetensors", "teacher/grpo/model.safetensors"] {
        assert!(place.read(&format!("run/{file}")) == place.read(&format!("often/{file}")), "{file}");
    }
    let none = place.distill("train-teacher tiny.toml --run none --set execution.checkpoint_steps=0").exits(78);
    assert!(none.stderr.contains("execution.checkpoint_steps must be at least 1, got 0"), "{none:?}");
}

/// The last number of a model's file is one of its last norm: every log-probability is made of it.
#[test]
fn a_step_of_numbers_that_are_none_is_told_with_what_is_kept_and_what_to_do() {
    let place = Place::new();
    place.distill("train-teacher tiny.toml --run run").ok();
    place.copy_model(TEACHER, "m");
    let mut bytes = place.read("m/model.safetensors");
    let end = bytes.len() - 4;
    bytes[end..].copy_from_slice(&f32::NAN.to_le_bytes());
    place.write("m/model.safetensors", bytes);
    let recipe = "name = \"broken\"\n[problems]\ntask = \"arithmetic\"\n[cold_start]\ntraces = 20\n[student]\nmodel = \"m\"\n\
                  [[student.phase]]\nmethod = \"sft\"\ndata = \"cold-start\"\nsteps = 3\nbatch_size = 4\n";
    place.write("broken.toml", recipe);
    let first = place.distill("train-student broken.toml --run b").exits(1);
    for part in [
        "error: student/sft: step 0 cannot be taken: the log-probability of a token is NaN; a batch of 4 sequences with ",
        " target tokens; no weight was changed, and the state before the step is saved. The same command tries the step again; \
         if it fails again, lower learning_rate or max_grad_norm: that is another phase, which --force begins anew\n",
    ] {
        assert!(first.stderr.contains(part), "{part}\n{first:?}");
    }
    assert_eq!(place.json("b/student/sft/state/cursor.json")["cursor"]["step"], 0);
    assert_eq!(place.distill("train-student broken.toml --run b").exits(1).stderr, first.stderr);
    assert!(!place.path("b/student/sft/DONE").exists());
}

/// Twenty steps of four attempts that a command of the user's pays.
const PAID: &str = r#"
name = "paid"

[problems]
file = "mine.jsonl"
verify = { command = ["sh", "check.sh"] }

[teacher]
model = "fresh"
shape = { hidden_size = 32, layers = 2, heads = 4, kv_heads = 2, intermediate_size = 64, positions = 128 }

[[teacher.phase]]
method = "grpo"
reward = "command"
steps = 20
prompts_per_step = 2
num_generations = 2
max_tokens = 8
collapse = { window = 5 }

[execution]
grpo_save_steps = 3
checkpoints = 2
"#;

/// Pays 1 for so many attempts, and nothing for those after them.
fn pays(place: &Place, attempts: usize) {
    let script = format!(
        "while read -r line; do echo x >> count; n=$(wc -l < count); if [ $n -le {attempts} ]; then paid=1.0; else paid=0.0; fi; \
         echo '{{\"correct\": true, \"answer\": \"7\", \"reward\": '$paid'}}'; done"
    );
    place.write("check.sh", script);
    place.write("count", "");
}

#[test]
fn a_phase_whose_reward_collapses_ends_again_and_again_until_its_rule_is_another() {
    let place = Place::new();
    place.write("paid.toml", PAID);
    let line = |n: u32| format!("{{\"question\": \"{n}+4\", \"answer\": [{n}]}}\n");
    place.write("mine.jsonl", (1..4).map(line).collect::<String>());
    // Six steps are paid; five steps later the mean over five is nothing.
    pays(&place, 24);
    let args = "train-teacher paid.toml --run r";
    let first = place.distill(args).exits(1);
    for part in [
        "error: teacher/grpo: the reward has collapsed at step 10: its mean over the last 5 steps is 0.000, after 1.000 at step 4 and 1.000 at the beginning; \
         its problems are ",
        "r/teacher/grpo/best holds the model after 6 steps, with a mean reward of 1.000. ",
        "(zstdcat r/teacher/grpo/rollouts.journal | grep '@10#')",
        "With a higher collapse.drop, or without collapse, the same command goes on training from here\n",
    ] {
        assert!(first.stderr.contains(part), "{part}\n{first:?}");
    }
    let attempts = || place.read("count").len() / 2;
    assert_eq!(attempts(), 44);
    assert_eq!(names(&place, "r/teacher/grpo/checkpoints"), ["000006", "000009"]);
    assert!(!place.path("r/teacher/grpo/DONE").exists());
    assert_eq!(numbers(&place.path("r/teacher/grpo/best")), numbers(&place.path("r/teacher/grpo/checkpoints/000006")));
    assert_eq!(place.json("r/teacher/grpo/best/config.json")["torch_dtype"], "bfloat16");
    let metrics = |run: &str| String::from_utf8(place.read(&format!("{run}/teacher/grpo/metrics.jsonl"))).expect("text").lines().count();
    assert_eq!(metrics("r"), 11);

    // The same error at once. What a kill between a checkpoint and its state would have left is not there any more.
    place.write("r/teacher/grpo/checkpoints/000012/config.json", "{}");
    place.write("r/teacher/grpo/checkpoints/.000015.tmp/config.json", "{}");
    let error = |output: &super::fixture::Output| output.stderr.lines().last().expect("a line").to_owned();
    let second = place.distill(args).exits(1);
    assert_eq!((error(&second), attempts()), (error(&first), 44));
    assert_eq!(names(&place, "r/teacher/grpo/checkpoints"), ["000006", "000009"]);
    // Nothing was ever gained here, so that no share of it helps; but the key is one that may be changed.
    let third = place.distill(&format!("{args} --set teacher.phase[0].collapse.drop=1.0")).exits(1);
    assert_eq!((error(&third), attempts()), (error(&first), 44));

    place.write("paid.toml", PAID.replace("collapse = { window = 5 }", ""));
    place.distill(args).ok();
    assert_eq!((attempts(), metrics("r")), (80, 20));
    assert_eq!(names(&place, "r/teacher/grpo/checkpoints"), ["000015", "000018"]);
    assert!(!place.path("r/superseded").exists() && !place.path("r/teacher/grpo/state").exists());

    // Where nothing collapses the rule leaves the best model and says of which step it is.
    place.write("paid.toml", PAID);
    pays(&place, 1000);
    place.distill("train-teacher paid.toml --run good").ok();
    assert_eq!(place.json("good/teacher/grpo/DONE")["counts"]["best"], serde_json::json!({"steps": 6, "reward": 1.0}));
    assert!(place.path("good/teacher/grpo/best/model.safetensors").exists());
}
