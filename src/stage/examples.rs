//! What an SFT phase learns from, as training rows: traces of a folder or file, or the demonstrations of a cold start.
//!
//! Which traces a phase takes, and which rows are too long for it, is the phase's matter.

use super::run::Run;
use crate::key::Key;
use crate::model::text::Text;
use crate::problem::Language;
use crate::rollout::{PromptStyle, Rendered, render_messages};
use crate::shard::{Manifest, traces};
use crate::tasks::arithmetic::{self, Expression};
use crate::tasks::{self, countdown_start};
use crate::trace::{FinishReason, Message, Trace};
use crate::train::Example;
use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use std::path::Path;

/// What was said, in which style, and what was answered.
pub(super) struct Demonstration {
    /// Of the trace, for errors.
    pub(super) name: String,
    said: Vec<Message>,
    style: PromptStyle,
    response: String,
    /// Whether the response ended by itself; one that was cut does not teach to stop where it was cut.
    ended: bool,
}

impl Demonstration {
    /// The problem that was answered, by the trace's id.
    pub(super) fn problem(&self) -> &str {
        self.name.rsplit_once('#').map_or(&self.name, |(problem, _)| problem)
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
pub(super) fn demonstrations(place: &Path) -> Result<Vec<Demonstration>> {
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
pub(super) fn cold_start(run: &Run) -> Result<Vec<Demonstration>> {
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
