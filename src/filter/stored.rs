//! Traces on disk as the filter reads them: piece by piece, parsed and judged on all threads, handed over in their order.

use super::Traces;
use crate::shard::{Batch, traces};
use crate::trace::Trace;
use anyhow::Result;
use rayon::prelude::*;
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
        wanted: impl Fn(usize) -> bool + Sync,
        map: impl Fn(usize, Trace) -> T + Sync,
        mut take: impl FnMut(T) -> Result<()> + Send,
    ) -> Result<()> {
        let mut rows = traces(&self.0)?;
        let mut first = 0;
        let judge = |first: usize, batch: &Batch<Trace>| -> Vec<Result<T>> {
            let lines = (0..batch.len()).into_par_iter().filter(|line| wanted(first + line));
            lines.map(|line| batch.row(line).map(|trace| map(first + line, trace))).collect()
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
