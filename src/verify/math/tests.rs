use crate::problem::{Answer, Language, Problem, ProblemId};
use crate::response::Response;
use crate::verify::{Extraction, Rules, compare};
use proptest::prelude::*;
use serde::Deserialize;

/// A reference, an answer, and whether they are the same.
#[derive(Debug, Deserialize)]
struct Case {
    gold: String,
    pred: String,
    pred_kind: String,
    #[serde(default)]
    expected: Option<bool>,
    #[serde(default)]
    policy: Option<String>,
}

fn is_equal(gold: &str, pred: &str, response: bool) -> bool {
    if !response {
        return compare(gold, pred) == super::Outcome::Equal;
    }
    let problem = Problem {
        id: ProblemId("t".into()),
        task: "t".into(),
        question: String::new(),
        answer: Answer::Math { text: gold.to_owned() },
        language: Language::En,
        level: None,
    };
    Rules::new(Extraction::Flexible).judge(&problem, &Response::parse(pred)).is_correct()
}

/// Cases of one kind, and those whose verdict is not the expected one.
fn judged(text: &str, certain: bool) -> (usize, Vec<Case>) {
    let cases: Vec<Case> =
        text.lines().map(|line| serde_json::from_str::<Case>(line).expect("a case")).filter(|c| c.policy.is_none() == certain).collect();
    let n = cases.len();
    (n, cases.into_iter().filter(|c| Some(is_equal(&c.gold, &c.pred, c.pred_kind == "response")) != c.expected).collect())
}

#[test]
fn every_case_of_our_own_has_the_verdict_that_the_decisions_give_it() {
    for certain in [true, false] {
        let (n, missed) = judged(include_str!("cases.jsonl"), certain);
        assert!(n > 200);
        assert!(missed.is_empty(), "{missed:#?}");
    }
}

/// The cases that were collected elsewhere; at least 99 % of the certain ones and 85 % of the others, and nothing false is accepted.
#[test]
fn collected_cases_have_the_verdicts_of_their_labels() {
    let Some(text) = collected("verifier.jsonl") else { return };
    let (n, missed) = judged(&text, true);
    let accepted: Vec<&Case> = missed.iter().filter(|c| c.expected == Some(false)).collect();
    assert!(accepted.is_empty(), "accepted: {accepted:#?}");
    assert!(missed.len() * 100 <= n, "{} of {n} missed: {missed:#?}", missed.len());
    let (n, missed) = judged(&text, false);
    assert!(missed.len() * 100 <= 15 * n, "{} of {n} missed: {missed:#?}", missed.len());
}

#[test]
fn hostile_cases_are_refused_within_their_time_in_a_worker_thread_too() {
    let Some(text) = collected("verifier_adversarial.jsonl") else { return };
    #[derive(Deserialize)]
    struct Hostile {
        name: String,
        gold: String,
        pred: String,
        accept: Vec<bool>,
        budget_ms: u64,
    }
    let run = move || {
        for line in text.lines() {
            let case: Hostile = serde_json::from_str(line).expect("a case");
            let begin = std::time::Instant::now();
            let equal = is_equal(&case.gold, &case.pred, true);
            let ms = begin.elapsed().as_millis() as u64;
            assert!(case.accept.contains(&equal), "{}: {equal}", case.name);
            // Ten times the budget: tests of many kinds share the machine. The bench holds the budget itself.
            assert!(ms <= 10 * case.budget_ms, "{}: {ms} ms", case.name);
        }
    };
    run.clone()();
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).expect("a thread").join().expect("no panic, no overflow");
}

/// A file of collected cases beside the data folder, if there is one.
fn collected(file: &str) -> Option<String> {
    let folder = std::env::var("DISTILL_DATA").ok().map(|data| format!("{data}/../cases/{file}"));
    let text = folder.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
    if text.is_none() {
        eprintln!("skipped: cases/{file} beside DISTILL_DATA is missing");
    }
    text
}

#[test]
fn every_published_reference_equals_itself() {
    let Ok(folder) = std::env::var("DISTILL_DATA") else {
        eprintln!("skipped: DISTILL_DATA is unset (references)");
        return;
    };
    let files = [
        "aime_1983_2023",
        "aime_2024",
        "aime_2025",
        "amc_2022_2023",
        "comp_math_24_25",
        "gsm8k_test",
        "math500",
        "math_test",
        "math_train",
        "olympiadbench_en_math",
    ];
    let mut unread = 0;
    for file in files {
        let text = std::fs::read_to_string(format!("{folder}/{file}.jsonl")).expect("the data folder holds the file");
        for line in text.lines() {
            let row: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
            let gold = row["answer"].as_str().expect("an answer");
            assert!(is_equal(gold, gold, false), "{file}: {gold}");
            assert!(is_equal(gold, &format!(r"so \boxed{{{gold}}}"), true) || gold.contains("boxed"), "{file}: {gold} in a box");
            unread += usize::from(super::Reference::read(gold).unreadable().is_some());
        }
    }
    assert!(unread <= 5, "{unread} references could not be read");
}

/// Pieces of which answers are made, well and badly.
const PIECES: [&str; 60] = [
    "1",
    "23",
    "0",
    "4.5",
    "x",
    "y",
    "n",
    "e",
    "i",
    "a_1",
    "+",
    "-",
    "*",
    "/",
    "^",
    "^2",
    "_",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    r"\{",
    r"\}",
    ",",
    ";",
    "=",
    "<",
    r"\le ",
    ">",
    "|",
    "!",
    "%",
    r"\pi",
    r"\frac",
    r"\sqrt",
    r"\sin ",
    r"\pm ",
    r"\cup ",
    r"\infty",
    r"\text{ cm}",
    r"\text{",
    r"\begin{pmatrix}",
    r"\\",
    "&",
    r"\end{pmatrix}",
    r"\left",
    r"\right",
    "°",
    "²",
    "½",
    "π",
    " ",
    "or",
    "and",
    r"\boxed{",
    "$",
    r"\binom",
    ":",
];

fn pieces() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..24).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_judge_panic_and_verdicts_are_repeated(gold in pieces(), pred in pieces(), noise in any::<String>()) {
        let first = compare(&gold, &pred);
        prop_assert_eq!(&first, &compare(&gold, &pred));
        let _ = compare(&noise, &pred);
        let _ = compare(&pred, &noise);
        is_equal(&gold, &format!("{noise} the answer is {pred}"), true);
    }

    #[test]
    fn bytes_that_are_no_text_are_judged_too(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let text = String::from_utf8_lossy(&bytes);
        let _ = compare(&text, &text);
        is_equal("42", &text, true);
    }

    #[test]
    fn rational_arithmetic_agrees_with_itself(a in -99i64..99, b in 1i64..99, c in -99i64..99, d in 1i64..99) {
        let sum = format!(r"\frac{{{a}}}{{{b}}}+\frac{{{c}}}{{{d}}}");
        let (above, below) = (a * d + c * b, b * d);
        prop_assert!(is_equal(&sum, &format!("{above}/{below}"), false), "{sum} {above}/{below}");
        let above_it = format!("{}/{below}", above + 1);
        prop_assert!(!is_equal(&sum, &above_it, false));
        let polynomial = format!("({a}x+{b})({c}x+{d})");
        let expanded = format!("{}x^2+{}x+{}", a * c, a * d + b * c, b * d);
        prop_assert!(is_equal(&polynomial, &expanded.replace("+-", "-"), false), "{polynomial} {expanded}");
        let above_it = format!("{expanded}+1");
        prop_assert!(!is_equal(&polynomial, &above_it, false));
    }
}
