//! `Check`: what a recipe names as `verify = "…"`, and how a reference string becomes an `Answer` under it.
//!
//! It sees one reference at a time. Which field of which file holds the reference is `read.rs`'s matter; judging a response against the answer is
//! `verify/`'s.

use super::command::CommandLine;
use super::number::canonical_number;
use super::pattern;
use crate::problem::{Answer, CodeTests, StreamCase};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A way to check answers that problems are written for.
#[derive(Clone, Debug, PartialEq)]
pub enum Check {
    /// One decimal number.
    Number,
    /// A number, or LaTeX or words that are kept as written.
    Math,
    /// A text that an answer must be, white space aside.
    Exact,
    /// The letter of a multiple choice.
    Choice,
    /// A pattern that an answer must match as a whole: of the recipe, or where that has none, each problem's own reference.
    Regex(Option<String>),
    /// An expression over given numbers that reaches a target.
    Countdown,
    /// Who is a knight.
    Knights,
    /// A program that passes tests.
    Code,
    /// A program of the user's decides.
    Command(CommandLine),
    /// No rule: a model's opinion is what there is, and never a verdict.
    Judge,
}

impl Check {
    /// Those that a bare name stands for.
    pub const NAMED: [Self; 9] =
        [Self::Number, Self::Math, Self::Exact, Self::Choice, Self::Regex(None), Self::Countdown, Self::Knights, Self::Code, Self::Judge];

    /// What a recipe can say, for messages.
    pub const KNOWN: &str =
        "number, math, exact, choice, regex, regex:PATTERN, countdown, knights, code, judge, { command = [\"python\", \"check.py\"] }";

    /// The name in a recipe, without pattern or command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Math => "math",
            Self::Exact => "exact",
            Self::Choice => "choice",
            Self::Regex(_) => "regex",
            Self::Countdown => "countdown",
            Self::Knights => "knights",
            Self::Code => "code",
            Self::Command(_) => "command",
            Self::Judge => "judge",
        }
    }

    /// The reference as a machine-checkable answer; what `Answer::gold` writes is read back as the same answer.
    ///
    /// # Errors
    /// A sentence that says why the reference is unusable under this check.
    pub fn answer(&self, reference: &str) -> Result<Answer, String> {
        let reference = reference.trim();
        match self {
            Self::Regex(Some(pattern)) => return Ok(Answer::Regex { pattern: pattern.clone() }),
            // These may judge without a reference.
            Self::Command(_) => return Ok(Answer::Command { reference: reference.to_owned() }),
            Self::Judge => return Ok(Answer::Open { reference: reference.to_owned() }),
            _ if reference.is_empty() => return Err("the reference is empty".to_owned()),
            _ => {}
        }
        let unusable = |what: &str| format!("the reference {:?} is not {what}", shorten(reference));
        match self {
            Self::Number => canonical_number(reference).map(|value| Answer::Number { value }).ok_or_else(|| unusable("one decimal number")),
            Self::Math => Ok(math(reference)),
            Self::Exact => Ok(Answer::Exact { text: reference.split_whitespace().collect::<Vec<_>>().join(" ") }),
            Self::Choice => letter(reference)
                .map(|letter| Answer::Choice { letter })
                .ok_or_else(|| unusable("the letter of a choice from A to J, such as \"C\" or \"(C) 42\"")),
            Self::Regex(_) => pattern::whole(reference).map(|_| Answer::Regex { pattern: reference.to_owned() }),
            Self::Countdown => countdown(reference).ok_or_else(|| unusable("a target and its numbers, such as \"24 from [4, 6, 1]\"")),
            Self::Knights => knights(reference).ok_or_else(|| unusable("a list such as \"Ada is a knight, Leo is a knave\"")),
            Self::Code => code(reference).map(|tests| Answer::Code { tests }),
            Self::Command(_) | Self::Judge => Err("this check takes any reference".to_owned()),
        }
    }

    /// Whether problems need no reference under this check.
    pub fn needs_no_reference(&self) -> bool {
        matches!(self, Self::Regex(Some(_)))
    }
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Regex(Some(pattern)) => write!(f, "regex:{pattern}"),
            Self::Command(line) => write!(f, "{{ command = {:?} }}", line.command),
            named => f.write_str(named.name()),
        }
    }
}

impl std::str::FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(written) = text.strip_prefix("regex:") {
            return pattern::whole(written).map(|_| Self::Regex(Some(written.to_owned())));
        }
        Self::NAMED.into_iter().find(|c| c.name() == text).ok_or_else(|| format!("unknown check {text:?}; known are {}", Self::KNOWN))
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Command(line) => line.serialize(serializer),
            named => serializer.collect_str(named),
        }
    }
}

impl<'de> Deserialize<'de> for Check {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl<'de> Visitor<'de> for Written {
            type Value = Check;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "a check ({})", Check::KNOWN)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Check, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Check, A::Error> {
                let line = CommandLine::deserialize(MapAccessDeserializer::new(map))?;
                line.check().map_err(A::Error::custom)?;
                Ok(Check::Command(line))
            }
        }
        deserializer.deserialize_any(Written)
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

/// The letter of `C`, `c`, `(C)`, `C.`, `\\text{C}`, and of a letter that is marked as one before its value: `(C) 42`, `C. 42`, `C: 42`.
fn letter(reference: &str) -> Option<char> {
    let mut rest = reference.trim_start_matches('$');
    for command in ["\\textbf{", "\\text{", "\\mathrm{", "\\mathbf{"] {
        rest = rest.strip_prefix(command).unwrap_or(rest);
    }
    let rest = rest.trim_start();
    let (bracket, rest) = rest.strip_prefix('(').map_or((false, rest), |rest| (true, rest.trim_start()));
    let letter = rest.chars().next().map(|c| c.to_ascii_uppercase()).filter(|c| ('A'..='J').contains(c))?;
    let behind = rest[1..].trim_start_matches(['}', '$', ' ']);
    let marked = behind.starts_with([')', '.', ':', '）', '．', '：', '、']) && (!bracket || behind.starts_with(')'));
    (marked || behind.is_empty() && !bracket).then_some(letter)
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
        for c in Check::NAMED.into_iter().filter(|c| *c != Check::Judge) {
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
        check(Check::Choice, "about C", "not the letter of a choice");
        check(Check::Regex(None), "a)|(b", "unopened group");
        check(Check::Number, &"x".repeat(1000), "xxx…");
    }

    #[test]
    fn letters_of_choices_are_read_where_they_are_meant() {
        let rows = [
            ("C", Some('C')),
            ("c", Some('C')),
            ("(C)", Some('C')),
            ("( d )", Some('D')),
            ("B.", Some('B')),
            ("(C) 42", Some('C')),
            ("A) a cat", Some('A')),
            ("J: none of these", Some('J')),
            (r"\text{C}", Some('C')),
            (r"\textbf{(C)}\ 42", Some('C')),
            ("$E$", Some('E')),
            ("K", None),
            ("A cat", None),
            ("Cat", None),
            ("(C", None),
            ("(A+B)", None),
            ("C = 5", None),
            ("2", None),
            ("é", None),
        ];
        for (text, expect) in rows {
            assert_eq!(letter(text), expect, "{text:?}");
        }
    }

    #[test]
    fn gold_is_read_back() {
        let command = Check::Command(CommandLine::new(&["python", "check.py"]));
        let answers = [
            (Check::Exact, Answer::Exact { text: "New York".into() }),
            (Check::Choice, Answer::Choice { letter: 'C' }),
            (Check::Regex(None), Answer::Regex { pattern: r"\d+ (km|miles)".into() }),
            (Check::Regex(Some("a|b".into())), Answer::Regex { pattern: "a|b".into() }),
            (command.clone(), Answer::Command { reference: r#"{"a": [1]}"#.into() }),
            (command, Answer::Command { reference: String::new() }),
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
        for check in Check::NAMED {
            assert_eq!(check.to_string().parse(), Ok(check));
        }
        let unknown = "Number".parse::<Check>().expect_err("unknown");
        assert_eq!(unknown, format!("unknown check \"Number\"; known are {}", Check::KNOWN));
        let pattern: Check = "regex:a|b".parse().expect("a pattern");
        assert_eq!((pattern.to_string().as_str(), pattern), ("regex:a|b", Check::Regex(Some("a|b".into()))));
        assert!("regex:[".parse::<Check>().expect_err("no pattern").contains("unclosed"));
        assert_eq!(serde_json::from_str::<Check>("\"math\"").ok(), Some(Check::Math));
        assert!(serde_json::from_str::<Check>("\"maths\"").expect_err("unknown").to_string().contains("known are number"));
    }

    #[test]
    fn commands_are_read_and_written_as_tables() {
        let read = |text: &str| serde_json::from_str::<Check>(text).map_err(|e| e.to_string());
        let check = read(r#"{"command": ["python", "check.py"]}"#).expect("a command");
        assert_eq!(check, Check::Command(CommandLine::new(&["python", "check.py"])));
        assert_eq!(serde_json::to_string(&check).expect("a form"), r#"{"command":["python","check.py"],"deadline":10.0}"#);
        for (text, part) in [
            (r#"{"command": []}"#, "must name a program"),
            (r#"{"command": [" "]}"#, "must name a program"),
            (r#"{"command": ["a\u0000"]}"#, "zero byte"),
            (r#"{"command": ["a"], "deadline": 0}"#, "above 0"),
            (r#"{"command": ["a"], "deadline": 1e9}"#, "at most 3600"),
            (r#"{"command": "python check.py"}"#, "a sequence"),
            (r#"{"comand": ["a"]}"#, "unknown field `comand`"),
            ("7", "a check (number, math"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
