//! What a file of problems is like: which fields hold question, answer and id, and how its answers can be checked.
//!
//! Two passes over the file, neither of which holds more of it than a few hundred lines and all ids: one for a sample that is spread over all of it,
//! one over every line. It proposes; whether a proposal is good, the counts say.

use super::check::Check;
use super::number::canonical_number;
use super::read::{Fields, Layout, content, problem};
use super::row::{Row, kind};
use super::{Task, Unusable};
use crate::problem::{Language, Problem};
use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Names in use for the same thing, the likeliest first; case does not matter.
const QUESTIONS: [&str; 9] = ["question", "problem", "prompt", "instruction", "query", "quiz", "task", "input", "text"];
const ANSWERS: [&str; 16] = [
    "answer",
    "final_answer",
    "expected_answer",
    "correct_answer",
    "reference_answer",
    "ground_truth",
    "gold",
    "target",
    "reference",
    "label",
    "expected",
    "correct",
    "result",
    "output",
    "completion",
    "solution",
];
const IDS: [&str; 9] = ["id", "_id", "uid", "uuid", "problem_id", "question_id", "task_id", "key", "unique_id"];

/// Lines that a sample holds at most.
const SAMPLE: usize = 256;
/// Lines with something wrong that are kept to be shown.
const SHOWN: usize = 5;

/// How a file is to be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    pub fields: Fields,
    pub check: Check,
    /// The layout of a published set that the file has, where it cannot be read as anybody's own.
    pub task: Option<Task>,
    /// What a person should know about it.
    pub notes: Vec<String>,
}

/// What came of reading every line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Census {
    /// Lines that hold something.
    pub lines: usize,
    /// Problems that can be asked and checked.
    pub usable: usize,
    /// Problems whose reference cannot be used, which a run leaves out and lists; the first few.
    pub unusable: Vec<Unusable>,
    pub unusable_count: usize,
    /// Lines that stop a run; the first few, with line numbers from 1.
    pub broken: Vec<(usize, String)>,
    pub broken_count: usize,
    pub languages: BTreeMap<Language, usize>,
    /// Problems from all over the file.
    pub examples: Vec<Problem>,
}

/// Lines from all over a stream: its first, and then each that a stride meets, which doubles when they become too many.
struct Spread<T> {
    items: Vec<T>,
    stride: usize,
    seen: usize,
    most: usize,
}

impl<T> Spread<T> {
    fn new(most: usize) -> Self {
        Self { items: Vec::new(), stride: 1, seen: 0, most }
    }

    fn offer(&mut self, item: impl FnOnce() -> T) {
        if self.seen.is_multiple_of(self.stride) {
            if self.items.len() == self.most {
                let mut n = 0;
                self.items.retain(|_| {
                    n += 1;
                    n % 2 == 1
                });
                self.stride *= 2;
            }
            if self.seen.is_multiple_of(self.stride) {
                self.items.push(item());
            }
        }
        self.seen += 1;
    }
}

/// Looks at a sample of a file and proposes how to read it. Fields that are `given` are not looked for.
///
/// # Errors
/// Where the file cannot be read or holds no JSON objects, and where question or answer cannot be told; the fields that are there are named.
pub fn propose(path: &Path, given: &[(String, String)]) -> Result<Proposal> {
    let rows = sample(path)?;
    let table = Columns::of(&rows);
    let given = |key: &str| given.iter().find(|(name, _)| name == key).map(|(_, field)| field.clone());
    let id = given("id").or_else(|| table.named(&IDS, |c| c.scalars() == rows.len()));
    let question = given("question").or_else(|| table.named(&QUESTIONS, |c| c.texts * 10 >= rows.len() * 9));
    let has = |name: &str| table.columns.iter().any(|(column, c)| column == name && c.rows * 10 >= rows.len() * 9);
    let fields = |question: String, answer: &str| Fields { question, answer: answer.to_owned(), id: id.clone() };
    let mut notes = Vec::new();
    let structured = [
        (Check::Countdown, has("target") && (has("nums") || has("numbers"))),
        (Check::Knights, has("names") && (has("solution") || has("solution_bool"))),
        (Check::Code, has("test") || has("test_list")),
    ];
    let structured = structured.into_iter().find(|(_, there)| *there).map(|(check, _)| check);
    match (structured, question, given("answer")) {
        (Some(Check::Countdown), None, _) => {
            notes.push("the lines hold numbers and a target alone; they are asked in words of ours".to_owned());
            Ok(Proposal { fields: Fields { id, ..Fields::default() }, check: Check::Countdown, task: Some(Task::Countdown), notes })
        }
        (_, None, _) => bail!(
            "no field looks like a question ({}); the fields are: {}; name it with --fields question=…,answer=…",
            QUESTIONS.join(", "),
            table.names()
        ),
        (Some(check), Some(question), None) => Ok(Proposal { fields: fields(question, "answer"), check, task: None, notes }),
        (_, Some(question), answer) => {
            let usable = |c: &Column| (c.scalars() + c.lists) * 10 >= rows.len() * 9;
            let answer =
                answer.or_else(|| table.named(&ANSWERS, |c| usable(c) && c.name != question)).ok_or_else(|| no_answer(&table, &rows))?;
            let named = rows.iter().filter_map(|row| row.fields().get(&answer)).collect::<Vec<_>>();
            let (check, task) = kind_of(&named, &answer, &mut notes)?;
            let wanted = if task == Some(Task::Math) { "solution" } else { "answer" };
            if let Some(task) = task.filter(|_| answer != wanted || !["question", "problem"].contains(&&*question)) {
                bail!(
                    "the field {answer} holds worked solutions as {task} has them; with the fields question and {wanted} the file is read as {task}"
                );
            }
            Ok(Proposal { fields: fields(question, &answer), check, task, notes })
        }
    }
}

/// Reads every line as proposed. `wrong` may say of a problem why its reference cannot be used after all.
///
/// # Errors
/// Where the file cannot be read.
pub fn count(path: &Path, proposal: &Proposal, task: &str, wrong: impl Fn(&Problem) -> Option<String>) -> Result<Census> {
    let layout = match proposal.task {
        Some(task) => Layout::Named(task),
        None => Layout::Own { task, fields: &proposal.fields, check: &proposal.check },
    };
    let mut census = Census::default();
    let mut examples = Spread::new(SAMPLE);
    let mut ids: HashMap<String, usize> = HashMap::new();
    each_line(path, |line, line_idx| {
        census.lines += 1;
        let mut broken = |why: String| {
            census.broken_count += 1;
            if census.broken.len() < SHOWN {
                census.broken.push((line_idx + 1, why));
            }
        };
        let (id, read) = match problem(line, line_idx, layout) {
            Ok(read) => read,
            Err(error) => return broken(format!("{error:#}")),
        };
        if let Some(before) = ids.insert(id.0.clone(), line_idx + 1) {
            return broken(format!("the id {:?} is already that of line {before}", id.0));
        }
        match read.and_then(|problem| wrong(&problem).map_or(Ok(problem), Err)) {
            Ok(problem) => {
                census.usable += 1;
                *census.languages.entry(problem.language).or_default() += 1;
                examples.offer(|| problem);
            }
            Err(reason) => {
                census.unusable_count += 1;
                if census.unusable.len() < SHOWN {
                    census.unusable.push(Unusable { place: (line_idx + 1).to_string(), id: id.0, reason });
                }
            }
        }
    })?;
    census.examples = examples.items;
    Ok(census)
}

/// Calls `look` with each line that is not blank, and its number from 0.
fn each_line(path: &Path, mut look: impl FnMut(&[u8], usize)) -> Result<()> {
    let place = || format!("cannot read the problems {}", path.display());
    let mut input = BufReader::new(File::open(path).with_context(place)?);
    let mut line = Vec::new();
    for line_idx in 0.. {
        line.clear();
        if input.read_until(b'\n', &mut line).with_context(place)? == 0 {
            break;
        }
        let line = content(&line, line_idx);
        if !line.is_empty() {
            look(line, line_idx);
        }
    }
    Ok(())
}

fn sample(path: &Path) -> Result<Vec<Row>> {
    let mut rows = Spread::new(SAMPLE);
    let mut first_error = None;
    each_line(path, |line, line_idx| match Row::parse(line) {
        Ok(row) => rows.offer(|| row),
        Err(error) => _ = first_error.get_or_insert_with(|| format!("line {}: {error:#}", line_idx + 1)),
    })?;
    match first_error {
        _ if !rows.items.is_empty() => Ok(rows.items),
        Some(error) => bail!("{} holds no JSON objects, one on each line; {error}", path.display()),
        None => bail!("{} is empty", path.display()),
    }
}

/// What a field holds in a sample.
#[derive(Default)]
struct Column {
    name: String,
    rows: usize,
    texts: usize,
    numbers: usize,
    lists: usize,
}

impl Column {
    fn scalars(&self) -> usize {
        self.texts + self.numbers
    }
}

/// The fields of a sample, in the order in which they come.
struct Columns {
    columns: Vec<(String, Column)>,
}

impl Columns {
    fn of(rows: &[Row]) -> Self {
        let mut columns: Vec<(String, Column)> = Vec::new();
        for (name, value) in rows.iter().flat_map(Row::fields) {
            let at = columns.iter().position(|(column, _)| column == name).unwrap_or_else(|| {
                columns.push((name.clone(), Column { name: name.clone(), ..Column::default() }));
                columns.len() - 1
            });
            let column = &mut columns[at].1;
            column.rows += 1;
            match value {
                Value::String(_) => column.texts += 1,
                Value::Number(_) => column.numbers += 1,
                Value::Array(_) | Value::Object(_) => column.lists += 1,
                Value::Null | Value::Bool(_) => {}
            }
        }
        Self { columns }
    }

    /// The first of `names` for which a field is there that fits.
    fn named(&self, names: &[&str], fits: impl Fn(&Column) -> bool) -> Option<String> {
        let field = |name: &&str| self.columns.iter().find(|(column, c)| column.eq_ignore_ascii_case(name) && fits(c));
        names.iter().find_map(field).map(|(name, _)| name.clone())
    }

    fn names(&self) -> String {
        self.columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// Why there is no answer, with the way out where one lies a level deeper.
fn no_answer(table: &Columns, rows: &[Row]) -> anyhow::Error {
    let deeper = rows.first().and_then(|row| {
        row.fields().iter().find_map(|(outer, value)| {
            let inner = value.as_object()?;
            ANSWERS.iter().find(|name| inner.contains_key(**name)).map(|name| (outer.clone(), *name))
        })
    });
    let end = format!("the fields are: {}; name it with --fields question=…,answer=…", table.names());
    match deeper {
        Some((outer, inner)) => anyhow!(
            "the answers lie in {outer}.{inner}, inside of another field; bring them to the top first, such as with \
             jq -c '. + {{answer: .{outer}.{inner}}}'"
        ),
        None => anyhow!("no field looks like an answer ({}); {end}", ANSWERS.join(", ")),
    }
}

/// The check that fits the references of a sample, and the set as whose worked solutions they are read where they are such.
fn kind_of(values: &[&Value], field: &str, notes: &mut Vec<String>) -> Result<(Check, Option<Task>)> {
    let nested = values.iter().filter(|value| value.is_array() || value.is_object());
    if let Some(value) = nested.clone().next() {
        if Check::Code.answer(&value.to_string()).is_ok() {
            return Ok((Check::Code, None));
        }
        bail!(
            "the field {field} is {}, and no tests of a program: answers must be text or numbers; bring what counts to the top, or judge with a command",
            kind(value)
        );
    }
    let text = |value: &&Value| value.as_str().map_or_else(|| value.to_string(), |text| text.trim().to_owned());
    let texts: Vec<String> = values.iter().filter(|value| !value.is_null()).map(text).filter(|text| !text.is_empty()).collect();
    let most = |holds: &dyn Fn(&str) -> bool| texts.iter().filter(|text| holds(text)).count() * 10 >= texts.len() * 9;
    let reads = |check: Check| move |text: &str| check.answer(text).is_ok();
    let mathematical = |text: &str| {
        let words =
            text.split_whitespace().filter(|word| word.chars().filter(|c| c.is_alphabetic()).count() > 2 && !word.contains('\\')).count();
        text.contains(|c: char| c.is_ascii_digit() || "\\$^=".contains(c)) && words <= 4 || text.chars().count() == 1
    };
    Ok(match () {
        _ if texts.is_empty() => bail!("the field {field} is empty in every line that was looked at"),
        _ if most(&|text| text.contains("####")) => (Check::Number, Some(Task::Gsm8k)),
        _ if field == "solution" && most(&|text| text.contains("\\boxed{")) => (Check::Math, Some(Task::Math)),
        _ if texts.iter().all(|text| canonical_number(text).is_some()) => (Check::Number, None),
        _ if most(&reads(Check::Countdown)) => (Check::Countdown, None),
        _ if most(&reads(Check::Knights)) => (Check::Knights, None),
        _ if most(&|text| text.contains("assert ") || (text.starts_with(['{', '[']) && Check::Code.answer(text).is_ok())) => {
            (Check::Code, None)
        }
        _ if most(&reads(Check::Choice)) => (Check::Choice, None),
        _ if texts.iter().filter(|text| mathematical(text)).count() * 2 >= texts.len() => (Check::Math, None),
        _ => {
            let mut lengths: Vec<usize> = texts.iter().map(|text| text.chars().count()).collect();
            lengths.sort_unstable();
            let median = lengths[lengths.len() / 2];
            notes.push(if median > 80 {
                format!("half of the answers are longer than {median} characters: an answer will hardly ever be the same text; better judge with a program of your own")
            } else {
                "the answers are words: they must be met letter by letter, case included; verify = \"math\" is more forgiving".to_owned()
            });
            (Check::Exact, None)
        }
    })
}

#[cfg(test)]
mod tests;
