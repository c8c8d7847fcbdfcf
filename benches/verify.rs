//! Pairs of reference and answer that the judge compares per second and thread, and how long the slowest takes.
//!
//!     cargo bench --bench verify -- [FILTER] [--seconds N] [--threads N] [--cases FILE]      FILTER: mixed, gsm8k, short
//!
//! mixed: the committed cases of `src/verify/math/cases.jsonl`, or those of FILE. gsm8k: whole solutions that end in `#### n` or in a box, from
//! `DISTILL_DATA`, else from `data/samples`; short: their last line alone. One JSON line each; with `PEER_PYTHON` (a Python with
//! `benches/peer/requirements.txt`) the peer's line for the same cases follows in the same run.

use distill::problem::{Answer, Language, Problem, ProblemId};
use distill::response::Response;
use distill::verify::{Extraction, Rules, compare};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Pair {
    problem: Problem,
    text: String,
    response: bool,
}

fn pair(gold: &str, text: String, response: bool) -> Pair {
    let answer = distill::tasks::Check::Math.answer(gold).unwrap_or(Answer::Math { text: gold.to_owned() });
    let problem = Problem {
        id: ProblemId("pair".into()),
        task: "pair".into(),
        question: String::new(),
        answer: if response { answer } else { Answer::Math { text: gold.to_owned() } },
        language: Language::En,
        level: None,
    };
    Pair { problem, text, response }
}

fn mixed(file: Option<&PathBuf>) -> Vec<Pair> {
    let own = include_str!("../src/verify/math/cases.jsonl").to_owned();
    let text = file.map_or(own, |file| std::fs::read_to_string(file).expect("the cases can be read"));
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    let field = |row: &Value, name: &str| row[name].as_str().expect("text").to_owned();
    rows.map(|row| pair(&field(&row, "gold"), field(&row, "pred"), row["pred_kind"] == "response")).collect()
}

/// References and solutions of GSM8K's form.
fn solutions() -> Vec<(String, String)> {
    let own = || include_str!("../data/samples/gsm8k.jsonl").to_owned();
    let text =
        std::env::var("DISTILL_DATA").ok().and_then(|d| std::fs::read_to_string(format!("{d}/gsm8k_test.jsonl")).ok()).unwrap_or_else(own);
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    rows.filter_map(|row| {
        let text = |name: &str| row.get(name)?.as_str().map(str::to_owned);
        let gold = text("answer")?.replace(',', "");
        let solution = text("solution").or_else(|| Some(format!("{}\n#### {gold}", text("problem")?)))?;
        Some((gold, solution))
    })
    .collect()
}

fn gsm8k(short: bool) -> Vec<Pair> {
    let pairs = solutions().into_iter().enumerate().map(|(i, (gold, solution))| {
        let body = if short { "" } else { solution.rsplit_once("####").map_or("", |(body, _)| body) };
        let end = if i % 2 == 0 { format!("#### {gold}") } else { format!("So the answer is \\boxed{{{gold}}}.") };
        pair(&gold, format!("{body}{end}"), true)
    });
    pairs.collect()
}

fn judge(pair: &Pair) -> bool {
    if pair.response {
        Rules::new(Extraction::Flexible).judge(&pair.problem, &Response::parse(&pair.text)).is_correct()
    } else {
        compare(&pair.problem.answer.gold(), &pair.text) == distill::verify::math::Outcome::Equal
    }
}

/// Nanoseconds that this thread has computed; wall time where Linux does not say.
fn computed(begin: Instant) -> f64 {
    let line = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    line.and_then(|line| line.split(' ').next()?.parse::<f64>().ok()).map_or(begin.elapsed().as_secs_f64() * 1e9, |n| n)
}

/// Pairs per second of the wall and of the threads' own time, over whole passes for at least `seconds`.
fn measure(name: &str, pairs: &[Pair], threads: usize, seconds: u64) {
    let right = pairs.iter().filter(|pair| judge(pair)).count(); // and everything is warm
    let slowest = pairs.iter().map(|pair| {
        let begin = Instant::now();
        judge(pair);
        begin.elapsed()
    });
    let slowest = slowest.max().unwrap_or_default();
    let begin = Instant::now();
    let done: Vec<(usize, f64)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let (mut n, start) = (0, Instant::now());
                    let before = computed(start);
                    while start.elapsed() < Duration::from_secs(seconds) {
                        pairs.iter().for_each(|pair| {
                            std::hint::black_box(judge(pair));
                        });
                        n += pairs.len();
                    }
                    (n, (computed(start) - before) / 1e9)
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a judge does not panic")).collect()
    });
    let wall = begin.elapsed().as_secs_f64();
    let n: usize = done.iter().map(|(n, _)| n).sum();
    let own: f64 = done.iter().map(|(_, own)| own).sum();
    let line = json!({"peer": "distill", "what": name, "threads": threads, "pairs": pairs.len(), "right": right, "pairs_per_s": (n as f64 / wall).round(),
        "pairs_per_cpu_s": (n as f64 / own).round(), "slowest_ms": (slowest.as_secs_f64() * 1e5).round() / 100.0});
    println!("{line}");
}

fn main() {
    let (mut filter, mut seconds, mut threads, mut cases) = (String::new(), 3, vec![1, 2], None);
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} wants a value"));
        match argument.as_str() {
            "--seconds" => seconds = value().parse().expect("--seconds is a whole number"),
            "--threads" => threads = vec![value().parse().expect("--threads is a whole number")],
            "--cases" => cases = Some(PathBuf::from(value())),
            _ => filter = argument,
        }
    }
    for (name, pairs) in [("mixed", mixed(cases.as_ref())), ("gsm8k", gsm8k(false)), ("short", gsm8k(true))] {
        if !name.contains(&filter) {
            continue;
        }
        threads.iter().for_each(|threads| measure(name, &pairs, *threads, seconds));
    }
    if let Ok(python) = std::env::var("PEER_PYTHON") {
        let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/verify/math/cases.jsonl");
        let mut peer = std::process::Command::new(python);
        peer.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peer/verify.py")).arg(cases.unwrap_or(own));
        if let Ok(data) = std::env::var("DISTILL_DATA") {
            peer.args(["--gsm8k", &format!("{data}/gsm8k_test.jsonl")]);
        }
        let status = peer.status().expect("PEER_PYTHON starts");
        assert!(status.success(), "the peer failed");
    }
}
