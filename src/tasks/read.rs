//! Reading problems from JSONL: the known problem sets, and the user's own files.
//!
//! A line that cannot be read is an error with file and line. A line whose reference cannot be used becomes an `Unusable`, never nothing. This file
//! does not know where data lies (`mod.rs` does) or what an answer looks like (`check.rs` does).

use super::check::Check;
use super::row::Row;
use super::{Loaded, Task, Unusable};
use crate::problem::{Answer, CodeTests, Language, Problem, ProblemId};
use anyhow::{Context, anyhow, bail};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Which fields of the user's own lines hold what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fields {
    pub question: String,
    pub answer: String,
    /// Without one, a problem is named by its line.
    pub id: Option<String>,
}

impl Default for Fields {
    fn default() -> Self {
        Self { question: "question".to_owned(), answer: "answer".to_owned(), id: None }
    }
}

/// How the lines of a file are to be understood.
#[derive(Clone, Copy, Debug)]
pub enum Layout<'a> {
    /// As the named task is published, or as its copies commonly name the same fields.
    Named(Task),
    /// The user's own; `task` is the name that ids and reports carry.
    Own { task: &'a str, fields: &'a Fields, check: &'a Check },
}

/// Reads a JSONL file. Blank lines are skipped; line numbers in messages count from 1, in ids from 0.
///
/// # Errors
/// Naming file and line: what is not UTF-8, not a JSON object, lacks a field (the fields found are listed), has a wrong type or an empty question, or
/// repeats an id (both lines are named).
pub fn read(path: &Path, layout: Layout) -> anyhow::Result<Loaded> {
    let file = File::open(path).with_context(|| format!("cannot open the problems {}", path.display()))?;
    parse(BufReader::new(file), &path.display().to_string(), layout)
}

/// As [`read`], from any source; `file` is its name in messages.
pub(super) fn parse(mut input: impl BufRead, file: &str, layout: Layout) -> anyhow::Result<Loaded> {
    let mut loaded = Loaded::default();
    let mut lines_of_ids: HashMap<String, usize> = HashMap::new();
    let mut line = Vec::new();
    for line_idx in 0.. {
        let place = format!("{file}:{}", line_idx + 1);
        line.clear();
        if input.read_until(b'\n', &mut line).with_context(|| place.clone())? == 0 {
            break;
        }
        let bytes = content(&line, line_idx);
        if bytes.is_empty() {
            continue;
        }
        let (id, problem) = problem(bytes, line_idx, layout).map_err(|e| anyhow!("{place}: {e:#}"))?;
        if let Some(before) = lines_of_ids.insert(id.0.clone(), line_idx + 1) {
            bail!("{place}: the id {:?} is already that of line {before}; ids must be unique", id.0);
        }
        match problem {
            Ok(problem) => loaded.problems.push(problem),
            Err(reason) => loaded.unusable.push(Unusable { place, id: id.0, reason }),
        }
    }
    Ok(loaded)
}

/// What stands in a line, without white space around it and the mark that some editors put in front of a file.
pub(super) fn content(line: &[u8], line_idx: usize) -> &[u8] {
    let line = if line_idx == 0 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
    line.trim_ascii()
}

/// The id of one line, and its problem or why it has none.
pub(super) fn problem(line: &[u8], line_idx: usize, layout: Layout) -> anyhow::Result<(ProblemId, Result<Problem, String>)> {
    let row = Row::parse(line)?;
    let (task, answer) = match layout {
        Layout::Named(task) => (task.name(), named_answer(&row, task)?),
        Layout::Own { task, fields, check } => (task, row.answer(check, &[&fields.answer])?),
    };
    let question = match layout {
        Layout::Named(task) => named_question(&row, task, &answer)?,
        Layout::Own { fields, .. } => row.text(&[&fields.question])?,
    };
    let id_field = match layout {
        Layout::Named(_) => ["id", "task_id"].into_iter().find(|name| row.find(&[name]).is_some()),
        Layout::Own { fields, .. } => fields.id.as_deref(),
    };
    let id = ProblemId(id_field.map_or_else(|| Ok(format!("{task}/{line_idx}")), |field| row.id(field, task))?);
    let problem = answer.map(|answer| Problem {
        id: id.clone(),
        task: task.to_owned(),
        language: Language::of_question(&question),
        level: row.level().or_else(|| size(&answer)),
        question,
        answer,
    });
    Ok((id, problem))
}

/// The copies of a set differ in the name of the same field; these are the ones in use.
const QUESTIONS: [&str; 6] = ["problem", "question", "Problem", "quiz", "prompt", "text"];
const ANSWERS: [&str; 2] = ["answer", "Answer"];

fn named_answer(row: &Row, task: Task) -> anyhow::Result<Result<Answer, String>> {
    if task == Task::Gsm8k {
        // GSM8K as published keeps the worked solution in the same field, before the mark.
        let reference = row.reference(&ANSWERS)?;
        return Ok(Check::Number.answer(reference.rsplit("####").next().unwrap_or_default()));
    }
    if task == Task::Math && row.find(&ANSWERS).is_none() {
        // MATH as published has no answer field: the answer is the last box of the worked solution.
        let solution = row.text(&["solution"])?;
        return Ok(last_boxed(&solution)
            .ok_or("the solution has no closed \\boxed{…}".to_owned())
            .and_then(|inner| Check::Math.answer(inner)));
    }
    row.answer(&task.check(), &ANSWERS)
}

/// Inside of the last `\boxed{…}`, braces balanced; `\{` and `\}` do not count.
fn last_boxed(text: &str) -> Option<&str> {
    let (_, inner) = text.rsplit_once("\\boxed{")?;
    let (mut depth, mut escaped) = (1usize, false);
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'{' => depth += 1,
            b'}' if depth == 1 => return Some(&inner[..at]),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Countdown sets are also published as bare numbers; those are asked in our words.
fn named_question(row: &Row, task: Task, answer: &Result<Answer, String>) -> anyhow::Result<String> {
    match answer {
        Ok(Answer::Countdown { numbers, target }) if task == Task::Countdown && row.find(&QUESTIONS).is_none() => {
            Ok(super::countdown::question(numbers, *target))
        }
        // MBPP's questions leave out how the function is called: its tests say so.
        Ok(Answer::Code { tests: CodeTests::Asserts { test, .. } }) if task == Task::Mbpp => {
            Ok(format!("{}\nYour Python code must pass these tests:\n\n{test}", row.text(&QUESTIONS)?.trim_end()))
        }
        _ => row.text(&QUESTIONS),
    }
}

/// The level that a puzzle has by its size.
fn size(answer: &Answer) -> Option<u8> {
    match answer {
        Answer::Countdown { numbers, .. } => u8::try_from(numbers.len()).ok(),
        Answer::Knights { names, .. } => u8::try_from(names.len()).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(task: Task, text: &str) -> anyhow::Result<Loaded> {
        parse(text.as_bytes(), "p.jsonl", Layout::Named(task))
    }

    fn own(check: &Check, fields: &Fields, text: &str) -> anyhow::Result<Loaded> {
        parse(text.as_bytes(), "p.jsonl", Layout::Own { task: "mine", fields, check })
    }

    #[test]
    fn published_layouts_are_read() {
        let check = |task: Task, line: &str, id: &str, gold: &str| {
            let loaded = named(task, line).unwrap_or_else(|e| panic!("{line}: {e:#}"));
            let p = loaded.problems.first().unwrap_or_else(|| panic!("{line}: {:?}", loaded.unusable));
            assert_eq!((p.id.0.as_str(), p.answer.gold().as_str(), p.task.as_str()), (id, gold, task.name()), "{line}");
        };
        check(Task::Gsm8k, r#"{"question": "q", "answer": "9 * 2 = <<9*2=18>>18\n#### 1,018"}"#, "gsm8k/0", "1018");
        check(Task::Gsm8k, r#"{"id": "gsm8k/test/0", "problem": "q", "answer": "18", "solution": "s"}"#, "gsm8k/test/0", "18");
        check(Task::Math500, r#"{"problem": "q", "solution": "s", "answer": "\\frac{1}{2}", "level": 2}"#, "math500/0", r"\frac{1}{2}");
        let boxed = r#"{"problem": "q", "level": "Level 3", "type": "Algebra", "solution": "so \\boxed{1}, \\boxed{\\frac{1}{2}\\}}."}"#;
        check(Task::Math, boxed, "math/0", r"\frac{1}{2}\}");
        check(Task::Aime24, r#"{"id": 60, "problem": "q", "answer": "073", "year": "2024"}"#, "aime24/60", "73");
        check(Task::Aime24, r#"{"ID": "2024-I-1", "Problem": "q", "Answer": 73}"#, "aime24/0", "73");
        check(Task::Countdown, r#"{"target": 98, "nums": [44, 19, 35]}"#, "countdown/0", "98 from [44, 19, 35]");
        check(Task::Knights, r#"{"quiz": "q", "names": ["A"], "solution": [true]}"#, "knights/0", "A is a knight");
        let gold = r#"{"style":"asserts","prompt":"def f(x):\n","entry":"f","test":"def check(c):\n    assert c(1) == 1\n"}"#;
        let test = r#""entry_point": "f", "test": "def check(c):\n    assert c(1) == 1\n""#;
        check(Task::HumanEval, &format!(r#"{{"task_id": "HumanEval/0", "prompt": "def f(x):\n", {test}}}"#), "HumanEval/0", gold);
        check(Task::HumanEval, &format!(r#"{{"id": "HumanEval/0", "problem": "def f(x):\n", {test}}}"#), "HumanEval/0", gold);
        let gold = r#"{"style":"asserts","test":"import math\nassert f(1) == 1"}"#;
        let published = r#"{"task_id": 2, "text": "q", "test_imports": ["import math"], "test_list": ["assert f(1) == 1"]}"#;
        check(Task::Mbpp, published, "mbpp/2", gold);
        check(Task::Mbpp, r#"{"id": "mbpp/2", "problem": "q", "test": "import math\nassert f(1) == 1"}"#, "mbpp/2", gold);
    }

    #[test]
    fn bare_countdown_numbers_get_a_question_and_a_level() {
        let loaded = named(Task::Countdown, r#"{"target": 98, "nums": [44, 19, 35]}"#).expect("valid");
        assert!(loaded.problems[0].question.contains("value is 98") && loaded.problems[0].question.contains("44, 19, 35"));
        assert_eq!(loaded.problems[0].level, Some(3));
    }

    #[test]
    fn a_question_of_mbpp_shows_its_tests() {
        let loaded = named(Task::Mbpp, r#"{"id": "mbpp/2", "problem": "Write a function.", "test": "assert f(1) == 1"}"#).expect("valid");
        assert!(loaded.problems[0].question.ends_with("tests:\n\nassert f(1) == 1"), "{}", loaded.problems[0].question);
    }

    #[test]
    fn a_solution_without_a_box_is_unusable() {
        let loaded = named(Task::Math, r#"{"problem": "q", "solution": "hence \\boxed{1"}"#).expect("readable");
        assert!(loaded.problems.is_empty() && loaded.unusable[0].reason.contains("no closed"), "{loaded:?}");
    }

    #[test]
    fn own_lines_are_read_by_their_fields() {
        let fields = Fields { question: "prompt".into(), answer: "target".into(), id: Some("key".into()) };
        let text =
            "\u{feff}{\"prompt\": \"几个?\", \"target\": 3, \"key\": \"a\"}\r\n\n{\"prompt\": \"q\", \"target\": \"about 3\", \"key\": 7}";
        let loaded = own(&Check::Number, &fields, text).expect("valid");
        assert_eq!(loaded.problems.len(), 1);
        let p = &loaded.problems[0];
        assert_eq!((p.id.0.as_str(), p.language, p.task.as_str()), ("a", Language::Zh, "mine"));
        let unusable = &loaded.unusable[0];
        assert_eq!((unusable.place.as_str(), unusable.id.as_str()), ("p.jsonl:3", "mine/7"));
        assert!(unusable.reason.contains("about 3"), "{}", unusable.reason);
        let loaded =
            own(&Check::Math, &Fields::default(), "\n{\"question\": \"q\", \"answer\": \"x\", \"id\": \"ignored\"}\n").expect("valid");
        assert_eq!(loaded.problems[0].id.0, "mine/1");
    }

    #[test]
    fn what_cannot_be_read_is_an_error_with_its_place() {
        let check = |text: &[u8], expect: &str| {
            let layout = Layout::Own { task: "mine", fields: &Fields::default(), check: &Check::Number };
            let error = format!("{:#}", parse(text, "p.jsonl", layout).expect_err("refused"));
            assert!(error.starts_with(expect), "{error}");
        };
        let good = r#"{"question": "q", "answer": 1}"#;
        let after = |line: &str| format!("{good}\n{line}\n").into_bytes();
        check(&after("{\"question\": "), "p.jsonl:2: not JSON: EOF");
        check(&after("[1]"), "p.jsonl:2: the line is a list, expected a JSON object");
        check(&after(r#"{"prompt": "q", "answer": 1}"#), "p.jsonl:2: no field question; this line has: prompt, answer");
        check(&after(r#"{"question": "q", "gold": 1}"#), "p.jsonl:2: no field answer; this line has: question, gold");
        check(&after(r#"{"question": " ", "answer": 1}"#), "p.jsonl:2: field question is empty");
        check(&after(r#"{"question": 5, "answer": 1}"#), "p.jsonl:2: field question is a number, expected text");
        check(b"{\"question\": \"\xff\", \"answer\": 1}", "p.jsonl:1: not UTF-8 from byte 14");
        let deep = "[".repeat(100_000);
        check(deep.as_bytes(), "p.jsonl:1: not JSON: recursion limit");
    }

    #[test]
    fn a_repeated_id_names_both_lines() {
        let line = r#"{"id": "x", "problem": "q", "answer": "1"}"#;
        let error = named(Task::Gsm8k, &format!("{line}\n\n{line}\n")).expect_err("refused").to_string();
        assert_eq!(error, r#"p.jsonl:3: the id "x" is already that of line 1; ids must be unique"#);
        let unusable = r#"{"id": "x", "problem": "q", "answer": "none"}"#;
        assert!(named(Task::Gsm8k, &format!("{unusable}\n{line}\n")).is_err(), "an unusable line keeps its id");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = format!("{:#}", read(Path::new("no/such.jsonl"), Layout::Named(Task::Gsm8k)).expect_err("missing"));
        assert!(error.starts_with("cannot open the problems no/such.jsonl: "), "{error}");
    }
}
