//! Pairs of reference and answer that the judge compares per second and thread, and how long the slowest takes.
//!
//!     [CASES=FILE] cargo bench --bench verify -- [FILTER] [criterion's options]      FILTER: mixed, gsm8k, short, gsm8k/2 (threads)
//!
//! mixed: the committed cases of `src/verify/math/cases.jsonl`, or those of FILE. gsm8k: whole solutions that end in `#### n` or in a box, from
//! `DISTILL_DATA`, else from `data/samples`; short: their last line alone. With `PEER_PYTHON` (a Python with `benches/peer/requirements.txt`) the peer's
//! line for the same cases follows in the same run.

use criterion::{BenchmarkId, Criterion, Throughput};
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

/// How long so many passes over the pairs take on each of so many threads.
fn passes(pairs: &[Pair], threads: usize, passes: u64) -> Duration {
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| (0..passes).for_each(|_| pairs.iter().for_each(|pair| _ = std::hint::black_box(judge(pair)))));
        }
    });
    begin.elapsed()
}

/// Pairs per second on one thread and on two, and one JSON line with what is right and what the slowest pair took.
fn measure(criterion: &mut Criterion, name: &str, pairs: &[Pair]) {
    let mut group = criterion.benchmark_group(name);
    for threads in [1, 2] {
        group.throughput(Throughput::Elements((pairs.len() * threads) as u64));
        group.bench_function(BenchmarkId::from_parameter(threads), |bench| bench.iter_custom(|n| passes(pairs, threads, n)));
    }
    group.finish();
    let right = pairs.iter().filter(|pair| judge(pair)).count();
    let slowest = pairs.iter().map(|pair| {
        let begin = Instant::now();
        judge(pair);
        begin.elapsed()
    });
    let slowest = slowest.max().unwrap_or_default().as_secs_f64();
    println!("{}", json!({"what": name, "pairs": pairs.len(), "right": right, "slowest_ms": (slowest * 1e5).round() / 100.0}));
}

fn main() {
    let cases = std::env::var_os("CASES").map(PathBuf::from);
    let mut criterion = Criterion::default().sample_size(20).configure_from_args();
    for (name, pairs) in [("mixed", mixed(cases.as_ref())), ("gsm8k", gsm8k(false)), ("short", gsm8k(true))] {
        measure(&mut criterion, name, &pairs);
    }
    criterion.final_summary();
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
