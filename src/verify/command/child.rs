//! One process of the user's verifier: a line in, a line out, within a time.
//!
//! Nothing it does can hold us up or fill our memory: its pipes are read and written without waiting, all of them while an answer is outstanding;
//! a line has a limit, and of what it says on stderr the end is kept. It has a process group of its own, which is killed as a whole.

use crate::tasks::CommandLine;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest answer, in bytes.
const MAX_LINE: usize = 1 << 20;
/// How much of the end of stderr is kept, in bytes.
const MAX_WORDS: usize = 2048;
/// How long a process that closed its output may take to end by itself, so that its exit status is known.
const GRACE: Duration = Duration::from_millis(200);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// Name for reasons.
    pub rule: &'static str,
    /// What happened, with the last words on stderr.
    pub what: String,
}

pub(super) const ENDED: &str = "command_ended";
pub(super) const LATE: &str = "command_deadline";
pub(super) const NONSENSE: &str = "command_answer";

/// A running process; dropping it kills it and all of its group, and leaves no zombie.
pub(super) struct Child {
    process: std::process::Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    /// `None` once it is closed.
    stderr: Option<ChildStderr>,
    /// The end of what it said on stderr.
    words: Vec<u8>,
}

impl Child {
    /// Starts it. Its end comes with that of the calling *thread*, so that one must outlive it.
    ///
    /// # Errors
    /// Where there is no such program, or no process to be had.
    pub fn start(line: &CommandLine) -> std::io::Result<Self> {
        let (program, arguments) = line.command.split_first().ok_or(ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        // Python keeps what it prints until there is a lot, and we would wait for the line in vain.
        command.env("PYTHONUNBUFFERED", "1");
        let parent = std::process::id() as i32;
        // SAFETY: two system calls, which allocate nothing and take no lock, between fork and exec.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                // A parent that died before is not told of any more.
                if libc::getppid() == parent { Ok(()) } else { Err(ErrorKind::BrokenPipe.into()) }
            });
        }
        let mut process = command.spawn()?;
        let pipes = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else { return Err(ErrorKind::BrokenPipe.into()) };
        [stdin.as_raw_fd(), stdout.as_raw_fd(), stderr.as_raw_fd()].into_iter().try_for_each(never_waits)?;
        Ok(Self { process, stdin, stdout, stderr: Some(stderr), words: Vec::new() })
    }

    /// Whether it is still there after `time` and has said nothing yet.
    pub fn stays(&mut self, time: Duration) -> Result<(), Broken> {
        let begin = Instant::now();
        while begin.elapsed() < time {
            self.hear();
            self.is_silent()?;
            self.wait(time.saturating_sub(begin.elapsed()), false);
        }
        self.is_silent()
    }

    /// Hands over one line and gives the one that comes back, without its end.
    ///
    /// # Errors
    /// After one, the process is of no more use.
    pub fn ask(&mut self, request: &[u8], time: Duration) -> Result<Vec<u8>, Broken> {
        self.hear();
        self.is_silent()?;
        self.words.clear();
        let begin = Instant::now();
        let (mut sent, mut line, mut chunk) = (0, Vec::new(), vec![0; 1 << 16]);
        loop {
            self.hear();
            // Whoever answers before it has read everything may do so: the rest has nobody to go to.
            sent = self.send(request, sent);
            match self.stdout.read(&mut chunk) {
                Ok(0) => return Err(self.ended()),
                Ok(n) => {
                    line.extend_from_slice(&chunk[..n]);
                    if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
                        if end + 1 < line.len() {
                            return Err(self.broken(NONSENSE, "more than one line for one request"));
                        }
                        line.truncate(end);
                        return Ok(line);
                    }
                    if line.len() > MAX_LINE {
                        return Err(self.broken(NONSENSE, format!("a line of more than {MAX_LINE} bytes")));
                    }
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock || error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(ENDED, error)),
            }
            match time.checked_sub(begin.elapsed()) {
                Some(left) if !left.is_zero() => self.wait(left, sent < request.len()),
                _ if line.is_empty() => {
                    return Err(self.broken(LATE, format!("nothing within {} s; is what it writes flushed?", time.as_secs_f64())));
                }
                _ => return Err(self.broken(LATE, format!("no end of the line within {} s", time.as_secs_f64()))),
            }
        }
    }

    /// Writes as much as goes without waiting; how much is sent then. What nobody reads any more counts as sent.
    fn send(&mut self, request: &[u8], mut sent: usize) -> usize {
        while sent < request.len() {
            match self.stdin.write(&request[sent..]) {
                Ok(n) if n > 0 => sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return request.len(),
            }
        }
        sent
    }

    /// An error if it ended, or said something that nobody asked for.
    fn is_silent(&mut self) -> Result<(), Broken> {
        let mut byte = [0];
        match self.stdout.read(&mut byte) {
            Ok(0) => Err(self.ended()),
            Ok(_) => Err(self.broken(NONSENSE, "a line that nobody asked for")),
            Err(error) if error.kind() == ErrorKind::WouldBlock || error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(self.broken(ENDED, error)),
        }
    }

    /// Takes in what it said on stderr, at most a mebibyte at a time: who never stops talking is not listened to for ever.
    fn hear(&mut self) {
        let Some(stderr) = &mut self.stderr else { return };
        let mut chunk = [0; 1 << 14];
        for _ in 0..64 {
            match stderr.read(&mut chunk) {
                Ok(0) => {
                    self.stderr = None;
                    return;
                }
                Ok(n) => {
                    self.words.extend_from_slice(&chunk[..n]);
                    let surplus = self.words.len().saturating_sub(MAX_WORDS);
                    self.words.drain(..surplus);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// Waits until a pipe is ready, or for a time.
    fn wait(&self, time: Duration, sending: bool) {
        let poll = |fd: RawFd, events| libc::pollfd { fd, events, revents: 0 };
        let mut all = vec![poll(self.stdout.as_raw_fd(), libc::POLLIN)];
        all.extend(self.stderr.as_ref().map(|stderr| poll(stderr.as_raw_fd(), libc::POLLIN)));
        if sending {
            all.push(poll(self.stdin.as_raw_fd(), libc::POLLOUT));
        }
        // A millisecond more, so that the time is over when nothing comes.
        let time = i32::try_from(time.as_millis()).unwrap_or(i32::MAX - 1) + 1;
        // SAFETY: the table lives until the call returns and its length is passed.
        unsafe { libc::poll(all.as_mut_ptr(), all.len() as libc::nfds_t, time) };
    }

    /// Its output is closed: how it ended, as far as it does so by itself.
    fn ended(&mut self) -> Broken {
        let begin = Instant::now();
        loop {
            self.hear();
            match self.process.try_wait() {
                Ok(Some(status)) => {
                    self.hear();
                    return self.broken(ENDED, format!("it ended with {status}"));
                }
                Ok(None) if begin.elapsed() < GRACE => std::thread::sleep(Duration::from_millis(2)),
                _ => return self.broken(ENDED, "it closed its output"),
            }
        }
    }

    fn broken(&mut self, rule: &'static str, what: impl ToString) -> Broken {
        self.hear();
        let words = last_words(&self.words);
        let what = what.to_string();
        Broken { rule, what: if words.is_empty() { what } else { format!("{what}: {words}") } }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: a number; the group keeps its number until its leader is waited for, below.
        unsafe { libc::kill(-(self.process.id() as libc::pid_t), libc::SIGKILL) };
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn never_waits(fd: RawFd) -> std::io::Result<()> {
    // SAFETY: a descriptor that is open, and numbers.
    let set = unsafe { libc::fcntl(fd, libc::F_SETFL, libc::fcntl(fd, libc::F_GETFL) | libc::O_NONBLOCK) };
    if set < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// The last lines of what was said on stderr, in one line of at most 300 characters.
fn last_words(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text: Vec<char> = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().filter(|c| !c.is_control()).collect();
    match text.len().checked_sub(300) {
        Some(surplus) if surplus > 0 => std::iter::once('…').chain(text[surplus..].iter().copied()).collect(),
        _ => text.into_iter().collect(),
    }
}
