//! One kept and one dropped trace, to be looked at.

use crate::publish;
use crate::shard;
use crate::trace::{Reason, Trace};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

/// Rows that are looked at on each side: the report of a large corpus stays cheap.
const ROWS: usize = 500;
/// Characters of a response, or of a question, that are kept.
const CHARACTERS: usize = 4_000;

/// A trace as the report shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Example {
    pub id: String,
    pub question: String,
    pub gold: String,
    /// The first 4,000 characters.
    pub response: String,
    /// Characters of the whole response.
    pub characters: usize,
    pub answer: Option<String>,
    pub completion_tokens: usize,
    /// Why it was dropped.
    pub reason: Option<Reason>,
}

impl Example {
    fn new(trace: &Trace, reason: Option<Reason>) -> Self {
        let cut = |text: &str| text.chars().take(CHARACTERS).collect();
        let answer = trace.answer.as_deref().or_else(|| trace.verdict.as_ref()?.answer());
        Self {
            id: trace.id.clone(),
            question: cut(&trace.question),
            gold: cut(&trace.gold),
            response: cut(&trace.response),
            characters: trace.response.chars().count(),
            answer: answer.map(cut),
            completion_tokens: trace.completion_tokens,
            reason,
        }
    }
}

/// A trace of the corpus and a dropped one: the first dropped for its answer whose problem was also solved, else the first of each.
pub(super) fn of(run: &Path) -> Result<(Option<Example>, Option<Example>)> {
    let corpus = run.join("corpus");
    if publish::done(&corpus)?.is_none() {
        return Ok((None, None));
    }
    let kept = shard::traces(&corpus)?.take(ROWS).collect::<Result<Vec<Trace>>>()?;
    let dropped = dropped(&corpus.join("dropped"))?;
    let mut first = HashMap::new();
    for trace in &kept {
        first.entry(&trace.problem).or_insert(trace);
    }
    let solved = |(trace, _): &&(Trace, Reason)| first.contains_key(&trace.problem);
    let told = dropped.iter().filter(solved).find(|(_, reason)| reason.rule == "correct");
    let bad = told.or_else(|| dropped.iter().find(solved)).or(dropped.first());
    let good = bad.and_then(|(trace, _)| first.get(&trace.problem).copied()).or(kept.first());
    Ok((good.map(|trace| Example::new(trace, None)), bad.map(|(trace, reason)| Example::new(trace, Some(reason.clone())))))
}

fn dropped(dir: &Path) -> Result<Vec<(Trace, Reason)>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let with_reason = |trace: Result<Trace>| {
        let trace = trace?;
        let reason = trace.other.get("dropped").cloned().unwrap_or_default();
        let reason = serde_json::from_value(reason)
            .with_context(|| format!("{}: trace {} does not say in `dropped` why it was", dir.display(), trace.id))?;
        Ok((trace, reason))
    };
    shard::traces(dir)?.take(ROWS).map(with_reason).collect()
}
