//! What holds of every measure: no text makes one panic, and none takes more than linear time.

use super::*;
use crate::problem::Language;
use crate::trace::FinishReason;
use proptest::prelude::*;
use std::time::{Duration, Instant};

/// Runs every measure and checks what must hold of what it says.
fn run(text: &str) {
    for target in [Language::En, Language::Zh, Language::Ja, Language::Es] {
        let mix = language::measure(text, target);
        assert!(mix.share.is_none_or(|share| (0.0..=1.0).contains(&share)) && mix.share.is_some() == (mix.words > 0));
        let spans: Vec<(usize, usize)> = mix.foreign.iter().map(|found| found.span).collect();
        assert!(spans.iter().all(|(start, end)| start < end && text.get(*start..*end).is_some()), "{spans:?}");
        assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{spans:?}");
        assert!((0.0..=1.0).contains(&mix.switch_rate()));
    }
    let parts = readability::measure(text);
    for share in [parts.code_share, parts.symbol_share, parts.switch_rate] {
        assert!((0.0..=1.0).contains(&share), "{parts:?}");
    }
    let repeats = repetition::measure(text);
    let reasons = [readability::is_readable(&parts).err(), repetition::is_repetitive(&repeats).err()];
    for (start, end) in reasons.iter().flatten().filter_map(|reason| reason.span) {
        assert!(start < end && end <= text.len(), "{reasons:?}");
    }
    assert_eq!(behaviours::measure(text).thinking_words, reflection::words(text));
    let found = after_answer::measure(text, &mut |answer| Some(answer.len() % 2 == 0));
    assert!(found.first.is_none_or(|first| (0.0..=1.0).contains(&first)) && found.audit.wrong <= found.audit.checked);
    assert!(after_answer::stated(text).iter().all(|stated| text.get(stated.span.0..stated.span.1).is_some()));
    let sample = census::Sample { text, target: Language::En, tokens: 0, finish: FinishReason::Stop, correct: None };
    let mut census = census::Census::default();
    census.add(&sample, &mut |_| None);
    assert!(census.rows().iter().all(|row| !row[1].contains("NaN")), "{:?}", census.rows());
}

/// What the measures look for, whole and in parts.
const PARTS: [&str; 48] = [
    "`",
    "``",
    "```",
    "$",
    "$$",
    "\\",
    "\\(",
    "\\)",
    "\\[",
    "\\]",
    "\\begin{",
    "\\end{",
    "}",
    "{",
    "\\boxed{",
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "the answer is ",
    "答案是",
    "12",
    " = ",
    "*",
    "3.",
    ",456",
    "(",
    ")",
    "-",
    "×",
    "\\times",
    "wait, no",
    "let me check",
    "等等",
    "hmm",
    "first, ",
    "we need",
    "because",
    "el área",
    "所以",
    "の",
    "потому",
    "é",
    "'",
    "’",
    "\n",
    "\n\n",
    ". ",
];

fn fragments() -> impl Strategy<Value = String> {
    let part = prop_oneof![6 => prop::sample::select(&PARTS[..]).prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from), 1 => "[a-zA-Z ]{0,6}"];
    prop::collection::vec(part, 0..60).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_text_is_measured(text in any::<String>()) {
        run(&text);
    }

    #[test]
    fn any_bytes_are_measured(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        run(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_mixture_of_marks_is_measured(text in fragments(), times in 1usize..5) {
        run(&text.repeat(times));
    }

    /// The phrases against a plain search for each.
    #[test]
    fn reflection_words_are_those_of_a_regular_expression(text in fragments()) {
        let words: Vec<&str> = reflection::WORDS.iter().copied().filter(|word| word.is_ascii() || word.contains('’')).collect();
        let chinese: Vec<&str> = reflection::WORDS.iter().copied().filter(|word| !word.is_ascii() && !word.contains('’')).collect();
        let pattern = format!(r"(?i)(?-u:\b)(?:{})(?-u:\b)|{}", words.join("|"), chinese.join("|"));
        let plain = regex::Regex::new(&pattern).expect("words are plain");
        prop_assert_eq!(reflection::words(&text), plain.find_iter(&text).count(), "{:?}", text);
    }
}

#[test]
fn hostile_text_takes_linear_time() {
    for unit in PARTS.iter().copied().chain([
        "a",
        "ab ",
        "好",
        "a b. ",
        "$a\n",
        "1+1=",
        "=1",
        "((((",
        "\\boxed{\\boxed{",
        "the answer is the answer is ",
        "check ",
        "el ",
        "el la ",
    ]) {
        let text = unit.repeat(200_000 / unit.len());
        let start = Instant::now();
        run(&text);
        assert!(start.elapsed() < Duration::from_secs(5), "{unit:?} took {:?}", start.elapsed());
    }
}
