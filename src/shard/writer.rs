//! Sealing: rows in their final order become numbered shards and a manifest.
//!
//! The bytes depend on the rows, the sources and the options alone, never on when or in which order the rows were made. The folder is the
//! caller's: inside `publish::folder` the shards appear together with whatever else the stage puts there.

use super::Entry;
use super::frame::Packer;
use super::manifest::{FILE, FORMAT, Manifest, ShardInfo, Source, TokensInfo};
use super::tokens;
use crate::publish::{self, Pending, not_written};
use crate::trace::Trace;
use anyhow::{Context, Result, bail};
use std::fmt::Debug;
use std::path::Path;

/// How rows are sealed.
#[derive(Clone, Debug)]
pub struct SealOptions {
    /// What the rows are: `traces`, `corpus`, `dropped`, `rollouts`.
    pub kind: String,
    pub sources: Vec<Source>,
    /// Raw bytes of JSON lines after which the next shard begins.
    pub shard_bytes: u64,
    /// zstd level.
    pub level: i32,
}

impl SealOptions {
    /// Shards of 256 MiB of text at level 9.
    pub fn new(kind: impl Into<String>, sources: Vec<Source>) -> Self {
        Self { kind: kind.into(), sources, shard_bytes: 256 << 20, level: 9 }
    }
}

/// Writes `entries` as shards and then the manifest into `dir`, which holds no shards yet.
///
/// The entries come in strictly rising `order`; what comes late or twice is an error. The order is the caller's: (position of the problem in its
/// list, attempt) for a stage, any counter for rows that keep the order of their source. One frame of memory per open file.
pub fn seal<K: Ord + Debug>(
    dir: impl AsRef<Path>,
    entries: impl IntoIterator<Item = Result<Entry>>,
    mut order: impl FnMut(&Trace) -> K,
    options: &SealOptions,
) -> Result<Manifest> {
    let mut sealer = Sealer::new(dir.as_ref(), options)?;
    let mut last: Option<K> = None;
    for entry in entries {
        let entry = entry?;
        let key = order(&entry.trace);
        if last.as_ref().is_some_and(|last| *last >= key) {
            bail!("trace {} at {key:?} comes after {last:?}: rows are sealed in order, each once", entry.trace.id);
        }
        last = Some(key);
        sealer.push(entry)?;
    }
    sealer.finish()
}

/// Writes rows as they come; for callers whose rows go into several folders at once.
pub struct Sealer<'a> {
    dir: &'a Path,
    options: &'a SealOptions,
    shards: Vec<ShardInfo>,
    open: Option<Shard<'a>>,
}

impl<'a> Sealer<'a> {
    /// Begins in `dir`, which holds no shards yet.
    pub fn new(dir: &'a Path, options: &'a SealOptions) -> Result<Self> {
        for file in [FILE, "00000.jsonl.zst"] {
            if dir.join(file).exists() {
                bail!("{} holds shards already; sealed shards are not written over: seal into a new folder", dir.display());
            }
        }
        Ok(Self { dir, options, shards: Vec::new(), open: None })
    }

    /// Adds the next row.
    pub fn push(&mut self, entry: Entry) -> Result<()> {
        let Self { dir, options, shards, open } = self;
        let shard = match &mut *open {
            Some(shard) => shard,
            none => none.insert(Shard::create(dir, shards.len(), options.level)?),
        };
        shard.add(entry, options).with_context(|| format!("cannot seal shard {} in {}", shards.len(), dir.display()))?;
        if shard.is_full(options) {
            shards.extend(open.take().map(Shard::finish).transpose()?);
        }
        Ok(())
    }

    /// Ends the last shard and writes the manifest.
    pub fn finish(self) -> Result<Manifest> {
        let Self { dir, options, mut shards, open } = self;
        shards.extend(open.map(Shard::finish).transpose()?);
        let rows = shards.iter().map(|shard| shard.rows).sum();
        let manifest = Manifest { format: FORMAT, kind: options.kind.clone(), rows, shards, sources: options.sources.clone() };
        publish::json(dir.join(FILE), &manifest)?;
        Ok(manifest)
    }
}

/// A shard that is being written.
struct Shard<'a> {
    dir: &'a Path,
    text: Packer<Pending>,
    ids: Option<(Packer<Pending>, u64)>,
    info: ShardInfo,
}

impl<'a> Shard<'a> {
    fn create(dir: &'a Path, number: usize, level: i32) -> Result<Self> {
        let file = format!("{number:05}.jsonl.zst");
        let text = Packer::new(Pending::create(dir.join(&file))?, level, b"");
        let info = ShardInfo { file, rows: 0, frames: 0, bytes: 0, tokens: 0, sha256: String::new(), ids: None };
        Ok(Self { dir, text, ids: None, info })
    }

    fn add(&mut self, entry: Entry, options: &SealOptions) -> Result<()> {
        let Entry { trace, tokens } = entry;
        if trace.source >= options.sources.len() {
            bail!("trace {} names source {}, the manifest has {}", trace.id, trace.source, options.sources.len());
        }
        let mut line = serde_json::to_vec(&trace).with_context(|| format!("trace {} cannot be written as JSON", trace.id))?;
        line.push(b'\n');
        self.text.row(&line).map_err(|error| not_written(&self.dir.join(&self.info.file), error))?;
        self.info.rows += 1;
        self.info.tokens += trace.completion_tokens as u64;
        let Some(record) = tokens else { return Ok(()) };
        if record.id != trace.id {
            bail!("trace {} comes with the tokens of {}", trace.id, record.id);
        }
        let (ids, rows) = match &mut self.ids {
            Some(ids) => ids,
            none => {
                none.insert((Packer::new(Pending::create(self.dir.join(ids_file(&self.info.file)))?, options.level, tokens::PREFIX), 0))
            }
        };
        ids.row(&record.to_bytes()?).map_err(|error| not_written(&self.dir.join(ids_file(&self.info.file)), error))?;
        *rows += 1;
        Ok(())
    }

    fn is_full(&self, options: &SealOptions) -> bool {
        self.text.raw_bytes >= options.shard_bytes
    }

    fn finish(self) -> Result<ShardInfo> {
        let Self { dir, text, ids, mut info } = self;
        if let Some((ids, rows)) = ids {
            let file = ids_file(&info.file);
            let (pending, frames, bytes, sha256) = ids.finish().map_err(|error| not_written(&dir.join(&file), error))?;
            pending.commit()?;
            info.ids = Some(TokensInfo { file, rows, frames, bytes, sha256 });
        }
        let (pending, frames, bytes, sha256) = text.finish().map_err(|error| not_written(&dir.join(&info.file), error))?;
        pending.commit()?;
        Ok(ShardInfo { frames, bytes, sha256, ..info })
    }
}

fn ids_file(shard: &str) -> String {
    shard.replace(".jsonl.", ".tokens.")
}
