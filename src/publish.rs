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
        fs::create_dir_all(parent(path)).map_err(|error| not_written(path, error))?;
        name.push(".tmp-");
        sweep(parent(path), &name);
        name.push(std::process::id().to_string());
        let temporary = path.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary).map_err(|error| not_written(path, error))?;
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
    fs::create_dir_all(&new).map_err(|error| not_written(path, error))?;
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
        fs::create_dir_all(run).map_err(failed)?;
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
        fs::create_dir_all(parent(&path)).map_err(|error| not_written(&path, error))?;
        let open = || -> io::Result<(File, u64)> {
            let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
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

    /// Keeps the lines that `keep` accepts, byte for byte: a run that resumes at a step drops what came after it.
    pub fn keep_lines(&mut self, mut keep: impl FnMut(&Value) -> bool) -> Result<()> {
        let text = fs::read(&self.path).with_context(|| format!("cannot read {}", self.path.display()))?;
        let mut kept = Vec::with_capacity(text.len());
        for (i, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let value = serde_json::from_slice(line).with_context(|| format!("{}:{}: not JSON", self.path.display(), i + 1))?;
            if keep(&value) {
                kept.extend_from_slice(line);
            }
        }
        if kept.len() < text.len() {
            file(&self.path, &kept)?;
            *self = Self::open(&self.path)?;
        }
        Ok(())
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
    let is_full = |e: &io::Error| matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge);
    let full = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(is_full);
    let why = if full { ": the disk is full or a size limit is reached; free some space and run the same command again" } else { "" };
    error.context(format!("{} was not written{why}", path.display()))
}

/// Flushes a folder's entries to the device, so that a rename in it outlives a power cut.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(path).and_then(|dir| dir.sync_all()).with_context(|| format!("cannot flush the folder {}", path.display()))?;
    }
    Ok(())
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

/// Removes temporary files that dead processes (or an earlier one of this id) left under names that begin with `prefix`.
fn sweep(folder: &Path, prefix: &OsString) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name
            .as_encoded_bytes()
            .strip_prefix(prefix.as_encoded_bytes())
            .and_then(|rest| std::str::from_utf8(rest).ok()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| pid == std::process::id() || is_dead(pid)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether no process has this id; where the system does not tell, every process counts as alive.
fn is_dead(pid: u32) -> bool {
    Path::new("/proc/self").exists() && !Path::new(&format!("/proc/{pid}")).exists()
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
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/a.json");
        json(&path, &[1, 2]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "[\n  1,\n  2\n]\n");
        let error = file_with(&path, |out| -> Result<()> {
            out.write_all(b"half")?;
            bail!("stop here")
        });
        assert_eq!(format!("{:#}", error.unwrap_err()), format!("{} was not written: stop here", path.display()));
        file_with(dir.path().join("sub/b"), |_| -> Result<()> { bail!("never") }).unwrap_err();
        assert_eq!(names(&dir.path().join("sub")), ["a.json"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "[\n  1,\n  2\n]\n");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_said_and_publishes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let full = |_: &mut BufWriter<Pending>| Ok(OpenOptions::new().write(true).open("/dev/full")?.write_all(b"x")?);
        let error = format!("{:#}", file_with(dir.path().join("a"), full).unwrap_err());
        assert!(error.contains("a was not written: the disk is full") && error.contains("No space left"), "{error}");
        let error = folder(dir.path().join("b"), |tmp| file_with(tmp.join("inside"), full)).unwrap_err();
        assert!(format!("{error:#}").contains("b was not written: the disk is full"), "{error:#}");
        assert_eq!(names(dir.path()), [""; 0]);
    }

    /// The limit on file sizes stops real writes of a real file in mid-way. The test starts itself again under that limit.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_write_that_stops_half_way_publishes_nothing() {
        const CHILD: &str = "DISTILL_TEST_SIZE_LIMIT";
        if let Some(dir) = std::env::var_os(CHILD) {
            let dir = PathBuf::from(dir);
            let mut lines = Lines::open(dir.join("lines")).unwrap();
            lines.append(&"kept").unwrap();
            let error = format!("{:#}", file(dir.join("big"), &vec![7; 1 << 20]).unwrap_err());
            assert!(error.contains("big was not written: the disk is full or a size limit"), "{error}");
            lines.append(&"x".repeat(1 << 20)).unwrap_err();
            lines.append(&"also").unwrap();
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let name = "publish::tests::a_write_that_stops_half_way_publishes_nothing";
        let child = std::process::Command::new("sh")
            .args(["-c", r#"trap '' XFSZ; ulimit -f 64; exec "$0" --exact "$1" --nocapture"#])
            .arg(std::env::current_exe().unwrap())
            .arg(name)
            .env(CHILD, dir.path())
            .output()
            .unwrap();
        assert!(child.status.success(), "{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
        assert_eq!(names(dir.path()), ["lines"], "{}", String::from_utf8_lossy(&child.stdout));
        assert_eq!(fs::read_to_string(dir.path().join("lines")).unwrap(), "\"kept\"\n\"also\"\n");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn leftovers_of_dead_processes_are_swept_and_of_living_ones_kept() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.tmp-4294967295", "a.tmp-1", "a.tmp-x", "b.tmp-4294967295"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        file(dir.path().join("a"), b"new").unwrap();
        assert_eq!(names(dir.path()), ["a", "a.tmp-1", "a.tmp-x", "b.tmp-4294967295"]);
    }

    #[test]
    fn a_folder_is_replaced_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/");
        let put = |name: &'static str| move |tmp: &Path| file(tmp.join("deep").join(name), b"1");
        folder(&path, put("first")).unwrap();
        folder(&path, put("second")).unwrap();
        assert_eq!(names(&path.join("deep")), ["second"]);
        folder(&path, |tmp| -> Result<()> {
            put("third")(tmp)?;
            bail!("killed")
        })
        .unwrap_err();
        assert_eq!((names(&path.join("deep")), names(dir.path())), (vec!["second".into()], vec!["state".into()]));
        file(dir.path().join("plain"), b"").unwrap();
        assert!(folder(dir.path().join("plain"), put("x")).unwrap_err().to_string().contains("is a file"));
    }

    /// Rows: which of the three names exist when the process dies, and what the folder holds after recovery.
    #[test]
    fn a_kill_between_any_two_steps_is_recovered() {
        for (left, expected) in [
            (vec!["state", ".state.tmp"], "state"),
            (vec![".state.old", ".state.tmp"], ".state.tmp"),
            (vec![".state.old"], ".state.old"),
            (vec!["state", ".state.old"], "state"),
            (vec!["state"], "state"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            for name in &left {
                file(dir.path().join(name).join("from"), name.as_bytes()).unwrap();
            }
            recover(dir.path().join("state")).unwrap();
            assert_eq!(names(dir.path()), ["state"], "{left:?}");
            assert_eq!(fs::read_to_string(dir.path().join("state/from")).unwrap(), expected, "{left:?}");
        }
    }

    #[test]
    fn a_run_directory_has_one_owner_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        let lock = Lock::take(&run).unwrap();
        let busy = Lock::take(&run).unwrap_err();
        assert!(matches!(&busy, Busy::Locked { holder, .. } if *holder == format!("process {}", std::process::id())), "{busy}");
        drop(lock);
        Lock::take(&run).unwrap();
        file(dir.path().join("plain"), b"").unwrap();
        assert!(matches!(Lock::take(dir.path().join("plain")), Err(Busy::Io { .. })));
    }

    #[test]
    fn a_stage_is_done_when_it_says_so() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(done(dir.path()).unwrap(), None);
        mark_done(dir.path(), &serde_json::json!({"traces": 3})).unwrap();
        assert_eq!(done(dir.path()).unwrap().unwrap()["traces"], 3);
        fs::write(dir.path().join("DONE"), "{").unwrap();
        assert!(done(dir.path()).unwrap_err().to_string().contains("DONE is not JSON"));
    }

    #[test]
    fn lines_survive_a_cut_anywhere() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let long = "x".repeat(5000);
        let whole = format!("{{\"step\":1}}\n{{\"step\":2,\"note\":\"{long}\"}}\n");
        // The search goes back in chunks of 4096 bytes; the first line ends at byte 11.
        for cut in (0..40).chain(4090..4120).chain(whole.len() - 5..=whole.len()) {
            fs::write(&path, &whole[..cut]).unwrap();
            let mut lines = Lines::open(&path).unwrap();
            lines.append(&serde_json::json!({"step": 9})).unwrap();
            let expected = whole[..cut].rfind('\n').map_or("", |end| &whole[..=end]).to_owned() + "{\"step\":9}\n";
            assert_eq!(fs::read_to_string(&path).unwrap(), expected, "{cut}");
        }
    }

    #[test]
    fn lines_after_a_step_are_dropped_and_the_rest_keeps_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        fs::write(&path, "{\"step\": 1}\n{\"step\":2}\n{\"step\":3}\n").unwrap();
        let mut lines = Lines::open(&path).unwrap();
        lines.keep_lines(|line| line["step"].as_u64() <= Some(2)).unwrap();
        lines.append(&serde_json::json!({"step": 3, "again": true})).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"step\": 1}\n{\"step\":2}\n{\"step\":3,\"again\":true}\n");
        fs::write(&path, "{}\nnot\n").unwrap();
        assert!(Lines::open(&path).unwrap().keep_lines(|_| true).unwrap_err().to_string().contains("metrics.jsonl:2: not JSON"));
    }

    #[test]
    fn hashes_are_sha256() {
        let dir = tempfile::tempdir().unwrap();
        file(dir.path().join("a"), b"abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // FIPS 180-2, appendix B.1
        assert_eq!((sha256_file(dir.path().join("a")).unwrap(), sha256(b"abc")), (abc.into(), abc.into()));
    }
}
