//! What an SFT phase learns from, as training rows: the corpus, traces of a folder or file, the demonstrations of a cold start, or several of these with weights.
//!
//! In which order they are gone through is the training's matter.

use super::filter;
use super::run::{Run, config};
use super::sample;
use crate::key::Key;
use crate::model::text::Text;
use crate::problem::Language;
use crate::publish;
use crate::recipe::{DataPart, Sft, TooLong};
use crate::rollout::{PromptStyle, Rendered, render_messages};
use crate::shard::{Manifest, traces};
use crate::tasks::arithmetic::{self, Expression};
use crate::tasks::{self, countdown_start};
use crate::trace::{FinishReason, Message, Trace};
use crate::train::{Example, Part};
use anyhow::{Context, Result, anyhow, ensure};
use rayon::prelude::*;
use serde_json::{Value, json};
use std::path::Path;

/// What stands where a phase's data says `corpus`.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Corpus {
    Filtered,
    /// As many of the teacher's traces as the corpus has, drawn before the filter.
    Unfiltered,
}

/// Where the rows of one phase come from.
pub(super) struct Corpora<'a> {
    pub run: &'a Run,
    /// For messages.
    pub stage: &'a str,
    pub corpus: Corpus,
    /// Tokens of a row at most.
    pub limit: usize,
}

/// Rows of an SFT phase, or of one of distillation.
pub(super) struct Rows {
    /// To train on, those of all parts end to end.
    pub examples: Vec<Example>,
    pub parts: Vec<Part>,
    /// Of all parts.
    pub held_out: Vec<Example>,
    /// For the phase's `DONE`.
    pub counts: Value,
}

impl Corpora<'_> {
    /// Reads what a phase learns from and what it measures itself on.
    pub fn read(&self, phase: &Sft, text: &Text) -> Result<Rows> {
        let mut rows = Rows { examples: Vec::new(), parts: Vec::new(), held_out: Vec::new(), counts: json!({}) };
        if phase.data.is_empty() {
            return Ok(rows); // all of them are own attempts
        }
        let (mut too_long, mut of_parts) = (0, Vec::new());
        for part in &phase.data {
            let share = phase.settings.held_out.map_or(0.0, |held_out| held_out.share);
            let read = self.part(part, text, share)?;
            too_long += read.too_long.len();
            let left_out = self.left_out(&read.too_long);
            if !read.too_long.is_empty() && phase.too_long == TooLong::Refuse {
                return config(Err(anyhow!(
                    "{}: {left_out}, and too_long is \"refuse\"; raise max_length, drop them by [filter] length, or set too_long = \"drop\"",
                    self.stage
                )));
            }
            if !read.too_long.is_empty() {
                self.run.ui.say(&format!("{}: {left_out} and are left out, not cut", self.stage));
            }
            let targets: usize = read.examples.iter().map(Example::targets).sum();
            of_parts.push(json!({
                "from": part.from, "weight": part.weight, "examples": read.examples.len(), "too_long": read.too_long.len(), "target_tokens": targets,
            }));
            rows.parts.push(Part { rows: read.examples.len(), weight: part.weight });
            rows.examples.extend(read.examples);
            rows.held_out.extend(read.held_out);
        }
        ensure!(
            !rows.examples.is_empty(),
            "{}: {}",
            self.stage,
            match too_long {
                0 => "there is nothing to train on: no trace is left (distill show lists why each was dropped)".to_owned(),
                n => format!("every one of {n} traces is longer than {} tokens (max_length)", self.limit),
            }
        );
        let share = phase.settings.held_out.map_or(0.0, |held_out| held_out.share);
        config(if share > 0.0 && rows.held_out.is_empty() {
            Err(anyhow!("{}: held_out.share {share} of these problems is none at all; take more, or leave held_out out", self.stage))
        } else {
            Ok(())
        })?;
        let targets: usize = rows.examples.iter().map(Example::targets).sum();
        rows.counts = json!({"examples": rows.examples.len(), "too_long": too_long, "target_tokens": targets});
        if of_parts.len() > 1 {
            rows.counts["mixture"] = of_parts.into();
        }
        Ok(rows)
    }

    fn left_out(&self, too_long: &[(String, usize)]) -> String {
        let longest = too_long.iter().max_by_key(|(_, tokens)| *tokens);
        let which = longest.map_or(String::new(), |(name, tokens)| format!(" (the longest is {name} with {tokens})"));
        format!("{} traces are longer than {} tokens{which}", too_long.len(), self.limit)
    }

    fn part(&self, part: &DataPart, text: &Text, share: f64) -> Result<PartRows> {
        let demonstrations = self.demonstrations(part)?;
        let examples = demonstrations
            .par_iter()
            .map(|demonstration| demonstration.example(text).with_context(|| format!("trace {}", demonstration.name)))
            .collect::<Result<Vec<_>>>()
            .with_context(|| format!("cannot make training rows for {}", self.stage))?;
        let key = Key::new(self.run.seed(), "held out");
        let is_held_out = |problem: &str| share > 0.0 && key.name(problem).stream().unit() < share;
        let mut rows = PartRows::default();
        for (example, demonstration) in examples.into_iter().zip(&demonstrations) {
            if example.tokens.len() > self.limit {
                rows.too_long.push((demonstration.name.clone(), example.tokens.len()));
            } else if is_held_out(demonstration.problem()) {
                rows.held_out.push(example);
            } else {
                rows.examples.push(example);
            }
        }
        Ok(rows)
    }

    fn demonstrations(&self, part: &DataPart) -> Result<Vec<Demonstration>> {
        let run = self.run;
        match part.place() {
            Some(place) => demonstrations(place),
            None if part.from == DataPart::COLD_START => cold_start(run),
            None if self.corpus == Corpus::Filtered => demonstrations(&run.folder(filter::FOLDER)),
            None => {
                let count = Manifest::load(run.folder(filter::FOLDER))?.rows as usize;
                let mut all = demonstrations(&run.folder(sample::FOLDER))?;
                Key::new(run.seed(), "unfiltered").stream().shuffle(&mut all);
                all.truncate(count);
                Ok(all)
            }
        }
    }
}

/// What rows of a phase are like.
#[derive(Default)]
pub(super) struct Measured {
    /// Prompt and completion of each, in tokens.
    pub tokens: Vec<usize>,
    /// Completion of each, the end token included.
    pub completions: Vec<usize>,
    /// How many end by themselves.
    pub ended: usize,
}

impl Corpora<'_> {
    /// Tokens of at most `most` rows of each part, all lengths.
    pub fn measure(&self, phase: &Sft, text: &Text, most: usize) -> Result<Measured> {
        let mut measured = Measured::default();
        for part in &phase.data {
            let mut rows = self.demonstrations(part)?;
            // Not the first ones: they may be of one problem or one source.
            Key::new(self.run.seed(), "doctor").stream().shuffle(&mut rows);
            rows.truncate(most);
            measured.ended += rows.iter().filter(|row| row.ended).count();
            let examples = rows.par_iter().map(|row| row.example(text)).collect::<Result<Vec<_>>>()?;
            measured.tokens.extend(examples.iter().map(|example| example.tokens.len()));
            measured.completions.extend(examples.iter().map(Example::targets));
        }
        Ok(measured)
    }
}

#[derive(Default)]
struct PartRows {
    examples: Vec<Example>,
    held_out: Vec<Example>,
    /// Names and lengths.
    too_long: Vec<(String, usize)>,
}

/// What the rows of a phase follow from, for its inputs.
pub(super) fn identity(run: &Run, phase: &Sft, corpus: Corpus) -> Result<Value> {
    let of = |part: &DataPart| -> Result<Value> {
        Ok(match part.place() {
            Some(place) if place.is_dir() => json!({"folder": Manifest::load(place)?.hash()?}),
            Some(file) => json!({"folder": publish::sha256_file(file)?}),
            None if part.from == DataPart::COLD_START => {
                let cold_start = run.recipe.cold_start.as_ref().context("[cold_start] is missing")?;
                json!({"cold_start": cold_start.corruption, "traces": cold_start.traces})
            }
            None if corpus == Corpus::Filtered => json!({"corpus": Manifest::load(run.folder(filter::FOLDER))?.hash()?}),
            None => json!({
                "traces": Manifest::load(run.folder(sample::FOLDER))?.hash()?,
                "count": Manifest::load(run.folder(filter::FOLDER))?.rows,
            }),
        })
    };
    match &phase.data[..] {
        [one] if one.weight == 1.0 => of(one),
        parts => parts.iter().map(|part| Ok(json!({"of": of(part)?, "weight": part.weight}))).collect(),
    }
}

/// What was said, in which style, and what was answered.
pub(super) struct Demonstration {
    /// Of the trace, for errors.
    name: String,
    said: Vec<Message>,
    style: PromptStyle,
    response: String,
    /// Whether the response ended by itself; one that was cut does not teach to stop where it was cut.
    ended: bool,
}

impl Demonstration {
    /// The problem that was answered, by the trace's id.
    fn problem(&self) -> &str {
        self.name.rsplit_once('#').map_or(&self.name, |(problem, _)| problem)
    }

    /// A whole answer to a question, as it is asked in a style.
    pub(super) fn of(style: PromptStyle, question: &str, response: String) -> Result<Self> {
        Ok(Self { name: String::new(), said: vec![Message::user(style.content(question)?)], style, response, ended: true })
    }

    fn made(name: String, question: String, response: String) -> Self {
        Self { name, said: vec![Message::user(question)], style: PromptStyle::Plain, response, ended: true }
    }

    /// ids(rendered prompt with its generation prefix) ++ ids(response without the prefill) ++ end token, where the response ended by itself.
    ///
    /// The prompt is rendered as sampling renders it. The assistant's turn never goes through the template: R1's own deletes think text.
    /// A response without a token to learn is an error.
    pub(super) fn example(&self, text: &Text) -> Result<Example> {
        let Rendered { mut tokens, prefill, .. } = render_messages(text, self.style, &self.said)?;
        let rest = self.response.strip_prefix(&prefill).or_else(|| self.response.strip_prefix(prefill.trim_end()));
        let completion = tokens.len();
        tokens.extend(text.encode(rest.unwrap_or(&self.response))?);
        if self.ended {
            tokens.push(text.end_id());
        }
        ensure!(
            tokens.len() > completion,
            "the response is empty and was cut, so there is nothing to learn from it; drop such traces first (finished = true in [filter])"
        );
        Ok(Example { tokens, completion })
    }
}

/// The traces of a folder or file as they are learnt from: everything said before the last answer, in the style that its source was prompted in.
fn demonstrations(place: &Path) -> Result<Vec<Demonstration>> {
    let sources = if place.is_dir() { Manifest::load(place)?.sources } else { Vec::new() };
    let style = |trace: &Trace| {
        let prompt = sources.get(trace.source).map(|source| source.sampling["prompt"].clone()).filter(|p| !p.is_null());
        prompt
            .map_or(Ok(PromptStyle::Plain), serde_json::from_value)
            .with_context(|| format!("trace {}: its source's prompt style", trace.id))
    };
    traces(place)?
        .map(|trace| {
            let trace = trace?;
            let style = style(&trace)?;
            let mut said = trace.messages;
            if let Some(answer) = said.iter().rposition(|m| m.role == "assistant") {
                said.truncate(answer);
            }
            if said.is_empty() {
                said.push(Message::user(style.content(&trace.question)?));
            }
            let ended = trace.finish == FinishReason::Stop;
            Ok(Demonstration { name: trace.id, said, style, response: trace.response, ended })
        })
        .collect()
}

/// The demonstrations of a cold start, the same for teacher and student.
fn cold_start(run: &Run) -> Result<Vec<Demonstration>> {
    let settings = run.recipe.cold_start.as_ref().context("[cold_start] is missing")?;
    let key = Key::new(run.seed(), "cold-start");
    (0..settings.traces as u64)
        .into_par_iter()
        .map(|i| {
            let trace_key = key.name("trace").number(i);
            let Some(corruption) = &settings.corruption else {
                let problem = countdown_start::problem(key, "countdown-tiny/cold-start", i);
                let trace = countdown_start::trace(&problem, trace_key).context("a generated problem has a try that hits")?;
                return Ok(Demonstration::made(problem.id.0, problem.question, trace));
            };
            let problem = arithmetic::problem(key, "cold-start", i);
            let expression = Expression::of_question(&problem.question).context("a generated question holds its expression")?;
            let language: Language = problem.language;
            let trace = tasks::cold_start::corrupted_trace(&expression, language, trace_key, corruption);
            Ok(Demonstration::made(problem.id.0, problem.question, trace))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A response that was cut before its first token came as far as one thread's share of a batch, and its trace was not named.
    #[test]
    fn a_response_without_a_token_to_learn_is_no_row() {
        let text = Text::tiny();
        let row = |response: &str, ended| {
            let made = Demonstration::made("p/0#1".into(), "what is 1+2".into(), response.into());
            Demonstration { ended, ..made }.example(&text)
        };
        assert_eq!(row("", true).unwrap().targets(), 1, "the end token alone");
        assert_eq!(row("3", false).unwrap().targets(), 1);
        let error = row("", false).unwrap_err().to_string();
        assert!(error.starts_with("the response is empty and was cut"), "{error}");
    }
}
