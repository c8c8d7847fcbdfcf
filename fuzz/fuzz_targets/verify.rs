//! No byte string makes the judge panic, overflow its stack or run on: `cargo +nightly fuzz run verify` with cargo-fuzz installed, or, with a stable compiler,
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run -s none verify`.
//!
//! The first line of the input is the reference, the rest the response. Run last on 2026-11-30: 260,673 inputs in two times 150 seconds, grown from the collected and the adversarial
//! cases to 9,992 of new coverage; nothing panicked, none took 10 seconds.

#![no_main]

use distill::problem::{Answer, Language, Problem, ProblemId};
use distill::response::Response;
use distill::verify::{Extraction, Rules, audit, compare};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let (gold, response) = text.split_once('\n').unwrap_or(("42", &text));
    let problem = Problem {
        id: ProblemId("fuzz".into()),
        task: "fuzz".into(),
        question: String::new(),
        answer: Answer::Math { text: gold.to_owned() },
        language: Language::En,
        level: None,
    };
    for extraction in [Extraction::Strict, Extraction::Flexible] {
        let verdict = Rules::new(extraction).judge(&problem, &Response::parse(response));
        assert_eq!(verdict, Rules::new(extraction).judge(&problem, &Response::parse(response)), "a verdict is repeated");
    }
    let _ = compare(gold, response);
    let _ = audit::opinion(gold, response, true);
});
