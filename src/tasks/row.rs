//! One line of a problem file, taken apart: fields by name, and errors that list the fields that are there.
//!
//! It knows the names that stored problem sets use for the same thing. It does not know files, line numbers or duplicates; that is `read.rs`.

use super::check::Check;
use super::knights::{MAX_PEOPLE, Statement, solutions};
use crate::problem::{Answer, CodeTests};
use anyhow::{Context, bail, ensure};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// The fields of one line, in the order of the file.
pub(super) struct Row {
    fields: Map<String, Value>,
    /// Those that are numbers, as they are written: a `Value` holds about 17 digits of them.
    numbers: HashMap<String, String>,
}

impl Row {
    /// # Errors
    /// When the line is not UTF-8 or not one JSON object.
    pub(super) fn parse(line: &[u8]) -> anyhow::Result<Self> {
        let text = std::str::from_utf8(line).map_err(|e| anyhow::anyhow!("not UTF-8 from byte {} of the line on", e.valid_up_to()))?;
        let fields = match serde_json::from_str(text).context("not JSON")? {
            Value::Object(fields) => fields,
            other => bail!("the line is {}, expected a JSON object", kind(&other)),
        };
        let mut numbers = HashMap::new();
        if fields.values().any(Value::is_number) {
            let written: HashMap<String, &RawValue> = serde_json::from_str(text).context("not JSON")?;
            numbers =
                written.into_iter().filter(|(name, _)| fields[name].is_number()).map(|(name, raw)| (name, plain(raw.get()))).collect();
        }
        Ok(Self { fields, numbers })
    }

    pub(super) fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// The first of `names` that the row has.
    pub(super) fn find(&self, names: &[&str]) -> Option<(&String, &Value)> {
        names.iter().find_map(|name| self.fields.get_key_value(*name))
    }

    fn require(&self, names: &[&str]) -> anyhow::Result<(&String, &Value)> {
        self.find(names).with_context(|| {
            let found: Vec<&str> = self.fields.keys().map(String::as_str).collect();
            format!(
                "no field {}; this line has: {}",
                names.join(" or "),
                if found.is_empty() { "none".to_owned() } else { found.join(", ") }
            )
        })
    }

    /// A text that is not blank.
    pub(super) fn text(&self, names: &[&str]) -> anyhow::Result<String> {
        let (name, value) = self.require(names)?;
        let Value::String(text) = value else { bail!("field {name} is {}, expected text", kind(value)) };
        ensure!(!text.trim().is_empty(), "field {name} is empty");
        Ok(text.clone())
    }

    /// A text or a number as text; null is the empty text, which no check accepts.
    pub(super) fn reference(&self, names: &[&str]) -> anyhow::Result<String> {
        match self.require(names)? {
            (_, Value::String(text)) => Ok(text.clone()),
            (name, Value::Number(number)) => Ok(self.numbers.get(name).cloned().unwrap_or_else(|| number.to_string())),
            (_, Value::Null) => Ok(String::new()),
            (name, other) => bail!("field {name} is {}, expected text or a number", kind(other)),
        }
    }

    /// The id as written; a bare number gets the task in front.
    pub(super) fn id(&self, name: &str, task: &str) -> anyhow::Result<String> {
        match self.require(&[name])? {
            (name, Value::Number(number)) => Ok(format!("{task}/{}", self.numbers.get(name).unwrap_or(&number.to_string()))),
            _ => self.text(&[name]),
        }
    }

    /// `3`, `4.25` (rounded) or `"Level 3"`; anything else says nothing about difficulty.
    pub(super) fn level(&self) -> Option<u8> {
        let level = match self.fields.get("level")? {
            Value::Number(number) => number.as_f64()?,
            Value::String(text) => text.rsplit(' ').next()?.parse().ok()?,
            _ => return None,
        };
        (0.0..=255.0).contains(&level).then(|| level.round() as u8)
    }

    /// What a command is given as the reference: text and numbers as they are, anything else as JSON, nothing where no field is named.
    fn anything(&self, names: &[&str]) -> anyhow::Result<String> {
        if names == [""] {
            return Ok(String::new());
        }
        match self.require(names)?.1 {
            Value::String(_) | Value::Number(_) | Value::Null => self.reference(names),
            other => Ok(other.to_string()),
        }
    }

    /// The answer under `check`: from the structured fields of its task where the row has them, else from the reference text in `names`.
    ///
    /// The inner error says why the reference is unusable.
    ///
    /// # Errors
    /// When a field is missing or has the wrong type.
    pub(super) fn answer(&self, check: &Check, names: &[&str]) -> anyhow::Result<Result<Answer, String>> {
        match check {
            Check::Countdown if self.find(&["nums", "numbers"]).is_some() => self.countdown(),
            Check::Knights if self.find(&["names"]).is_some() => self.knights(),
            Check::Code if self.find(&["test", "test_list"]).is_some() => self.asserts(),
            Check::Code => match self.require(names)?.1 {
                structured @ (Value::Object(_) | Value::Array(_)) => Ok(check.answer(&structured.to_string())),
                _ => Ok(check.answer(&self.reference(names)?)),
            },
            Check::Judge if self.find(names).is_none() => Ok(check.answer("")),
            Check::Command(_) | Check::Judge => Ok(check.answer(&self.anything(names)?)),
            _ if check.needs_no_reference() => Ok(check.answer("")),
            _ => Ok(check.answer(&self.reference(names)?)),
        }
    }

    fn countdown(&self) -> anyhow::Result<Result<Answer, String>> {
        let (name, _) = self.require(&["nums", "numbers"])?;
        let numbers = self.list(name, "integers", Value::as_i64)?;
        let (name, value) = self.require(&["target"])?;
        let target = value.as_i64().with_context(|| format!("field {name} is {}, expected an integer", kind(value)))?;
        Ok(if numbers.is_empty() { Err("there are no numbers".to_owned()) } else { Ok(Answer::Countdown { numbers, target }) })
    }

    /// Where the statements are stored too, the stored solution must be the only one.
    fn knights(&self) -> anyhow::Result<Result<Answer, String>> {
        let names = self.list("names", "texts", |v| v.as_str().filter(|s| !s.trim().is_empty()).map(str::to_owned))?;
        let (field, _) = self.require(&["solution_bool", "solution"])?;
        let knights = self.list(field, "true or false", Value::as_bool)?;
        if names.is_empty() || names.len() != knights.len() {
            return Ok(Err(format!("{} names but {} roles", names.len(), knights.len())));
        }
        if let Some((i, name)) = names.iter().enumerate().find(|(i, n)| names[..*i].contains(n)) {
            return Ok(Err(format!("person {} is named {name} like another one", i + 1)));
        }
        let unproven = match self.find(&["statements"]) {
            Some((_, stored)) => disprove(stored, &knights),
            None => None,
        };
        Ok(unproven.map_or(Ok(Answer::Knights { names, knights }), Err))
    }

    /// HumanEval's fields (a test with `check`, the entry point, the prompt that a response may go on from) or MBPP's (asserts alone).
    fn asserts(&self) -> anyhow::Result<Result<Answer, String>> {
        let test = match self.find(&["test_list"]) {
            Some(_) => {
                let line = |v: &Value| v.as_str().map(str::to_owned);
                let before = self.find(&["test_imports"]).map_or(Ok(Vec::new()), |_| self.list("test_imports", "texts", line))?;
                [before, self.list("test_list", "texts", line)?].concat().join("\n")
            }
            None => self.text(&["test"])?,
        };
        let entry = self.find(&["entry_point"]).map(|_| self.text(&["entry_point"])).transpose()?;
        let prompt = entry.as_ref().map(|_| self.text(&["prompt", "problem"])).transpose()?;
        if !test.contains("assert") {
            return Ok(Err("the test holds no assert".to_owned()));
        }
        Ok(Ok(Answer::Code { tests: CodeTests::Asserts { prompt, entry, test } }))
    }

    fn list<T>(&self, name: &str, what: &str, item: impl Fn(&Value) -> Option<T>) -> anyhow::Result<Vec<T>> {
        let (_, value) = self.require(&[name])?;
        let items = value.as_array().and_then(|items| items.iter().map(item).collect());
        items.with_context(|| format!("field {name} is {}, expected a list of {what}", kind(value)))
    }
}

/// A JSON number without an exponent, digit by digit; one whose exponent would make it longer than 400 digits stays as it is.
fn plain(number: &str) -> String {
    let Some((mantissa, exponent)) = number.split_once(['e', 'E']) else { return number.to_owned() };
    let Some(exponent) = exponent.parse::<i32>().ok().filter(|e| e.abs() <= 400) else { return number.to_owned() };
    let (sign, digits) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut digits = format!("{whole}{fraction}");
    let point = whole.len() as i32 + exponent;
    if point <= 0 {
        digits = format!("0.{}{digits}", "0".repeat(point.unsigned_abs() as usize));
    } else if point as usize >= digits.len() {
        digits += &"0".repeat(point as usize - digits.len());
    } else {
        digits.insert(point as usize, '.');
    }
    format!("{sign}{digits}")
}

/// Why `knights` is not proven to be the unique solution of the stored statements, if so.
fn disprove(stored: &Value, knights: &[bool]) -> Option<String> {
    // The puzzles of mem-kk-logic store the statements as the text of a Python tuple.
    let parsed = match stored {
        Value::String(text) => serde_json::from_str(&python_to_json(text)).unwrap_or_default(),
        other => other.clone(),
    };
    let Some(items) = parsed.as_array() else { return Some("the statements are not a list".to_owned()) };
    if items.len() != knights.len() || items.len() > MAX_PEOPLE {
        return Some(format!("{} statements for {} people (at most {MAX_PEOPLE})", items.len(), knights.len()));
    }
    let statements: Vec<Statement> = match items.iter().map(|s| Statement::parse(s, items.len())).collect() {
        Ok(statements) => statements,
        Err(reason) => return Some(reason),
    };
    match solutions(&statements).as_slice() {
        [only] if only == knights => None,
        [_] => Some("the stored solution is not the one that the statements have".to_owned()),
        all => Some(format!("the statements have {} solutions", all.len())),
    }
}

/// `(('lying', 1),)` as `[["lying", 1]]`; the statements hold no quotes or parentheses of their own.
fn python_to_json(text: &str) -> String {
    text.replace('(', "[").replace(')', "]").replace('\'', "\"").replace(",]", "]")
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(json: &str) -> Row {
        Row::parse(json.as_bytes()).unwrap_or_else(|e| panic!("{json}: {e:#}"))
    }

    #[test]
    fn levels_are_read_where_they_mean_something() {
        let check = |json: &str, expect: Option<u8>| assert_eq!(row(json).level(), expect, "{json}");
        check(r#"{"level": 3}"#, Some(3));
        check(r#"{"level": 5.25}"#, Some(5));
        check(r#"{"level": "Level 4"}"#, Some(4));
        check(r#"{"level": "Level ?"}"#, None);
        check(r#"{"level": -1}"#, None);
        check(r#"{"level": null}"#, None);
        check("{}", None);
    }

    #[test]
    fn numbers_keep_every_digit() {
        let check = |json: &str, expect: &str| {
            assert_eq!(row(&format!(r#"{{"answer": {json}}}"#)).reference(&["answer"]).ok().as_deref(), Some(expect), "{json}");
        };
        for number in ["123456789012345678901234567890", "0.12345678901234567890123", "-98765432109876543210", "7", "1.50", "-0"] {
            check(number, number);
        }
        check("1e3", "1000");
        check("-1.25E+1", "-12.5");
        check("12345678901234567890.5e-3", "12345678901234567.8905");
        check("5e-2", "0.05");
        check("0e0", "0");
        let long = row(r#"{"id": 123456789012345678901234567890, "answer": 123456789012345678901234567890}"#);
        assert_eq!(long.id("id", "own").ok().as_deref(), Some("own/123456789012345678901234567890"));
        let answer = long.answer(&Check::Number, &["answer"]).expect("a number");
        assert_eq!(answer, Ok(Answer::Number { value: "123456789012345678901234567890".into() }));
    }

    #[test]
    fn knights_rows_are_proven() {
        let check = |json: &str, expect: Result<Vec<bool>, &str>| match (
            row(json).answer(&Check::Knights, &["answer"]).expect("types fit"),
            expect,
        ) {
            (Ok(Answer::Knights { knights, .. }), Ok(expect)) => assert_eq!(knights, expect, "{json}"),
            (Err(reason), Err(part)) => assert!(reason.contains(part), "{json}: {reason}"),
            (got, _) => panic!("{json}: {got:?}"),
        };
        let stored = |statements: &str, solution: &str| {
            format!(r#"{{"names": ["A", "B"], "solution_bool": {solution}, "statements": {statements}}}"#)
        };
        let iff = r#"[["not",["telling-truth",1]],["<=>",["telling-truth",1],["lying",0]]]"#;
        check(&stored(iff, "[false, true]"), Ok(vec![false, true]));
        check(&stored(iff, "[true, false]"), Err("not the one"));
        check(&stored(&iff.replace("<=>", "and"), "[false, true]"), Err("2 solutions"));
        check(
            &stored(r#""(('not', ('telling-truth', 1)), ('<=>', ('telling-truth', 1), ('lying', 0),))""#, "[false, true]"),
            Ok(vec![false, true]),
        );
        check(&stored(r#""nonsense""#, "[false, true]"), Err("not a list"));
        check(&stored("[]", "[false, true]"), Err("0 statements for 2"));
        check(&stored(iff, "[false]"), Err("2 names but 1 roles"));
        check(r#"{"names": ["A", "A"], "solution": [true, true]}"#, Err("named A like another"));
        check(r#"{"names": ["A", "B"], "solution": [true, false]}"#, Ok(vec![true, false]));
        check(r#"{"answer": "(1) A is a knight\n(2) B is a knave"}"#, Ok(vec![true, false]));
    }

    #[test]
    fn a_command_is_given_any_reference_and_a_pattern_of_the_recipe_needs_none() {
        let command = Check::Command(crate::tasks::CommandLine::new(&["x"]));
        for (json, expect) in [
            (r#"{"answer": "a"}"#, "a"),
            (r#"{"answer": 123456789012345678901234567890}"#, "123456789012345678901234567890"),
            (r#"{"answer": {"b": [1, "c"]}}"#, r#"{"b":[1,"c"]}"#),
            (r#"{"answer": [true]}"#, "[true]"),
            (r#"{"answer": null}"#, ""),
        ] {
            let answer = row(json).answer(&command, &["answer"]).expect("a field");
            assert_eq!(answer, Ok(Answer::Command { reference: expect.into() }), "{json}");
        }
        assert!(row("{}").answer(&command, &["answer"]).is_err());
        assert_eq!(row("{}").answer(&command, &[""]).ok(), Some(Ok(Answer::Command { reference: String::new() })));
        let pattern = Check::Regex(Some("a".into()));
        assert_eq!(row("{}").answer(&pattern, &["answer"]).ok(), Some(Ok(Answer::Regex { pattern: "a".into() })));
    }

    #[test]
    fn wrong_types_are_errors() {
        let check = |json: &str, check: Check, part: &str| {
            let error = format!("{:#}", row(json).answer(&check, &["answer"]).expect_err(json));
            assert!(error.contains(part), "{json}: {error}");
        };
        check(r#"{"answer": ["1"]}"#, Check::Number, "field answer is a list, expected text or a number");
        check(r#"{"answer": true}"#, Check::Math, "field answer is true or false");
        check(r#"{"gold": 1, "q": 2}"#, Check::Math, "no field answer; this line has: gold, q");
        check(r#"{"nums": [1, "2"], "target": 3}"#, Check::Countdown, "field nums is a list, expected a list of integers");
        check(r#"{"nums": [1, 2]}"#, Check::Countdown, "no field target");
        check(r#"{"nums": [1, 2], "target": 1.5}"#, Check::Countdown, "field target is a number, expected an integer");
        check(r#"{"names": ["A", 1], "solution": [true, true]}"#, Check::Knights, "list of texts");
        check(r#"{"names": ["A"], "solution": [1]}"#, Check::Knights, "list of true or false");
        check("{}", Check::Knights, "this line has: none");
    }
}
