//! Bytes per second of each measure over traces, on one thread.
//!
//!     cargo bench --bench measure -- [FILTER] [--seconds N]
//!
//! Texts: the traces below `DISTILL_DATA` where that is set, and a Chinese and an English one written here, repeated with other numbers.

use distill::measure::census::{Census, Sample};
use distill::measure::{after_answer, behaviours, language, readability, reflection, repetition};
use distill::problem::Language;
use distill::trace::FinishReason;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// What a model writes on its way to an answer; `#` is replaced by a number.
const ENGLISH: &str = "Okay, so I need to find how many apples are left when # of # are gone.\n\nLet me set it up: \\(x = # - #\\), and \\[ y = \\frac{x}{#} \\]\n\
    so that gives about #. Wait, I should check whether the second batch counts too, because the question says \"each day\".\n\n\
    First, each crate holds # apples, and there are # crates. Then # * # = #, and half of these go to the market. Alternatively, I could work \
    backwards from the total: #/# must be a whole number.\n\nSo the result is \\boxed{#}.\n\n";
const CHINESE: &str = "好的，我们先看题目：一共有#个苹果，每天卖掉#个。\n\n设\\(x = # - #\\)，那么\\[ y = \\frac{x}{#} \\]，所以大约是#。等等，我再检查一下第二批是否也要算进去，因为题目说的是每一天。\n\n\
    首先，每箱有#个苹果，一共#箱，于是 # * # = #，其中一半运到市场。或者也可以从总数倒推：#除以#必须是整数。\n\n所以答案是\\boxed{#}。\n\n";

/// Each `#` becomes the next number of a sequence that does not repeat.
fn filled(template: &str, copies: usize) -> String {
    let (mut text, mut number) = (String::new(), 17u64);
    for part in std::iter::repeat_n(template, copies).flat_map(|copy| copy.split_inclusive('#')) {
        text.push_str(part.trim_end_matches('#'));
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&(number >> 54).to_string());
    }
    text
}

fn texts() -> Vec<(&'static str, Vec<String>)> {
    let mut all = vec![
        ("english", (1..60).map(|n| filled(ENGLISH, n % 30 + 1)).collect()),
        ("chinese", (1..60).map(|n| filled(CHINESE, n % 30 + 1)).collect()),
    ];
    if let Ok(folder) = std::env::var("DISTILL_DATA") {
        let text = std::fs::read_to_string(format!("{folder}/traces/r1_math500_traces.jsonl")).expect("the data folder holds the file");
        let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line of JSON"));
        all.push(("r1", rows.map(|row| row["response"].as_str().expect("text").to_owned()).collect()));
    }
    all
}

/// Seconds that this thread has computed, so that a busy machine does not look like a slow measure; wall time where Linux does not say.
fn clock(begin: Instant) -> f64 {
    let computed = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = computed.and_then(|line| line.split(' ').next()?.parse::<u64>().ok());
    nanoseconds.map_or(begin.elapsed().as_secs_f64(), |n| n as f64 / 1e9)
}

/// Bytes per second over all texts, in as many passes as fit into the time.
fn speed(texts: &[String], seconds: u64, measure: &dyn Fn(&str)) -> f64 {
    let bytes: usize = texts.iter().map(String::len).sum();
    let pass = || texts.iter().for_each(|text| measure(black_box(text)));
    // What is made once, and the caches.
    pass();
    let (begin, mut passes) = (Instant::now(), 0);
    let start = clock(begin);
    while passes < 5 || begin.elapsed() < Duration::from_secs(seconds) {
        pass();
        passes += 1;
    }
    (bytes * passes) as f64 / (clock(begin) - start)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filter = arguments.first().filter(|first| !first.starts_with("--")).cloned().unwrap_or_default();
    let at = arguments.iter().position(|argument| argument == "--seconds");
    let seconds = at.and_then(|at| arguments.get(at + 1)).map_or(1, |n| n.parse().expect("--seconds wants a whole number"));
    let measures: [(&str, &dyn Fn(&str)); 8] = [
        ("language", &|text| drop(black_box(language::measure(text, Language::En)))),
        ("readability", &|text| _ = black_box(readability::measure(text))),
        ("repetition", &|text| _ = black_box(repetition::measure(text))),
        ("behaviours", &|text| _ = black_box(behaviours::measure(text))),
        ("reflection", &|text| _ = black_box(reflection::words(text))),
        ("after_answer", &|text| drop(black_box(after_answer::measure(text, &mut |_| None)))),
        ("all_three", &|text| _ = black_box((readability::measure(text), repetition::measure(text), behaviours::measure(text)))),
        ("census", &|text| {
            let sample = Sample { text, target: Language::En, tokens: text.len() / 4, finish: FinishReason::Stop, correct: None };
            let mut census = Census::default();
            census.add(&sample, &mut |_| None);
            black_box(census);
        }),
    ];
    for (source, texts) in texts() {
        for (measure, run) in measures {
            let name = format!("{source}/{measure}");
            if name.contains(&filter) {
                println!(r#"{{"bench": "{name}", "megabytes_per_second": {:.0}}}"#, speed(&texts, seconds, run) / 1e6);
            }
        }
    }
}
