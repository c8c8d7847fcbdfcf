//! Traces on disk as the filter reads them: piece by piece, parsed and judged on all threads, handed over in their order.

use super::{Parts, Traces};
use crate::problem::ProblemId;
use crate::shard::{Batch, Rows, traces};
use crate::trace::{FinishReason, LanguageShare, Trace, Verdict};
use anyhow::Result;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};

/// Bytes of lines that one thread judges together: what a frame of a shard holds, so that they are still in its cache when they have been decompressed.
const BATCH_BYTES: usize = 1 << 20;
/// Batches for each thread that may be read before the first of them was handed over.
const AHEAD: usize = 4;

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
        let judge = |first: usize, batch: &Batch<Trace>| -> Result<Vec<T>> {
            let parse = |line| match parts {
                Parts::Judged => Judged::read(batch.line(line)).map_or_else(|| batch.row(line), Ok),
                Parts::Whole => batch.row(line),
            };
            let lines = (0..batch.len()).filter(|line| wanted(first + line));
            lines.map(|line| Ok(map(first + line, parse(line)?))).collect()
        };
        let threads = rayon::current_num_threads();
        let queue = Queue::new(traces(&self.0)?, AHEAD * threads);
        std::thread::scope(|scope| {
            let (sender, receiver) = mpsc::channel();
            for _ in 0..threads {
                let (sender, queue, judge) = (sender.clone(), &queue, &judge);
                scope.spawn(move || {
                    let _stop = Stop(queue);
                    while let Some((n, first, batch)) = queue.next() {
                        let judged = batch.and_then(|batch| judge(first, &batch));
                        if sender.send((n, judged)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            let _stop = Stop(&queue);
            let (mut early, mut next) = (BTreeMap::new(), 0);
            for (n, judged) in receiver {
                early.insert(n, judged);
                while let Some(judged) = early.remove(&next) {
                    judged?.into_iter().try_for_each(&mut take)?;
                    next += 1;
                    queue.taken(next);
                }
            }
            Ok(())
        })
    }
}

/// Batches that are read one after the other by whichever thread has nothing to do, no more than `ahead` of what was taken.
struct Queue {
    state: Mutex<State>,
    moved: Condvar,
    ahead: usize,
}

struct State {
    /// `None` at the end, and where nothing more is wanted.
    rows: Option<Rows<Trace>>,
    /// Batches and lines that were read.
    batches: usize,
    lines: usize,
    /// Batches that were taken.
    taken: usize,
}

impl Queue {
    fn new(rows: Rows<Trace>, ahead: usize) -> Self {
        Self { state: Mutex::new(State { rows: Some(rows), batches: 0, lines: 0, taken: 0 }), moved: Condvar::new(), ahead }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch with its number and that of its first line, or why it cannot be read, which is the last.
    fn next(&self) -> Option<(usize, usize, Result<Batch<Trace>>)> {
        let mut state = self.lock();
        while state.rows.is_some() && state.batches >= state.taken + self.ahead {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let batch = state.rows.as_mut()?.batch(BATCH_BYTES).transpose();
        if !matches!(batch, Some(Ok(_))) {
            state.rows = None;
        }
        let batch = batch?;
        let (n, first) = (state.batches, state.lines);
        state.batches += 1;
        state.lines += batch.as_ref().map_or(0, Batch::len);
        Some((n, first, batch))
    }

    fn taken(&self, batches: usize) {
        self.lock().taken = batches;
        self.moved.notify_all();
    }
}

/// Whoever ends, and be it by an error, a panic or at the end of the rows, leaves nobody waiting.
struct Stop<'a>(&'a Queue);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.lock().rows = None;
        self.0.moved.notify_all();
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

#[cfg(test)]
mod tests {
    use super::super::tests::trace;
    use super::*;
    use std::fmt::Write as _;

    /// A file of `rows` traces with blank lines between, some of more than one batch, and a last line without an end.
    fn file(folder: &Path, rows: usize, at: usize, odd: &str) -> PathBuf {
        let mut text = String::new();
        for row in 0..rows {
            if row == at {
                text += odd;
            }
            let trace = Trace { response: "so ".repeat(2000), ..trace("p", row as u32) };
            write!(text, "{}{}", serde_json::to_string(&trace).unwrap(), ["\n", "\n\n", ""][if row + 1 == rows { 2 } else { row % 2 }])
                .unwrap();
        }
        let path = folder.join("traces.jsonl");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn attempts(path: &Path, wanted: impl Fn(usize) -> bool + Sync, last: usize) -> Result<Vec<(usize, u32)>> {
        let mut seen = Vec::new();
        Stored::new(path).each(
            Parts::Judged,
            wanted,
            |row, trace| (row, trace.attempt),
            |one| {
                seen.push(one);
                anyhow::ensure!(seen.len() < last, "enough");
                Ok(())
            },
        )?;
        Ok(seen)
    }

    #[test]
    fn every_row_comes_once_in_order_with_its_number() {
        let folder = tempfile::tempdir().unwrap();
        // Three million bytes of blank lines are no end of the file.
        let path = file(folder.path(), 1500, 700, &"\n".repeat(3 << 20));
        let all: Vec<(usize, u32)> = (0..1500).map(|row| (row, row as u32)).collect();
        assert_eq!(attempts(&path, |_| true, usize::MAX).unwrap(), all);
        let some: Vec<_> = all.into_iter().filter(|(row, _)| row % 7 == 3).collect();
        assert_eq!(attempts(&path, |row| row % 7 == 3, usize::MAX).unwrap(), some);
    }

    #[test]
    fn what_cannot_be_read_or_taken_is_an_error_and_no_thread_waits_for_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), 3000, 1000, "{\"no\": \"trace\"}\n");
        let error = attempts(&path, |_| true, usize::MAX).unwrap_err().to_string();
        assert!(error.contains("traces.jsonl:1501: missing field"), "{error}");
        assert_eq!(attempts(&path, |_| true, 20).unwrap_err().to_string(), "enough");
    }
}
