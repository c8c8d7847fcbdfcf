//! `verify`: judges pairs of reference and answer as they come, or the traces of shards again. Writes nothing but its results to stdout.

use super::config;
use crate::problem::{Answer, Language, Problem, ProblemId};
use crate::recipe::{Problems, Recipe};
use crate::report::text;
use crate::response::Response;
use crate::sandbox::Options;
use crate::shard::traces;
use crate::tasks::Check;
use crate::trace::{Reason, Trace, Verdict};
use crate::verify::code::{Code, Pair};
use crate::verify::math::{Outcome, Reference};
use crate::verify::{Extraction, Rules, Verifier, audit, compare};
use anyhow::{Context, Result, anyhow};
use rayon::prelude::*;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::path::Path;

/// Lines that are judged side by side.
const BATCH: usize = 512;

/// How to judge.
#[derive(Clone, Copy)]
pub struct Judging {
    pub extraction: Extraction,
    /// Ask the second rule as well.
    pub audit: bool,
}

/// How stored traces are looked at again.
pub struct Look {
    /// Marked answers only, whatever the recipe says.
    pub strict: bool,
    pub audit: bool,
    /// Traces that are printed of each list.
    pub n: usize,
    pub json: bool,
    pub columns: usize,
}

/// What became of all lines.
#[derive(Debug, Default)]
pub struct Tally {
    pub lines: usize,
    pub correct: usize,
    /// Lines that could not be read.
    pub bad: usize,
    pub disagreements: usize,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} lines, {} correct", text::thousands(self.lines), text::thousands(self.correct))?;
        if self.bad > 0 {
            write!(f, ", {} could not be read", text::thousands(self.bad))?;
        }
        if self.disagreements > 0 {
            write!(f, ", the second rule disagrees on {}", text::thousands(self.disagreements))?;
        }
        Ok(())
    }
}

/// Judges JSON lines `{gold, pred, pred_kind: "response" | "expr"}` and `{task: "code", program, entry, calls, expected, limits?}` from `input` (`-`: stdin)
/// and writes each back to `out` with `correct`, `answer` and `reason`, in their order and as they come. A line that cannot be read comes back with `error`.
///
/// # Errors
/// Where the input cannot be read, `out` not written, or a program not run.
pub fn pairs(input: &Path, judging: Judging, out: &mut dyn Write) -> Result<Tally> {
    let source: Box<dyn Read> = if input == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(config(std::fs::File::open(input).with_context(|| format!("cannot read {}", input.display())))?)
    };
    let mut lines = Lines { reader: BufReader::with_capacity(1 << 20, source), number: 0 };
    let mut tally = Tally::default();
    let mut code = None;
    loop {
        let batch = lines.available().with_context(|| format!("cannot read {}", input.display()))?;
        if batch.is_empty() {
            return Ok(tally);
        }
        for line in judged(&batch, judging, &mut code)? {
            tally.lines += 1;
            tally.correct += usize::from(line.get("correct") == Some(&Value::Bool(true)));
            tally.bad += usize::from(line.contains_key("error"));
            tally.disagreements += usize::from(line.get("audit").is_some_and(|a| a.is_boolean() && Some(a) != line.get("correct")));
            serde_json::to_writer(&mut *out, &line)?;
            out.write_all(b"\n")?;
        }
        out.flush()?;
    }
}

/// Lines as they come, with their numbers from 1.
struct Lines {
    reader: BufReader<Box<dyn Read>>,
    number: usize,
}

impl Lines {
    /// The next line that is not blank, and those behind it that are there already: a program that waits for one answer before it asks again gets it.
    fn available(&mut self) -> std::io::Result<Vec<(usize, String)>> {
        let mut lines = Vec::new();
        while lines.len() < BATCH && (lines.is_empty() || self.reader.buffer().contains(&b'\n')) {
            let mut bytes = Vec::new();
            if self.reader.read_until(b'\n', &mut bytes)? == 0 {
                break;
            }
            self.number += 1;
            let line = String::from_utf8_lossy(&bytes).trim().to_owned();
            if !line.is_empty() {
                lines.push((self.number, line));
            }
        }
        Ok(lines)
    }
}

/// A line as it is read.
enum Line {
    Text { row: Map<String, Value>, gold: String, pred: String, response: bool },
    Program { row: Map<String, Value>, pair: Pair },
    Bad { error: String },
}

fn read(line: &str) -> Line {
    let bad = |error: String| Line::Bad { error };
    let row: Map<String, Value> = match serde_json::from_str(line) {
        Ok(row) => row,
        Err(error) => return bad(error.to_string()),
    };
    if row.get("task").and_then(Value::as_str) == Some("code") {
        return match Pair::parse(line) {
            Ok(pair) => Line::Program { row, pair },
            Err(error) => bad(error),
        };
    }
    let field = |name: &str| match row.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(other) => Err(format!("{name} is {other}, expected text")),
        None => {
            Err(format!("{name} is missing; a line is {{gold, pred, pred_kind}} or {{task: \"code\", program, entry, calls, expected}}"))
        }
    };
    let response = match row.get("pred_kind").map(|kind| kind.as_str()) {
        None | Some(Some("response")) => true,
        Some(Some("expr")) => false,
        Some(other) => return bad(format!("pred_kind is {:?}, expected \"response\" or \"expr\"", other.unwrap_or("no text"))),
    };
    match (field("gold"), field("pred")) {
        (Ok(gold), Ok(pred)) => Line::Text { gold, pred, response, row },
        (Err(error), _) | (_, Err(error)) => bad(error),
    }
}

fn judged(lines: &[(usize, String)], judging: Judging, code: &mut Option<Code>) -> Result<Vec<Map<String, Value>>> {
    let read: Vec<Line> = lines.par_iter().map(|(_, line)| read(line)).collect();
    let programs: Vec<Pair> =
        read.iter().filter_map(|l| if let Line::Program { pair, .. } = l { Some(pair.clone()) } else { None }).collect();
    let mut ran = Vec::with_capacity(programs.len());
    if !programs.is_empty() {
        let code = match code {
            Some(code) => code,
            None => code.insert(Code::open(Options::default(), judging.extraction)?),
        };
        code.judge_pairs(programs.into_iter(), rayon::current_num_threads(), |judged| {
            ran.push(judged);
            Ok(())
        })?;
    }
    let texts: Vec<Map<String, Value>> = read
        .par_iter()
        .map(|line| match line {
            Line::Text { gold, pred, response, .. } => text_verdict(gold, pred, *response, judging),
            _ => Map::new(),
        })
        .collect();
    let mut ran = ran.into_iter();
    let rows = lines.iter().zip(read).zip(texts).map(|(((number, _), line), verdict)| match line {
        Line::Text { mut row, .. } => {
            row.extend(verdict);
            Ok(row)
        }
        Line::Program { mut row, .. } => {
            let judged = ran.next().context("a program was not run")?;
            let Value::Object(judged) = serde_json::to_value(judged)? else { return Err(anyhow!("a verdict is no object")) };
            row.extend(judged);
            Ok(row)
        }
        Line::Bad { error } => Ok(Map::from_iter([("line".into(), json!(number)), ("error".into(), json!(error))])),
    });
    rows.collect()
}

/// `correct`, `answer`, `reason`, and where it is asked for the second rule's opinion as `audit`.
fn text_verdict(gold: &str, pred: &str, response: bool, judging: Judging) -> Map<String, Value> {
    let (correct, answer, reason) = if response {
        let problem = problem("pair", "pair", "", Answer::Math { text: gold.to_owned() });
        let verdict = Rules::new(judging.extraction).judge(&problem, &Response::parse(pred));
        (verdict.is_correct(), json!(verdict.answer()), json!(verdict.reason().map(|r| &r.rule)))
    } else {
        match compare(gold, pred) {
            Outcome::Equal => (true, json!(pred.trim()), Value::Null),
            Outcome::Different(rule) | Outcome::Undecided(rule) => (false, json!(pred.trim()), json!(rule)),
        }
    };
    let mut fields = Map::from_iter([("correct".into(), json!(correct)), ("answer".into(), answer), ("reason".into(), reason)]);
    if judging.audit {
        fields.insert("audit".into(), json!(audit::opinion(gold, pred, response)));
    }
    fields
}

fn problem(id: &str, task: &str, question: &str, answer: Answer) -> Problem {
    Problem {
        id: ProblemId(id.to_owned()),
        task: task.to_owned(),
        question: question.to_owned(),
        answer,
        language: Language::En,
        level: None,
    }
}

/// A trace whose verdict is another one now, or on which the second rule disagrees.
#[derive(Serialize)]
struct Found {
    id: String,
    stored: &'static str,
    now: &'static str,
    gold: String,
    answer: String,
}

/// What the recipe of a run says of its problems, for the run or a folder in it; `None` where there is no recipe.
fn settings_of(path: &Path) -> Result<Option<Problems>> {
    for file in [path.join("recipe.toml"), path.join("../recipe.toml")] {
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        };
        let recipe = Recipe::parse(&text, &[]).with_context(|| {
            format!("{} says how these traces were judged, and is not a recipe that this version reads; mend or move it", file.display())
        })?;
        return Ok(Some(recipe.problems));
    }
    Ok(None)
}

/// Judges the stored traces at `path` again: what changed, and with `audit` where the second rule disagrees and which references cannot be read.
///
/// # Errors
/// Where the traces, or the recipe beside them, cannot be read, or a program not run.
pub fn shards(path: &Path, look: &Look) -> Result<String> {
    let settings = config(settings_of(path))?;
    let path = &config(super::stored_shards(path))?;
    let mut rules = match &settings {
        Some(settings) => config(super::rules::of(settings))?,
        None => Rules::new(Extraction::Flexible),
    };
    if look.strict {
        rules.extraction = Extraction::Strict;
    }
    let check = settings.and_then(|settings| settings.verify);
    let again = Again { rules, check, audit: look.audit };
    let mut rows = config(traces(path))?;
    let mut seen = Seen::default();
    loop {
        let batch = rows.by_ref().take(BATCH).collect::<Result<Vec<Trace>>>()?;
        if batch.is_empty() {
            break;
        }
        let judged: Vec<Option<(Verdict, Option<bool>)>> = batch.par_iter().map(|trace| again.judge(trace)).collect::<Result<_>>()?;
        for (trace, judged) in batch.iter().zip(judged) {
            seen.add(trace, judged, &again);
        }
    }
    if look.json { Ok(serde_json::to_string_pretty(&seen.json(look.audit))? + "\n") } else { Ok(seen.text(path, look)) }
}

/// What judging again has shown.
#[derive(Default)]
struct Seen {
    traces: usize,
    /// Traces that have no verdict.
    unjudged: usize,
    /// How many traces have which stored verdict and which now.
    transitions: BTreeMap<(&'static str, &'static str), usize>,
    changed: Vec<Found>,
    disagreements: Vec<Found>,
    /// Traces on which the second rule has an opinion.
    opinions: usize,
    /// Problems whose reference cannot be read, and why.
    unread: BTreeMap<String, String>,
}

impl Seen {
    fn add(&mut self, trace: &Trace, judged: Option<(Verdict, Option<bool>)>, again: &Again) {
        self.traces += 1;
        let (Some((now, opinion)), Some(stored)) = (judged, &trace.verdict) else {
            self.unjudged += 1;
            return;
        };
        let (was, is) = (kind(stored), kind(&now));
        *self.transitions.entry((was, is)).or_default() += 1;
        let found = |other: &'static str| Found {
            id: trace.id.clone(),
            stored: was,
            now: other,
            gold: trace.gold.clone(),
            answer: now.answer().map_or_else(|| now.reason().map_or(String::new(), Reason::to_string), str::to_owned),
        };
        if was != is {
            self.changed.push(found(is));
        }
        self.opinions += usize::from(opinion.is_some());
        if opinion.is_some_and(|same| same != now.is_correct()) {
            self.disagreements.push(found(if opinion == Some(true) { "second rule: equal" } else { "second rule: different" }));
        }
        if again.audit
            && !self.unread.contains_key(&trace.problem.0)
            && let Answer::Math { text } = again.answer(trace)
            && let Some(why) = Reference::read(&text).unreadable()
        {
            self.unread.insert(trace.problem.0.clone(), format!("{why}: {text}"));
        }
    }

    fn json(&self, audit: bool) -> Value {
        let moves: Vec<Value> = self.transitions.iter().map(|((was, is), n)| json!({"stored": was, "now": is, "traces": n})).collect();
        let audit =
            audit.then(|| json!({"opinions": self.opinions, "disagreements": self.disagreements, "unreadable_references": self.unread}));
        json!({"traces": self.traces, "without_verdict": self.unjudged, "verdicts": moves, "changed": self.changed, "audit": audit})
    }

    fn text(&self, path: &Path, look: &Look) -> String {
        let mut out = format!("{}: {} traces judged again", path.display(), text::thousands(self.traces - self.unjudged));
        if self.unjudged > 0 {
            out += &format!(", {} without a verdict left out", text::thousands(self.unjudged));
        }
        out += &format!("; {} changed\n", text::thousands(self.changed.len()));
        for ((was, is), n) in &self.transitions {
            out += &format!("  {:>9}  {was}{}\n", text::thousands(*n), if was == is { String::new() } else { format!(" -> {is}") });
        }
        out += &list("changed", &self.changed, look);
        if look.audit {
            out += &list("the second rule disagrees", &self.disagreements, look);
            out += &format!(
                "\nthe second rule has an opinion on {} traces and none on {}; it disagrees on {}\n{} problems have a reference that cannot be read\n",
                text::thousands(self.opinions),
                text::thousands(self.traces - self.unjudged - self.opinions),
                text::thousands(self.disagreements.len()),
                text::thousands(self.unread.len())
            );
            for (problem, why) in self.unread.iter().take(look.n) {
                out += &line(&format!("  {problem}  {}", one_line(why)), look);
            }
        }
        out
    }
}

/// The first of `all`, two lines each, below a title; nothing where there are none.
fn list(title: &str, all: &[Found], look: &Look) -> String {
    if all.is_empty() {
        return String::new();
    }
    let mut out = format!("\n{title}\n");
    for f in all.iter().take(look.n) {
        out += &line(&format!("  {}  {} -> {}", f.id, f.stored, f.now), look);
        out += &line(&format!("    reference {}   answer {}", one_line(&f.gold), one_line(&f.answer)), look);
    }
    if all.len() > look.n {
        out += &format!("  and {} more (-n N shows more, --json all)\n", text::thousands(all.len() - look.n));
    }
    out
}

/// One line of the screen, of text that is not trusted.
fn line(of: &str, look: &Look) -> String {
    text::fit(&text::harmless(of), look.columns) + "\n"
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// How stored traces are judged again.
struct Again {
    rules: Rules,
    /// What the recipe says of the references; without it, their form tells.
    check: Option<Check>,
    audit: bool,
}

impl Again {
    fn judge(&self, trace: &Trace) -> Result<Option<(Verdict, Option<bool>)>> {
        if trace.verdict.is_none() {
            return Ok(None);
        }
        let problem = problem(&trace.problem.0, &trace.task, &trace.question, self.answer(trace));
        let verdict = self.rules.verify(&problem, &Response::parse(&trace.response))?;
        let text = matches!(problem.answer, Answer::Math { .. } | Answer::Number { .. });
        let opinion = if self.audit && text { audit::opinion(&trace.gold, &trace.response, true) } else { None };
        Ok(Some((verdict, opinion)))
    }

    /// The reference of a stored trace, which keeps its text only.
    fn answer(&self, trace: &Trace) -> Answer {
        let gold = &trace.gold;
        let by_form = if gold.contains(" from [") {
            Check::Countdown
        } else if gold.contains(" is a kn") {
            Check::Knights
        } else if gold.starts_with("{\"style\"") {
            Check::Code
        } else {
            Check::Math
        };
        let check = self.check.as_ref().unwrap_or(&by_form);
        check.answer(gold).unwrap_or_else(|_| Answer::Math { text: gold.clone() })
    }
}

fn kind(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Correct { .. } => "correct",
        Verdict::Wrong { .. } => "wrong",
        Verdict::NoAnswer { .. } => "no answer",
        Verdict::Undecided { .. } => "undecided",
    }
}
