//! Traces on disk as the filter reads them: piece by piece, parsed and judged on all threads, handed over in their order.

use super::{Parts, Traces};
use crate::problem::ProblemId;
use crate::shard::{Batch, traces};
use crate::trace::{FinishReason, LanguageShare, Trace, Verdict};
use anyhow::Result;
use rayon::prelude::*;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Bytes of lines that are judged together; as many are read while they are handed over.
const BATCH_BYTES: usize = 8 << 20;

/// A folder of shards, or one file of JSON lines.
#[derive(Clone, Debug)]
pub struct Stored(PathBuf);

impl Stored {
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self(path.as_ref().to_owned())
    }
}

impl Traces for Stored {
    fn each<T: Send>(
        &mut self,
        parts: Parts,
        wanted: impl Fn(usize) -> bool + Sync,
        map: impl Fn(usize, Trace) -> T + Sync,
        mut take: impl FnMut(T) -> Result<()> + Send,
    ) -> Result<()> {
        let mut rows = traces(&self.0)?;
        let mut first = 0;
        let judge = |first: usize, batch: &Batch<Trace>| -> Vec<Result<T>> {
            let lines = (0..batch.len()).into_par_iter().filter(|line| wanted(first + line));
            let parse = |line| match parts {
                Parts::Judged => Judged::read(batch.line(line)).map_or_else(|| batch.row(line), Ok),
                Parts::Whole => batch.row(line),
            };
            lines.map(|line| parse(line).map(|trace| map(first + line, trace))).collect()
        };
        let mut judged: Vec<Result<T>> = Vec::new();
        loop {
            let (next, taken) = rayon::join(
                || {
                    let batch = rows.batch(BATCH_BYTES)?;
                    Ok(batch.map(|batch| (batch.len(), judge(first, &batch))))
                },
                || judged.drain(..).try_for_each(|one| take(one?)),
            );
            taken?;
            let next: Result<Option<(usize, Vec<Result<T>>)>> = next;
            let Some((lines, results)) = next? else { return Ok(()) };
            first += lines;
            judged = results;
        }
    }
}

/// What rules look at of a trace: without the messages, which hold every text again, and without a map for what is unknown, a line is read in half the time.
#[derive(Deserialize)]
struct Judged {
    id: String,
    problem: ProblemId,
    attempt: u32,
    task: String,
    question: String,
    gold: String,
    response: String,
    verdict: Option<Verdict>,
    prompt_tokens: usize,
    completion_tokens: usize,
    finish: FinishReason,
    language: LanguageShare,
    #[serde(default)]
    source: usize,
    #[serde(default)]
    attempts: Option<u32>,
    #[serde(default)]
    passes: Option<u32>,
    /// A trace has messages; what they say is passed over.
    #[serde(rename = "messages")]
    _messages: serde::de::IgnoredAny,
}

impl Judged {
    /// `None` for a line that is no trace.
    fn read(line: &[u8]) -> Option<Trace> {
        let judged: Self = serde_json::from_slice(line).ok()?;
        Some(Trace {
            id: judged.id,
            problem: judged.problem,
            attempt: judged.attempt,
            task: judged.task,
            question: judged.question,
            gold: judged.gold,
            messages: Vec::new(),
            response: judged.response,
            answer: None,
            verdict: judged.verdict,
            rewards: serde_json::Map::new(),
            prompt_tokens: judged.prompt_tokens,
            completion_tokens: judged.completion_tokens,
            finish: judged.finish,
            logprob: None,
            language: judged.language,
            source: judged.source,
            attempts: judged.attempts,
            passes: judged.passes,
            other: serde_json::Map::new(),
        })
    }
}
