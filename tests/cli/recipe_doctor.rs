//! `doctor RECIPE`: a sound recipe is found sound, and setups that were broken on purpose are found out, each with a remedy.

use super::fixture::{Output, Place, TEACHER};
use distill::model;
use serde_json::{Value, json};

/// SFT and GRPO of the little trained teacher, which is a checkpoint in `m/` here.
const RECIPE: &str = r#"
name = "looked-at"
seed = 3

[problems]
task = "arithmetic"
extraction = "strict"

[cold_start]
traces = 40

[sample]
problems = 4
max_tokens = 40

[student]
model = "m"

[[student.phase]]
method = "sft"
data = "cold-start"
steps = 2
batch_size = 4

[[student.phase]]
method = "grpo"
reward = "tiny"
steps = 1
prompts_per_step = 2
num_generations = 2
max_tokens = 40

[evaluate]
tasks = ["arithmetic"]
arithmetic = { problems = 8, max_tokens = 40 }
"#;

fn place() -> Place {
    let place = Place::with_run();
    place.copy_model(TEACHER, "m");
    place.write("r.toml", RECIPE);
    place
}

fn edit(place: &Place, name: &str, change: impl FnOnce(&mut Value)) {
    let mut value = place.json(name);
    change(&mut value);
    place.write(name, value.to_string());
}

/// What the doctor says of a check in a state; there is one at least.
fn says(output: &Output, check: &str, state: &str) -> Vec<String> {
    let all = output.json();
    let list = all["findings"].as_array().expect("a list");
    let found: Vec<String> = list
        .iter()
        .filter(|finding| finding["check"] == check && finding["state"] == state)
        .map(|finding| format!("{} -> {}", finding["says"].as_str().expect("text"), finding["remedy"].as_str().unwrap_or("-")))
        .collect();
    assert!(!found.is_empty(), "no {state} of {check} in {all:#}");
    found
}

#[track_caller]
fn caught(output: &Output, check: &str, state: &str, expected: &str) {
    let found = says(output, check, state);
    assert!(found.iter().any(|text| text.contains(expected) && !text.ends_with("-> -")), "{expected}: {found:#?}");
    assert_eq!(output.code, Some(if state == "fault" { 78 } else { 0 }), "{output:?}");
}

/// One whole model with other tensors.
fn damage(place: &Place, change: impl Fn(&str, Vec<f32>) -> Vec<f32>) {
    let decoder = model::load(&place.path("m"), &candle_core::Device::Cpu).expect("a model");
    let tensors: std::collections::BTreeMap<String, candle_core::Tensor> = decoder.tensors().into_iter().collect();
    let changed = |name: &str| {
        let tensor = tensors.get(name)?;
        let numbers = tensor.flatten_all().and_then(|t| t.to_vec1()).expect("numbers");
        candle_core::Tensor::from_vec(change(name, numbers), tensor.shape(), tensor.device()).ok()
    };
    let other = decoder.with_tensors(&changed).expect("the same shapes");
    model::save(&other, &place.path("damaged")).expect("saved");
    for name in ["config.json", "model.safetensors"] {
        place.write(&format!("m/{name}"), place.read(&format!("damaged/{name}")));
    }
}

#[test]
fn a_sound_recipe_is_found_sound_and_nothing_is_written() {
    let place = place();
    let output = place.distill("doctor r.toml --json").ok();
    let all = output.json();
    let list = all["findings"].as_array().expect("a list");
    assert!(list.iter().all(|finding| ["ok", "note"].contains(&finding["state"].as_str().expect("a word"))), "{all:#}");
    for check in [
        "recipe",
        "problems",
        "evaluation",
        "verifier",
        "reward",
        "student",
        "template",
        "mask",
        "length",
        "rows",
        "gradient",
        "agreement",
        "memory",
    ] {
        assert!(list.iter().any(|finding| finding["check"] == check && finding["state"] == "ok"), "{check} in {all:#}");
    }
    assert!(!place.path("runs").exists());
    let mask = list.iter().find(|finding| finding["check"] == "mask").expect("a mask");
    let lines: Vec<&str> = mask["more"].as_array().expect("lines").iter().filter_map(Value::as_str).collect();
    assert!(lines[0].starts_with("· <user>") && lines.iter().filter(|line| line.starts_with("+ ")).count() >= 2, "{lines:?}");
    assert!(lines.last().is_some_and(|line| line.ends_with("</answer><eos>")), "{lines:?}");
    let text = place.distill("doctor r.toml").ok().stdout;
    assert!(text.starts_with("  ok       recipe      looked-at is one that can be run\n"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");

    // The embedded recipe, whose models are made from nothing; and its smallest form, whose cap cuts what it teaches.
    place.write("embedded.toml", include_str!("../../recipes/tiny.toml"));
    place.distill("doctor embedded.toml").ok();
    caught(&place.distill("doctor tiny.toml --run run --json"), "length", "warning", "teacher.phase[1].max_tokens = 24, but 23 of 60");
}

#[test]
fn what_a_recipe_says_wrongly_is_found_out() {
    let place = place();
    let look = |set: &str| place.distill(&format!("doctor r.toml --json{set}"));
    let cut = look(" --set student.phase[1].top_p=0.9");
    caught(&cut, "recipe", "fault", "student.phase[1].top_p: GRPO samples from the whole distribution");
    caught(
        &look(" --set student.phase[1].max_tokens=2"),
        "length",
        "fault",
        "student.phase[1].max_tokens = 2 is less than the 4 tokens that a bare right answer takes",
    );
    caught(
        &look(" --set student.phase[1].max_tokens=12"),
        "length",
        "fault",
        "student.phase[1].max_tokens = 12, but 39 of 40 completions that it is taught are longer",
    );
    caught(&look(" --set student.max_length=20"), "length", "fault", "are longer -> raise max_length");
    caught(&look(" --set student.max_length=40"), "length", "warning", "are longer -> raise max_length");
    caught(&look(" --set student.max_length=200"), "length", "fault", "student.max_length 200 is beyond the model's 128 positions");
    assert!(says(&look(" --set student.max_length=200 --set student.rope_theta=1e6"), "student", "ok")[0].contains("200 positions"));
    caught(&look(" --set evaluate.arithmetic.max_tokens=126"), "length", "warning", "beyond the model's 128 positions");
    caught(&look(" --set student.template=\"chatml\""), "student", "fault", "ends a turn with \"<|im_end|>\", which is no token here");
    // A reward that wants a whole number between its tags, on answers that are letters.
    place.write("letters.jsonl", "{\"question\": \"A or B?\", \"answer\": \"B\"}\n");
    let own = "[problems]\nfile = \"letters.jsonl\"\nverify = \"choice\"\n";
    let (before, rest) = RECIPE.split_once("[problems]").expect("a table");
    let (_, phases) = rest.split_once("[[student.phase]]").expect("a phase");
    let (_, grpo) = phases.split_once("[[student.phase]]").expect("another");
    place.write("letters.toml", format!("{before}{own}\n[student]\nmodel = \"m\"\n\n[[student.phase]]{grpo}"));
    caught(&place.distill("doctor letters.toml --json"), "reward", "fault", "the most that it can pay is 1.1");
}

#[test]
fn problems_that_nobody_could_solve_are_found_out() {
    let place = place();
    let own = "name = \"own\"\nproblems = { file = \"p.jsonl\", verify = \"regex\" }\n";
    place.write("own.toml", own);
    place.write("p.jsonl", "{\"question\": \"a sum?\", \"answer\": \"\\\\d+\"}\n{\"question\": \"which?\", \"answer\": \"a^\"}\n");
    let output = place.distill("doctor own.toml --json");
    caught(&output, "verifier", "fault", "own/1 cannot be answered: none of 300 texts built after the pattern \"a^\" matches it");
    place.write("p.jsonl", "{\"question\": \"a sum?\", \"answer\": \"\\\\d+\"}\n");
    place.distill("doctor own.toml --json").ok();
}

#[test]
fn a_model_that_cannot_be_taught_is_found_out() {
    let place = place();
    let look = |set: &str| place.distill(&format!("doctor r.toml --json{set}"));

    // A trainer that masks padding by its id would never teach this one to stop.
    let config = place.json("m/tokenizer_config.json");
    edit(&place, "m/tokenizer_config.json", |c| c["pad_token"] = c["eos_token"].clone());
    let output = look("");
    caught(&output, "template", "warning", "the pad token is the end token \"<eos>\"");
    assert!(says(&output, "mask", "ok")[0].contains("the end token \"<eos>\" are in the loss"));

    // As R1's own template does.
    let stripping = config["chat_template"]
        .as_str()
        .expect("text")
        .replace("+ message.content + eos_token", "+ message.content.split('</think>')[-1] + eos_token");
    edit(&place, "m/tokenizer_config.json", |c| {
        *c = config.clone();
        c["chat_template"] = stripping.into();
    });
    caught(&look(""), "template", "warning", "it strips think text from what an assistant said");

    // No token ends a response.
    edit(&place, "m/tokenizer_config.json", |c| *c = json!({}));
    edit(&place, "m/config.json", |c| c["eos_token_id"] = Value::Null);
    caught(&look(""), "student", "fault", "m: no end token");
    place.copy_model(TEACHER, "m");

    // Not one row ends.
    let cut = |mut row: Value| {
        row["finish"] = "length".into();
        row.to_string() + "\n"
    };
    let rows: String = place.traces("run/traces").iter().map(|trace| cut(serde_json::to_value(trace).expect("JSON"))).collect();
    place.write("cut.jsonl", rows);
    caught(&look(" --set student.phase[0].data=\"cut.jsonl\""), "length", "fault", "rows ends by itself, so no end token is in the loss");

    // As in a base model: the end token was hardly ever seen, and an adapter leaves the embeddings alone.
    let end = distill::model::text::Text::tiny().end_id() as usize;
    let forget = |name: &str, mut numbers: Vec<f32>| {
        if name == "model.embed_tokens.weight" {
            let width = numbers.len() / distill::model::text::Text::tiny().vocab_size();
            numbers[end * width..(end + 1) * width].iter_mut().for_each(|x| *x *= 0.01);
        }
        numbers
    };
    damage(&place, forget);
    let adapter = look(" --set student.lora={r=2}");
    caught(&adapter, "rows", "fault", "the rows of \"<eos>\" look like rows that were never trained");
    assert!(says(&look(""), "rows", "note")[0].contains("all weights are trained, so these are too"));
    place.copy_model(TEACHER, "m");
    look(" --set student.lora={r=2}").ok();

    // What comes after this matrix gets nothing from it, and it gets nothing back.
    damage(&place, |name, numbers| if name == "model.layers.1.mlp.down_proj.weight" { vec![0.0; numbers.len()] } else { numbers });
    caught(&look(""), "gradient", "fault", "model.layers.1.post_attention_layernorm.weight gets no gradient");
    damage(&place, |name, mut numbers| {
        if name == "model.norm.weight" {
            numbers[3] = f32::NAN;
        }
        numbers
    });
    caught(&look(""), "gradient", "fault", "the log-probability of a token is NaN");
}
