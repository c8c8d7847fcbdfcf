//! Watching one program from outside: feeding it, draining it, and ending it.
//!
//! Nothing the program does can hold this up: all ends are non-blocking, everything is capped, and at the deadline its init is killed, which ends all
//! of its processes and so closes all of its pipes.

use super::child::{ENDED, REFUSED};
use super::limits::Limits;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// The helper's ends of a program's pipes. What is written is kept beside its end.
pub(super) struct Pipes {
    pub stdin: Feed,
    pub job: Feed,
    pub stdout: Drain,
    pub stderr: Drain,
    pub result: Drain,
    pub status: Drain,
}

/// A pipe to the program and what is still to be written.
pub(super) struct Feed {
    pub end: Option<OwnedFd>,
    pub bytes: Vec<u8>,
    pub sent: usize,
}

/// A pipe from the program and what came.
pub(super) struct Drain {
    pub end: Option<OwnedFd>,
    pub bytes: Vec<u8>,
    pub most: usize,
}

/// Which cap was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Overflow {
    Stdout,
    Stderr,
    Result,
}

/// What was seen of a program, before anyone gives it a meaning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// A step of the confinement failed: index and errno; the program did not run.
    pub refused: Option<(i32, i32)>,
    /// The same in words.
    pub refusal: Option<String>,
    /// The wait status of the program, as its init told it or as it was reaped; `None` where nobody saw it end.
    pub status: Option<i32>,
    /// What init told.
    pub told: Option<i32>,
    pub timed_out: bool,
    pub overflow: Option<Overflow>,
    pub wall_seconds: f64,
    pub cpu_seconds: f64,
    /// Of the largest process, in bytes.
    pub memory: u64,
    pub stdout: String,
    pub stderr: String,
    pub result: String,
}

/// A child that has ended.
pub(super) struct Reaped {
    pub status: i32,
    /// Of it and of what it waited for.
    pub cpu_seconds: f64,
    /// Of the largest of them, in bytes.
    pub memory: u64,
}

/// How long the pipes may stay open after everything was killed.
const GRACE: Duration = Duration::from_secs(2);

/// Watches until init has ended; `kill` ends it, `reap` waits for it.
pub(super) fn watch(mut pipes: Pipes, limits: &Limits, kill: impl Fn(), reap: impl FnOnce() -> Reaped) -> Seen {
    let begin = Instant::now();
    let mut seen = Seen::default();
    let mut deadline = begin + Duration::from_secs_f64(limits.wall_seconds);
    let mut killed = false;
    while pipes.is_open() {
        let now = Instant::now();
        if now >= deadline {
            if killed {
                break;
            }
            seen.timed_out = true;
        } else {
            pipes.wait(deadline - now);
        }
        seen.overflow = pipes.move_bytes();
        if (seen.timed_out || seen.overflow.is_some()) && !killed {
            kill();
            (killed, deadline) = (true, Instant::now() + GRACE);
        }
    }
    kill();
    seen.wall_seconds = begin.elapsed().as_secs_f64();
    let reaped = reap();
    (seen.status, seen.cpu_seconds, seen.memory) = (Some(reaped.status), reaped.cpu_seconds, reaped.memory);
    if let [kind, a, b, c, d] = pipes.status.bytes[..] {
        let value = i32::from_le_bytes([a, b, c, d]);
        match kind {
            ENDED => seen.told = Some(value),
            REFUSED => seen.refused = Some((value >> 16, value & 0xffff)),
            _ => {}
        }
    }
    let text = |drain: Drain| String::from_utf8_lossy(&drain.bytes).into_owned();
    (seen.stdout, seen.stderr, seen.result) = (text(pipes.stdout), text(pipes.stderr), text(pipes.result));
    seen
}

impl Pipes {
    fn is_open(&self) -> bool {
        [&self.stdout, &self.stderr, &self.result, &self.status].iter().any(|drain| drain.end.is_some())
    }

    fn wait(&self, time: Duration) {
        let feeds = [&self.stdin, &self.job].map(|feed| (feed.end.as_ref(), libc::POLLOUT));
        let drains = [&self.stdout, &self.stderr, &self.result, &self.status].map(|drain| (drain.end.as_ref(), libc::POLLIN));
        let open = feeds.into_iter().chain(drains).filter_map(|(end, events)| Some((end?.as_raw_fd(), events)));
        let mut all: Vec<libc::pollfd> = open.map(|(fd, events)| libc::pollfd { fd, events, revents: 0 }).collect();
        // A millisecond more, so that the deadline is past when nothing comes.
        let time = i32::try_from(time.as_millis()).unwrap_or(i32::MAX - 1) + 1;
        // SAFETY: the table lives until the call returns and its length is passed.
        unsafe { libc::poll(all.as_mut_ptr(), all.len() as libc::nfds_t, time) };
    }

    /// Writes and reads as much as goes without waiting; the first cap that was broken.
    fn move_bytes(&mut self) -> Option<Overflow> {
        self.stdin.push();
        self.job.push();
        self.status.pull();
        let drains = [(&mut self.stdout, Overflow::Stdout), (&mut self.stderr, Overflow::Stderr), (&mut self.result, Overflow::Result)];
        let mut broken = None;
        for (drain, overflow) in drains {
            drain.pull();
            if drain.bytes.len() > drain.most {
                broken = broken.or(Some(overflow));
            }
        }
        broken
    }
}

impl Feed {
    pub(super) fn new(end: OwnedFd, bytes: Vec<u8>) -> Self {
        Self { end: Some(end), bytes, sent: 0 }
    }

    /// Writes until the pipe is full; closes it when all is written, or nobody reads any more.
    fn push(&mut self) {
        let Some(end) = &self.end else { return };
        while self.sent < self.bytes.len() {
            let rest = &self.bytes[self.sent..];
            // SAFETY: the bytes live until the call returns and their length is passed.
            let n = unsafe { libc::write(end.as_raw_fd(), rest.as_ptr().cast(), rest.len()) };
            match n {
                n if n > 0 => self.sent += n as usize,
                _ if would_block() => return,
                _ => break,
            }
        }
        self.end = None;
    }
}

impl Drain {
    pub(super) fn new(end: OwnedFd, most: u64) -> Self {
        Self { end: Some(end), bytes: Vec::new(), most: most as usize }
    }

    /// Reads until the pipe is empty, and at most one piece beyond the cap; the rest of a program that breaks it is of no interest.
    fn pull(&mut self) {
        let mut piece = [0u8; 1 << 14];
        while let Some(end) = &self.end {
            // SAFETY: the piece lives until the call returns and its length is passed.
            let n = unsafe { libc::read(end.as_raw_fd(), piece.as_mut_ptr().cast(), piece.len()) };
            match n {
                n if n > 0 => {
                    if self.bytes.len() <= self.most {
                        self.bytes.extend_from_slice(&piece[..n as usize]);
                    } else {
                        return;
                    }
                }
                n if n < 0 && would_block() => return,
                _ => self.end = None,
            }
        }
    }
}

fn would_block() -> bool {
    let error = std::io::Error::last_os_error().kind();
    matches!(error, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted)
}

/// A pipe: (read end, write end), closed on exec, both above descriptor 9 so that a program's five can be laid over the lowest.
pub(super) fn pipe() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok((above(ends[0])?, above(ends[1])?))
}

/// Moves a descriptor above 9, closed on exec.
pub(super) fn above(fd: RawFd) -> std::io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let low = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: duplicates onto a descriptor that is free.
    let high = unsafe { libc::fcntl(low.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 10) };
    if high < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(high) })
}

/// Makes an end of ours return at once where it would wait. The other end is a file of its own and stays as it is.
pub(super) fn at_once(end: &OwnedFd) -> std::io::Result<()> {
    // SAFETY: a flag of a descriptor of ours.
    let done = unsafe { libc::fcntl(end.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
