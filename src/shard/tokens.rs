//! Token ids beside the text: what was really sampled, for training on own tokens and for audits.
//!
//! `00000.tokens.zst` is a sequence of zstd frames with checksums. A frame's raw bytes are the four bytes `DTK1` and then whole records, all
//! numbers little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 4 x 4 | u32: length of the id in bytes, number of prompt ids P, of completion ids C, of log-probabilities L (C, or 0 where unknown) |
//! | … | the trace id, UTF-8 |
//! | 4 P | u32 prompt ids |
//! | 4 C | u32 completion ids |
//! | 2 L | IEEE half-precision log-probabilities of the completion ids |
//!
//! Which tokenizer the ids belong to is in the manifest's source, not here.

use super::cache::Cache;
use super::frame::{Frames, Hashed};
use super::manifest::{Manifest, TokensInfo};
use anyhow::{Context, Result, anyhow, bail};
use half::f16;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// What every frame begins with: the format and its version.
pub(super) const PREFIX: &[u8] = b"DTK1";
const HEADER: usize = 16;

/// The token ids of one trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Id of the trace.
    pub id: String,
    pub prompt: Vec<u32>,
    /// The end token included where the attempt ended with one.
    pub completion: Vec<u32>,
    /// Bits of half-precision log-probabilities, as many as `completion`, or none where they are unknown.
    pub logprobs: Vec<u16>,
}

impl TokenRecord {
    /// Rounds the log-probabilities to half precision.
    pub fn new(id: impl Into<String>, prompt: Vec<u32>, completion: Vec<u32>, logprobs: &[f32]) -> Self {
        Self { id: id.into(), prompt, completion, logprobs: logprobs.iter().map(|x| f16::from_f32(*x).to_bits()).collect() }
    }

    /// The log-probabilities in single precision, rounded as they are.
    pub fn logprobs(&self) -> impl ExactSizeIterator<Item = f32> + '_ {
        self.logprobs.iter().map(|bits| f16::from_bits(*bits).to_f32())
    }

    /// The record in the layout above.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        if !self.logprobs.is_empty() && self.logprobs.len() != self.completion.len() {
            bail!("{}: {} completion tokens with {} log-probabilities", self.id, self.completion.len(), self.logprobs.len());
        }
        let lengths = [self.id.len(), self.prompt.len(), self.completion.len(), self.logprobs.len()];
        let mut bytes =
            Vec::with_capacity(HEADER + self.id.len() + 4 * (self.prompt.len() + self.completion.len()) + 2 * self.logprobs.len());
        for n in lengths {
            bytes.extend(u32::try_from(n).with_context(|| format!("{}: too long to store", self.id))?.to_le_bytes());
        }
        bytes.extend(self.id.as_bytes());
        bytes.extend(self.prompt.iter().chain(&self.completion).flat_map(|id| id.to_le_bytes()));
        bytes.extend(self.logprobs.iter().flat_map(|bits| bits.to_le_bytes()));
        Ok(bytes)
    }

    /// Takes one record off the front of `bytes`; `None` where they hold no whole one.
    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let mut lengths = [0; 4];
        for n in &mut lengths {
            *n = u32::from_le_bytes(bytes.split_off(..4)?.try_into().ok()?) as usize;
        }
        let [id, prompt, completion, logprobs] = lengths;
        if logprobs != 0 && logprobs != completion {
            return None;
        }
        let id = String::from_utf8(bytes.split_off(..id)?.to_vec()).ok()?;
        let mut ids = |n: usize| Some(bytes.split_off(..n.checked_mul(4)?)?.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect());
        let (prompt, completion) = (ids(prompt)?, ids(completion)?);
        let logprobs = bytes.split_off(..2 * logprobs)?.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b)).collect();
        Some(Self { id, prompt, completion, logprobs })
    }
}

/// The token ids of a folder of shards, by trace id. Holds an index of the ids and the frames that were read last.
pub struct Tokens {
    files: Vec<(PathBuf, File)>,
    places: HashMap<String, Place>,
    /// By file and offset.
    frames: Cache<(usize, u64)>,
}

#[derive(Clone, Copy)]
struct Place {
    file: usize,
    frame: u64,
    start: usize,
}

impl Tokens {
    /// Reads through the token files that the manifest of `dir` names, checking them against it. A folder without any gives an empty set.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let mut tokens = Self { files: Vec::new(), places: HashMap::new(), frames: Cache::new() };
        for info in Manifest::load(dir)?.shards.into_iter().filter_map(|shard| shard.ids) {
            let path = dir.join(&info.file);
            let file = tokens.index(&path, &info).with_context(|| format!("{}", path.display()))?;
            tokens.files.push((path, file));
        }
        Ok(tokens)
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The record of a trace; `None` where the folder has none. A frame that is still held is not decompressed again.
    pub fn get(&mut self, id: &str) -> Result<Option<TokenRecord>> {
        let Some(Place { file, frame, start }) = self.places.get(id).copied() else { return Ok(None) };
        let (path, input) = &mut self.files[file];
        let raw = self.frames.get((file, frame), || {
            let read = || -> Result<Vec<u8>> {
                input.seek(SeekFrom::Start(frame))?;
                Ok(Frames::new(BufReader::new(input), frame)?.next()?.context("is gone")?.raw)
            };
            read().with_context(|| format!("{}: the frame at byte {frame}", path.display()))
        })?;
        let record = raw.get(start..).and_then(|mut bytes| TokenRecord::take(&mut bytes)).filter(|record| record.id == id);
        Ok(Some(record.with_context(|| format!("{}: the frame at byte {frame} has changed", path.display()))?))
    }

    /// Adds the places of one file's records and compares the file with the manifest.
    fn index(&mut self, path: &Path, info: &TokensInfo) -> Result<File> {
        let number = self.files.len();
        let mut records = Records::open(path, info.clone())?;
        while let Some((record, frame, start)) = records.next()? {
            if let Some(_twice) = self.places.insert(record.id.clone(), Place { file: number, frame, start }) {
                bail!("frame {}: {} is there twice", records.frames.index, record.id);
            }
        }
        Ok(records.frames.input.into_inner().input)
    }
}

/// The token ids of a folder of shards in the order of its traces, with one frame in memory.
pub struct TokensInOrder {
    waiting: std::vec::IntoIter<(PathBuf, TokensInfo)>,
    file: Option<(PathBuf, Records)>,
    next: Option<TokenRecord>,
}

impl TokensInOrder {
    /// As [`Tokens::open`]; files are checked as they are read.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let files: Vec<_> =
            Manifest::load(dir)?.shards.into_iter().filter_map(|shard| shard.ids).map(|ids| (dir.join(&ids.file), ids)).collect();
        let mut tokens = Self { waiting: files.into_iter(), file: None, next: None };
        tokens.advance()?;
        Ok(tokens)
    }

    /// The record of the next trace, in the order of the shards; `None` where it has none.
    pub fn of(&mut self, id: &str) -> Result<Option<TokenRecord>> {
        if self.next.as_ref().is_none_or(|next| next.id != id) {
            return Ok(None);
        }
        let record = self.next.take();
        self.advance()?;
        Ok(record)
    }

    /// To be called behind the last trace.
    ///
    /// # Errors
    /// Where a record belongs to none of them.
    pub fn finish(self) -> Result<()> {
        match self.next {
            Some(next) => {
                bail!("the token ids of {} are not at their trace's place: the shards were put together by another program", next.id)
            }
            None => Ok(()),
        }
    }

    fn advance(&mut self) -> Result<()> {
        loop {
            if let Some((path, records)) = &mut self.file
                && let Some((record, ..)) = records.next().with_context(|| format!("{}", path.display()))?
            {
                self.next = Some(record);
                return Ok(());
            }
            let Some((path, info)) = self.waiting.next() else { return Ok(()) };
            let records = Records::open(&path, info).with_context(|| format!("{}", path.display()))?;
            self.file = Some((path, records));
        }
    }
}

/// The records of one file, which is compared with the manifest at its end.
struct Records {
    info: TokensInfo,
    frames: Frames<BufReader<Hashed<File>>>,
    raw: Vec<u8>,
    /// Where the next record begins in `raw`, and `raw` in the file.
    at: usize,
    frame: u64,
    rows: u64,
}

impl Records {
    fn open(path: &Path, info: TokensInfo) -> Result<Self> {
        let frames = Frames::new(BufReader::with_capacity(1 << 17, Hashed::new(File::open(path)?)), 0)?;
        Ok(Self { info, frames, raw: Vec::new(), at: 0, frame: 0, rows: 0 })
    }

    /// The next record, with the offset of its frame and its place in that.
    fn next(&mut self) -> Result<Option<(TokenRecord, u64, usize)>> {
        while self.at == self.raw.len() {
            let (frame, of, rows) = (self.frames.index + 1, self.info.frames, self.rows);
            let damaged = |what: &dyn std::fmt::Display| anyhow!("frame {frame} of {of} {what}; the {rows} records before it are good");
            let Some(piece) = self.frames.next().map_err(|error| damaged(&error))? else {
                self.check_end()?;
                return Ok(None);
            };
            if !piece.complete || !piece.raw.starts_with(PREFIX) {
                return Err(damaged(&"holds no token records"));
            }
            (self.raw, self.at, self.frame) = (piece.raw, PREFIX.len(), piece.start);
        }
        let start = self.at;
        let mut rest = &self.raw[start..];
        let record =
            TokenRecord::take(&mut rest).ok_or_else(|| anyhow!("frame {}: record {} is malformed", self.frames.index, self.rows + 1))?;
        self.at = self.raw.len() - rest.len();
        self.rows += 1;
        Ok(Some((record, self.frame, start)))
    }

    fn check_end(&self) -> Result<()> {
        let (rows, found, info, input) = (self.rows, self.frames.index, &self.info, self.frames.input.get_ref());
        if (rows, found, input.bytes, input.sha256().as_str()) != (info.rows, info.frames, info.bytes, info.sha256.as_str()) {
            bail!(
                "has {rows} records in {found} frames and {} bytes, the manifest says {}, {} and {} with another hash or size: it was cut or exchanged",
                input.bytes,
                info.rows,
                info.frames,
                info.bytes
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_documented_one() {
        let record = TokenRecord::new("ab", vec![1], vec![258, 3], &[-1.0, -0.5]);
        let bytes = [
            &[2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0][..],
            b"ab",
            &[1, 0, 0, 0, 2, 1, 0, 0, 3, 0, 0, 0],
            &[0x00, 0xbc, 0x00, 0xb8],
        ]
        .concat();
        assert_eq!(record.to_bytes().unwrap(), bytes);
        assert_eq!(record.logprobs().collect::<Vec<_>>(), [-1.0, -0.5]);
        let mut rest = &bytes[..];
        assert_eq!(TokenRecord::take(&mut rest), Some(record));
        assert!(rest.is_empty());
    }

    #[test]
    fn malformed_records_are_none_and_never_a_panic() {
        let bytes = TokenRecord::new("ab", vec![1], vec![258, 3], &[-1.0, -0.5]).to_bytes().unwrap();
        for cut in 0..bytes.len() {
            assert_eq!(TokenRecord::take(&mut &bytes[..cut]), None, "{cut}");
        }
        for at in 0..16 {
            let mut huge = bytes.clone();
            huge[at] = 0xff;
            assert_eq!(TokenRecord::take(&mut &huge[..]), None, "{at}");
        }
        assert!(TokenRecord::new("ab", vec![], vec![1, 2], &[0.0]).to_bytes().is_err());
        assert!(TokenRecord::new("ab", vec![], vec![1, 2], &[]).to_bytes().is_ok());
    }
}
