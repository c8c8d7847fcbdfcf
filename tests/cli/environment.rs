//! What a person brings: model folders, Hub ids, files of problems. Each fault is named with its place and its remedy, and exits 78.

use super::fixture::{Output, Place, TEACHER};
use expect_test::{Expect, expect};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};

const ASK: &str = "--task arithmetic --limit 4 -n 1 --max-tokens 8 --out out";

/// Samples from a copy of the teacher that `spoil` has changed.
fn sample(spoil: impl FnOnce(&Place)) -> Output {
    let place = Place::new();
    place.distill("train-teacher tiny.toml --run run --set teacher.phase[0].steps=1 --set teacher.phase[1].steps=1").ok();
    place.copy_model(TEACHER, "m");
    spoil(&place);
    place.distill(&format!("sample --teacher m {ASK}"))
}

fn remove(place: &Place, name: &str) {
    std::fs::remove_file(place.path(name)).expect("it was there");
}

fn edit(place: &Place, name: &str, change: impl FnOnce(&mut Value)) {
    let mut value = place.json(name);
    change(&mut value);
    place.write(name, value.to_string());
}

fn edit_weights(place: &Place, change: impl FnOnce(&mut Vec<(String, TensorView<'_>)>)) {
    let bytes = place.read("m/model.safetensors");
    let mut tensors = SafeTensors::deserialize(&bytes).expect("safetensors").tensors();
    change(&mut tensors);
    place.write("m/model.safetensors", safetensors::serialize(tensors, None).expect("safetensors"));
}

#[test]
fn a_model_that_is_not_there() {
    let place = Place::new();
    let fails = |teacher: &str, expect: Expect| place.distill(&format!("sample --teacher {teacher} {ASK}")).fails(expect);
    fails(
        "nothere",
        expect![[r#"
        78: error: nothere: no such folder, and not a Hub id (organisation/name, or organisation/name@revision) either; check the path
    "#]],
    );
    fails(
        "some/model",
        expect![[r#"
            78: error: some/model: some/model@main is not in the cache HERE/hf/hub, and this is an offline run; on a machine with network run `hf download some/model --revision main` with the same HF_HOME
        "#]],
    );
    fails(
        "tiny.toml",
        expect![[r#"
        78: error: tiny.toml is a file; name the folder that holds config.json and the weights
    "#]],
    );
    sample(|p| remove(p, "m/model.safetensors")).fails(expect![[r#"
        78: error: m holds neither model.safetensors nor model.safetensors.index.json (other formats are not read): No such file or directory (os error 2)
    "#]]);
    sample(|p| remove(p, "m/config.json")).fails(expect![[r#"
        78: error: cannot read m/config.json: a model folder needs config.json, a tokenizer and safetensors: No such file or directory (os error 2)
    "#]]);
}

#[test]
fn a_hub_out_of_reach_is_a_matter_of_time() {
    let place = Place::new();
    let args = format!("sample --teacher some/model {ASK}");
    let mut command = place.command();
    for name in ["HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(name);
    }
    // The discard port, where nobody listens.
    let output = place.output(&args, command.env("HF_ENDPOINT", "http://127.0.0.1:9").args(args.split_whitespace())).exits(75);
    assert!(output.stderr.starts_with("error: some/model: http://127.0.0.1:9 cannot be reached ("), "{output:?}");
    assert!(output.stderr.contains("and the cache does not hold it; check the network"), "{output:?}");
}

#[test]
fn weights_that_are_not_those_of_the_configuration() {
    let layer = "model.layers.1.self_attn.k_proj.weight";
    sample(|p| edit_weights(p, |t| t.retain(|(name, _)| name != layer))).fails(expect![[r#"
        78: error: m: tensor model.layers.1.self_attn.k_proj.weight [16, 32] is missing
    "#]]);
    sample(|p| {
        edit_weights(p, |tensors| {
            let (_, tensor) = tensors.iter_mut().find(|(name, _)| name == layer).expect("the layer is there");
            let shape: Vec<usize> = tensor.shape().iter().rev().copied().collect();
            *tensor = TensorView::new(Dtype::F32, shape, tensor.data()).expect("as many values");
        });
    })
    .fails(expect![[r#"
        78: error: m: tensor model.layers.1.self_attn.k_proj.weight has shape [32, 16], config.json asks for [16, 32]
    "#]]);
    sample(|p| {
        edit_weights(p, |t| {
            t.push(("model.layers.1.mlp.experts.0.weight".into(), TensorView::new(Dtype::F32, vec![2], &[0; 8]).expect("two")))
        })
    })
    .fails(expect![[r#"
        78: error: m: 1 tensors do not belong to a Qwen2 model, the first is model.layers.1.mlp.experts.0.weight: the checkpoint is of another architecture than config.json says
    "#]]);
    sample(|p| p.write("m/model.safetensors", &p.read("m/model.safetensors")[..20_000])).fails(expect![[r#"
        78: error: cannot read the weights in m: a file is cut off or is not safetensors: path: "m/model.safetensors" incomplete metadata, file not fully covered
    "#]]);
    sample(|p| edit(p, "m/config.json", |c| c["model_type"] = json!("mamba"))).fails(expect![[r#"
        78: error: in m/config.json: model_type "mamba" is not supported: qwen2, qwen3 and llama are
    "#]]);
}

#[test]
fn a_tokenizer_that_lacks_what_is_needed() {
    let template = |text: &'static str| move |p: &Place| edit(p, "m/tokenizer_config.json", |c| c["chat_template"] = json!(text));
    sample(|p| remove(p, "m/tokenizer.json")).fails(expect![[r#"
        78: error: m: no tokenizer.json; write one with AutoTokenizer.from_pretrained(…).save_pretrained(…) in transformers
    "#]]);
    sample(|p| remove(p, "m/tokenizer_config.json")).fails(expect![[r#"
        78: error: m: no tokenizer_config.json, which names the end token; copy it from the model that the tokenizer belongs to
    "#]]);
    sample(|p| {
        edit(p, "m/tokenizer_config.json", |c| *c = json!({}));
        edit(p, "m/config.json", |c| c["eos_token_id"] = Value::Null);
    })
    .fails(expect![[r#"
        78: error: m: no end token; name one as eos_token in tokenizer_config.json or as eos_token_id in generation_config.json
    "#]]);
    sample(|p| edit(p, "m/tokenizer_config.json", |c| c["eos_token"] = json!("<|endoftext|>"))).fails(expect![[r#"
        78: error: m: the tokenizer has no token "<|endoftext|>"; take a model that has it, or a prompt or template that does without it
    "#]]);
    sample(template("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}")).fails(expect![[r#"
        78: error: m: the tokenizer has no token "<|im_start|>"; take a model that has it, or a prompt or template that does without it
    "#]]);
    sample(template("{{ raise_exception('only for poets') }}")).fails(expect![[r#"
        78: error: problem arithmetic/sample/0: m: the chat template failed: invalid operation: only for poets (in chat:1)
    "#]]);
    let broken = sample(template("{% for m in messages %}")).exits(78);
    assert!(broken.stderr.starts_with("error: m/tokenizer_config.json: the chat template does not parse"), "{broken:?}");
}

#[test]
fn a_length_beyond_the_positions() {
    let place = Place::with_run();
    let train = format!("train-student --student {TEACHER} --traces run --out out --set student.max_length=4096");
    place.distill(&train).fails(expect![[r#"
        78: error: student.max_length 4096 is beyond the model's 128 positions (max_position_embeddings); choose at most 128, or set student.rope_theta
    "#]]);
}

#[test]
fn problems_that_cannot_be_read() {
    let place = Place::with_run();
    let ask = |lines: &str, more: &str| {
        place.write("own.jsonl", lines);
        place.distill(&format!("sample --teacher {TEACHER} --problems own.jsonl -n 1 --max-tokens 4 --out out {more}"))
    };
    let good = "{\"question\": \"what is 1+1\", \"answer\": 2}\n";
    let number = "--verify number";
    ask(&format!("{good}\n{{\"question\": \n"), number).fails(expect![[r#"
        78: error: own.jsonl:3: not JSON: EOF while parsing a value at line 1 column 12
    "#]]);
    ask(&format!("{good}[1]\n"), number).fails(expect![[r#"
        78: error: own.jsonl:2: the line is a list, expected a JSON object
    "#]]);
    ask(&format!("{good}{{\"q\": \"what is 1+2\", \"answer\": 3}}\n"), number).fails(expect![[r#"
        78: error: own.jsonl:2: no field question; this line has: q, answer
    "#]]);
    ask(good, "--verify number --fields question=prompt,answer=target").fails(expect![[r#"
        78: error: own.jsonl:1: no field target; this line has: question, answer
    "#]]);
    ask(good, "").fails(expect![[r#"
        78: error: --verify: problems.verify is missing: how are the answers of your own problems checked? (number, math, exact, choice, regex, regex:PATTERN, countdown, knights, code, judge, { command = ["python", "check.py"] })
    "#]]);
    ask(good, "--verify numbr").fails(expect![[r#"
        78: error: --verify: problems.verify: unknown check "numbr"; known are number, math, exact, choice, regex, regex:PATTERN, countdown, knights, code, judge, { command = ["python", "check.py"] }
    "#]]);
    ask("", number).fails(expect![[r#"
        78: error: the file of task "own" holds no problems
    "#]]);
    let bad = "{\"question\": \"what is 1+2\", \"answer\": \"three\"}\n";
    ask(bad, number).fails(expect![[r#"
        78: error: 1 of 1 problems have no usable reference (the first: own.jsonl:1, the reference "three" is not one decimal number); they are listed in out/unusable_problems.json
    "#]]);
    place.distill(&format!("sample --teacher {TEACHER} --problems none.jsonl {number} --out out")).fails(expect![[r#"
        78: error: cannot open the problems none.jsonl: No such file or directory (os error 2)
    "#]]);

    let output = ask(&format!("{good}{bad}"), number).ok();
    expect![[r#"
        1 of 2 problems have no usable reference (the first: own.jsonl:2, the reference "three" is not one decimal number); they are listed in out/unusable_problems.json
    "#]].assert_eq(&output.stderr);
    let listed = json!({"own": [{"place": "own.jsonl:2", "id": "own/1", "reason": "the reference \"three\" is not one decimal number"}]});
    assert_eq!(place.json("out/unusable_problems.json"), listed);
    assert_eq!(place.traces("out/traces").len(), 1);
}

/// Programs that cannot be confined are not run: the stage ends before it samples anything, and nothing is left that could be taken for a verdict.
#[test]
fn an_unavailable_verifier_stops_the_stage_before_it_samples() {
    let place = Place::new();
    place.distill("train-teacher tiny.toml --run run --set teacher.phase[0].steps=1 --set teacher.phase[1].steps=1").ok();
    place.write("p.jsonl", r#"{"question": "write f", "answer": "assert f(1) == 1"}"#);
    let args = format!("sample --teacher {TEACHER} --problems p.jsonl --verify code -n 2 --max-tokens 8 --out out");
    let mut command = place.command();
    let output = place.output(&args, command.env("DISTILL_PYTHON", "/bin/true").args(args.split_whitespace())).exits(78);
    assert!(output.stderr.contains("verifier unavailable: programs cannot be confined"), "{output:?}");
    assert!(output.stderr.contains("none was run (python: /bin/true does not answer as Python does)"), "{output:?}");
    assert!(!place.path("out/traces/manifest.json").exists());
    assert!(place.written("out", "journal").is_empty());
    let mut command = place.command();
    let doctor = place.output("doctor", command.env("DISTILL_PYTHON", "/bin/true").args(["doctor", "--json"])).exits(78);
    assert!(doctor.json()["sandbox"].is_null() && doctor.stdout.contains("none was run (python: /bin/true"), "{doctor:?}");
}
