//! `--plan`: what it counts, against numbers that are worked out here by hand.

use super::fixture::Place;
use serde_json::{Value, json};

fn stage<'a>(plan: &'a Value, name: &str) -> &'a Value {
    let stages = plan["stages"].as_array().expect("a list");
    stages.iter().find(|s| s["stage"] == name).unwrap_or_else(|| panic!("no {name} in {plan:#}"))
}

fn names(plan: &Value) -> Vec<&str> {
    plan["stages"].as_array().expect("a list").iter().filter_map(|s| s["stage"].as_str()).collect()
}

#[test]
fn the_figures_of_the_tiny_recipe_are_those_worked_out_by_hand() {
    let place = Place::new();
    let plan = place.distill("run --plan --json").ok().json();
    // Teacher: hidden 96, 2 layers, 4 heads of 24, 2 key heads, feed-forward 256; tied embedding.
    let vocab = distill::model::text::Text::tiny().vocab_size();
    // q 96x96+96, k and v 96x48+48 each, o 96x96, three matrices 96x256, two norms of 96.
    let layer = (9_216 + 96) + 2 * (4_608 + 48) + 9_216 + 3 * 24_576 + 192;
    assert_eq!(layer, 101_760);
    let teacher = vocab * 96 + 2 * layer + 96;
    let base = stage(&plan, "teacher/base");
    assert_eq!(base["parameters"], teacher);
    // 1,000 steps of 32 sequences of 40 tokens at most; 16 bytes a parameter, and 4 for each number that a token has on its way: of each layer an input of 96, in
    // attention 3 x 96 + 2 x 192 + 96, behind it 3 x 96 + 3 x 256; on the way back 3 x (192 + 96) and 9 x 256 of one layer; 8 x 96 around the head; logits.
    let layer = 96 + (288 + 384 + 96) + (288 + 768);
    let numbers = 2 * layer + (864 + 2304) + 768 + vocab;
    assert_eq!((&base["tokens"], &base["memory_bytes"]), (&json!(1_280_000), &json!(16 * teacher + 4 * 1280 * numbers)));
    let parts = &base["training_bytes"];
    assert_eq!(
        (&parts["weights"], &parts["optimizer"], &parts["logits"]),
        (&json!(4 * teacher), &json!(8 * teacher), &json!(4 * 1280 * vocab))
    );
    let traces = stage(&plan, "traces");
    // 2,000 problems, 2 attempts of 40 tokens.
    assert_eq!(traces["tokens"], 160_000);
    // Keys and values of 2 layers, 256 slots and a prompt, 2 heads of 24, 128 positions (40 and a prompt would be 296), 4 bytes.
    assert_eq!(traces["cache_bytes"], 2 * 2 * 257 * 2 * 24 * 128 * 4);
    assert_eq!(traces["cache_bytes"], 25_264_128);
    // Its embedding is tied: it is there as a table and as the head.
    assert_eq!(traces["memory_bytes"], 25_264_128 + 4 * (teacher + vocab * 96));
    assert_eq!(traces["disk_bytes"], 800_000);
    // 80 steps of 16 groups of 8, 40 tokens.
    assert_eq!(stage(&plan, "teacher/grpo")["tokens"], 409_600);
    // 1,024 problems, one sampled and one greedy attempt, 40 tokens.
    assert_eq!(stage(&plan, "evaluation/student-arithmetic")["tokens"], 81_920);
    assert_eq!(names(&plan).len(), 14);
    // Time follows from 2 operations for each parameter and token, at one rate for all stages.
    let rate = |name: &str, per: f64| {
        let s = stage(&plan, name);
        per * s["parameters"].as_f64().expect("known") * s["tokens"].as_f64().expect("known") / s["seconds"].as_f64().expect("known")
    };
    let sampled = rate("traces", 2.0);
    for (name, per) in [("teacher/base", 6.0), ("teacher/grpo", 8.0), ("evaluation/base-arithmetic", 2.0)] {
        assert!((rate(name, per) / sampled - 1.0).abs() < 1e-9, "{name}");
    }
}

const CONFIG: &str = r#"{"model_type": "qwen2", "vocab_size": 1000, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "tie_word_embeddings": false}"#;

/// Two tables of 1,000 x 64, and for each of 3 layers q 4,096+64, k and v 2,048+32, o 4,096, 3 x 8,192, norms 128; a last norm of 64.
const PARAMETERS: usize = 128_000 + 3 * (4_160 + 4_160 + 4_096 + 24_576 + 128) + 64;

#[test]
fn a_configuration_alone_is_enough_in_a_folder_or_in_the_cache() {
    let place = Place::new();
    place.write("m/config.json", CONFIG);
    let commit = "0123456789abcdef0123456789abcdef01234567";
    place.write("hf/hub/models--some--model/refs/main", commit);
    place.write(&format!("hf/hub/models--some--model/snapshots/{commit}/config.json"), CONFIG);
    let three = "{\"question\": \"q\", \"answer\": 1}\n".repeat(3);
    place.write("own.jsonl", three);
    let plan = |model: &str| {
        let args = format!("sample --teacher {model} --problems own.jsonl --verify number -n 5 --max-tokens 100 --plan --json");
        place.distill(&args).ok().json()
    };
    for (model, downloads) in [("m", json!([])), ("some/model", json!(["some/model"]))] {
        let plan = plan(model);
        assert_eq!(names(&plan), ["traces"], "only what the command does");
        let traces = &plan["stages"][0];
        assert_eq!((&traces["parameters"], &plan["downloads"]), (&json!(PARAMETERS), &downloads), "{model}");
        // The file has 3 problems: 5 attempts each, 100 tokens.
        assert_eq!(traces["tokens"], 1_500);
        // 3 layers, 128 slots and a prompt, 2 heads of 16, 100 tokens and 256 for the prompt, in pages of 16.
        let cache = 2 * 3 * 129 * 2 * 16 * 368 * 4;
        assert_eq!((&traces["cache_bytes"], &traces["memory_bytes"]), (&json!(cache), &json!(cache + 4 * PARAMETERS)), "{model}");
        assert!(traces["what"].as_str().expect("text").starts_with("3 problems x 5 attempts"), "{traces:#}");
    }
    let unknown = &plan("other/model");
    assert_eq!((&unknown["stages"][0]["memory_bytes"], &unknown["stages"][0]["seconds"]), (&Value::Null, &Value::Null));
    assert_eq!((&unknown["stages"][0]["tokens"], &unknown["downloads"]), (&json!(1_500), &json!(["other/model"])));
}

#[test]
fn a_stage_command_plans_its_own_stages_only() {
    let place = Place::with_run();
    let stages = |args: &str| {
        let plan = place.distill(&format!("{args} --plan --json")).ok().json();
        names(&plan).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(stages("train-teacher tiny.toml"), ["teacher/base", "teacher/grpo"]);
    assert_eq!(stages("sample tiny.toml"), ["traces"]);
    assert_eq!(stages("filter tiny.toml"), ["corpus"]);
    assert_eq!(stages("filter run"), ["corpus"]);
    assert_eq!(stages("train-student tiny.toml"), ["student/base", "student/sft", "controls/unfiltered"]);
    let evaluations = ["base", "teacher", "student-base", "student-unfiltered", "student"].map(|m| format!("evaluation/{m}-arithmetic"));
    assert_eq!(stages("evaluate tiny.toml"), evaluations);
    let text = place.distill("filter tiny.toml --run run --plan").ok().stdout;
    assert!(text.contains("corpus  done   filter 24 traces\n"), "{text}");
}

/// Each step samples at most what its rung allows, and a model that is kept takes two bytes a parameter.
#[test]
fn a_ladder_and_models_that_are_kept_are_counted() {
    let place = Place::new();
    let plan = |more: &str| place.distill(&format!("run --plan --json{more}")).ok().json();
    let plain = plan("");
    let laddered = plan(" --set teacher.phase[1].context_ladder=[{steps=30,max_tokens=20}]");
    // 80 steps of 128 attempts, 30 of them with 20 tokens, the others with 40.
    assert_eq!(stage(&laddered, "teacher/grpo")["tokens"], 128 * (30 * 20 + 50 * 40));
    assert_eq!(stage(&laddered, "teacher/grpo")["what"], "grpo, 80 steps of 128 attempts, 30 of 20 tokens");
    assert_eq!(stage(&laddered, "teacher/grpo")["memory_bytes"], stage(&plain, "teacher/grpo")["memory_bytes"]);
    let kept = plan(" --set execution.checkpoints=3 --set teacher.phase[1].collapse={}");
    let number = |plan: &Value, name: &str, key: &str| stage(plan, name)[key].as_u64().expect("a number");
    for (name, models) in [("teacher/base", 3), ("teacher/grpo", 4), ("student/sft", 3)] {
        let more = number(&kept, name, "disk_bytes") - number(&plain, name, "disk_bytes");
        assert_eq!(more, models * 2 * number(&plain, name, "parameters"), "{name}");
    }
}

#[test]
fn files_that_are_missing_or_broken_are_named() {
    let place = Place::new();
    let plan = |problems: &str| {
        let args = format!("evaluate --student x/y --problems {problems} --verify number --plan --json");
        place.distill(&args).ok().json()
    };
    assert_eq!(plan("none.jsonl")["missing_files"], json!(["none.jsonl (problems.file)"]));
    place.write("own.jsonl", "{\"question\": \"q\", \"answer\": 1}\n{\n");
    let unreadable = plan("own.jsonl")["unreadable_files"].to_string();
    assert!(unreadable.contains("own.jsonl:2: not JSON"), "{unreadable}");
}
