//! Adapters: trained in one phase, continued in the next, evaluated on their base, stopped and resumed.

use super::fixture::Place;

/// SFT and GRPO of one adapter on the little model that knows sums, with all that is random in SFT.
const RECIPE: &str = r#"
name = "lora"
seed = 5

[problems]
task = "arithmetic"

[cold_start]
traces = 60

[student]
model = "run/student/base"
lora = { r = 4, targets = ["q_proj", "v_proj", "down_proj"], dropout = 0.1 }

[[student.phase]]
method = "sft"
data = "cold-start"
steps = 40
batch_size = 4
neftune_noise_alpha = 5.0

[[student.phase]]
method = "grpo"
reward = "tiny"
steps = 3
prompts_per_step = 2
num_generations = 4
max_tokens = 24
beta = 0.01

[evaluate]
tasks = ["arithmetic"]
arithmetic = { problems = 8, n = 2, max_tokens = 24 }
"#;

#[test]
fn an_adapter_is_trained_continued_evaluated_and_resumed_to_the_same_bytes() {
    let place = Place::with_run();
    place.write("lora.toml", RECIPE);
    let before = place.read("run/student/base/model.safetensors");
    place.distill("run lora.toml --run whole").ok();
    assert_eq!(place.read("run/student/base/model.safetensors"), before);
    for phase in ["sft", "grpo"] {
        let folder = format!("whole/student/{phase}");
        for file in ["adapter_model.safetensors", "tokenizer.json", "DONE"] {
            assert!(place.path(&format!("{folder}/{file}")).exists(), "{folder}/{file}");
        }
        assert!(!place.path(&format!("{folder}/model.safetensors")).exists());
        let config = place.json(&format!("{folder}/adapter_config.json"));
        assert_eq!((config["r"].as_u64(), config["lora_alpha"].as_f64()), (Some(4), Some(8.0)));
        assert_eq!(config["target_modules"], serde_json::json!(["q_proj", "v_proj", "down_proj"]));
        let base = config["base_model_name_or_path"].as_str().expect("a path");
        assert!(base.ends_with("run/student/base"), "{base}");
    }
    let adapter = |run: &str, phase: &str| place.read(&format!("{run}/student/{phase}/adapter_model.safetensors"));
    assert_ne!(adapter("whole", "sft"), adapter("whole", "grpo"), "the second phase goes on with the first's adapter");
    assert!(place.json("whole/report.json")["evaluation"].as_array().is_some_and(|rows| rows.iter().any(|row| row["model"] == "student")));

    let args = "run lora.toml --run cut --set execution.save_steps=7 --set execution.checkpoints=1";
    let ready = place.path("cut/student/sft/state/cursor.json");
    place.stopped(args, || ready.exists()).exits(143);
    place.distill(args).ok();
    for phase in ["sft", "grpo"] {
        assert!(adapter("whole", phase) == adapter("cut", phase), "{phase}");
    }
    // The last checkpoint of an adapter is an adapter.
    let checkpoint = |file: &str| place.path(&format!("cut/student/sft/checkpoints/000035/{file}")).exists();
    assert!(checkpoint("adapter_model.safetensors") && checkpoint("adapter_config.json") && !checkpoint("model.safetensors"));
    assert_eq!(std::fs::read_dir(place.path("cut/student/sft/checkpoints")).expect("a folder").count(), 1);

    // One model of both computes the same, to the rounding of what it is written as.
    let merged = place.distill("merge whole --out merged").ok().stdout;
    assert!(merged.starts_with("merged: ") && merged.contains(" parameters in f32, "), "{merged}");
    place.distill("merge whole/student/sft --out halves --dtype bf16").ok();
    assert_eq!(place.json("halves/config.json")["torch_dtype"], "bfloat16");
    let bytes = |folder: &str| place.read(&format!("{folder}/model.safetensors")).len();
    assert!(bytes("halves") < bytes("merged") * 6 / 10);
    let load = |folder: &str| distill::model::load(&place.path(folder), &candle_core::Device::Cpu).expect("a whole model");
    let adapted = distill::model::load_adapter(&place.path("whole/student/grpo"), &load("run/student/base"))
        .expect("an adapter")
        .merged()
        .expect("merged");
    for ((name, a), (_, b)) in adapted.tensors().iter().zip(load("merged").tensors()) {
        assert_eq!(a.flatten_all().unwrap().to_vec1::<f32>().unwrap(), b.flatten_all().unwrap().to_vec1::<f32>().unwrap(), "{name}");
    }
    load("halves");
    let refused = place.distill("merge merged --out again").exits(78);
    assert!(refused.stderr.contains("merged holds no adapter (adapter_config.json): there is nothing to merge"), "{refused:?}");
    let refused = place.distill("merge whole --out merged").exits(78);
    assert!(refused.stderr.contains("merged is there already; --force replaces it"), "{refused:?}");
    let refused = place.distill("merge whole --out run --force").exits(78);
    assert!(refused.stderr.contains("run holds something else than a merged model, which --force does not replace"), "{refused:?}");
    place.distill("merge whole --out merged --force").ok();
    place.distill("merge whole").exits(78);

    // An adapter from elsewhere is trained with the dropout that the recipe asks for.
    place.distill("train-student lora.toml --run other --set student.model=\"whole/student/sft\" --set student.lora.dropout=0.25").ok();
    let dropout = |folder: &str| place.json(&format!("{folder}/adapter_config.json"))["lora_dropout"].as_f64();
    assert_eq!((dropout("whole/student/sft"), dropout("other/student/sft")), (Some(0.1), Some(0.25)));

    // A plan knows what it is an adapter of.
    let plan = place
        .distill("evaluate --student whole/student/sft --tasks arithmetic --limit 4 --max-tokens 24 --out p --plan --json")
        .ok()
        .json();
    assert!(plan["stages"][0]["parameters"].as_u64() > Some(4000), "{plan:#}");

    // What was trained serves as a model anywhere, and a base that is gone is named.
    place.distill("evaluate --student whole --tasks arithmetic --limit 4 --max-tokens 24 --out e").ok();
    let refused = place.distill("run lora.toml --run whole --set student.lora.r=8").exits(78);
    assert!(refused.stderr.contains("student.lora.r"), "{refused:?}");
    std::fs::rename(place.path("run/student/base"), place.path("elsewhere")).expect("a rename");
    let gone = place.distill("evaluate --student whole --tasks arithmetic --limit 4 --max-tokens 24 --out f").exits(78);
    assert!(gone.stderr.contains("the base model of the adapter is not to be had"), "{gone:?}");
}

#[test]
fn an_adapter_that_cannot_be_is_a_problem_of_the_recipe() {
    let place = Place::new();
    for (change, expected) in [
        ("student.lora={r=0}", "student.lora.r must be from 1 to 4096, got 0"),
        ("student.lora={targets=\"lm_head\"}", "student.lora.targets must be all-linear, or some of q_proj, k_proj"),
        ("student.lora={dropout=1.0}", "student.lora.dropout must be in [0, 1), got 1"),
        ("student.lora={rank=8}", "student.lora.rank"),
        ("student.model=\"fresh\"", "student.lora: there is nothing to adapt in random weights"),
    ] {
        place.write("lora.toml", RECIPE);
        let refused = place.distill(&format!("run lora.toml --run r --set {change}")).exits(78);
        assert!(refused.stderr.contains(expected), "{change}: {refused:?}");
    }
}

/// One tenth of the problems is measured on and never trained on; where the loss rises again, the best model is kept, and is the phase's if that is asked for.
#[test]
fn the_model_with_the_lowest_loss_on_held_out_traces_is_kept() {
    let place = Place::with_run();
    let recipe = r#"
name = "held-out"

[problems]
task = "arithmetic"

[cold_start]
traces = 60

[student]
model = "run/student/base"

[[student.phase]]
method = "sft"
data = "cold-start"
steps = 30
batch_size = 8
learning_rate = 0.05
schedule = "constant"
held_out = { share = 0.1, eval_steps = 7, load_best = true }
"#;
    place.write("held.toml", recipe);
    place.distill("run held.toml --run h").ok();
    let metrics = String::from_utf8(place.read("h/student/sft/metrics.jsonl")).expect("text");
    let lines: Vec<serde_json::Value> = metrics.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let measured: Vec<(u64, f64)> =
        lines.iter().filter_map(|line| Some((line["step"].as_u64()? + 1, line["eval_loss"].as_f64()?))).collect();
    assert_eq!(measured.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [7, 14, 21, 28, 30]);
    let best = measured.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)).expect("some");
    let counts = &place.json("h/student/sft/DONE")["counts"];
    assert_eq!((counts["best"]["steps"].as_u64(), counts["best"]["loss"].as_f64()), (Some(best.0), Some(best.1)));
    let held = counts["held_out"].as_u64().expect("a number");
    assert!((1..20).contains(&held) && counts["examples"].as_u64() == Some(60 - held), "{counts}");
    assert_eq!(counts["best"]["loaded"], best.0 != 30, "{measured:?}");
    assert!(place.read("h/student/sft/model.safetensors") == place.read("h/student/sft/best/model.safetensors"));

    // Kept beside the last model it takes half the room.
    place.write("held.toml", recipe.replace(", load_best = true", ""));
    place.distill("run held.toml --run k").ok();
    let bytes = |name: &str| place.read(name).len();
    assert!(bytes("k/student/sft/best/model.safetensors") < bytes("k/student/sft/model.safetensors") * 6 / 10);
    for (change, expected) in
        [("{share=0.0}", "held_out.share must be above 0 and below 1, got 0"), ("{share=0.0001}", "of these problems is none at all")]
    {
        let refused = place.distill(&format!("run held.toml --run r --set student.phase[0].held_out={change}")).exits(78);
        assert!(refused.stderr.contains(expected), "{refused:?}");
    }
}
