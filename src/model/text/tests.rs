use super::*;
use std::path::PathBuf;

const GOLDEN: &str = include_str!("../../../tests/golden/templates.json");

fn golden() -> Value {
    serde_json::from_str(GOLDEN).unwrap()
}

/// Real tokenizer folders, or `None` where they are not at hand.
fn real(what: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("DISTILL_DATA").map(|data| PathBuf::from(data).join("tokenizers"));
    if folder.is_none() {
        eprintln!("skipped: DISTILL_DATA is unset ({what})");
    }
    folder
}

/// A folder's text half; where it has no tokenizer of its own, the tiny one stands in: rendering needs no vocabulary.
fn stand_in(folder: &Path) -> Text {
    let mut files = Text::tiny().files;
    files.remove(TOKENIZER_CONFIG);
    for name in FILES {
        files.extend(std::fs::read(folder.join(name)).ok().map(|bytes| (name.to_string(), bytes)));
    }
    files.entry(TOKENIZER_CONFIG.into()).or_insert_with(|| b"{}".to_vec());
    files.insert(CONFIG.into(), br#"{"eos_token_id": 0}"#.to_vec());
    Text::from_files(files, &folder.display().to_string()).unwrap()
}

fn with(files: &[(&str, &str)]) -> Result<Text> {
    let mut all = Text::tiny().files;
    all.extend(files.iter().map(|(name, text)| (name.to_string(), text.as_bytes().to_vec())));
    Text::from_files(all, "model")
}

fn with_template(source: &str) -> Result<Text> {
    with(&[(TEMPLATE, source)])
}

fn render(source: &str, extra: Value) -> Result<String> {
    with_template(source)?.render(&[Message::user("hi")], true, extra.as_object().unwrap())
}

#[test]
fn prompts_are_those_of_transformers() {
    let golden = golden();
    let date = golden["unix_seconds"].as_i64().unwrap();
    let data = real("templates of real models");
    let dated = with_template(include_str!("../../../tests/golden/dated.jinja")).unwrap().with_date(date);
    let mut texts = BTreeMap::from([("tiny".to_string(), Text::tiny()), ("dated".to_string(), dated)]);
    let mut n_compared = 0;
    for case in golden["cases"].as_array().unwrap() {
        let name = case["tokenizer"].as_str().unwrap();
        if !texts.contains_key(name) {
            let Some(data) = &data else { continue };
            texts.insert(name.to_string(), stand_in(&data.join(name)).with_date(date));
        }
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
        let rendered =
            texts[name].render(&messages, case["add_generation_prompt"].as_bool().unwrap(), case["extra"].as_object().unwrap()).unwrap();
        assert_eq!(rendered, case["rendered"].as_str().unwrap(), "{name}: {}", case["messages"]);
        n_compared += 1;
    }
    assert_eq!(n_compared, if data.is_some() { golden["cases"].as_array().unwrap().len() } else { 8 });
}

#[test]
fn a_prompt_without_a_template_begins_as_in_transformers() {
    let rows = golden()["prompts"].as_array().unwrap().clone();
    for row in &rows {
        let object = |name: &str| -> Value { serde_json::from_slice(&Text::tiny().files[name]).unwrap() };
        let (mut tokenizer, mut config) = (object(TOKENIZER), object(TOKENIZER_CONFIG));
        tokenizer["post_processor"] = row["post_processor"].clone();
        row["config"].as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
        let mut files = vec![(TOKENIZER, tokenizer.to_string()), (TOKENIZER_CONFIG, config.to_string())];
        files.extend(row["special_tokens_map"].as_object().map(|map| (SPECIAL_TOKENS, json!(map).to_string())));
        let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let text = with(&files).unwrap();
        let ids: Vec<u32> = serde_json::from_value(row["ids"].clone()).unwrap();
        assert_eq!(text.encode_prompt(row["text"].as_str().unwrap()).unwrap(), ids, "{row}");
        assert_eq!(text.special.get("bos_token").unwrap_or(&Value::Null), &row["bos"], "{row}");
        // What a template or a response holds is encoded as it stands.
        assert_eq!(text.encode(row["text"].as_str().unwrap()).unwrap(), ids[ids.len() - 4..], "{row}");
    }
    assert_eq!(rows.len(), 10);
}

#[test]
fn nothing_is_put_after_a_prompt() {
    let mut tokenizer: Value = serde_json::from_slice(&Text::tiny().files[TOKENIZER]).unwrap();
    let token = |name: &str| json!({"SpecialToken": {"id": name, "type_id": 0}});
    let single = [token("<bos>"), json!({"Sequence": {"id": "A", "type_id": 0}}), token("<eos>")];
    let known = |name: &str, id: u32| (name.to_string(), json!({"id": name, "ids": [id], "tokens": [name]}));
    let special = Map::from_iter([known("<bos>", 1), known("<eos>", 2)]);
    tokenizer["post_processor"] = json!({"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special});
    let text = with(&[(TOKENIZER, &tokenizer.to_string())]).unwrap();
    assert_eq!(text.encode_prompt("1").unwrap(), [[1].as_slice(), &text.encode("1").unwrap()].concat());
}

#[test]
fn a_map_of_special_tokens_stands_in_for_what_the_configuration_lacks() {
    let map = r#"{"eos_token": {"content": "<user>"}, "additional_special_tokens": ["<bos>"]}"#;
    let text = with(&[(TOKENIZER_CONFIG, r#"{"added_tokens_decoder": {}}"#), (SPECIAL_TOKENS, map)]).unwrap();
    assert_eq!((text.end_id(), text.special.len()), (text.require_token("<user>").unwrap(), 1));
    let text = with(&[(TOKENIZER_CONFIG, r#"{"added_tokens_decoder": {}, "eos_token": "<eos>"}"#), (SPECIAL_TOKENS, map)]).unwrap();
    assert_eq!(text.end_id(), text.require_token("<eos>").unwrap());
}

#[test]
fn ids_are_those_of_the_python_tokenizers() {
    let golden = golden();
    let tiny = Text::tiny();
    let qwen = real("the Qwen2.5 tokenizer").map(|data| Text::from_folder(&data.join("qwen2.5")).unwrap());
    let text_of = |case: &Value| if case["tokenizer"] == "tiny" { Some(&tiny) } else { qwen.as_ref() };
    let ids_of = |case: &Value| -> Vec<u32> { serde_json::from_value(case["ids"].clone()).unwrap() };
    for case in golden["encodings"].as_array().unwrap() {
        let Some(text) = text_of(case) else { continue };
        assert_eq!(text.encode(case["text"].as_str().unwrap()).unwrap(), ids_of(case), "{}", case["text"]);
    }
    for case in golden["encodings"].as_array().unwrap().iter().chain(golden["decodings"].as_array().unwrap()) {
        let Some(text) = text_of(case) else { continue };
        assert_eq!(text.decode(&ids_of(case)), case["decoded"].as_str().unwrap());
    }
}

#[test]
fn tiny_text_comes_back_from_its_tokens() {
    let text = Text::tiny();
    let alphabet: Vec<String> = (0..text.vocab_size() as u32).map(|id| text.decode(&[id])).collect();
    assert_eq!(alphabet.len(), 123);
    let mut rng = 1u32;
    for length in 0..200 {
        let written: String = (0..length % 40)
            .map(|_| {
                rng = rng.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                alphabet[(rng >> 16) as usize % alphabet.len()].as_str()
            })
            .collect();
        assert_eq!(text.decode(&text.encode(&written).unwrap()), written);
    }
}

#[test]
fn tiny_tokens_are_phrases_integers_and_characters() {
    let text = Text::tiny();
    let pieces = |written: &str| text.encode(written).unwrap().iter().map(|&id| text.decode(&[id])).collect::<Vec<_>>();
    assert_eq!(pieces("7+4 is 11\n"), ["7", "+", "4", " is ", "11", "\n"]);
    assert_eq!(pieces("what is 1234"), ["what is ", "12", "34"]);
    assert_eq!(pieces("计算20得2"), ["计算", "20", "得", "2"]);
    assert_eq!(pieces("100 007"), ["10", "0", " ", "0", "0", "7"]);
    assert_eq!(pieces("<think>5</think><answer>5</answer><eos>"), ["<think>", "5", "</think>", "<answer>", "5", "</answer>", "<eos>"]);
    assert_eq!(pieces("x"), ["<unk>"]);
    assert_eq!(text.decode_plain(&text.encode("<user>1<assistant><think>2</think><eos>").unwrap()), "1<think>2</think>");
}

#[test]
fn tiny_turn_ends_in_eos() {
    let text = Text::tiny();
    let eos = text.require_token("<eos>").unwrap();
    assert_eq!((text.end_id(), text.stop_ids(), text.pad_id()), (eos, vec![eos], text.require_token("<pad>").unwrap()));
}

#[test]
fn ends_come_from_every_file_and_the_template() {
    let id = |token: &str| Text::tiny().require_token(token).unwrap();
    let turn = "{% for m in messages %}{{ m.content }}{{ ' <user>\n' }}{% endfor %}";
    let no_turn = "{% for m in messages %}{{ m.content }}{% endfor %}";
    let rows: [(&str, &str, &str, u32, Vec<u32>); 5] = [
        (turn, "{}", "{}", id("<user>"), vec![id("<eos>"), id("<user>")]),
        (turn, r#"{"eos_token_id": 0}"#, r#"{"eos_token_id": [1, 11]}"#, id("<user>"), vec![0, 1, id("<eos>"), id("<user>"), 11]),
        (no_turn, r#"{"eos_token_id": null}"#, "{}", id("<eos>"), vec![id("<eos>")]),
        (no_turn, r#"{"eos_token_id": [1]}"#, "{}", id("<eos>"), vec![1, id("<eos>")]),
        ("{{ raise_exception('no assistant') }}", "{}", "{}", id("<eos>"), vec![id("<eos>")]),
    ];
    for (template, config, generation, end, mut stop) in rows {
        let text = with(&[(TEMPLATE, template), (CONFIG, config), (GENERATION_CONFIG, generation)]).unwrap();
        stop.sort();
        assert_eq!((text.end_id(), text.stop_ids()), (end, stop), "{template}");
    }
}

#[test]
fn the_longest_control_token_ends_a_turn() {
    let tokenizer = Text::tiny().files[TOKENIZER].clone();
    let tokenizer = String::from_utf8(tokenizer).unwrap().replace("<bos>", "<user>!");
    let text = with(&[(TOKENIZER, &tokenizer), (TEMPLATE, "{% for m in messages %}{{ m.content }}<user>!{% endfor %}")]).unwrap();
    assert_eq!(text.decode(&[text.end_id()]), "<user>!");
}

#[test]
fn truncation_and_padding_of_a_tokenizer_are_off() {
    let mut tokenizer: Value = serde_json::from_slice(&Text::tiny().files[TOKENIZER]).unwrap();
    tokenizer["truncation"] = json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    tokenizer["padding"] = json!({"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"});
    let text = with(&[(TOKENIZER, &tokenizer.to_string())]).unwrap();
    assert_eq!(text.encode("1+2+3").unwrap().len(), 5);
}

#[test]
fn ends_of_real_models_are_found() {
    let Some(data) = real("end tokens") else { return };
    let qwen = Text::from_folder(&data.join("qwen2.5")).unwrap();
    assert_eq!((qwen.end_id(), qwen.stop_ids(), qwen.pad_id(), qwen.vocab_size()), (151_645, vec![151_645], 151_643, 151_665));
    let phi = Text::from_folder(&data.join("phi-2")).unwrap();
    assert_eq!((phi.end_id(), phi.pad_id(), phi.has_template()), (50_256, 50_256, false));
    let torchtitan = Text::from_folder(&data.join("gpt2-tiny-torchtitan")).unwrap();
    assert_eq!(torchtitan.decode(&[torchtitan.end_id()]), "<|end_of_text|>");
}

#[test]
fn an_opened_think_part_is_seen() {
    let text = Text::tiny();
    for (rendered, prefill) in [
        ("a<|im_start|>assistant\n<think>\n", "<think>\n"),
        ("a<think>", "<think>"),
        ("a<think>\n\n</think>\n\n", ""),
        ("a<assistant>", ""),
        ("think>", ""),
        ("", ""),
        ("<think> é", ""),
    ] {
        assert_eq!(text.prefill(rendered), prefill, "{rendered:?}");
    }
}

#[test]
fn jinja_is_pythons() {
    let rows = [
        ("{{ true }} {{ none }} {{ false }} {{ 1 }} {{ 'a<&>' }}", json!({}), "True None False 1 a<&>"),
        ("  {% if true %}\nx\n  {% endif %}\ny\n", json!({}), "x\ny"),
        ("{% for i in [1,2,3] %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}", json!({}), "13"),
        ("{{ bos_token }}{{ eos_token }}{{ no_token }}{{ messages[0]['role'] }}", json!({}), "<bos><eos>user"),
        ("a  {%- generation -%}  b  {%- set x = 1 -%}{%- endgeneration -%}  {{ x }}", json!({}), "ab"),
        ("{{ x | tojson }}", json!({"x": {"b": "<é>", "a": [1, 2.5, null]}}), r#"{"b": "<é>", "a": [1, 2.5, null]}"#),
        ("{{ x | tojson(indent=1) }}", json!({"x": [1]}), "[\n 1\n]"),
        ("{{ x | tojson(separators=(',', ':')) }}", json!({"x": [1, 2]}), "[1,2]"),
        ("{{ enable_thinking is false }}{{ tools is none }}", json!({"enable_thinking": false}), "TrueTrue"),
        ("{{ 'a-b'.split('-')[-1] ~ ' x '.strip() ~ 'abc'[::-1] }}", json!({}), "bxcba"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", json!({}), "1"),
        ("{{ 'q' in nothing }}", json!({}), "False"),
    ];
    for (source, extra, expected) in rows {
        assert_eq!(render(source, extra).unwrap(), expected, "{source}");
    }
}

#[test]
fn a_hostile_template_ends_in_an_error() {
    let nested = "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson }}";
    for (source, error) in [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{{ j }}{% endfor %}{% endfor %}", "ran out of fuel"),
        (nested, "ran out of fuel"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
        ("{{ 'x' * 99999999999 }}", "too large"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% include 'secrets' %}", "template not found"),
        ("{{ messages[0].nothing.content }}", "undefined"),
        ("{{ nothing | tojson }}", "not defined"),
        ("{{ messages | tojson(shape=3) }}", "shape"),
    ] {
        let message = format!("{:#}", render(source, json!({})).unwrap_err());
        assert!(message.contains(error), "{source}: {message}");
        assert!(message.contains("model"), "{message}");
    }
}

#[test]
fn a_long_conversation_is_no_attack() {
    let messages: Vec<Message> = (0..2000).flat_map(|_| [Message::user("1"), Message::assistant("2")]).collect();
    assert_eq!(Text::tiny().render(&messages, true, &Map::new()).unwrap().matches("<eos>").count(), 2000);
}

#[test]
fn a_template_of_its_own_wins_over_the_configuration() {
    let named = r#"{"eos_token": "<eos>", "chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]}"#;
    let render = |text: Text| text.render(&[], false, &Map::new()).unwrap();
    assert_eq!(render(with(&[(TOKENIZER_CONFIG, named)]).unwrap()), "d");
    assert_eq!(render(with(&[(TOKENIZER_CONFIG, named), (TEMPLATE, "file")]).unwrap()), "file");
}

#[test]
fn what_is_wrong_is_said_with_file_and_remedy() {
    let unnamed = r#"{"eos_token": "<eos>", "chat_template": [{"name": "a", "template": "t"}, {"name": "b", "template": "d"}]}"#;
    for (name, content, expected) in [
        (TOKENIZER, "{", "model/tokenizer.json: not a tokenizer"),
        (TOKENIZER_CONFIG, "[]", "model/tokenizer_config.json: must hold a JSON object"),
        (TOKENIZER_CONFIG, "{", "model/tokenizer_config.json: not JSON"),
        (TOKENIZER_CONFIG, "{}", "model: no end token; name one as eos_token"),
        (TOKENIZER_CONFIG, unnamed, "none of the chat templates (a, b) is named default"),
        (TOKENIZER_CONFIG, r#"{"chat_template": 3}"#, "chat_template must be a text"),
        (SPECIAL_TOKENS, "[]", "model/special_tokens_map.json: must hold a JSON object"),
        (TEMPLATE, "{% if %}", "model/chat_template.jinja: the chat template does not parse"),
        (CONFIG, r#"{"eos_token_id": "x"}"#, r#"model/config.json: eos_token_id must hold token ids, got "x""#),
        (GENERATION_CONFIG, r#"{"eos_token_id": [-1]}"#, "model/generation_config.json: eos_token_id must hold token ids, got -1"),
    ] {
        let message = format!("{:#}", with(&[(name, content)]).err().expect(expected));
        assert!(message.contains(expected), "{message}");
    }
    let folder = tempfile::tempdir().unwrap();
    let message = format!("{:#}", Text::from_folder(folder.path()).err().unwrap());
    assert!(message.contains("no tokenizer.json; write one with"), "{message}");
    let bare = with(&[(TOKENIZER_CONFIG, r#"{"eos_token": "<eos>"}"#)]).unwrap();
    let message = format!("{:#}", bare.render(&[], true, &Map::new()).unwrap_err());
    assert!(message.contains("no chat template"), "{message}");
    let message = format!("{:#}", bare.require_token("<|im_end|>").unwrap_err());
    assert!(message.contains("no token \"<|im_end|>\""), "{message}");
}

#[test]
fn ids_outside_the_vocabulary_are_decoded_to_nothing() {
    assert_eq!(Text::tiny().decode(&[14, 500, u32::MAX, 15]), "01");
}

#[test]
fn a_saved_folder_is_the_one_that_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        with(&[(TEMPLATE, "{{ messages[0].content }}\n\n"), (GENERATION_CONFIG, r#"{"eos_token_id":  1}"#), (CONFIG, "{}")]).unwrap();
    text.save_into(folder.path()).unwrap();
    let again = Text::from_folder(folder.path()).unwrap();
    let others = |text: &Text| {
        text.files().filter(|(name, _)| *name != GENERATION_CONFIG).map(|(n, b)| (n.to_string(), b.to_vec())).collect::<Vec<_>>()
    };
    assert_eq!(others(&text), others(&again));
    assert_eq!(
        (text.tokenizer_hash(), text.template_hash(), text.stop_ids()),
        (again.tokenizer_hash(), again.template_hash(), again.stop_ids())
    );
    assert!(!folder.path().join(CONFIG).exists());
    // Whoever samples from the folder later stops wherever this text stops.
    let generation = std::fs::read_to_string(folder.path().join(GENERATION_CONFIG)).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&generation).unwrap()["eos_token_id"], json!(text.stop_ids()));
    // printf '{{ messages[0].content }}\n\n' | sha256sum
    assert_eq!(text.template_hash().unwrap(), "79c3272461e36e8c890ae5a40034f32b4134c035ce6b84e895bd08b70ae165ed");
}

#[test]
fn a_student_takes_over_its_teachers_way_of_talking() {
    let folder = tempfile::tempdir().unwrap();
    let base = with(&[(TOKENIZER_CONFIG, r#"{"eos_token": "<pad>"}"#), (CONFIG, r#"{"eos_token_id": 0}"#)]).unwrap();
    let student = base.with_template_of(&Text::tiny()).unwrap();
    student.save_into(folder.path()).unwrap();
    let saved = Text::from_folder(folder.path()).unwrap();
    let messages = [Message::user("1+1")];
    for text in [&student, &saved] {
        assert_eq!(text.render(&messages, true, &Map::new()).unwrap(), "<user>1+1<assistant>");
        assert_eq!((text.end_id(), text.stop_ids()), (2, vec![0, 2]));
    }
}

#[test]
fn a_student_of_the_same_vocabulary_takes_its_teachers_control_tokens() {
    let renamed = |name: &str| String::from_utf8(Text::tiny().files[name].clone()).unwrap().replace("<user>", "<|User|>");
    let teacher = with(&[(TOKENIZER, &renamed(TOKENIZER)), (TOKENIZER_CONFIG, &renamed(TOKENIZER_CONFIG))]).unwrap();
    let student = Text::tiny().with_template_of(&teacher).unwrap();
    assert_eq!(student.tokenizer_hash(), teacher.tokenizer_hash());
    let prompt = student.render(&[Message::user("1")], true, &Map::new()).unwrap();
    assert_eq!(student.encode(&prompt).unwrap().len(), 3);
}

#[test]
fn a_student_that_cannot_end_a_turn_is_refused() {
    let Some(data) = real("two vocabularies") else { return };
    let (phi, qwen) = (Text::from_folder(&data.join("phi-2")).unwrap(), Text::from_folder(&data.join("qwen2.5")).unwrap());
    assert!(qwen.shares_vocabulary(&qwen) && !phi.shares_vocabulary(&qwen));
    let message = format!("{:#}", phi.with_template_of(&qwen).err().unwrap());
    assert!(message.contains("ends a turn with \"<|im_end|>\", which is no token here"), "{message}");
}
