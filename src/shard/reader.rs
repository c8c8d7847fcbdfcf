//! Reading rows back: a folder with its manifest, or one bare file of JSON lines, compressed or not.
//!
//! Rows come one at a time with one frame of memory. A frame of ours is handed out only after its checksum has matched, and the end of every
//! shard is compared with the manifest: rows, frames, bytes, hash. Which rows a stage wants is not known here.

use super::frame::{Bad, FRAME_BYTES, Frames, Hashed, MAGIC, WHOLE_BYTES};
use super::manifest::{Manifest, ShardInfo};
use crate::trace::Trace;
use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::marker::PhantomData;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

/// The traces of a folder of shards or of one `.jsonl` or `.jsonl.zst` file.
///
/// Lines of a bare file may be chats, which hold `messages` alone: general data, named by file and line from 1.
pub fn traces(path: impl AsRef<Path>) -> Result<Rows<Trace>> {
    let mut rows = Rows::open(path)?;
    if rows.manifest.is_none() {
        rows.otherwise = Some(Trace::of_chat);
    }
    Ok(rows)
}

/// What else a line can be that is no row, given its bytes and a name.
type Otherwise<T> = fn(&[u8], String) -> Option<T>;

/// An iterator over rows; after an error it ends. What came before the error is good.
pub struct Rows<T> {
    manifest: Option<Manifest>,
    waiting: IntoIter<(PathBuf, Option<ShardInfo>)>,
    file: Option<Lines>,
    failed: bool,
    otherwise: Option<Otherwise<T>>,
    rows: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Rows<T> {
    /// Opens a folder by its manifest, or one file. Files are checked as they are read, not here.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (manifest, files) = if path.is_dir() {
            let manifest = Manifest::load(path)?;
            let files = manifest.shards.iter().map(|shard| (path.join(&shard.file), Some(shard.clone()))).collect();
            (Some(manifest), files)
        } else {
            File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            (None, vec![(path.to_owned(), None)])
        };
        Ok(Self { manifest, waiting: files.into_iter(), file: None, failed: false, otherwise: None, rows: PhantomData })
    }

    /// The folder's manifest; `None` for a bare file.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// The next lines of a file, `bytes` of them at least where it has so many, not parsed yet; `None` at the end. Not to be mixed with the iterator.
    ///
    /// # Errors
    /// Where the files are damaged; the lines of the piece that was being read are not handed out.
    pub fn batch(&mut self, bytes: usize) -> Result<Option<Batch<T>>> {
        while let Some(file) = self.file()? {
            let taken = file.take(bytes)?;
            let (path, ended) = (file.path.clone(), file.ended);
            if !taken.lines.is_empty() {
                return Ok(Some(Batch { path, taken, otherwise: self.otherwise }));
            }
            if ended {
                self.file = None;
            }
        }
        Ok(None)
    }

    /// The file that is being read, or the next one; `None` after the last.
    fn file(&mut self) -> Result<Option<&mut Lines>> {
        if self.file.is_none() {
            self.file = self.waiting.next().map(|(path, info)| Lines::open(path, info)).transpose()?;
        }
        Ok(self.file.as_mut())
    }

    fn step(&mut self) -> Result<Option<T>> {
        loop {
            let otherwise = self.otherwise;
            let Some(file) = self.file()? else { return Ok(None) };
            match file.next()? {
                Some((number, line)) => {
                    if let Ok(row) = serde_json::from_slice(line) {
                        return Ok(Some(row));
                    }
                    let line = line.to_vec();
                    return parse(&line, &file.path, number, otherwise).map(Some);
                }
                None => self.file = None,
            }
        }
    }
}

impl<T: DeserializeOwned> Iterator for Rows<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        if self.failed {
            return None;
        }
        let row = self.step().transpose();
        self.failed = matches!(row, Some(Err(_)));
        row
    }
}

/// Lines of one file, to be parsed on any thread.
pub struct Batch<T> {
    path: PathBuf,
    taken: Taken,
    otherwise: Option<Otherwise<T>>,
}

/// Bytes of whole lines.
#[derive(Default)]
struct Taken {
    raw: Vec<u8>,
    /// Of each line that is not blank its number in the file, and its place in `raw`.
    lines: Vec<(u64, Range<usize>)>,
}

impl<T: DeserializeOwned> Batch<T> {
    pub fn len(&self) -> usize {
        self.taken.lines.len()
    }

    pub fn is_empty(&self) -> bool {
        self.taken.lines.is_empty()
    }

    /// The row of one line.
    ///
    /// # Errors
    /// Naming file and line, where it is none.
    pub fn row(&self, line: usize) -> Result<T> {
        parse(self.line(line), &self.path, self.taken.lines[line].0, self.otherwise)
    }

    /// The bytes of one line.
    pub fn line(&self, line: usize) -> &[u8] {
        &self.taken.raw[self.taken.lines[line].1.clone()]
    }
}

fn parse<T: DeserializeOwned>(line: &[u8], path: &Path, number: u64, otherwise: Option<Otherwise<T>>) -> Result<T> {
    serde_json::from_slice(line).or_else(|error| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let name = format!("{}/{number}", stem.trim_end_matches(".jsonl"));
        otherwise.and_then(|other| other(line, name)).ok_or_else(|| anyhow!("{}:{number}: {error}", path.display()))
    })
}

/// The lines of one file.
struct Lines {
    path: PathBuf,
    input: Input,
    info: Option<ShardInfo>,
    /// Raw bytes; those before `start` are used up.
    buffer: Vec<u8>,
    start: usize,
    /// Bytes of the buffer, from `start`, that hold no newline.
    searched: usize,
    ended: bool,
    /// Lines handed out or passed over.
    number: u64,
    /// Lines handed out.
    rows: u64,
}

type Plain = BufReader<Hashed<File>>;

enum Input {
    Frames(Frames<Plain>),
    Plain(Plain),
}

impl Lines {
    fn open(path: PathBuf, info: Option<ShardInfo>) -> Result<Self> {
        let open = || -> std::io::Result<Input> {
            // As large as a frame: one that is there as a whole is decompressed to where it is wanted, with no copy between.
            let mut input = BufReader::with_capacity(FRAME_BYTES, Hashed::new(File::open(&path)?));
            // Only the extension tells damage at the head of a compressed file from text; the content tells a compressed file of another name.
            let compressed = path.extension().is_some_and(|e| e == "zst") || input.fill_buf()?.starts_with(&MAGIC);
            Ok(if compressed { Input::Frames(Frames::new(input, 0)?) } else { Input::Plain(input) })
        };
        let input = open().with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { path, input, info, buffer: Vec::new(), start: 0, searched: 0, ended: false, number: 0, rows: 0 })
    }

    /// The next line that is not blank, with its number from 1.
    fn next(&mut self) -> Result<Option<(u64, &[u8])>> {
        loop {
            let rest = &self.buffer[self.start..];
            let newline = memchr::memchr(b'\n', &rest[self.searched..]).map(|i| self.searched + i);
            let end = match newline {
                Some(end) => end,
                None if self.ended && rest.is_empty() => return self.check_end().map(|()| None),
                None if self.ended => rest.len(),
                None => {
                    self.searched = rest.len();
                    self.fill()?;
                    continue;
                }
            };
            let line = self.start..self.start + end;
            self.start = (line.end + 1).min(self.buffer.len());
            self.searched = 0;
            self.number += 1;
            if !self.buffer[line.clone()].trim_ascii().is_empty() {
                self.rows += 1;
                return Ok(Some((self.number, &self.buffer[line])));
            }
        }
    }

    /// All whole lines of the next `bytes` bytes, as they lie; none at the end of the file.
    fn take(&mut self, bytes: usize) -> Result<Taken> {
        while !self.ended && (self.buffer.len() - self.start < bytes || memchr::memrchr(b'\n', &self.buffer[self.start..]).is_none()) {
            self.fill()?;
        }
        let end = match memchr::memrchr(b'\n', &self.buffer) {
            Some(newline) if !self.ended => newline + 1,
            _ => self.buffer.len(),
        };
        let rest = self.buffer.split_off(end);
        let mut taken = Taken { raw: std::mem::replace(&mut self.buffer, rest), lines: Vec::new() };
        let mut start = std::mem::take(&mut self.start);
        self.searched = 0;
        while start < end {
            let newline = memchr::memchr(b'\n', &taken.raw[start..]).map_or(end, |length| start + length);
            self.number += 1;
            if !taken.raw[start..newline].trim_ascii().is_empty() {
                taken.lines.push((self.number, start..newline));
            }
            start = newline + 1;
        }
        self.rows += taken.lines.len() as u64;
        if self.ended && taken.lines.is_empty() {
            self.check_end()?;
        }
        Ok(taken)
    }

    /// Appends the next piece of the file to what is left of the buffer.
    fn fill(&mut self) -> Result<()> {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.len() > WHOLE_BYTES {
            bail!("{}:{}: the line is longer than {WHOLE_BYTES} bytes", self.path.display(), self.number + 1);
        }
        match &mut self.input {
            Input::Frames(frames) => match frames.append(&mut self.buffer) {
                Ok(Some(_)) => {}
                Ok(None) => self.ended = true,
                Err(bad) => return Err(self.damaged(&bad)),
            },
            Input::Plain(input) => {
                let n = input
                    .take(FRAME_BYTES as u64)
                    .read_to_end(&mut self.buffer)
                    .with_context(|| format!("cannot read {}", self.path.display()))?;
                self.ended = n == 0;
            }
        }
        Ok(())
    }

    fn damaged(&self, bad: &Bad) -> anyhow::Error {
        let Input::Frames(frames) = &self.input else { return anyhow!("{}: {bad}", self.path.display()) };
        let of = self.info.as_ref().map_or(String::new(), |info| format!(" of {}", info.frames));
        anyhow!("{}: frame {}{of} {bad}; the {} rows before it are good", self.path.display(), frames.index + 1, self.rows)
    }

    /// Compares the whole file with the manifest: the only way to notice a cut between two frames.
    fn check_end(&self) -> Result<()> {
        let Some(info) = &self.info else { return Ok(()) };
        let (hashed, frames) = match &self.input {
            Input::Frames(frames) => (frames.input.get_ref(), frames.index),
            Input::Plain(input) => (input.get_ref(), info.frames),
        };
        let path = self.path.display();
        if (self.rows, frames, hashed.bytes) != (info.rows, info.frames, info.bytes) {
            bail!(
                "{path}: {} rows in {frames} frames and {} bytes, the manifest says {}, {} and {}: the file was cut or exchanged; the {} rows are good",
                self.rows,
                hashed.bytes,
                info.rows,
                info.frames,
                info.bytes,
                self.rows
            );
        }
        let sha256 = hashed.sha256();
        if sha256 != info.sha256 {
            bail!("{path}: the file's SHA-256 is {sha256}, the manifest says {}: it was exchanged", info.sha256);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{entries, order};
    use super::super::writer::{SealOptions, seal};
    use super::super::{Entry, Source, Tokens};
    use super::*;
    use crate::key::Key;
    use crate::publish;

    /// Shards of at most about two frames: the frame size is fixed, so a frame is filled by long responses.
    fn sealed(dir: &Path, entries: &[Entry], shard_bytes: u64) -> Manifest {
        let options = SealOptions { shard_bytes, level: 1, ..SealOptions::new("traces", vec![Source::default()]) };
        seal(dir, entries.iter().cloned().map(Ok), order, &options).unwrap()
    }

    fn long_entries(n: u32) -> Vec<Entry> {
        let mut all = entries(n);
        all.iter_mut().for_each(|entry| entry.trace.response = entry.trace.response.repeat(3000));
        all
    }

    fn good(path: &Path) -> (Vec<Trace>, Option<String>) {
        let mut rows = traces(path).unwrap();
        let mut good = Vec::new();
        loop {
            match rows.next() {
                Some(Ok(row)) => good.push(row),
                Some(Err(error)) => {
                    assert!(rows.next().is_none(), "an error is the end");
                    return (good, Some(format!("{error:#}")));
                }
                None => return (good, None),
            }
        }
    }

    fn texts(entries: &[Entry]) -> Vec<Trace> {
        entries.iter().map(|entry| entry.trace.clone()).collect()
    }

    #[test]
    fn rows_tokens_and_unknown_fields_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let all = long_entries(20);
        let manifest = sealed(dir.path(), &all, 2_000_000);
        assert!(manifest.shards.len() > 1 && manifest.shards.iter().any(|shard| shard.frames > 1), "{manifest:?}");
        assert_eq!((manifest.rows, Manifest::load(dir.path()).unwrap()), (40, manifest.clone()));
        let (rows, error) = good(dir.path());
        assert_eq!((rows.clone(), error), (texts(&all), None));
        assert_eq!(rows[3].other["zz_unknown"].to_string(), r#"{"b":[1,2.5],"a":null}"#);
        let mut tokens = Tokens::open(dir.path()).unwrap();
        assert_eq!(tokens.len(), 40);
        for entry in all.iter().rev() {
            assert_eq!(tokens.get(&entry.trace.id).unwrap(), entry.tokens);
        }
        assert_eq!(tokens.get("p/0#9").unwrap(), None);
        let first = publish::sha256_file(dir.path().join("00000.jsonl.zst")).unwrap();
        assert_eq!(first, manifest.shards[0].sha256);
    }

    #[test]
    fn sealed_bytes_do_not_depend_on_the_order_of_the_journal() {
        let mut hashes = Vec::new();
        for seed in 0..3 {
            let dir = tempfile::tempdir().unwrap();
            let mut all = entries(12);
            Key::new(seed, "order").stream().shuffle(&mut all);
            let (mut journal, _) = super::super::Journal::open(dir.path().join("journal"), |_, _| Ok(())).unwrap();
            let mut places: Vec<_> = Vec::new();
            for batch in all.chunks(1 + seed as usize) {
                places.extend(journal.append(batch).unwrap().into_iter().zip(batch.iter().map(|entry| order(&entry.trace))));
            }
            places.sort_by_key(|(_, key)| *key);
            let rows = places.iter().map(|(place, _)| journal.read(*place));
            let folder = dir.path().join("traces");
            let options = SealOptions { shard_bytes: 3000, ..SealOptions::new("traces", vec![Source::default()]) };
            publish::folder(&folder, |tmp| seal(tmp, rows, order, &options)).unwrap();
            assert_eq!(good(&folder).0, texts(&entries(12)));
            hashes.push(publish::sha256_file(folder.join("manifest.json")).unwrap());
        }
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    }

    #[test]
    fn rows_out_of_order_twice_or_without_a_source_are_refused() {
        let options = SealOptions::new("traces", vec![Source::default()]);
        let [a, b] = [entries(2)[0].clone(), entries(2)[1].clone()];
        let mut orphan = a.clone();
        orphan.trace.source = 1;
        let mut mixed = a.clone();
        mixed.tokens = b.tokens.clone();
        for (rows, message) in [
            (vec![b.clone(), a.clone()], "p/0#0 at (0, 0) comes after Some((0, 1))"),
            (vec![a.clone(), a.clone()], "each once"),
            (vec![orphan], "names source 1, the manifest has 1"),
            (vec![mixed], "comes with the tokens of p/0#1"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let error = format!("{:#}", seal(dir.path(), rows.into_iter().map(Ok), order, &options).unwrap_err());
            assert!(error.contains(message), "{error}");
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left of it");
        }
        let dir = tempfile::tempdir().unwrap();
        sealed(dir.path(), &entries(1), 1 << 20);
        assert!(seal(dir.path(), [], order, &options).unwrap_err().to_string().contains("holds shards already"));
    }

    #[test]
    fn no_rows_are_a_manifest_without_shards() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(sealed(dir.path(), &[], 1).shards, []);
        assert_eq!(good(dir.path()), (vec![], None));
        assert!(Tokens::open(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn a_flipped_bit_is_always_noticed_and_no_false_row_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let all = entries(30);
        sealed(dir.path(), &all, 1 << 20);
        let mut draw = Key::new(3, "flips").stream();
        for name in ["00000.jsonl.zst", "00000.tokens.zst"] {
            let path = dir.path().join(name);
            let whole = std::fs::read(&path).unwrap();
            for _ in 0..200 {
                let (at, bit) = (draw.below(whole.len() as u32) as usize, draw.below(8));
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                std::fs::write(&path, bytes).unwrap();
                if name.contains("tokens") {
                    let error = format!("{:#}", Tokens::open(dir.path()).err().unwrap());
                    assert!(error.contains(name), "{error}");
                } else {
                    let (rows, error) = good(dir.path());
                    assert!(error.unwrap().contains(name), "byte {at} bit {bit}");
                    assert!(rows.iter().zip(&all).all(|(row, entry)| *row == entry.trace), "byte {at} bit {bit}");
                }
            }
            std::fs::write(&path, &whole).unwrap();
        }
        assert_eq!(good(dir.path()).1, None);
    }

    #[test]
    fn a_cut_at_every_byte_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let all = entries(3);
        sealed(dir.path(), &all, 1 << 20);
        for name in ["00000.jsonl.zst", "00000.tokens.zst"] {
            let path = dir.path().join(name);
            let whole = std::fs::read(&path).unwrap();
            for cut in 0..whole.len() {
                std::fs::write(&path, &whole[..cut]).unwrap();
                let error =
                    if name.contains("tokens") { Tokens::open(dir.path()).err().map(|e| format!("{e:#}")) } else { good(dir.path()).1 };
                assert!(error.unwrap().contains(name), "{cut}");
            }
            std::fs::write(&path, &whole).unwrap();
        }
        std::fs::remove_file(dir.path().join("00000.jsonl.zst")).unwrap();
        assert!(good(dir.path()).1.unwrap().contains("cannot open"));
    }

    #[test]
    fn errors_name_the_file_the_frame_and_what_is_good() {
        let dir = tempfile::tempdir().unwrap();
        let all = long_entries(20);
        let manifest = sealed(dir.path(), &all, u64::MAX);
        let path = dir.path().join("00000.jsonl.zst");
        let whole = std::fs::read(&path).unwrap();
        let mut frames = Frames::new(&whole[..], 0).unwrap();
        let mut ends = vec![];
        let mut rows = vec![0];
        while let Some(piece) = frames.next().unwrap() {
            ends.push(piece.end as usize);
            rows.push(rows.last().unwrap() + piece.raw.iter().filter(|byte| **byte == b'\n').count());
        }
        let n = manifest.shards[0].frames;
        assert!(n >= 3 && ends.len() as u64 == n, "{n} frames");

        let mut bytes = whole.clone();
        bytes[ends[1] - 1] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let (good_rows, error) = good(dir.path());
        let error = error.unwrap();
        assert!(error.contains(&format!("00000.jsonl.zst: frame 2 of {n} is damaged (")) && error.contains("checksum"), "{error}");
        assert!(error.ends_with(&format!("the {} rows before it are good", rows[1])), "{error}");
        assert_eq!(good_rows, texts(&all[..rows[1]]));

        std::fs::write(&path, &whole[..ends[1]]).unwrap();
        let (good_rows, error) = good(dir.path());
        assert!(error.unwrap().contains(&format!("{} rows in 2 frames and {} bytes, the manifest says 40, {n}", rows[2], ends[1])));
        assert_eq!(good_rows, texts(&all[..rows[2]]));
        assert_eq!(good(&path), (texts(&all[..rows[2]]), None), "without its manifest the cut file looks whole");

        std::fs::write(&path, &whole[..ends[1] - 1]).unwrap();
        assert!(good(dir.path()).1.unwrap().contains("is damaged (the file ends inside it)"));
        std::fs::write(&path, super::super::frame::compress(b"{}\n", 3).unwrap()).unwrap();
        assert!(good(dir.path()).1.unwrap().contains("00000.jsonl.zst:1: missing field"));
    }

    /// Frames of three rows, changed at random: the rows before the damage are given as they were, no other row is ever false, and the error names
    /// the file and, where a frame is at fault, that frame.
    #[test]
    fn flips_cuts_losses_and_insertions_cost_only_what_lies_behind_them() {
        let dir = tempfile::tempdir().unwrap();
        let all = entries(9);
        let originals = texts(&all);
        let pack = |rows: &[Trace]| {
            let lines = rows.iter().flat_map(|row| [serde_json::to_vec(row).unwrap(), b"\n".to_vec()].concat()).collect::<Vec<u8>>();
            super::super::frame::compress(&lines, 3).unwrap()
        };
        let frames: Vec<Vec<u8>> = originals.chunks(3).map(pack).collect();
        let whole = frames.concat();
        let ends: Vec<usize> = frames.iter().scan(0, |end, frame| Some((*end += frame.len(), *end).1)).collect();
        let file = "00000.jsonl.zst".to_owned();
        let (bytes, sha256) = (whole.len() as u64, publish::sha256(&whole));
        let shard = ShardInfo { file, rows: 18, frames: 6, bytes, tokens: 0, sha256, ids: None };
        let sources = vec![Source::default()];
        let manifest = Manifest { format: super::super::manifest::FORMAT, kind: "traces".into(), rows: 18, shards: vec![shard], sources };
        publish::json(dir.path().join("manifest.json"), &manifest).unwrap();
        let path = dir.path().join("00000.jsonl.zst");
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(good(dir.path()), (originals.clone(), None));
        let mut draw = Key::new(7, "robust").stream();
        let mut named = 0;
        for case in 0..2000 {
            let mut bytes = whole.clone();
            let (at, n) = (draw.below(whole.len() as u32) as usize, 1 + draw.below(40) as usize);
            let noise: Vec<u8> = (0..n).map(|_| draw.below(256) as u8).collect();
            let end = (at + n).min(whole.len());
            match case % 4 {
                0 => noise.iter().for_each(|x| bytes[(at + *x as usize) % whole.len()] ^= 1 << (x % 8)),
                1 => bytes.truncate(at),
                2 => drop(bytes.drain(at..end)),
                _ => drop(bytes.splice(at..at, noise)),
            }
            if bytes == whole {
                continue;
            }
            std::fs::write(&path, &bytes).unwrap();
            let (rows, error) = good(dir.path());
            let error = error.unwrap_or_else(|| panic!("case {case}: not noticed"));
            let first = bytes.iter().zip(&whole).position(|(a, b)| a != b).unwrap_or(bytes.len().min(whole.len()));
            let before = 3 * ends.iter().filter(|end| **end <= first).count();
            assert!(rows.len() >= before && rows[..before] == originals[..before], "case {case}: {} of {before} rows", rows.len());
            assert!(rows.iter().all(|row| originals.contains(row)), "case {case}: a false row");
            assert!(error.contains("00000.jsonl.zst: "), "case {case}: {error}");
            let frame = format!("frame {} of 6 is damaged", rows.len() / 3 + 1);
            let as_a_whole = error.contains("was cut or exchanged") || error.contains("SHA-256");
            assert!(as_a_whole || error.contains(&frame), "case {case}: {error}");
            named += usize::from(!as_a_whole);
        }
        assert!(named > 1500, "a frame was named in {named} cases");
    }

    #[test]
    fn bare_files_of_any_framing_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let all = long_entries(5);
        let lines: Vec<u8> = all.iter().flat_map(|entry| serde_json::to_vec(&entry.trace).unwrap().into_iter().chain(*b"\n\n")).collect();
        let compress = super::super::frame::compress;
        let halves = lines.split_at(lines.len() / 2 + 7);
        for (name, bytes) in [
            ("plain.jsonl", lines.clone()),
            ("no-last-newline.jsonl", lines.trim_ascii_end().to_vec()),
            ("one-frame.jsonl.zst", compress(&lines, 3).unwrap()),
            ("of-another-name.jsonl", compress(&lines, 3).unwrap()),
            ("frames-inside-rows.zst", [compress(halves.0, 3).unwrap(), compress(halves.1, 3).unwrap()].concat()),
            ("streamed.zst", zstd::stream::encode_all(&lines[..], 3).unwrap()),
            ("skippable-tail.zst", [&compress(&lines, 3).unwrap()[..], &[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9]].concat()),
        ] {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(good(&path), (texts(&all), None), "{name}");
        }
        let chat = r#"{"messages": [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "so"}]}"#;
        std::fs::write(dir.path().join("mixed.jsonl"), format!("\n{chat}\n{}\n", serde_json::to_string(&all[0].trace).unwrap())).unwrap();
        let mixed: Vec<String> = traces(dir.path().join("mixed.jsonl")).unwrap().map(|t| t.unwrap().id).collect();
        assert_eq!(mixed, ["mixed/2#0", &all[0].trace.id]);
        std::fs::write(dir.path().join("bad.jsonl"), "\n{\"id\": \n").unwrap();
        assert!(good(&dir.path().join("bad.jsonl")).1.unwrap().contains("bad.jsonl:2: EOF"));
        std::fs::write(dir.path().join("text.zst"), "{}\n").unwrap();
        assert!(good(&dir.path().join("text.zst")).1.unwrap().contains("frame 1 is damaged"));
        assert!(traces(dir.path().join("none")).err().unwrap().to_string().contains("cannot open"));
        assert!(traces(dir.path()).err().unwrap().to_string().contains("manifest.json is missing"));
    }
}
