//! How output appears on disk: written beside its place, flushed to the device, then renamed into it.
//!
//! A reader sees the old file or folder or the new one, never half of one, whatever is killed or full in between. Here are also the marker of a
//! finished stage, the lock of a run directory, and the one kind of file that grows in place: lines of metrics. What the bytes mean is not
//! known here; traces go through `shard/`, whose journal is the other writer that appends.

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Publishes `bytes` as the file `path`, replacing what was there. Folders above it are made.
pub fn file(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    file_with(path, |out| Ok(out.write_all(bytes)?))
}

/// Publishes what `fill` writes as the file `path`; where `fill` fails, nothing changes.
pub fn file_with<T>(path: impl AsRef<Path>, fill: impl FnOnce(&mut BufWriter<Pending>) -> Result<T>) -> Result<T> {
    let path = path.as_ref();
    let mut out = BufWriter::new(Pending::create(path)?);
    let value = fill(&mut out).map_err(|error| not_written(path, error))?;
    // `into_inner` would keep the buffer in its error: flush first, so that the reason is the one of the write.
    out.flush().map_err(|error| not_written(path, error))?;
    out.into_inner().map_err(|error| not_written(path, error.into_error()))?.commit()?;
    Ok(value)
}

/// Publishes `value` as indented JSON that ends in a newline.
pub fn json(path: impl AsRef<Path>, value: &impl Serialize) -> Result<()> {
    file(path, &json_bytes(value)?)
}

/// The bytes that [`json`] writes.
pub fn json_bytes(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value).context("cannot be written as JSON")?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// A file under a temporary name, which `commit` gives its real one; dropped before that, it leaves nothing behind.
#[derive(Debug)]
pub struct Pending {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    committed: bool,
}

impl Pending {
    /// Opens `<path>.tmp-<process>`. One process publishes a given path from one thread at a time.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut name = name_of(path)?;
        make_folders(parent(path)).map_err(|error| not_written(path, error))?;
        name.push(".tmp-");
        sweep(parent(path), &name);
        name.push(std::process::id().to_string());
        let temporary = path.with_file_name(name);
        let file = create_owned(&temporary).map_err(|error| not_written(path, error))?;
        Ok(Self { file, temporary, path: path.to_owned(), committed: false })
    }

    /// Flushes the bytes to the device, gives the file its name and flushes the folder.
    pub fn commit(mut self) -> Result<()> {
        self.file.sync_all().and_then(|()| fs::rename(&self.temporary, &self.path)).map_err(|error| not_written(&self.path, error))?;
        self.committed = true;
        sync_folder(parent(&self.path))
    }
}

impl Write for Pending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.committed {
            // Best effort: a leftover is swept by the next publication of the same path.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Publishes the folder `path` as `fill` makes it under a temporary name; a folder that was there is replaced as a whole.
///
/// Everything in the folder is flushed before it gets its name. The sibling names `.<name>.tmp` and `.<name>.old` belong to this function;
/// what a killed process left under them is finished or removed first ([`recover`]).
pub fn folder<T>(path: impl AsRef<Path>, fill: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let path = path.as_ref();
    if path.is_file() {
        bail!("{} is a file, a folder is to be written there: move it away or choose another name", path.display());
    }
    recover(path)?;
    let (new, old) = (sibling(path, "tmp")?, sibling(path, "old")?);
    make_folders(&new).map_err(|error| not_written(path, error))?;
    let filled = fill(&new).and_then(|value| {
        sync_tree(&new)?;
        Ok(value)
    });
    let value = filled.map_err(|error| {
        let _ = fs::remove_dir_all(&new);
        not_written(path, error)
    })?;
    if path.exists() {
        fs::rename(path, &old).with_context(|| format!("cannot move {} aside", path.display()))?;
    }
    fs::rename(&new, path).with_context(|| format!("cannot move the new folder to {}", path.display()))?;
    sync_folder(parent(path))?;
    remove_folder(&old)?;
    Ok(value)
}

/// Finishes or removes what a process killed inside [`folder`] left of `path`. Call it before reading a folder that is replaced while a run works.
///
/// The old folder is moved aside only when the new one is complete, so an old one without a current one means: go forward.
pub fn recover(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let (new, old) = (sibling(path, "tmp")?, sibling(path, "old")?);
    if old.exists() && !path.exists() {
        let complete = if new.exists() { &new } else { &old };
        fs::rename(complete, path).with_context(|| format!("cannot restore {} from {}", path.display(), complete.display()))?;
        sync_folder(parent(path))?;
    }
    remove_folder(&old)?;
    remove_folder(&new)
}

/// Removes a folder that was published, if it is there. It loses its name first, so that nobody ever sees a part of it; what a kill leaves is then
/// `.<name>.gone` beside it.
pub fn withdraw(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let gone = sibling(path, "gone")?;
    remove_folder(&gone)?;
    match fs::rename(path, &gone) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
        Ok(()) => remove_folder(&gone),
    }
}

/// SHA-256 of a file's bytes, in lower-case hexadecimal.
pub fn sha256_file(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let hash = || -> io::Result<String> {
        let (mut file, mut hash, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; 1 << 16]);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hex(hash)),
                n => hash.update(&buffer[..n]),
            }
        }
    };
    hash().with_context(|| format!("cannot read {}", path.display()))
}

/// SHA-256 of bytes, in lower-case hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::new_with_prefix(bytes))
}

/// A finished hash in lower-case hexadecimal.
pub fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the marker of a finished stage, `DONE`: the last file that appears in its folder.
pub fn mark_done(dir: impl AsRef<Path>, value: &impl Serialize) -> Result<()> {
    json(dir.as_ref().join("DONE"), value)
}

/// What a finished stage said in `DONE`; `None` where the stage is not finished.
pub fn done(dir: impl AsRef<Path>) -> Result<Option<Value>> {
    let path = dir.as_ref().join("DONE");
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(
            serde_json::from_slice(&bytes).with_context(|| format!("{} is not JSON; remove it to run the stage again", path.display()))?,
        )),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Why a run directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum Busy {
    /// Temporary: the program exits with code 75.
    #[error("{} is in use by {holder}; wait until it ends or choose another --run", .path.display())]
    Locked { path: PathBuf, holder: String },
    #[error("cannot lock {}", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// The right to write in a run directory, held until dropped; the system gives it back when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes `<run>/.lock` without waiting, and writes the process id into it. The run directory is made if it is missing.
    pub fn take(run: impl AsRef<Path>) -> Result<Self, Busy> {
        let run = run.as_ref();
        let path = run.join(".lock");
        let failed = |source| Busy::Io { path: path.clone(), source };
        make_folders(run).map_err(failed)?;
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = fs::read_to_string(&path).unwrap_or_default();
                let holder = if pid.trim().is_empty() { "another process".into() } else { format!("process {}", pid.trim()) };
                return Err(Busy::Locked { path: run.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// A file of JSON lines that grows as a run works, such as `metrics.jsonl`.
#[derive(Debug)]
pub struct Lines {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl Lines {
    /// Opens or makes the file; a last line without its newline, left by a kill, is cut off.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        make_folders(parent(&path)).map_err(|error| not_written(&path, error))?;
        let open = || -> io::Result<(File, u64)> {
            let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
            flush_folder(parent(&path))?;
            let bytes = end_of_last_line(&mut file)?;
            file.set_len(bytes)?;
            Ok((file, bytes))
        };
        let (file, bytes) = open().with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { file, path, bytes })
    }

    /// Appends one value as one line. Where that fails, the file keeps the lines it had.
    pub fn append(&mut self, value: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(value).context("cannot be written as JSON")?;
        line.push(b'\n');
        if let Err(error) = self.file.write_all(&line) {
            let _ = self.file.set_len(self.bytes);
            return Err(not_written(&self.path, error));
        }
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Flushes to the device; called before a state is published that counts on these lines.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().with_context(|| format!("cannot flush {}", self.path.display()))
    }

    /// Every line, parsed.
    pub fn values(&self) -> Result<Vec<Value>> {
        Ok(self.parsed()?.into_iter().map(|(_, value)| value).collect())
    }

    /// Keeps the lines that `keep` accepts, byte for byte: a run that resumes at a step drops what came after it.
    pub fn keep_lines(&mut self, mut keep: impl FnMut(&Value) -> bool) -> Result<()> {
        let all = self.parsed()?;
        let n = all.len();
        let kept: Vec<Vec<u8>> = all.into_iter().filter(|(_, value)| keep(value)).map(|(line, _)| line).collect();
        if kept.len() < n {
            file(&self.path, &kept.concat())?;
            *self = Self::open(&self.path)?;
        }
        Ok(())
    }

    /// Every line with its newline, and what it says.
    fn parsed(&self) -> Result<Vec<(Vec<u8>, Value)>> {
        let text = fs::read(&self.path).with_context(|| format!("cannot read {}", self.path.display()))?;
        let lines = text.split_inclusive(|byte| *byte == b'\n').enumerate();
        let parse = |(i, line): (usize, &[u8])| {
            let value = serde_json::from_slice(line).with_context(|| format!("{}:{}: not JSON", self.path.display(), i + 1))?;
            Ok((line.to_vec(), value))
        };
        lines.map(parse).collect()
    }
}

/// Length up to and with the last newline, found from the end.
fn end_of_last_line(file: &mut File) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut buffer = [0; 4096];
    while end > 0 {
        let start = end.saturating_sub(buffer.len() as u64);
        let chunk = &mut buffer[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(chunk)?;
        if let Some(i) = chunk.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + i as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// The error of a write that left its target as it was; a full disk gets its remedy.
pub(crate) fn not_written(path: &Path, error: impl Into<anyhow::Error>) -> anyhow::Error {
    let error = error.into();
    let full = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(is_full);
    let why = if full { ": the disk is full or a size limit is reached; free some space and run the same command again" } else { "" };
    error.context(format!("{} was not written{why}", path.display()))
}

/// Whether a write failed for want of room: a disk, a quota or `ulimit -f`.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// Makes the folder `path` and those that are missing above it, and flushes each folder that got a new entry: a file survives a power cut only
/// where every name on the way to it does.
pub(crate) fn make_folders(path: &Path) -> io::Result<()> {
    make_each(path, &mut flush_folder)
}

fn make_each(path: &Path, flush: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists()).collect();
    for folder in missing.into_iter().rev() {
        // Another process may make it at the same moment.
        fs::create_dir_all(folder)?;
        flush(parent(folder))?;
    }
    // Of a file where a folder should be this is the error.
    fs::create_dir_all(path)
}

/// Moves a folder to a place where nothing is yet; both ends are flushed.
pub(crate) fn move_folder(from: &Path, to: &Path) -> io::Result<()> {
    make_folders(parent(to))?;
    fs::rename(from, to)?;
    flush_folder(parent(to))?;
    flush_folder(parent(from))
}

/// Flushes a folder's entries to the device, so that a rename in it outlives a power cut.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    flush_folder(path).with_context(|| format!("cannot flush the folder {}", path.display()))
}

fn flush_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

/// Flushes every file and folder below `path`, and `path`. Links are left alone.
fn sync_tree(path: &Path) -> Result<()> {
    let failed = || format!("cannot flush {}", path.display());
    for entry in fs::read_dir(path).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let kind = entry.file_type().with_context(failed)?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())
                .and_then(|file| file.sync_all())
                .with_context(|| format!("cannot flush {}", entry.path().display()))?;
        }
    }
    sync_folder(path)
}

fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(|| format!("cannot remove {}", path.display())),
        _ => Ok(()),
    }
}

/// Makes a temporary file and locks it while it is open. The lock is what says that its owner lives: the system gives it back when the owner
/// dies, whichever process gets the owner's number next.
fn create_owned(path: &Path) -> io::Result<File> {
    loop {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        // A sweep may take the lock first, and the file away. Where a file system has no locks nothing is swept.
        if file.lock().is_err() || is_at(&file, path) {
            return Ok(file);
        }
    }
}

/// Removes temporary files under names that begin with `prefix` and that no process holds.
fn sweep(folder: &Path, prefix: &OsString) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let number = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        if number.is_none_or(|n| n.is_empty() || !n.iter().all(u8::is_ascii_digit)) {
            continue;
        }
        let path = entry.path();
        if let Ok(file) = OpenOptions::new().write(true).open(&path)
            && file.try_lock().is_ok()
            && is_at(&file, &path)
        {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Whether `path` still names this open file.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let id = |m: fs::Metadata| (m.dev(), m.ino());
        file.metadata().ok().map(id).is_some_and(|ours| fs::symlink_metadata(path).ok().map(id) == Some(ours))
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.exists()
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn name_of(path: &Path) -> Result<OsString> {
    Ok(path.file_name().with_context(|| format!("{} has no name of its own to publish under", path.display()))?.to_owned())
}

/// `.<name>.<extension>` beside `path`: hidden, so that it meets no name a person would give.
fn sibling(path: &Path, extension: &str) -> Result<PathBuf> {
    let mut name = OsString::from(".");
    name.push(name_of(path)?);
    name.push(".");
    name.push(extension);
    Ok(parent(path).join(name))
}

#[cfg(test)]
mod tests;
