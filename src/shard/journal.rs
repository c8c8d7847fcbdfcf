//! The journal of a stage at work: rows in the order of completion, on the device before `append` returns.
//!
//! An append is one or more independent frames of JSON lines and one flush. Opening a journal walks its frames, keeps every good one, and cuts
//! what a kill or a full disk left at the end. The journal knows no order and no duplicates: that is the caller's, by what it visits.

use super::cache::Cache;
use super::frame::{Bad, FRAME_BYTES, Frames, MAGIC, Packer, Piece};
use crate::publish::{make_folders, not_written, sync_folder};
use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

/// Fast, for the loop that samples; sealing compresses again.
const LEVEL: i32 = 3;

/// An append-only file of `T`.
pub struct Journal<T> {
    file: File,
    path: PathBuf,
    bytes: u64,
    /// Why nothing more may be written through this descriptor.
    poisoned: Option<String>,
    /// Frames that were read, by offset.
    frames: Cache<u64>,
    rows: PhantomData<fn(T) -> T>,
}

/// Where a row lies in its journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Offset of its frame in the file.
    frame: u64,
    /// Offset of the row in the frame's raw bytes.
    start: u32,
}

/// What opening a journal found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    pub rows: u64,
    pub frames: u64,
    /// Bytes without a good frame that were cut from the end.
    pub torn_bytes: u64,
    /// Byte ranges before the last good frame that hold none: damage, not a torn tail. Their rows are lost and have to be made again.
    pub damaged: Vec<(u64, u64)>,
}

impl<T: Serialize + DeserializeOwned> Journal<T> {
    /// Opens or makes the journal at `path` and shows every row in it to `visit`, in the order of the file.
    ///
    /// A good frame with a row that is no `T` is an error (another program or version wrote it), not damage.
    pub fn open(path: impl AsRef<Path>, visit: impl FnMut(T, Place) -> Result<()>) -> Result<(Self, Recovered)> {
        let path = path.as_ref();
        let named = || format!("cannot open the journal {}", path.display());
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        make_folders(folder).with_context(named)?;
        let file = OpenOptions::new().read(true).append(true).create(true).open(path).with_context(named)?;
        sync_folder(folder)?;
        let (found, end) = rows_of(&file, visit).with_context(named)?;
        if found.torn_bytes > 0 {
            file.set_len(end).and_then(|()| file.sync_all()).with_context(|| format!("cannot cut the torn end of {}", path.display()))?;
        }
        Ok((Self { file, path: path.to_owned(), bytes: end, poisoned: None, frames: Cache::new(), rows: PhantomData }, found))
    }

    /// Appends rows and returns when they are on the device; all of them are, or the journal says so and takes no more.
    ///
    /// After a failed write or flush the system may have dropped the bytes and forgotten the error, so this descriptor is never tried again:
    /// open the journal anew, which looks at what is really there.
    pub fn append(&mut self, rows: &[T]) -> Result<Vec<Place>> {
        if let Some(why) = &self.poisoned {
            bail!("{} takes no more rows after a failed write ({why}); run the same command again", self.path.display());
        }
        let (bytes, places) = pack(rows, self.bytes).with_context(|| format!("cannot append to {}", self.path.display()))?;
        if let Err(error) = self.file.write_all(&bytes).and_then(|()| self.file.sync_data()) {
            self.poisoned = Some(error.to_string());
            return Err(not_written(&self.path, error));
        }
        self.bytes += bytes.len() as u64;
        Ok(places)
    }

    /// Reads one row again. A frame that is still held is not decompressed again.
    pub fn read(&mut self, place: Place) -> Result<T> {
        let named = || format!("{}: the frame at byte {}", self.path.display(), place.frame);
        let raw = self.frames.get(place.frame, || {
            let piece = frame_at(&self.file, place.frame).map_err(anyhow::Error::from).and_then(|piece| piece.context("is not there"));
            Ok(piece.with_context(named)?.raw)
        })?;
        let rest = raw.get(place.start as usize..).unwrap_or_default();
        let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
        serde_json::from_slice(line).with_context(named)
    }

    /// Cuts the journal before `place`, the first row of an append: a phase that resumes at an earlier step drops what it will write again.
    pub fn cut_from(&mut self, place: Place) -> Result<()> {
        if place.start != 0 {
            bail!("{} can be cut only between appends, not inside the frame at byte {}", self.path.display(), place.frame);
        }
        self.frames.clear();
        self.file
            .set_len(place.frame)
            .and_then(|()| self.file.sync_all())
            .with_context(|| format!("cannot cut {}", self.path.display()))?;
        self.bytes = place.frame;
        Ok(())
    }
}

/// Shows every row of a journal to `visit` and changes nothing: for looking at a stage while it works.
pub fn scan<T: DeserializeOwned>(path: impl AsRef<Path>, visit: impl FnMut(T, Place) -> Result<()>) -> Result<Recovered> {
    let path = path.as_ref();
    let read = || -> Result<Recovered> { Ok(rows_of(&File::open(path)?, visit)?.0) };
    read().with_context(|| format!("cannot read the journal {}", path.display()))
}

/// Visits every row; gives what was found and the end of the last good frame.
fn rows_of<T: DeserializeOwned>(file: &File, mut visit: impl FnMut(T, Place) -> Result<()>) -> Result<(Recovered, u64)> {
    let mut found = Recovered::default();
    let mut number = 0;
    let end = walk(file, &mut found, &mut |piece| {
        for (start, line) in lines(&piece.raw) {
            number += 1;
            let row = serde_json::from_slice(line).map_err(|error| anyhow!("row {number}: {error}"))?;
            visit(row, Place { frame: piece.start, start }).with_context(|| format!("row {number}"))?;
        }
        Ok(())
    })?;
    found.rows = number;
    Ok((found, end))
}

/// Packs rows into frames that will lie at offset `at`.
fn pack<T: Serialize>(rows: &[T], at: u64) -> Result<(Vec<u8>, Vec<Place>)> {
    let mut packer = Packer::new(Vec::new(), LEVEL, b"");
    let mut places = Vec::with_capacity(rows.len());
    for row in rows {
        let mut line = serde_json::to_vec(row).context("a row cannot be written as JSON")?;
        line.push(b'\n');
        let (frame, start) = packer.row(&line)?;
        places.push(Place { frame: at + frame, start });
    }
    Ok((packer.finish()?.0, places))
}

/// The lines of a frame and where each begins.
fn lines(raw: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut start = 0;
    raw.split_inclusive(|byte| *byte == b'\n').map(move |line| {
        start += line.len() as u32;
        (start - line.len() as u32, line)
    })
}

/// Walks the good frames of `file`, and returns the end of the last one.
fn walk(file: &File, found: &mut Recovered, visit: &mut dyn FnMut(Piece) -> Result<()>) -> Result<u64> {
    let mut at = 0;
    loop {
        let mut frames = frames_at(file, at)?;
        loop {
            match frames.next() {
                Ok(Some(piece)) if piece.complete => {
                    (at, found.frames) = (piece.end, found.frames + 1);
                    visit(piece)?;
                }
                Ok(None) => return Ok(at),
                Err(Bad::Io(error)) => return Err(error.into()),
                Ok(Some(_)) | Err(Bad::Damaged(_)) => break,
            }
        }
        let Some(next) = next_good(file, at + 1)? else {
            found.torn_bytes = file.metadata()?.len() - at;
            return Ok(at);
        };
        found.damaged.push((at, next));
        at = next;
    }
}

/// Offset of the first good frame at or after `from`.
fn next_good(file: &File, mut from: u64) -> Result<Option<u64>> {
    let mut buffer = vec![0; FRAME_BYTES];
    loop {
        let n = read_at(file, from, &mut buffer)?;
        for i in buffer[..n].windows(MAGIC.len()).enumerate().filter(|(_, bytes)| *bytes == MAGIC).map(|(i, _)| i as u64) {
            match frame_at(file, from + i) {
                Ok(Some(_)) => return Ok(Some(from + i)),
                Err(Bad::Io(error)) => return Err(error.into()),
                Ok(None) | Err(Bad::Damaged(_)) => {}
            }
        }
        if n < buffer.len() {
            return Ok(None);
        }
        from += (n - MAGIC.len() + 1) as u64;
    }
}

/// The frame at `offset`; `None` at the end of the file.
fn frame_at(file: &File, offset: u64) -> Result<Option<Piece>, Bad> {
    match frames_at(file, offset).map_err(Bad::Io)?.next()? {
        Some(piece) if !piece.complete => Err(Bad::Damaged("it is larger than any frame of a journal".into())),
        piece => Ok(piece),
    }
}

fn frames_at(mut file: &File, offset: u64) -> std::io::Result<Frames<BufReader<&File>>> {
    file.seek(SeekFrom::Start(offset))?;
    Frames::new(BufReader::with_capacity(1 << 17, file), offset)
}

/// Reads until `buffer` is full or the file ends.
fn read_at(mut file: &File, offset: u64, buffer: &mut [u8]) -> Result<usize> {
    file.seek(SeekFrom::Start(offset))?;
    let mut n = 0;
    while n < buffer.len() {
        match file.read(&mut buffer[n..])? {
            0 => break,
            more => n += more,
        }
    }
    Ok(n)
}

#[cfg(test)]
mod tests {
    use super::super::Entry;
    use super::super::samples::{entries, entry};
    use super::*;

    fn open(path: &Path) -> (Journal<Entry>, Recovered, Vec<(Entry, Place)>) {
        let mut rows = Vec::new();
        let (journal, found) = Journal::open(path, |row, place| {
            rows.push((row, place));
            Ok(())
        })
        .unwrap();
        (journal, found, rows)
    }

    #[test]
    fn what_was_appended_is_there_again_in_order_and_by_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/journal.zst");
        let (mut journal, found, _) = open(&path);
        assert_eq!(found, Recovered::default());
        let all = entries(10);
        let mut places = journal.append(&all[..7]).unwrap();
        places.extend(journal.append(&all[7..8]).unwrap());
        assert_eq!(journal.append(&[]).unwrap(), []);
        let (mut journal, found, rows) = open(&path);
        assert_eq!((found.rows, found.frames, found.torn_bytes), (8, 2, 0));
        places.extend(journal.append(&all[8..]).unwrap());
        assert_eq!(rows, all[..8].iter().cloned().zip(places[..8].iter().copied()).collect::<Vec<_>>());
        for i in (0..all.len()).rev() {
            assert_eq!(journal.read(places[i]).unwrap(), all[i], "{i}");
        }
        assert!(journal.cut_from(places[3]).is_err());
        journal.cut_from(places[7]).unwrap();
        journal.append(&all[19..]).unwrap();
        assert_eq!(open(&path).2.iter().map(|(row, _)| row.clone()).collect::<Vec<_>>(), [&all[..7], &all[19..]].concat());
    }

    #[test]
    fn big_appends_are_several_frames() {
        let dir = tempfile::tempdir().unwrap();
        let rows: Vec<String> = (0..40).map(|i| format!("{i}").repeat(50_000)).collect();
        let (mut journal, _) = Journal::open(dir.path().join("j"), |_, _| Ok(())).unwrap();
        let places = journal.append(&rows).unwrap();
        let mut again = Vec::new();
        let (_, found) = Journal::open(dir.path().join("j"), |row: String, place| {
            again.push((row, place));
            Ok(())
        })
        .unwrap();
        assert_eq!((found.rows, found.frames), (40, 4));
        assert_eq!(again, rows.into_iter().zip(places).collect::<Vec<_>>());
    }

    #[test]
    fn a_cut_at_every_byte_keeps_every_whole_frame() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.zst");
        let mut ends = vec![0];
        for attempt in 0..3 {
            let (mut journal, ..) = open(&path);
            journal.append(&[entry(1, attempt)]).unwrap();
            ends.push(std::fs::metadata(&path).unwrap().len());
        }
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (mut journal, found, rows) = open(&path);
            let frames = ends.iter().filter(|end| **end > 0 && **end <= cut as u64).count();
            let expected = Recovered { rows: frames as u64, frames: frames as u64, torn_bytes: cut as u64 - ends[frames], damaged: vec![] };
            assert_eq!(found, expected, "{cut}");
            assert!(rows.iter().zip(0..).all(|((row, _), attempt)| *row == entry(1, attempt)), "{cut}");
            journal.append(&[entry(2, 0)]).unwrap();
            assert_eq!(open(&path).2.last().map(|(row, _)| row.clone()), Some(entry(2, 0)), "{cut}");
        }
    }

    #[test]
    fn looking_at_a_journal_does_not_cut_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.zst");
        open(&path).0.append(&[entry(1, 0)]).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(&MAGIC);
        std::fs::write(&path, &bytes).unwrap();
        let mut rows = vec![];
        let found = scan(&path, |row: Entry, _| {
            rows.push(row);
            Ok(())
        })
        .unwrap();
        assert_eq!((found.torn_bytes, rows), (4, vec![entry(1, 0)]));
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }

    /// The test starts itself as a writer that reports every append, and kills it in mid-work.
    #[test]
    #[cfg(unix)]
    fn what_a_killed_writer_reported_is_there_once() {
        use std::io::BufRead;
        const CHILD: &str = "DISTILL_TEST_JOURNAL";
        if let Some(path) = std::env::var_os(CHILD) {
            let (mut journal, found, _) = open(Path::new(&path));
            for attempt in found.rows as u32.. {
                journal.append(&[entry(1, attempt)]).unwrap();
                println!("\nappended {attempt}");
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.zst");
        for kill in 0..8 {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "shard::journal::tests::what_a_killed_writer_reported_is_there_once", "--nocapture"])
                .env(CHILD, &path)
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let reports = std::io::BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
            let mut reports = reports.filter_map(|line| line.strip_prefix("appended ")?.parse::<u64>().ok());
            let seen = reports.nth(3 + kill).unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
            let reported = reports.last().unwrap_or(seen);
            let (_, found, rows) = open(&path);
            assert!(found.rows > reported && found.damaged.is_empty(), "{found:?}, {reported} was reported");
            assert!(rows.iter().zip(0..).all(|((row, _), attempt)| *row == entry(1, attempt)), "kill {kill}");
        }
    }

    #[test]
    fn damage_in_the_middle_costs_its_frame_and_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.zst");
        let (mut journal, ..) = open(&path);
        let places: Vec<Place> = (0..4).map(|attempt| journal.append(&[entry(1, attempt)]).unwrap()[0]).collect();
        let whole = std::fs::read(&path).unwrap();
        for at in (places[1].frame..places[2].frame).map(|at| at as usize) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x11;
            std::fs::write(&path, &bytes).unwrap();
            let (_, found, rows) = open(&path);
            assert_eq!((found.rows, found.torn_bytes), (3, 0), "{at}");
            assert_eq!(found.damaged, [(places[1].frame, places[2].frame)], "{at}");
            assert_eq!(rows.iter().map(|(row, _)| row.trace.attempt).collect::<Vec<_>>(), [0, 2, 3], "{at}");
        }
    }

    #[test]
    fn a_row_of_another_kind_is_an_error_and_nothing_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.zst");
        Journal::open(&path, |_, _| Ok(())).unwrap().0.append(&[1, 2]).unwrap();
        let before = std::fs::read(&path).unwrap();
        let error = format!("{:#}", Journal::<Entry>::open(&path, |_, _| Ok(())).err().unwrap());
        assert!(error.contains("journal.zst: row 1: invalid type"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    /// `/dev/full` refuses the write, `/dev/null` takes it and refuses the flush.
    #[test]
    #[cfg(target_os = "linux")]
    fn after_a_failed_write_or_flush_nothing_more_is_written() {
        for (device, message) in [("/dev/full", "the disk is full"), ("/dev/null", "was not written")] {
            let dir = tempfile::tempdir().unwrap();
            let (mut journal, ..) = open(&dir.path().join("journal.zst"));
            journal.append(&[entry(1, 0)]).unwrap();
            let good = std::mem::replace(&mut journal.file, OpenOptions::new().write(true).open(device).unwrap());
            let error = format!("{:#}", journal.append(&[entry(1, 1)]).unwrap_err());
            assert!(error.contains("journal.zst") && error.contains(message), "{error}");
            journal.file = good;
            let error = format!("{:#}", journal.append(&[entry(1, 1)]).unwrap_err());
            assert!(error.contains("takes no more rows after a failed write"), "{error}");
            assert_eq!(open(&dir.path().join("journal.zst")).1.rows, 1);
        }
    }
}
