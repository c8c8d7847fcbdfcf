//! SFT phases on several corpora, and base models that are taught to talk.

use super::fixture::{Place, TEACHER};
use distill::model::{Config, text::Text};
use serde_json::json;

const RECIPE: &str = r#"
name = "phases"
seed = 5

[problems]
task = "arithmetic"

[cold_start]
traces = 60

[student]
model = "m"

[[student.phase]]
method = "sft"
data = [{ from = "cold-start", weight = 0.5 }, { from = "general.jsonl", weight = 2.0 }]
epochs = 2.0
batch_size = 8

[evaluate]
tasks = ["arithmetic"]
arithmetic = { problems = 12, n = 2, max_tokens = 24 }
"#;

fn place() -> Place {
    let place = Place::with_run();
    place.copy_model(TEACHER, "m");
    place.write("r.toml", RECIPE);
    let chat = |i: usize| json!({"messages": [{"role": "user", "content": format!("what is {i}+{i}")}, {"role": "assistant", "content": format!("{}", 2 * i)}]});
    place.write("general.jsonl", (1..=10).map(|i| chat(i).to_string() + "\n").collect::<String>());
    place
}

#[test]
fn a_phase_learns_from_several_corpora_as_often_as_their_weights_say() {
    let place = place();
    place.distill("run r.toml --run whole --set student.phase[0].probes={problems=5,steps=4}").ok();
    let done = place.json("whole/student/sft/DONE");
    let counts = &done["counts"];
    // Half of 60 and twice 10 rows are an epoch: 50 rows, and two of them 13 steps of 8.
    assert_eq!((counts["examples"].as_u64(), counts["steps"].as_u64()), (Some(70), Some(13)), "{counts}");
    let parts = counts["mixture"].as_array().expect("a list");
    let part = |i: usize| (parts[i]["from"].as_str(), parts[i]["weight"].as_f64(), parts[i]["examples"].as_u64());
    assert_eq!([part(0), part(1)], [(Some("cold-start"), Some(0.5), Some(60)), (Some("general.jsonl"), Some(2.0), Some(10))]);
    let lines = place.metrics("whole/student/sft");
    assert!(
        lines.iter().all(|line| line["micro_batches"] == 1 && line["filled"].as_f64().is_some_and(|x| x > 0.0 && x < 1.0)),
        "{lines:?}"
    );
    let report = place.json("whole/report.json");
    let curve = report["curves"].as_array().expect("curves").iter().find(|curve| curve["stage"] == "student/sft").expect("the phase's");
    assert_eq!((&curve["probes"]["problems"], &curve["probes"]["steps"]), (&json!(5), &json!([0, 4, 8, 12, 13])));
    assert!(
        String::from_utf8(place.read("whole/report.md"))
            .expect("text")
            .contains("Held-out problems, answered greedily as training went on")
    );

    // Packed into more micro-batches, it is the same training.
    place.distill("run r.toml --run packed --set execution.micro_batch_tokens=64").ok();
    let packed = place.metrics("packed/student/sft");
    assert!(packed.iter().any(|line| line["micro_batches"].as_u64() > Some(2) && line["filled"].as_f64() > Some(0.7)), "{packed:?}");
    for (a, b) in lines.iter().zip(&packed) {
        let (a, b) = (a["loss"].as_f64().expect("a loss"), b["loss"].as_f64().expect("a loss"));
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }

    // Stopped and resumed, the mixture goes on where it was.
    let args = "run r.toml --run cut --set execution.save_steps=3";
    let ready = place.path("cut/student/sft/state/cursor.json");
    place.stopped(args, || ready.exists()).exits(143);
    place.distill(args).ok();
    assert!(place.read("cut/student/sft/model.safetensors") == place.read("whole/student/sft/model.safetensors"));

    let refused = |set: &str, expected: &str| {
        let output = place.distill(&format!("run r.toml --run refused --set {set}")).exits(78);
        assert!(output.stderr.contains(expected), "{set}: {output:?}");
    };
    refused("student.phase[0].data=[]", "student.phase[0].data must be at least one of { from = \"…\" }");
    refused(
        "student.phase[0].data=[{from=\"cold-start\",weight=0.0}]",
        "student.phase[0].data[0].weight must be above 0 and at most 1000, got 0",
    );
    refused("student.phase[0].data=[{from=\"cold-start\"},{from=\"cold-start\"}]", "\"cold-start\" is there twice; give it one weight");
    refused("student.phase[0].data=[{form=\"cold-start\"}]", "student.phase[0].data[0].form is not a key, did you mean from?");
    refused("student.phase[0].too_long=\"cut\"", "student.phase[0].too_long must be one of drop, refuse, got \"cut\"");
    let long = place.distill("run r.toml --run long --set student.max_length=24").ok();
    assert!(place.json("long/student/sft/DONE")["counts"]["too_long"].as_u64() > Some(0), "{long:?}");
    let refused = place.distill("run r.toml --run r --set student.max_length=24 --set student.phase[0].too_long=\"refuse\"").exits(78);
    assert!(refused.stderr.contains("traces are longer than 24 tokens (the longest is "), "{refused:?}");
    assert!(refused.stderr.contains("too_long is \"refuse\"; raise max_length"), "{refused:?}");
}

/// The little model as a base: without a template, without the tokens that one needs, and with too few positions.
#[test]
fn a_base_model_is_given_a_template_tokens_and_positions() {
    let place = place();
    let mut config = place.json("m/tokenizer_config.json");
    config.as_object_mut().and_then(|c| c.remove("chat_template")).expect("a template");
    place.write("m/tokenizer_config.json", config.to_string());
    let recipe = RECIPE.replace(
        "model = \"m\"",
        "model = \"m\"\ntemplate = \"chatml\"\nadd_tokens = [\"<|im_start|>\", \"<|im_end|>\", \"<think>\"]\nrope_theta = 1e6\nmax_length = 200",
    );
    place.write("base.toml", &recipe);
    // It opens no response with <think>, and says "1" and not "one": all of it is learnt.
    place.distill("run base.toml --run whole").ok();
    let before = Config::load(&place.path("m")).expect("a configuration");
    let after = Config::load(&place.path("whole/student/sft")).expect("a configuration");
    assert_eq!((after.vocab_size, after.max_positions, after.rope_theta), (before.vocab_size + 2, 200, 1e6), "<think> was a token before");
    let text = Text::from_folder(&place.path("whole/student/sft")).expect("a text half");
    let end = text.token_id("<|im_end|>").expect("a token");
    assert_eq!((text.end_id(), text.stop_ids().contains(&end)), (end, true));
    assert!(place.json("whole/student/sft/generation_config.json")["eos_token_id"].as_array().is_some_and(|ids| ids.contains(&json!(end))));
    let rows = place.traces("whole/evaluation/student-arithmetic/sampled");
    assert_eq!(rows.len(), 24);
    // What was trained needs none of it again.
    place.distill("evaluate --student whole --tasks arithmetic --limit 2 --max-tokens 16 --out e").ok();

    // Another base is another run, and other tokens are other inputs.
    let refused = place.distill("run base.toml --run whole --set student.rope_theta=2e6").exits(78);
    assert!(refused.stderr.contains("student.rope_theta"), "{refused:?}");

    place.write("own.jinja", "{% for m in messages %}<user>{{ m.content }}<assistant>{% endfor %}");
    place.distill("run base.toml --run own --set student.template=\"own.jinja\"").ok();
    for (set, expected) in [
        ("student.template=\"nothing.jinja\"", "cannot read the chat template nothing.jinja"),
        (
            "student.template=\"qwen\"",
            "student.template: \"qwen\" is none of \"own\", \"teacher\", \"chatml\", or a file that ends in .jinja",
        ),
        ("student.add_tokens=[]", "the chat template ends a turn with \"<|im_end|>\", which is no token here"),
        ("student.add_tokens=[\"\"]", "student.add_tokens must be texts that are not empty"),
        ("student.rope_theta=0.5", "student.rope_theta must be more than 1, got 0.5"),
        ("student.lora={r=2}", "student.lora: add_tokens and rope_theta change the model beneath an adapter"),
    ] {
        let refused = place.distill(&format!("run base.toml --run r --set {set}")).exits(78);
        assert!(refused.stderr.contains(expected), "{set}: {refused:?}");
    }
    place.write("base.toml", recipe.replace("rope_theta = 1e6\n", ""));
    let refused = place.distill("run base.toml --run s").exits(78);
    assert!(refused.stderr.contains("student.max_length 200 is beyond the model's 128 positions"), "{refused:?}");
}
