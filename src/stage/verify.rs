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
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
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
    let mut reader = BufReader::with_capacity(1 << 20, source);
    let mut tally = Tally::default();
    let mut code = None;
    loop {
        let lines = available(&mut reader).with_context(|| format!("cannot read {}", input.display()))?;
        if lines.is_empty() {
            return Ok(tally);
        }
        for line in judged(&lines, tally.lines, judging, &mut code)? {
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

/// The next line, and those behind it that are there already: a program that waits for one answer before it asks again gets it.
fn available(reader: &mut BufReader<Box<dyn Read>>) -> std::io::Result<Vec<String>> {
    let mut lines = Vec::new();
    while lines.len() < BATCH && (lines.is_empty() || reader.buffer().contains(&b'\n')) {
        let mut bytes = Vec::new();
        if reader.read_until(b'\n', &mut bytes)? == 0 {
            break;
        }
        let line = String::from_utf8_lossy(&bytes).trim().to_owned();
        if !line.is_empty() {
            lines.push(line);
        }
    }
    Ok(lines)
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

fn judged(lines: &[String], before: usize, judging: Judging, code: &mut Option<Code>) -> Result<Vec<Map<String, Value>>> {
    let read: Vec<Line> = lines.par_iter().map(|line| read(line)).collect();
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
    let texts: Vec<Option<(Value, Value, Value, Value)>> = read
        .par_iter()
        .map(|line| match line {
            Line::Text { gold, pred, response, .. } => Some(text_verdict(gold, pred, *response, judging)),
            _ => None,
        })
        .collect();
    let mut ran = ran.into_iter();
    let rows = read.into_iter().zip(texts).enumerate().map(|(i, (line, verdict))| match (line, verdict) {
        (Line::Text { mut row, .. }, Some((correct, answer, reason, audit))) => {
            row.insert("correct".into(), correct);
            row.insert("answer".into(), answer);
            row.insert("reason".into(), reason);
            if judging.audit {
                row.insert("audit".into(), audit);
            }
            Ok(row)
        }
        (Line::Program { mut row, .. }, _) => {
            let judged = ran.next().context("a program was not run")?;
            let Value::Object(judged) = serde_json::to_value(judged)? else { return Err(anyhow!("a verdict is no object")) };
            row.extend(judged);
            Ok(row)
        }
        (Line::Bad { error }, _) => Ok(Map::from_iter([("line".into(), json!(before + i + 1)), ("error".into(), json!(error))])),
        (Line::Text { .. }, None) => Err(anyhow!("a line was not judged")),
    });
    rows.collect()
}

/// `correct`, `answer`, `reason` and the second rule's opinion.
fn text_verdict(gold: &str, pred: &str, response: bool, judging: Judging) -> (Value, Value, Value, Value) {
    let opinion = if judging.audit { json!(audit::opinion(gold, pred, response)) } else { Value::Null };
    if response {
        let problem = problem("pair", "pair", "", Answer::Math { text: gold.to_owned() });
        let verdict = Rules::new(judging.extraction).judge(&problem, &Response::parse(pred));
        return (json!(verdict.is_correct()), json!(verdict.answer()), json!(verdict.reason().map(|r| &r.rule)), opinion);
    }
    let outcome = compare(gold, pred);
    let reason = match outcome {
        Outcome::Equal => Value::Null,
        Outcome::Different(rule) | Outcome::Undecided(rule) => json!(rule),
    };
    (json!(outcome == Outcome::Equal), json!(pred.trim()), reason, opinion)
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
struct Found {
    id: String,
    stored: String,
    now: String,
    gold: String,
    answer: String,
}

/// What the recipe of a run says of its problems, for the run or a folder in it.
fn settings_of(path: &Path) -> Option<Problems> {
    let recipe = [path.join("recipe.toml"), path.join("../recipe.toml")].into_iter().find_map(|file| std::fs::read_to_string(file).ok())?;
    Some(Recipe::parse(&recipe, &[]).ok()?.problems)
}

/// Judges the stored traces at `path` again: what changed, and with `audit` where the second rule disagrees and which references cannot be read.
///
/// # Errors
/// Where the traces cannot be read, or a program not run.
pub fn shards(path: &Path, look: &Look) -> Result<String> {
    let settings = settings_of(path);
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
    let (mut n, mut unjudged, mut transitions) = (0, 0, BTreeMap::<(String, String), usize>::new());
    let (mut changed, mut disagreements) = (Vec::new(), Vec::new());
    let mut unread = BTreeMap::<String, String>::new();
    let mut opinions = 0;
    loop {
        let batch = rows.by_ref().take(BATCH).collect::<Result<Vec<Trace>>>()?;
        if batch.is_empty() {
            break;
        }
        let judged: Vec<Option<(Verdict, Option<bool>)>> = batch.par_iter().map(|trace| again.judge(trace)).collect::<Result<_>>()?;
        for (trace, judged) in batch.into_iter().zip(judged) {
            n += 1;
            let (Some((now, opinion)), Some(stored)) = (judged, &trace.verdict) else {
                unjudged += 1;
                continue;
            };
            let (was, is) = (kind(stored), kind(&now));
            *transitions.entry((was.to_owned(), is.to_owned())).or_default() += 1;
            let found = |other: &str| Found {
                id: trace.id.clone(),
                stored: was.to_owned(),
                now: other.to_owned(),
                gold: trace.gold.clone(),
                answer: now.answer().map_or_else(|| now.reason().map_or(String::new(), Reason::to_string), str::to_owned),
            };
            if was != is {
                changed.push(found(is));
            }
            opinions += usize::from(opinion.is_some());
            if opinion.is_some_and(|same| same != now.is_correct()) {
                disagreements.push(found(if opinion == Some(true) { "second rule: equal" } else { "second rule: different" }));
            }
            if look.audit
                && let Answer::Math { text } = again.answer(&trace)
                && let Some(why) = Reference::read(&text).unreadable()
            {
                unread.insert(trace.problem.0.clone(), format!("{why}: {text}"));
            }
        }
    }
    if look.json {
        let list = |all: &[Found]| -> Vec<Value> {
            all.iter().map(|f| json!({"id": f.id, "stored": f.stored, "now": f.now, "gold": f.gold, "answer": f.answer})).collect()
        };
        let moves: Vec<Value> = transitions.iter().map(|((a, b), n)| json!({"stored": a, "now": b, "traces": n})).collect();
        let all = json!({"traces": n, "without_verdict": unjudged, "verdicts": moves, "changed": list(&changed),
            "audit": look.audit.then(|| json!({"opinions": opinions, "disagreements": list(&disagreements), "unreadable_references": unread}))});
        return Ok(serde_json::to_string_pretty(&all)? + "\n");
    }
    let mut out = format!("{}: {} traces judged again", path.display(), text::thousands(n - unjudged));
    if unjudged > 0 {
        out += &format!(", {} without a verdict left out", text::thousands(unjudged));
    }
    out += &format!("; {} changed\n", text::thousands(changed.len()));
    for ((was, is), n) in &transitions {
        out += &format!("  {:>9}  {was}{}\n", text::thousands(*n), if was == is { String::new() } else { format!(" -> {is}") });
    }
    let mut list = |title: &str, all: &[Found]| {
        if all.is_empty() {
            return;
        }
        out += &format!("\n{title}\n");
        for f in all.iter().take(look.n) {
            out += &format!("{}\n", text::fit(&text::harmless(&format!("  {}  {} -> {}", f.id, f.stored, f.now)), look.columns));
            out += &format!(
                "{}\n",
                text::fit(&text::harmless(&format!("    reference {}   answer {}", one_line(&f.gold), one_line(&f.answer))), look.columns)
            );
        }
        if all.len() > look.n {
            out += &format!("  and {} more (-n N shows more, --json all)\n", text::thousands(all.len() - look.n));
        }
    };
    list("changed", &changed);
    if look.audit {
        list("the second rule disagrees", &disagreements);
        let no_opinion = n - unjudged - opinions;
        out += &format!(
            "\nthe second rule has an opinion on {} traces and none on {}; it disagrees on {}\n{} problems have a reference that cannot be read\n",
            text::thousands(opinions),
            text::thousands(no_opinion),
            text::thousands(disagreements.len()),
            text::thousands(unread.len())
        );
        for (problem, why) in unread.iter().take(look.n) {
            out += &format!("{}\n", text::fit(&text::harmless(&format!("  {problem}  {}", one_line(why))), look.columns));
        }
    }
    Ok(out)
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
