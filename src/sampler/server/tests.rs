//! A server on this machine that behaves as its script says, and what the sampler makes of it.

use super::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A request as the server has read it.
#[derive(Clone, Debug)]
struct Asked {
    path: String,
    key: Option<String>,
    body: Value,
    at: Instant,
}

/// What the server does with one.
#[derive(Clone)]
enum Reply {
    /// A completion of the prompt.
    Answer,
    Status(u16, &'static str, String),
    /// Status 200 with this body.
    Body(String),
    /// The connection is closed in the middle of the answer.
    Cut,
    /// A byte now and then.
    Drip,
    /// Nothing, ever.
    Hang,
}

type Script = dyn Fn(usize, &Asked) -> Reply + Send + Sync;

/// Serves until the process ends; gives the address and what was asked.
fn serve(script: impl Fn(usize, &Asked) -> Reply + Send + Sync + 'static) -> (String, Arc<Mutex<Vec<Asked>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/v1", listener.local_addr().unwrap());
    let log = Arc::new(Mutex::new(Vec::new()));
    let (shared, script): (_, Arc<Script>) = (log.clone(), Arc::new(script));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (log, script) = (shared.clone(), script.clone());
            std::thread::spawn(move || answer(stream, &log, &*script));
        }
    });
    (address, log)
}

fn answer(mut stream: TcpStream, log: &Mutex<Vec<Asked>>, script: &Script) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut length, mut key) = (0, None);
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        match line.trim().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().ok()?,
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => key = Some(value.to_owned()),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let asked = Asked { path, key, body: serde_json::from_slice(&body).unwrap_or_default(), at: Instant::now() };
    let n = {
        let mut log = log.lock().unwrap();
        log.push(asked.clone());
        log.len() - 1
    };
    let head = |status: u16, more: &str, length: usize| {
        format!("HTTP/1.1 {status} X\r\n{more}Content-Length: {length}\r\nConnection: close\r\n\r\n")
    };
    match script(n, &asked) {
        Reply::Answer => {
            let text = completion(&asked.body).to_string();
            write!(stream, "{}{text}", head(200, "", text.len())).ok()
        }
        Reply::Body(text) => write!(stream, "{}{text}", head(200, "", text.len())).ok(),
        Reply::Status(status, more, text) => write!(stream, "{}{text}", head(status, more, text.len())).ok(),
        Reply::Cut => write!(stream, "{}{{\"choices\": [", head(200, "", 1000)).ok(),
        Reply::Drip => {
            write!(stream, "{}", head(200, "", 1_000_000)).ok()?;
            loop {
                stream.write_all(b" ").ok()?;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Reply::Hang => {
            std::thread::sleep(Duration::from_secs(60));
            None
        }
    }
}

/// Text that names its prompt and seed, so that a mixed-up answer shows.
fn completion(asked: &Value) -> Value {
    let prompt = asked["prompt"].as_str().or(asked["messages"][0]["content"].as_str()).unwrap_or_default();
    let text = format!("{prompt}/{}", asked["seed"]);
    let message = json!({"role": "assistant", "content": text});
    json!({
        "choices": [{"index": 0, "message": message, "text": text, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 5},
    })
}

fn quick() -> Patience {
    let ms = Duration::from_millis;
    Patience { requests: 8, request: ms(1500), silence: ms(5000), pause: ms(4), tries: 6 }
}

fn sampler(base: &str, patience: Patience) -> ServerSampler {
    let endpoint = Endpoint { base: base.into(), model: "m".into(), api: Api::Chat };
    ServerSampler { variable: |_| None, ..ServerSampler::new(endpoint, patience).unwrap() }
}

fn prompts(n: usize) -> Vec<Arc<Prompt>> {
    let prompt = |index| Prompt {
        index,
        name: format!("p{index}"),
        text: format!("question {index}"),
        tokens: Vec::new(),
        key: Key::new(1, "s").number(index as u64),
    };
    (0..n).map(|index| Arc::new(prompt(index))).collect()
}

/// All attempts by (prompt, attempt), and how the run ended.
fn run(sampler: &mut ServerSampler, params: &SamplingParams, n: usize, attempts: u32) -> (BTreeMap<(usize, u32), Attempt>, Result<()>) {
    let prompts = prompts(n);
    let mut asks = prompts.iter().flat_map(|p| (0..attempts).map(move |a| (p.clone(), a)));
    let mut found = BTreeMap::new();
    let result = sampler.run(
        params,
        &mut || Ok(asks.next().map_or(Next::End, |(prompt, attempt)| Next::Request { prompt, attempt })),
        &mut |attempt| {
            assert!(found.insert((attempt.prompt.index, attempt.attempt), attempt).is_none(), "an attempt came twice");
            Ok(())
        },
    );
    (found, result)
}

/// Every attempt is there, with the answer to its own prompt and seed.
fn assert_all(found: &BTreeMap<(usize, u32), Attempt>, n: usize, attempts: u32) {
    assert_eq!(found.len(), n * attempts as usize);
    for ((index, attempt), got) in found {
        let seed = seed(got.prompt.key.number(u64::from(*attempt)));
        assert_eq!(got.served.as_ref().unwrap().text, format!("question {index}/{seed}"));
    }
}

#[test]
fn every_attempt_comes_once_under_a_seed_of_its_own() {
    let (address, log) = serve(|_, _| Reply::Answer);
    let params = SamplingParams { top_p: 0.9, stop: vec!["END".into()], ..SamplingParams::at(0.7, 64) };
    let mut sampler =
        ServerSampler { variable: |name| (name == "DISTILL_API_KEY").then(|| "secret\n".into()), ..sampler(&address, quick()) };
    let (found, result) = run(&mut sampler, &params, 20, 3);
    result.unwrap();
    assert_all(&found, 20, 3);
    assert_eq!(sampler.usage(), Usage { prefilled: 180, steps: 60, sampled: 300, ..Usage::default() });
    let asked = log.lock().unwrap().clone();
    let seeds: BTreeSet<u64> = asked.iter().map(|a| a.body["seed"].as_u64().unwrap()).collect();
    assert_eq!((asked.len(), seeds.len()), (60, 60));
    for a in &asked {
        assert_eq!((a.path.as_str(), a.key.as_deref()), ("/v1/chat/completions", Some("Bearer secret")));
        let mut body = a.body.clone();
        body.as_object_mut().unwrap().retain(|key, _| key != "seed" && key != "messages");
        let expected = json!({
            "model": "m", "n": 1, "temperature": 0.7, "top_p": 0.9, "max_tokens": 64, "stream": false, "stop": ["END"],
            "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0,
        });
        assert_eq!(body, expected);
    }
    run(&mut sampler, &params, 20, 3).1.unwrap();
    assert_eq!(log.lock().unwrap()[60..].iter().map(|a| a.body["seed"].as_u64().unwrap()).collect::<BTreeSet<_>>(), seeds);
}

#[test]
fn what_passes_is_tried_again_and_nothing_comes_twice_or_not_at_all() {
    let status = |status, more| Reply::Status(status, more, String::new());
    let no_choices = r#"{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}"#;
    let faults = [
        ("429", status(429, "")),
        ("500", Reply::Status(500, "", "<html>".into())),
        ("503", status(503, "Retry-After: 0\r\n")),
        ("408", status(408, "")),
        ("cut", Reply::Cut),
        ("cut JSON", Reply::Body("{\"choices\": [".into())),
        ("no choices", Reply::Body(no_choices.into())),
        ("hang", Reply::Hang),
    ];
    for (name, fault) in faults {
        // A burst in the middle: one request in eight of those between the 20th and the 60th.
        let (address, log) = serve(move |n, _| if (20..60).contains(&n) && n % 8 == 0 { fault.clone() } else { Reply::Answer });
        let mut sampler = sampler(&address, Patience { request: Duration::from_millis(400), ..quick() });
        let (found, result) = run(&mut sampler, &SamplingParams::at(1.0, 8), 25, 4);
        result.unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert_all(&found, 25, 4);
        assert_eq!(log.lock().unwrap().len(), 105, "{name}: each fault costs one request");
    }
}

#[test]
fn a_server_that_is_down_is_asked_by_one_request_at_a_time() {
    static OPEN: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let (address, log) = serve(|n, _| {
        let open = OPEN.fetch_add(1, Ordering::SeqCst) + 1;
        std::thread::sleep(Duration::from_millis(5));
        // The eight that were under way when it went down are over by then.
        if (25..40).contains(&n) {
            MOST.fetch_max(open, Ordering::SeqCst);
        }
        OPEN.fetch_sub(1, Ordering::SeqCst);
        if (10..40).contains(&n) { Reply::Status(503, "", String::new()) } else { Reply::Answer }
    });
    let mut sampler = sampler(&address, Patience { tries: 40, ..quick() });
    let (found, result) = run(&mut sampler, &SamplingParams::at(1.0, 8), 25, 4);
    result.unwrap();
    assert_all(&found, 25, 4);
    assert_eq!(log.lock().unwrap().len(), 130);
    assert_eq!(MOST.load(Ordering::SeqCst), 1);
}

#[test]
fn retry_after_is_honoured() {
    let (address, log) = serve(|n, _| if n == 0 { Reply::Status(429, "Retry-After: 1\r\n", String::new()) } else { Reply::Answer });
    let mut sampler = sampler(&address, Patience { requests: 1, ..quick() });
    run(&mut sampler, &SamplingParams::at(1.0, 8), 2, 1).1.unwrap();
    let asked = log.lock().unwrap().clone();
    assert!(asked.len() == 3 && asked[1].at - asked[0].at >= Duration::from_secs(1), "{asked:?}");
}

#[test]
fn waits_are_keyed_and_bounded() {
    let (pause, key) = (Duration::from_secs(1), Key::new(3, "x"));
    let waits: Vec<Duration> = (1..20).map(|tries| wait(pause, key, tries, None)).collect();
    assert_eq!(waits, (1..20).map(|tries| wait(pause, key, tries, None)).collect::<Vec<_>>());
    assert_ne!(wait(pause, key, 1, None), wait(pause, Key::new(4, "x"), 1, None));
    assert!(waits.iter().zip(0..).all(|(wait, i)| *wait <= pause * 2u32.pow(i.min(6)) && *wait <= LONGEST_PAUSE));
    assert!(wait(pause, key, 1, Some(Duration::from_secs(7))) >= Duration::from_secs(7));
    assert!(wait(pause, key, 1, Some(Duration::from_secs(u64::from(u32::MAX)))) <= Duration::from_secs(601));
}

#[test]
fn what_never_passes_is_given_up_for_now_within_its_time() {
    let closed = "http://127.0.0.1:9/v1".to_owned();
    let served = |reply: fn() -> Reply| serve(move |_, _| reply()).0;
    for (address, expected) in [
        (closed, "does not answer"),
        (served(|| Reply::Hang), "does not answer (timeout"),
        (served(|| Reply::Drip), "does not answer (timeout"),
        (served(|| Reply::Status(500, "", r#"{"error": {"message": "out of memory"}}"#.into())), "answered 500 (out of memory)"),
    ] {
        let begin = Instant::now();
        let patience = Patience { request: Duration::from_millis(200), silence: Duration::from_millis(800), ..quick() };
        let error = run(&mut sampler(&address, patience), &SamplingParams::at(1.0, 8), 10, 1).1.unwrap_err();
        assert!(error.is::<Temporary>(), "{error:#}");
        let text = format!("{error:#}");
        assert!(text.contains(expected) && text.contains("(problem p"), "{text}");
        assert!(begin.elapsed() < Duration::from_secs(5), "{expected}: {:?}", begin.elapsed());
    }
}

#[test]
fn what_will_not_pass_is_refused_at_once_and_no_key_is_told() {
    const KEY: &str = "sk-very-secret";
    let keyed: fn(&str) -> Option<String> = |name| (name == "OPENAI_API_KEY").then(|| KEY.into());
    let unkeyed: fn(&str) -> Option<String> = |_| None;
    let status = |status: u16, text: &str| Reply::Status(status, "", text.into());
    let repeated = r#"{"error": {"message": "no: sk-very-secret", "code": "x"}}"#;
    let cases = [
        (status(401, repeated), unkeyed, "wants a key (401); set DISTILL_API_KEY", 1),
        (status(401, repeated), keyed, "does not take the key in DISTILL_API_KEY or OPENAI_API_KEY (401)", 1),
        (status(400, repeated), keyed, "refuses the request (400): no: …", 1),
        (status(404, "nothing here"), unkeyed, "it often ends in /v1", 1),
        (status(404, r#"{"message": "the model m does not exist"}"#), unkeyed, "refuses model \"m\" (404): the model m does", 1),
        (Reply::Status(307, "Location: http://127.0.0.1:9/\r\n", String::new()), keyed, "a redirect", 1),
        (Reply::Body("<html>Welcome</html>".into()), unkeyed, "is not the API's: it is no such JSON", 3),
        (Reply::Body("[".repeat(1 << 16)), unkeyed, "is not the API's: it is no such JSON", 3),
        (Reply::Body("x".repeat(2 << 20)), unkeyed, "it has more than", 3),
        (status(400, "logprobs"), unkeyed, "refuses the request (400): logprobs", 2),
    ];
    for (reply, variable, expected, requests) in cases {
        let (address, log) = serve(move |_, _| reply.clone());
        let mut sampler = ServerSampler { variable, ..sampler(&address, Patience { requests: 1, ..quick() }) };
        let error = run(&mut sampler, &SamplingParams::at(1.0, 8), 10, 1).1.unwrap_err();
        assert!(error.is::<Refused>(), "{error:#}");
        let text = format!("{error:#}");
        assert!(text.contains(expected) && !text.contains(KEY), "{expected}: {text}");
        assert_eq!(log.lock().unwrap().len(), requests, "{expected}");
    }
    let odd = |_: &str| Some("a\nb".into());
    let mut sampler = ServerSampler { variable: odd, ..sampler("http://127.0.0.1:9/v1", quick()) };
    let error = run(&mut sampler, &SamplingParams::at(1.0, 8), 1, 1).1.unwrap_err();
    assert!(error.is::<Refused>() && !format!("{error:?}").contains("a\\nb"), "{error:?}");
}

#[test]
fn keys_that_a_server_does_not_know_are_left_out_where_nobody_asked_for_them() {
    let strict = |_: usize, asked: &Asked| {
        let known = |key: &str| asked.body.get(key).is_none();
        match ["top_k", "logprobs"].into_iter().find(|key| !known(key)) {
            Some(key) => Reply::Status(400, "", format!(r#"{{"error": {{"message": "Unrecognized request argument supplied: {key}"}}}}"#)),
            None => Reply::Answer,
        }
    };
    let (address, log) = serve(strict);
    let mut sampler = sampler(&address, quick());
    let (found, result) = run(&mut sampler, &SamplingParams::at(1.0, 8), 30, 1);
    result.unwrap();
    assert_all(&found, 30, 1);
    assert!(log.lock().unwrap().len() <= 30 + 2 * quick().requests);
    assert_eq!(sampler.remarks().len(), 2);
    let params = SamplingParams { top_k: 5, ..SamplingParams::at(1.0, 8) };
    let error = run(&mut sampler, &params, 1, 1).1.unwrap_err();
    assert!(error.is::<Refused>() && format!("{error:#}").contains("top_k"), "{error:#}");
}

#[test]
fn a_prompt_that_is_too_long_overflows_and_the_others_go_on() {
    let vllm = r#"{"object": "error", "message": "This model's maximum context length is 64 tokens.", "code": 400}"#;
    for text in
        [r#"{"error": {"code": 400, "type": "exceed_context_size_error"}}"#, r#"{"error": {"code": "context_length_exceeded"}}"#, vllm]
    {
        let (address, _) = serve(move |_, asked| match asked.body["messages"][0]["content"].as_str() {
            Some("question 3") => Reply::Status(400, "", text.into()),
            _ => Reply::Answer,
        });
        let (found, result) = run(&mut sampler(&address, quick()), &SamplingParams::at(1.0, 8), 6, 1);
        result.unwrap();
        let over: Vec<usize> = found.values().filter(|a| a.completion.finish == FinishReason::Overflow).map(|a| a.prompt.index).collect();
        assert_eq!((found.len(), over), (6, vec![3]), "{text}");
    }
}

#[test]
fn a_wish_to_stop_cuts_requests_off_and_keeps_what_came() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let (address, _) = serve(|n, _| if n < 4 { Reply::Answer } else { Reply::Hang });
    let mut sampler = sampler(&address, Patience { request: Duration::from_secs(60), ..quick() });
    sampler.stop_when(|| STOP.load(Ordering::SeqCst));
    let begin = Instant::now();
    let (found, result) = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            STOP.store(true, Ordering::SeqCst);
        });
        run(&mut sampler, &SamplingParams::at(1.0, 8), 10, 1)
    });
    result.unwrap();
    assert_eq!(found.len(), 4);
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_server_is_asked_for_its_models_before_any_work() {
    let list = r#"{"object": "list", "data": [{"id": "other"}, {"id": "m", "max_model_len": 4096}]}"#;
    for (reply, expected) in [
        (Reply::Body(list.into()), Ok(Some(4096))),
        (Reply::Body(r#"{"data": [{"id": "x", "aliases": ["m"]}]}"#.into()), Ok(None)),
        (Reply::Body(r#"{"data": [{"id": "a"}, {"id": "b"}]}"#.into()), Err("has no model \"m\"; it lists a, b")),
        (Reply::Body("hello".into()), Ok(None)),
        (Reply::Status(404, "", String::new()), Ok(None)),
        (Reply::Status(401, "", String::new()), Err("wants a key (401)")),
        (Reply::Status(503, "", "loading".into()), Err("answered 503 (loading); start the server")),
    ] {
        let (address, log) = serve(move |_, _| reply.clone());
        let found = sampler(&address, quick()).check();
        assert_eq!(log.lock().unwrap()[0].path, "/v1/models");
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(error), Err(expected)) => assert!(format!("{error:#}").contains(expected), "{expected}: {error:#}"),
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }
}

#[test]
fn an_address_with_a_password_is_refused_without_repeating_it() {
    for (url, fits) in [
        ("http://host:8000/v1", true),
        ("https://api.host/v1/", true),
        ("http://user:word@host/v1", false),
        ("http://host/v1?key=word", false),
        ("http:///v1", false),
        ("http://a b/", false),
    ] {
        let found = check_url(url);
        assert_eq!(found.is_ok(), fits, "{url}");
        assert!(found.err().is_none_or(|error| !format!("{error:?}").contains("word@") && !format!("{error:?}").contains("key=")));
    }
}

/// `DISTILL_TEST_SERVER=http://host:port/v1` with `DISTILL_TEST_MODEL`: a real server keeps to the protocol as we understand it; its context is
/// to be shorter than 2,000 words.
#[test]
fn a_real_server_answers_as_it_is_understood() {
    let (Some(base), Some(model)) = (environment("DISTILL_TEST_SERVER"), environment("DISTILL_TEST_MODEL")) else {
        eprintln!("skipped: DISTILL_TEST_SERVER and DISTILL_TEST_MODEL name no server");
        return;
    };
    for api in [Api::Chat, Api::Completion] {
        let endpoint = Endpoint { base: base.clone(), model: model.clone(), api };
        let mut sampler = ServerSampler::new(endpoint, Patience { requests: 4, ..Patience::default() }).unwrap();
        sampler.check().unwrap();
        let params = SamplingParams::at(1.0, 2);
        let (found, result) = run(&mut sampler, &params, 6, 3);
        result.unwrap();
        assert_eq!(found.len(), 18);
        let served = || found.values().filter_map(|a| a.served.as_ref());
        assert!(served().all(|s| s.prompt_tokens > 0 && (1..=2).contains(&s.completion_tokens)));
        assert!(found.values().all(|a| a.completion.finish != FinishReason::Overflow));
        let with = served().filter(|s| s.logprob.is_some()).count();
        let (again, _) = run(&mut sampler, &params, 6, 3);
        let same = found.iter().filter(|(key, a)| again.get(*key).is_some_and(|b| a.served == b.served)).count();
        eprintln!("{api:?}: 18 attempts, {with} with log-probabilities, {same} the same under the same seed, {:?}", sampler.remarks());
        let long =
            Arc::new(Prompt { index: 0, name: "long".into(), text: "word ".repeat(2_000), tokens: Vec::new(), key: Key::new(0, "x") });
        let (mut asks, mut finish) = (1, None);
        let next = &mut || {
            asks -= 1;
            Ok(if asks == 0 { Next::Request { prompt: long.clone(), attempt: 0 } } else { Next::End })
        };
        sampler
            .run(&params, next, &mut |attempt| {
                finish = Some(attempt.completion.finish);
                Ok(())
            })
            .unwrap();
        assert_eq!(finish, Some(FinishReason::Overflow));
        let unknown = Endpoint { base: base.clone(), model: "no-such-model".into(), api };
        assert!(ServerSampler::new(unknown, Patience::default()).unwrap().check().unwrap_err().is::<Refused>());
    }
}
