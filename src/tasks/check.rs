//! `Check`: what a recipe names as `verify = "…"`, and how a reference string becomes an `Answer` under it.
//!
//! It sees one reference at a time. Which field of which file holds the reference is `read.rs`'s matter; judging a response against the answer is
//! `verify/`'s.

use super::number::canonical_number;
use crate::problem::{Answer, CodeTests, StreamCase};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A way to check answers that problems are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Check {
    /// One decimal number.
    Number,
    /// A number, or LaTeX or words that are kept as written.
    Math,
    /// An expression over given numbers that reaches a target.
    Countdown,
    /// Who is a knight.
    Knights,
    /// A program that passes tests.
    Code,
}

impl Check {
    pub const ALL: [Self; 5] = [Self::Number, Self::Math, Self::Countdown, Self::Knights, Self::Code];

    /// The name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Math => "math",
            Self::Countdown => "countdown",
            Self::Knights => "knights",
            Self::Code => "code",
        }
    }

    /// The reference as a machine-checkable answer; what `Answer::gold` writes is read back as the same answer.
    ///
    /// # Errors
    /// A sentence that says why the reference is unusable under this check.
    pub fn answer(self, reference: &str) -> Result<Answer, String> {
        let reference = reference.trim();
        if reference.is_empty() {
            return Err("the reference is empty".to_owned());
        }
        match self {
            Self::Number => canonical_number(reference)
                .map(|value| Answer::Number { value })
                .ok_or_else(|| format!("the reference {:?} is not one decimal number", shorten(reference))),
            Self::Math => Ok(math(reference)),
            Self::Countdown => countdown(reference).ok_or_else(|| {
                format!("the reference {:?} is not a target and its numbers, such as \"24 from [4, 6, 1]\"", shorten(reference))
            }),
            Self::Knights => knights(reference)
                .ok_or_else(|| format!("the reference {:?} is not a list such as \"Ada is a knight, Leo is a knave\"", shorten(reference))),
            Self::Code => code(reference).map(|tests| Answer::Code { tests }),
        }
    }
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|c| c.name() == text).ok_or_else(|| format!("unknown check {text:?}; known are {names}"))
    }
}

impl TryFrom<String> for Check {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Check> for String {
    fn from(check: Check) -> Self {
        check.name().to_owned()
    }
}

/// Numeric as far as `canonical_number` goes, after the two marks that MATH puts on numbers: `$18$` and `14,\!400`.
fn math(reference: &str) -> Answer {
    let plain = reference.strip_prefix('$').and_then(|r| r.strip_suffix('$')).unwrap_or(reference).replace("\\!", "");
    match canonical_number(&plain) {
        Some(value) => Answer::Number { value },
        None => Answer::Math { text: reference.to_owned() },
    }
}

fn countdown(reference: &str) -> Option<Answer> {
    let (target, list) = reference.split_once(" from ")?;
    let list = list.strip_prefix('[')?.strip_suffix(']')?;
    let numbers: Vec<i64> = list.split(',').map(|n| n.trim().parse().ok()).collect::<Option<_>>()?;
    Some(Answer::Countdown { numbers, target: target.parse().ok()? })
}

/// `(1) Ada is a knight\n(2) Leo is a knave`, or the same in one line with commas.
fn knights(reference: &str) -> Option<Answer> {
    let (mut names, mut knights) = (Vec::new(), Vec::new());
    for part in reference.split(['\n', ',']) {
        let part = part.trim().trim_end_matches('.');
        let part = part.strip_prefix('(').and_then(|p| p.split_once(')')).map_or(part, |(_, rest)| rest.trim_start());
        let (name, role) = part.split_once(" is a ")?;
        if name.is_empty() || names.iter().any(|n| n == name) {
            return None;
        }
        names.push(name.to_owned());
        knights.push(match role {
            "knight" => true,
            "knave" => false,
            _ => return None,
        });
    }
    Some(Answer::Knights { names, knights })
}

/// Tests of a program: Python source with asserts; `{"entry", "calls", "expected"}`; a list of `{"stdin", "stdout"}`; or what `Answer::gold` writes.
fn code(reference: &str) -> Result<CodeTests, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Calls<'a> {
        entry: String,
        #[serde(borrow)]
        calls: Vec<&'a RawValue>,
        #[serde(borrow)]
        expected: Vec<&'a RawValue>,
    }
    let fault = |error: serde_json::Error| format!("the tests {:?} are not readable: {error}", shorten(reference));
    let tests = match reference.as_bytes().first() {
        Some(b'{') if reference.contains("\"style\"") => serde_json::from_str(reference).map_err(fault)?,
        Some(b'{') => {
            let read: Calls = serde_json::from_str(reference).map_err(fault)?;
            let texts = |values: Vec<&RawValue>| values.into_iter().map(|value| value.get().to_owned()).collect();
            CodeTests::Calls { entry: read.entry, calls: texts(read.calls), expected: texts(read.expected) }
        }
        Some(b'[') => CodeTests::Streams { cases: serde_json::from_str::<Vec<StreamCase>>(reference).map_err(fault)? },
        _ => CodeTests::Asserts { prompt: None, entry: None, test: reference.to_owned() },
    };
    match &tests {
        CodeTests::Asserts { test, .. } if !test.contains("assert") => {
            Err(format!("the tests {:?} hold no assert, and are no JSON", shorten(reference)))
        }
        CodeTests::Calls { calls, expected, .. } if calls.is_empty() || calls.len() != expected.len() => {
            Err(format!("the tests have {} calls and {} expected values", calls.len(), expected.len()))
        }
        CodeTests::Calls { calls, .. } if calls.iter().any(|call| !call.starts_with('[')) => {
            Err("a call in the tests is no list of arguments".to_owned())
        }
        CodeTests::Streams { cases } if cases.is_empty() => Err("the tests have no cases".to_owned()),
        _ => Ok(tests),
    }
}

/// At most 60 characters, for messages.
fn shorten(text: &str) -> String {
    if text.chars().count() > 60 { text.chars().take(60).chain("…".chars()).collect() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: &str) -> Answer {
        Answer::Number { value: value.to_owned() }
    }

    #[test]
    fn references_become_answers() {
        let check = |c: Check, reference: &str, expect: Answer| assert_eq!(c.answer(reference), Ok(expect), "{c} {reference:?}");
        check(Check::Number, " $1,234.50 ", number("1234.5"));
        check(Check::Math, "073", number("73"));
        check(Check::Math, "$18$", number("18"));
        check(Check::Math, r"\$32,\!348", number("32348"));
        for text in [r"\frac{1}{2}", "4,6,14,15", "90^\\circ", "25%", r"$10 \pi$", "x = 5", "$"] {
            check(Check::Math, text, Answer::Math { text: text.to_owned() });
        }
        let ada_leo = Answer::Knights { names: vec!["Ada".into(), "Leo".into()], knights: vec![true, false] };
        check(Check::Knights, "(1) Ada is a knight\n(2) Leo is a knave", ada_leo);
    }

    #[test]
    fn unusable_references_say_why() {
        let check = |c: Check, reference: &str, part: &str| {
            let error = c.answer(reference).expect_err(reference);
            assert!(error.contains(part), "{c} {reference:?}: {error}");
        };
        for text in ["about 3", "1/2", "25%", "3 and 4", "twelve"] {
            check(Check::Number, text, "not one decimal number");
        }
        for c in Check::ALL {
            check(c, " \n", "empty");
        }
        for text in ["24", "24 from 4, 6", "24 from []", "x from [1]", "24 from [4.5]"] {
            check(Check::Countdown, text, "not a target");
        }
        for text in ["Ada", "Ada is a spy", "Ada is a knight, Ada is a knave", " is a knight"] {
            check(Check::Knights, text, "not a list");
        }
        for (text, part) in [
            ("print(1)", "no assert"),
            ("[]", "no cases"),
            ("[1]", "not readable"),
            (r#"{"entry": "f", "calls": [], "expected": []}"#, "0 calls"),
            (r#"{"entry": "f", "calls": [[1]], "expected": []}"#, "1 calls and 0"),
            (r#"{"entry": "f", "calls": [1], "expected": [1]}"#, "no list of arguments"),
            (r#"{"calls": [[1]], "expected": [1]}"#, "missing field `entry`"),
        ] {
            check(Check::Code, text, part);
        }
        check(Check::Number, &"x".repeat(1000), "xxx…");
    }

    #[test]
    fn gold_is_read_back() {
        let answers = [
            (Check::Number, number("-0.5")),
            (Check::Math, Answer::Math { text: r"\sqrt{2}".into() }),
            (Check::Countdown, Answer::Countdown { numbers: vec![3, 44, 5], target: -2 }),
            (Check::Knights, Answer::Knights { names: vec!["Ada".into(), "Leo".into()], knights: vec![false, true] }),
            (Check::Code, code("assert f(1) == \"x\"").map(|tests| Answer::Code { tests }).expect("asserts")),
            (
                Check::Code,
                Check::Code.answer(r#"{"entry": "f", "calls": [[1e400, 12345678901234567890123]], "expected": [1.0]}"#).expect("calls"),
            ),
            (Check::Code, Check::Code.answer(r#"[{"input": "1\n", "output": "2\n"}, {"stdin": "", "stdout": ""}]"#).expect("streams")),
        ];
        for (check, answer) in answers {
            assert_eq!(check.answer(&answer.gold()), Ok(answer));
        }
    }

    #[test]
    fn names_are_those_of_recipes() {
        for check in Check::ALL {
            assert_eq!(check.name().parse(), Ok(check));
        }
        assert_eq!(
            "Number".parse::<Check>(),
            Err(r#"unknown check "Number"; known are number, math, countdown, knights, code"#.to_owned())
        );
        assert_eq!(serde_json::from_str::<Check>("\"math\"").ok(), Some(Check::Math));
        assert!(serde_json::from_str::<Check>("\"maths\"").expect_err("unknown").to_string().contains("known are number"));
    }
}
