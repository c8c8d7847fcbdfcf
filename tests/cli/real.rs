//! Files that nobody here wrote: GSM8K, AIME and Qwen's tokenizer and template, with a model of random weights. Every step must be right though no
//! answer is.

use super::fixture::{Output, Place};
use distill::key::Key;
use distill::model::text::Text;
use distill::model::{self, Config, Decoder};
use distill::problem::{Language, Problem};
use distill::response::Response;
use distill::shard::Tokens;
use distill::tasks::{Layout, Task, read};
use distill::trace::{FinishReason, LanguageShare, Message, Trace, Verdict};
use distill::verify::{Extraction, Rules};
use serde_json::json;
use std::path::PathBuf;

fn data(what: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("DISTILL_DATA").filter(|v| !v.is_empty()).map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: DISTILL_DATA is unset ({what})");
    }
    // Tests of a package run in its root, the program in a temporary folder.
    folder.map(|f| f.canonicalize().unwrap_or(f))
}

/// A Qwen2 of random weights under the real tokenizer.
fn random_qwen(place: &Place, data: &std::path::Path) {
    let config = json!({
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 151_936, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024, "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0, "tie_word_embeddings": true, "hidden_act": "silu", "eos_token_id": 151_643,
    });
    let config = Config::from_json(config.as_object().expect("an object").clone()).expect("a Qwen2");
    let decoder = Decoder::random(config, Key::new(5, "real"), &candle_core::Device::Cpu).expect("random weights");
    std::fs::create_dir_all(place.path("qwen")).expect("a folder");
    model::save(&decoder, &place.path("qwen")).expect("saved");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        place.write(&format!("qwen/{name}"), std::fs::read(data.join("tokenizers/qwen2.5").join(name)).expect(name));
    }
    place.write("qwen/generation_config.json", r#"{"eos_token_id": [151645, 151643]}"#);
}

fn distill(place: &Place, data: &std::path::Path, args: &str) -> Output {
    place.output(args, place.command().args(args.split_whitespace()).env("DISTILL_DATA", data)).ok()
}

/// What Qwen2.5's template makes of one user message.
fn chat(content: &str) -> String {
    format!(
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n\
         <|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n"
    )
}

/// Holds stored attempts against the problems they should be attempts at.
fn check(place: &Place, folder: &str, problems: &[Problem], n: u32, content: impl Fn(&str) -> String, max_tokens: usize) -> Vec<Trace> {
    let text = Text::from_folder(&place.path("qwen")).expect("Qwen's text half");
    let mut tokens = Tokens::open(place.path(folder)).expect("tokens");
    let traces = place.traces(folder);
    let ids: Vec<String> = traces.iter().map(|t| t.id.clone()).collect();
    let wanted: Vec<String> = problems.iter().flat_map(|p| (0..n).map(|a| format!("{}#{a}", p.id))).collect();
    assert_eq!(ids, wanted);
    for trace in &traces {
        let problem = problems.iter().find(|p| p.id == trace.problem).expect("listed above");
        let record = tokens.get(&trace.id).expect("readable").expect("every trace has its tokens");
        assert_eq!(text.decode(&record.prompt), chat(&content(&problem.question)), "{}", trace.id);
        assert_eq!((record.prompt.len(), record.completion.len()), (trace.prompt_tokens, trace.completion_tokens));
        assert_eq!(trace.messages, [Message::user(content(&problem.question)), Message::assistant(&trace.response)]);
        assert_eq!((&trace.question, trace.gold.clone()), (&problem.question, problem.answer.gold()));
        let by_token = record.completion.last().is_some_and(|id| [151_643, 151_645].contains(id));
        let said = &record.completion[..record.completion.len() - usize::from(by_token)];
        assert_eq!(text.decode(said), trace.response, "{}", trace.id);
        let stopped = by_token || trace.response.contains('e');
        assert_eq!(trace.finish, if stopped { FinishReason::Stop } else { FinishReason::Length }, "{trace:?}");
        assert!(if stopped { trace.completion_tokens <= max_tokens } else { trace.completion_tokens == max_tokens }, "{trace:?}");
        let sum: f64 = record.logprobs().map(f64::from).sum();
        assert!(trace.logprob.is_some_and(|l| (l - sum).abs() < 0.01 * sum.abs()), "{trace:?}: {sum}");
        let verdict = Rules::new(Extraction::Flexible).judge(problem, &Response::parse(&trace.response));
        assert_eq!(trace.verdict.as_ref(), Some(&verdict));
        let digits = trace.response.bytes().any(|b| b.is_ascii_digit());
        assert!(!verdict.is_correct() && verdict.reason().is_some_and(|r| !r.rule.is_empty()), "{verdict:?}");
        assert!(digits || matches!(verdict, Verdict::NoAnswer { .. }), "{verdict:?} of {:?}", trace.response);
    }
    traces
}

#[test]
fn real_problems_go_through_every_step_with_qwens_tokenizer() {
    let Some(data) = data("GSM8K and AIME through sample and evaluate") else { return };
    let place = Place::new();
    random_qwen(&place, &data);
    let first = |file: &str, task: Task, n: usize| {
        let mut problems = read(&data.join(file), Layout::Named(task)).expect(file).problems;
        problems.truncate(n);
        problems
    };
    let (gsm8k, aime) = (first("gsm8k_test.jsonl", Task::Gsm8k, 6), first("aime_2024.jsonl", Task::Aime24, 4));
    let r1 = |q: &str| format!("{q}\nPlease reason step by step, and put your final answer within \\boxed{{}}.");
    let plain = |q: &str| q.to_owned();
    let sample = |task: &str, file: &str, more: &str| {
        let file = data.join(file);
        distill(&place, &data, &format!("sample --teacher qwen --task {task} --problems {} -n 2 --max-tokens 24 {more}", file.display()));
    };
    sample("gsm8k", "gsm8k_test.jsonl", r#"--prompt r1 --limit 6 --set sample.stop=["e"] --out gsm8k"#);
    let traces = check(&place, "gsm8k/traces", &gsm8k, 2, r1, 24);
    assert!(traces.iter().any(|t| t.finish == FinishReason::Stop), "some attempt meets its stop string");
    sample("aime24", "aime_2024.jsonl", r#"--limit 4 --set sample.stop=["e"] --out aime24"#);
    check(&place, "aime24/traces", &aime, 2, plain, 24);

    let ask = r#"evaluate --teacher qwen --student qwen --tasks gsm8k,aime24 --prompt r1 --limit 4 -n 2 --max-tokens 24"#;
    distill(&place, &data, &format!(r#"{ask} --set evaluate.stop=["e"] --out eval"#));
    let report = place.json("eval/report.json");
    let evaluation = report["evaluation"].as_array().expect("a list");
    assert_eq!(evaluation.len(), 4, "{report:#}");
    for (row, (task, model)) in
        evaluation.iter().zip([("gsm8k", "teacher"), ("gsm8k", "student"), ("aime24", "teacher"), ("aime24", "student")])
    {
        assert_eq!((&row["task"], &row["model"]), (&task.into(), &model.into()));
        let folder = format!("eval/evaluation/{model}-{task}");
        let problems = if task == "gsm8k" { &gsm8k[..4] } else { &aime[..4] };
        let traces = check(&place, &format!("{folder}/sampled"), problems, 2, r1, 24);
        check(&place, &format!("{folder}/greedy"), problems, 1, r1, 24);
        let share = |f: &dyn Fn(&Trace) -> bool| traces.iter().filter(|t| f(t)).count() as f64 / traces.len() as f64;
        let expected = json!({
            "problems": 4, "n": 2, "pass_at_1": 0.0, "greedy": 0.0,
            "mean_tokens": traces.iter().map(|t| t.completion_tokens).sum::<usize>() as f64 / traces.len() as f64,
            "truncated": share(&|t| t.finish != FinishReason::Stop),
            "no_answer": share(&|t| matches!(t.verdict, Some(Verdict::NoAnswer { .. }))),
        });
        for (key, value) in expected.as_object().expect("an object") {
            assert_eq!(row[key].as_f64(), value.as_f64(), "{folder}: {key} in {row:#}");
        }
        // None of 4: 1 - 0.025^(1/4).
        let interval: [f64; 2] = serde_json::from_value(row["ci95"].clone()).expect("two numbers");
        assert!(interval[0] == 0.0 && (interval[1] - 0.6024).abs() < 1e-4, "{interval:?}");
        let results = String::from_utf8(place.read(&format!("{folder}/results.jsonl"))).expect("UTF-8");
        let rows: Vec<serde_json::Value> = results.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        let expected: Vec<_> = problems.iter().map(|p| json!({"problem": p.id, "attempts": 2, "correct": 0, "greedy": false})).collect();
        assert_eq!(rows, expected);
    }
    let markdown = String::from_utf8(place.read("eval/report.md")).expect("UTF-8");
    assert!(markdown.contains("gsm8k") && markdown.contains("aime24"), "{markdown}");
}

#[test]
fn gsm8ks_own_solutions_are_all_kept() {
    let Some(data) = data("GSM8K's reference solutions through filter") else { return };
    let place = Place::new();
    let path = data.join("gsm8k_test.jsonl");
    let problems = read(&path, Layout::Named(Task::Gsm8k)).expect("readable").problems;
    let text = std::fs::read_to_string(&path).expect("readable");
    let solutions =
        text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).expect("JSON")["solution"].as_str().expect("text").to_owned());
    let mut lines = String::new();
    for (problem, solution) in problems.iter().zip(solutions) {
        lines += &serde_json::to_string(&solved(problem, solution)).expect("a trace is JSON");
        lines.push('\n');
    }
    place.write("solutions.jsonl", lines);
    let done = place.distill("filter solutions.jsonl --out kept --json").ok().json();
    assert_eq!((&done["counts"]["kept"], &done["counts"]["dropped"]), (&1319.into(), &0.into()), "{done:#}");
    let kept: std::collections::BTreeSet<String> = place.traces("kept/corpus").into_iter().map(|t| t.id).collect();
    assert_eq!(kept, problems.iter().map(|p| format!("{}#0", p.id)).collect());
}

/// A reference solution as an attempt, judged by the rules that judge a model's.
fn solved(problem: &Problem, solution: String) -> Trace {
    let verdict = Rules::new(Extraction::Strict).judge(problem, &Response::parse(&solution));
    Trace {
        id: Trace::id_of(&problem.id, 0),
        problem: problem.id.clone(),
        attempt: 0,
        task: problem.task.clone(),
        question: problem.question.clone(),
        gold: problem.answer.gold(),
        messages: vec![Message::user(&problem.question), Message::assistant(&solution)],
        answer: verdict.answer().map(str::to_owned),
        verdict: Some(verdict),
        rewards: serde_json::Map::new(),
        prompt_tokens: 0,
        completion_tokens: 0,
        finish: FinishReason::Stop,
        logprob: None,
        language: LanguageShare { target: Language::En, share: 1.0 },
        source: 0,
        attempts: None,
        passes: None,
        other: serde_json::Map::new(),
        response: solution,
    }
}
