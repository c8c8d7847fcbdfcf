//! Filtering, in bytes of question and response per second: each rule alone and all together, over shards as they lie on disk; and how memory grows.
//!
//!     cargo bench --bench filter -- [--rows N] [--threads N] [--quick] [--only NAME]     a table: reading alone, each rule, all of them
//!     cargo bench --bench filter -- --growth [N,N,…]                       memory and time over so many traces, which are made as they are read
//!
//! Traces are made by rule: questions of our generators, responses of lines that real traces have where `DISTILL_DATA` has some, else of lines of our own; one in ten is a
//! copy of an attempt before it with a few words changed, one in fifty an exact copy. A rate counts everything: reading, parsing, and the rule.

use distill::filter::{Evaluations, Filter, FilterSettings, Parts, Stored, Traces};
use distill::key::Key;
use distill::problem::Problem;
use distill::shard::{Entry, SealOptions, Source, seal};
use distill::tasks::{arithmetic, knights};
use distill::trace::Trace;
use rayon::prelude::*;
use serde_json::json;
use std::time::Instant;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Attempts at each problem.
const ATTEMPTS: u32 = 8;

struct Maker {
    lines: Vec<String>,
    /// Lines of a response.
    length: u32,
}

impl Maker {
    fn new(length: u32) -> Self {
        let file = std::env::var("DISTILL_DATA")
            .ok()
            .and_then(|folder| std::fs::read_to_string(format!("{folder}/traces/r1_math500_traces.jsonl")).ok());
        let responses = file.iter().flat_map(|text| text.lines()).filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut lines: Vec<String> = responses
            .flat_map(|row| row["response"].as_str().unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>())
            .filter(|line| line.len() > 20 && !line.contains("think>"))
            .collect();
        if lines.is_empty() {
            let mut draw = Key::new(1, "lines").stream();
            let parts =
                ["so we get", "wait, is that right?", "let me check that", "the sum is", "which leaves", "therefore", "we know that x ="];
            lines = (0..4000).map(|_| (0..8).map(|_| format!("{} {}, ", draw.choose(&parts), draw.below(1000))).collect()).collect();
        }
        Self { lines, length }
    }

    fn problem(&self, n: u64) -> Problem {
        let key = Key::new(2, "bench problems");
        if n.is_multiple_of(2) {
            arithmetic::problem(key, "bench", n)
        } else {
            knights::problem(key, "bench", n, &knights::Settings::default()).expect("a puzzle")
        }
    }

    fn response(&self, row: u64) -> String {
        let mut draw = Key::new(3, "bench responses").number(row).stream();
        let body: Vec<&str> = (0..self.length / 2 + draw.below(self.length)).map(|_| draw.choose(&self.lines).as_str()).collect();
        format!("<think>\n{}\n</think>\n\nThe answer is \\boxed{{{}}}.", body.join("\n\n"), draw.below(100))
    }

    /// The trace at `row` of a corpus: all attempts at a problem after each other.
    fn trace(&self, row: u64) -> Trace {
        let (problem, attempt) = (self.problem(row / u64::from(ATTEMPTS)), (row % u64::from(ATTEMPTS)) as u32);
        let mut draw = Key::new(4, "bench kinds").number(row).stream();
        let response = match draw.unit() {
            x if x < 0.02 && attempt > 0 => self.response(row - 1),
            x if x < 0.12 && attempt > 0 => self.response(row - 1).replacen("the", "thy", 3),
            _ => self.response(row),
        };
        let verdict = if draw.chance(0.8) { json!({"verdict": "correct", "answer": "1"}) } else { json!(null) };
        serde_json::from_value(json!({
            "id": format!("{}#{attempt}", problem.id), "problem": problem.id, "attempt": attempt, "task": problem.task, "question": problem.question,
            "gold": problem.answer.gold(), "messages": [{"role": "user", "content": problem.question}, {"role": "assistant", "content": response}],
            "response": response, "verdict": verdict, "rewards": {"total": 1.0}, "prompt_tokens": 60, "completion_tokens": response.len() / 4,
            "finish": "stop", "logprob": -12.5, "language": {"target": "en", "share": 1.0}
        }))
        .expect("a trace")
    }
}

/// Evaluation problems, 1,900 as the known tasks have them.
fn evaluations(maker: &Maker) -> Evaluations {
    let words: Vec<&str> =
        maker.lines.iter().flat_map(|line| line.split_whitespace()).filter(|word| word.chars().all(char::is_alphabetic)).collect();
    let text = |n: u64| {
        let mut draw = Key::new(5, "bench evaluations").number(n).stream();
        (0..40).map(|_| *draw.choose(&words)).collect::<Vec<_>>().join(" ")
    };
    Evaluations::new((0..1900).map(|n| (format!("e/{n}"), text(n))))
}

/// Traces that are made as they are read.
struct Made {
    maker: Maker,
    rows: usize,
}

impl Traces for Made {
    fn each<T: Send>(
        &mut self,
        _: Parts,
        wanted: impl Fn(usize) -> bool + Sync,
        map: impl Fn(usize, Trace) -> T + Sync,
        mut take: impl FnMut(T) -> anyhow::Result<()> + Send,
    ) -> anyhow::Result<()> {
        for first in (0..self.rows).step_by(8192) {
            let rows = (first..(first + 8192).min(self.rows)).into_par_iter().filter(|row| wanted(*row));
            rows.map(|row| map(row, self.maker.trace(row as u64))).collect::<Vec<T>>().into_iter().try_for_each(&mut take)?;
        }
        Ok(())
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |flag: &str| {
        args.iter().position(|a| a == flag).map(|i| args.get(i + 1).filter(|v| !v.starts_with("--")).cloned().unwrap_or_default())
    };
    let number = |flag: &str, default: usize| value(flag).and_then(|text| text.parse().ok()).unwrap_or(default);
    let threads = number("--threads", 0);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().expect("the pool starts");
    rayon::scope(|_| match value("--growth") {
        Some(list) => {
            let rows: Vec<usize> = list.split(',').filter_map(|n| n.parse().ok()).collect();
            growth(if rows.is_empty() { &[100_000, 300_000] } else { &rows });
        }
        None => {
            table(number("--rows", 20_000), if args.iter().any(|a| a == "--quick") { 1 } else { 3 }, &value("--only").unwrap_or_default())
        }
    });
}

fn table(rows: usize, repeats: usize, only: &str) {
    let maker = Maker::new(60);
    let folder = std::env::temp_dir().join(format!("distill-filter-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut text = 0;
    let entries = (0..rows as u64).map(|row| {
        let trace = maker.trace(row);
        text += trace.question.len() + trace.response.len();
        Ok(Entry { trace, tokens: None })
    });
    let mut n = 0u64;
    let count = |_: &Trace| {
        n += 1;
        n
    };
    seal(&folder, entries, count, &SealOptions { level: 1, ..SealOptions::new("traces", vec![Source::default()]) }).expect("sealed");
    println!("{rows} traces, {:.1} MB of text, {} threads", text as f64 / 1e6, rayon::current_num_threads());
    println!("| rule | MB/s | MB per CPU second | ns per byte beside reading | traces left |\n|---|---:|---:|---:|---:|");
    let common = "correct = true\nfinished = true\nformat = \"think\"\nlength = { max = 100000 }\nreadable = true\nrepetition = true\ndecontaminate = [\"e\"]\n\
                  pass_rate = { min = 0.1 }\nexact_duplicate = true\nper_problem = { max = 4 }\n";
    let all = format!("{common}language = {{ min = 0.5 }}\nnear_duplicate = {{ jaccard = 0.85 }}\n");
    let diverse = all.replace("{ max = 4 }", "{ max = 4, order = \"diverse\" }");
    let rules = [
        ("none: reading alone", ""),
        ("correct", "correct = true"),
        ("finished", "finished = true"),
        ("format", "format = \"think\""),
        ("length", "length = { max = 100000 }"),
        ("language", "language = { min = 0.5 }"),
        ("readable", "readable = true"),
        ("repetition", "repetition = true"),
        ("decontaminate", "decontaminate = [\"e\"]"),
        ("pass_rate", "pass_rate = { min = 0.1 }"),
        ("exact_duplicate", "exact_duplicate = true"),
        ("near_duplicate", "near_duplicate = { jaccard = 0.85 }"),
        ("per_problem, shortest", "per_problem = { max = 4 }"),
        ("per_problem, diverse", "per_problem = { max = 4, order = \"diverse\" }"),
        ("all but near_duplicate and language", common),
        ("all", &all),
        ("all, diverse", &diverse),
    ];
    let mut reading = 0.0;
    for (name, toml) in rules.into_iter().filter(|(name, _)| name.starts_with(only)) {
        let settings: FilterSettings = toml::from_str(toml).expect("settings");
        let filter = Filter::new(&settings).expect("in range").against(evaluations(&maker));
        let (mut best, mut work) = (f64::INFINITY, f64::INFINITY);
        let mut left = 0;
        for _ in 0..repeats {
            let (begin, before) = (Instant::now(), cpu_seconds());
            let judged = filter.judge(&mut Stored::new(&folder), Key::new(1, "filter")).expect("readable");
            best = best.min(begin.elapsed().as_secs_f64());
            work = work.min(cpu_seconds() - before);
            left = judged.funnel().last().map_or(0, |step| step.count);
        }
        if toml.is_empty() {
            reading = work;
        }
        let (bytes, own) = (text as f64, (work - reading).max(0.0) * 1e9 / text as f64);
        println!("| {name} | {:.0} | {:.0} | {own:.1} | {left} |", bytes / best / 1e6, bytes / work / 1e6);
    }
    std::fs::remove_dir_all(&folder).expect("it was made");
}

/// Seconds that all threads have computed: what a neighbour on the same cores changes least.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    // utime and stime, in ticks of 10 ms.
    let ticks = |i: usize| fields.get(i).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// Bytes of memory that the process holds, and the most that it held.
fn memory() -> (usize, usize) {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |name: &str| {
        text.lines().find(|l| l.starts_with(name)).and_then(|l| l.split_whitespace().nth(1)?.parse::<usize>().ok()).unwrap_or(0) * 1024
    };
    (of("VmRSS:"), of("VmHWM:"))
}

fn growth(sizes: &[usize]) {
    let toml =
        "correct = true\npass_rate = { min = 0.1 }\nexact_duplicate = true\nnear_duplicate = { jaccard = 0.85 }\nper_problem = { max = 4 }";
    let filter = Filter::new(&toml::from_str(toml).expect("settings")).expect("in range");
    println!(
        "{} threads\n| traces | seconds | peak memory, MB | bytes per trace | traces left |\n|---:|---:|---:|---:|---:|",
        rayon::current_num_threads()
    );
    for rows in sizes {
        let (before, _) = memory();
        // Where the kernel allows it, the peak begins anew here; else it is that of the largest size so far.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        let begin = Instant::now();
        let judged = filter.judge(&mut Made { maker: Maker::new(12), rows: *rows }, Key::new(1, "filter")).expect("made");
        let (seconds, (_, peak)) = (begin.elapsed().as_secs_f64(), memory());
        let left = judged.funnel().last().map_or(0, |step| step.count);
        let grown = peak.saturating_sub(before);
        println!("| {rows} | {seconds:.1} | {:.0} | {} | {left} |", grown as f64 / 1e6, grown / rows);
    }
}
