//! A teacher behind an OpenAI-compatible server: the same as one in this process, as far as a run directory can tell.

use super::fixture::Place;
use distill::trace::FinishReason;
use expect_test::expect;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const KEY: &str = "sk-test-secret";

/// A server that boxes 4, whatever it is asked; as a judge it finds every answer correct.
#[derive(Default)]
struct Server {
    /// Bodies of the requests for completions, and whether each was answered.
    asked: Vec<(Value, bool)>,
    keys: BTreeSet<String>,
    /// Completions to give; the rest waits for ever.
    answers: usize,
}

fn serve(answers: usize) -> (String, Arc<Mutex<Server>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}/v1", listener.local_addr().expect("an address"));
    let server = Arc::new(Mutex::new(Server { answers, ..Server::default() }));
    let shared = server.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let server = shared.clone();
            std::thread::spawn(move || answer(stream, &server));
        }
    });
    (address, server)
}

fn answer(mut stream: TcpStream, server: &Mutex<Server>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let is_list = line.starts_with("GET /v1/models ");
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        match line.trim().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().ok()?,
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                server.lock().ok()?.keys.insert(value.to_owned());
            }
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let reply = if is_list {
        json!({"data": [{"id": "teacher-7b", "max_model_len": 4096}, {"id": "other"}]})
    } else {
        let asked: Value = serde_json::from_slice(&body).ok()?;
        let mut server = server.lock().ok()?;
        let is_answered = server.asked.iter().filter(|(_, answered)| *answered).count() < server.answers;
        server.asked.push((asked, is_answered));
        if !is_answered {
            drop(server);
            std::thread::sleep(Duration::from_secs(120));
            return None;
        }
        let body = server.asked.last()?.0.to_string();
        let content = if body.contains("[reference ") {
            r#"{"analysis": "as I see it", "verdict": "correct"}"#
        } else if body.contains("[answer ") {
            // Of answers it likes those whose prompts have an even length.
            ["{\"score\": 8}", "{\"score\": 3}"][body.len() % 2]
        } else {
            "<think>\n2 and 2 is 4.\n</think>\nIt is \\boxed{4}."
        };
        let message = json!({"role": "assistant", "content": content});
        json!({
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 11},
        })
    };
    let text = reply.to_string();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len()).ok()
}

/// Twelve questions, of which every third has the answer 4.
fn with_problems() -> Place {
    let place = Place::new();
    let row =
        |i: usize| json!({"question": format!("Question {i}?"), "answer": if i.is_multiple_of(3) { "4" } else { "5" }}).to_string() + "\n";
    place.write("p.jsonl", (0..12).map(row).collect::<String>());
    place
}

fn ask(address: &str, more: &str) -> String {
    format!("sample --teacher {address} --problems p.jsonl --verify number -n 2 --max-tokens 64 --out out {more}")
}

#[test]
fn a_teacher_behind_a_server_is_sampled_verified_and_filtered() {
    let (place, (address, server)) = (with_problems(), serve(usize::MAX));
    let args = ask(&address, "--teacher-model teacher-7b --verbose");
    let run = place.output(&args, place.command().args(args.split_whitespace()).env("DISTILL_API_KEY", KEY)).ok();
    let traces = place.traces("out/traces");
    assert_eq!((traces.len(), traces.iter().filter(|t| t.is_correct()).count()), (24, 8));
    for trace in &traces {
        assert_eq!((trace.prompt_tokens, trace.completion_tokens, trace.finish, trace.logprob), (7, 11, FinishReason::Stop, None));
        assert_eq!((trace.messages.len(), trace.answer.as_deref()), (2, Some("4")));
    }
    let manifest = place.json("out/traces/manifest.json");
    assert_eq!((&manifest["sources"][0]["model"], &manifest["sources"][0]["weights_hash"]), (&json!("teacher-7b"), &Value::Null));
    assert_eq!(manifest["sources"][0]["sampling"]["server"], json!({"api": "chat"}));
    assert!(!place.path("out/traces/00000.tokens.zst").exists());
    let asked = server.lock().expect("a lock").asked.clone();
    let seeds: BTreeSet<u64> = asked.iter().filter_map(|(body, _)| body["seed"].as_u64()).collect();
    assert_eq!((asked.len(), seeds.len()), (24, 24));
    assert_eq!(server.lock().expect("a lock").keys, BTreeSet::from([format!("Bearer {KEY}")]));
    for (path, _) in
        place.written("out", "DONE").into_iter().chain(place.written("out", "recipe.toml")).chain(place.written("out", "manifest.json"))
    {
        assert!(!std::fs::read_to_string(&path).expect("text").contains(KEY), "{}", path.display());
    }
    assert!(!format!("{run:?}").contains(KEY) && !manifest.to_string().contains("127.0.0.1"));
    place.distill("filter out --run kept").ok();
    assert_eq!(place.traces("kept/corpus").len(), 4, "exact duplicates are left out");
}

#[test]
fn after_a_kill_nothing_that_was_answered_is_asked_again_wherever_the_server_stands_now() {
    let (place, (first, before)) = (with_problems(), serve(10));
    let more = "--teacher-model teacher-7b --set execution.requests=4";
    let mut child = place.command().args(ask(&first, more).split_whitespace()).stderr(Stdio::null()).spawn().expect("the program starts");
    // The 14th request is sent when the ten answers are in the journal, and four requests are under way.
    while before.lock().expect("a lock").asked.len() < 14 {
        assert!(child.try_wait().expect("a child").is_none(), "it ended early");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("it is killed");
    child.wait().expect("it has ended");
    let (second, after) = serve(usize::MAX);
    place.distill(&ask(&second, more)).ok();
    let name = |body: &Value| (body["messages"][0]["content"].as_str().map(str::to_owned), body["seed"].as_u64());
    let answered: BTreeSet<_> = before.lock().expect("a lock").asked.iter().filter(|a| a.1).map(|a| name(&a.0)).collect();
    let again: BTreeSet<_> = after.lock().expect("a lock").asked.iter().map(|a| name(&a.0)).collect();
    assert_eq!((answered.len(), again.len(), answered.intersection(&again).count()), (10, 14, 0));
    let whole = with_problems();
    whole.distill(&ask(&second, more)).ok();
    assert_eq!(place.lines("out/traces"), whole.lines("out/traces"));
    let seen = after.lock().expect("a lock").asked.len();
    place.distill(&ask("http://127.0.0.1:9/v1", more)).ok();
    assert_eq!(after.lock().expect("a lock").asked.len(), seen, "what is done asks nobody");
    place.distill(&ask(&second, "--teacher-model other")).fails(expect![[r#"
        78: error: out was begun with another recipe; these keys change what its results mean:
          teacher.name: "teacher-7b" -> "other"
        choose another --run, or --force to move what they reach to out/superseded
    "#]]);
}

#[test]
fn a_judges_score_is_the_reward_of_problems_that_no_rule_can_check() {
    let (place, (address, server)) = (Place::new(), serve(usize::MAX));
    let row = |i: usize| json!({"question": format!("What is it like at {i}?")}).to_string() + "\n";
    place.write("open.jsonl", (0..6).map(row).collect::<String>());
    let recipe = "name = \"open\"\n\
         [problems]\nfile = \"open.jsonl\"\nverify = \"judge\"\n[student]\nmodel = \"fresh\"\n\
         shape = { hidden_size = 32, layers = 1, heads = 2, kv_heads = 1, intermediate_size = 64, positions = 128 }\n[[student.phase]]\nmethod = \"grpo\"\nreward = \"judge\"\nsteps = 2\nprompts_per_step = 3\n\
         num_generations = 4\nlearning_rate = 1e-3\nmax_tokens = 16\n";
    place.write("without.toml", recipe);
    place.distill("run without.toml --run out").fails(expect![[r#"
        78: error: without.toml: [judge] is missing: which model's opinion is the reward?
    "#]]);
    place.write("rule.toml", recipe.replace("verify = \"judge\"", "verify = \"number\""));
    place.distill("run rule.toml --run out").fails(expect![[r#"
        78: error: rule.toml: reward = "judge" is for problems that no rule can check: problems.verify must be "judge"
    "#]]);
    place.write("open.toml", format!("{recipe}[judge]\nmodel = \"{address}\"\nname = \"other\"\nvotes = 2\n"));
    place.distill("run open.toml --run out").ok();
    let rollouts = place.traces("out/student/grpo/rollouts");
    assert_eq!((rollouts.len(), server.lock().expect("a lock").asked.len()), (24, 48));
    for trace in &rollouts {
        let score = trace.other["judge"]["score"].as_f64().expect("a score");
        assert_eq!((&trace.verdict, trace.rewards["judge"].as_f64(), trace.reward()), (&None, Some(score), score));
        assert!([0.3, 0.55, 0.8].iter().any(|s| (score - s).abs() < 1e-9), "{score}");
    }
    let done = place.json("out/student/grpo/DONE");
    assert_eq!(done["counts"]["judge"], json!({"requests": 48, "prompt_tokens": 48 * 7, "completion_tokens": 48 * 11}));
    let metrics = String::from_utf8(place.read("out/student/grpo/metrics.jsonl")).expect("text");
    assert!(metrics.lines().all(|line| line.contains("\"judge\":[")), "{metrics}");
    place.distill("run open.toml --run out").ok();
    assert_eq!(server.lock().expect("a lock").asked.len(), 48, "what is done asks nobody");
}

#[test]
fn a_judge_stands_beside_the_rules_and_its_error_is_measured() {
    let (place, (address, server)) = (with_problems(), serve(usize::MAX));
    place.distill(&ask(&address, "--teacher-model teacher-7b")).ok();
    let before = place.lines("out/traces");
    let judge = format!("judge out --judge {address} --judge-model other --votes 3 --limit 20 --run judged --json");
    let done = place.distill(&judge).ok().json();
    let judged = place.traces("judged/judged");
    assert_eq!((judged.len(), server.lock().expect("a lock").asked.len()), (20, 24 + 60));
    let right = judged.iter().filter(|t| t.is_correct()).count() as u64;
    let agreement = &done["counts"]["agreement"];
    assert_eq!((&agreement["counts"]["both_correct"], &agreement["counts"]["judge_only"]), (&json!(right), &json!(20 - right)));
    assert_eq!(
        (agreement["share"].as_f64(), agreement["kappa"].as_f64()),
        (Some(right as f64 / 20.0), Some(0.0)),
        "it always says the same"
    );
    assert_eq!(done["counts"]["cost"], json!({"requests": 60, "prompt_tokens": 420, "completion_tokens": 660}));
    for trace in &judged {
        let opinion = &trace.other["judge"];
        assert_eq!((&opinion["verdict"], &opinion["votes"], &opinion["analysis"]), (&json!(true), &json!(3), &json!("as I see it")));
        assert!(!trace.rewards.contains_key("judge"), "rules have judged it");
    }
    assert_eq!(place.lines("out/traces"), before, "the rules' verdicts are as they were");
    assert_eq!(place.json("judged/judged/manifest.json")["sources"][0]["sampling"]["judge"], json!({"model": "other", "votes": 3}));
    place.distill(&judge).ok();
    assert_eq!(server.lock().expect("a lock").asked.len(), 24 + 60, "what is judged costs nothing again");
    let whole =
        format!("run tiny.toml --run run --set judge.model={address} --set judge.name=other --set judge.traces=5 --set judge.votes=1");
    place.distill(&whole).ok();
    let report = String::from_utf8(place.read("run/report.md")).expect("UTF-8");
    assert!(report.contains("## A model as judge\n\n- 5 traces judged, 5 requests, 35 tokens of prompts and 55 of replies\n"), "{report}");
    assert_eq!(place.json("run/report.json")["judge"]["cost"]["requests"], json!(5));
}

#[test]
fn what_a_server_cannot_do_is_said_with_the_remedy() {
    let (address, _) = serve(0);
    let said = |more: &str| {
        let out = with_problems().distill(&ask(&address, more));
        format!("{}: {}", out.code.unwrap_or(-1), out.stderr.replace(&address, "ADDRESS"))
    };
    expect![[r#"
        78: error: --teacher-model: teacher.name is missing: which of the server's models?
    "#]]
    .assert_eq(&said(""));
    expect![[r#"
        78: error: ADDRESS has no model "mine"; it lists teacher-7b, other
    "#]]
    .assert_eq(&said("--teacher-model mine"));
    expect![[r#"
        78: error: max_tokens 8192 leaves no room for a prompt in the model's 4096 positions (max_position_embeddings)
    "#]]
    .assert_eq(&said("--teacher-model teacher-7b --set sample.max_tokens=8192"));
    expect![[r#"
        78: error: --prompt: sample.prompt: it opens the response, which a chat with a server cannot; take plain or r1, or teacher.api = "completion"
    "#]]
    .assert_eq(&said("--teacher-model teacher-7b --prompt r1-zero"));
    let place = with_problems();
    let closed = ask("http://127.0.0.1:9/v1", "--teacher-model x");
    let out = place.distill(&closed).exits(75);
    assert!(out.stderr.contains("http://127.0.0.1:9/v1 does not answer"), "{out:?}");
    let secret = place.distill(&ask("http://user:word@host/v1", "--teacher-model x")).exits(78);
    assert!(secret.stderr.contains("without a name or password") && !secret.stderr.contains("word@"), "{secret:?}");
}
