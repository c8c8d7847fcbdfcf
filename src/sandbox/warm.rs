//! A warm interpreter: the usual modules loaded once, each program forked from it into namespaces of its own.
//!
//! The fork has the helper as its parent, as a fresh program has, and carries out the same list of steps (`steps.rs`); only the interpreter's start
//! and imports are saved. No program's code ever runs in the process that is forked from, and nothing leads back into it.

use super::child::{self, Ends};
use super::driver::DRIVER;
use super::helper::{environment, interpreter};
use super::python::Python;
use super::steps::{Step, python as literal};
use super::watch::above;
use anyhow::{Context, Result, ensure};
use std::ffi::CString;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const WARM: &str = include_str!("warm.py");
/// Where the warm process finds its socket.
const SOCKET: RawFd = 9;
/// For its start, and for one fork.
const PATIENCE: Duration = Duration::from_secs(20);

/// The helper's end of a warm interpreter.
pub(super) struct Warm {
    socket: UnixStream,
    answers: BufReader<UnixStream>,
    pid: libc::pid_t,
    /// The steps of the program before, and how they were said: mostly they are the same again.
    said: (Vec<Step>, Vec<u8>),
}

impl Warm {
    /// Starts it on the helper's root. `kept` stay open under their numbers, which the steps name.
    ///
    /// # Errors
    /// Where the interpreter does not start or lacks what it takes (`ctypes`); programs then start cold.
    pub(super) fn start(python: &Python, kept: &[Option<&OwnedFd>]) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let theirs = above(theirs.into_raw_fd())?;
        ours.set_read_timeout(Some(PATIENCE))?;
        ours.set_write_timeout(Some(PATIENCE))?;
        let flags = child::NAMESPACES | libc::CLONE_PARENT | libc::SIGCHLD;
        let source = WARM.replace("= CLONE\n", &format!("= {}, {flags}\n", libc::SYS_clone));
        let argv: Vec<CString> =
            interpreter(python, &format!("{DRIVER}\n{source}")).into_iter().map(CString::new).collect::<Result<_, _>>()?;
        let envp = environment(python)?;
        let addresses = |texts: &[CString]| texts.iter().map(|t| t.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>();
        let (argv, envp) = (addresses(&argv), addresses(&envp));
        let kept: Vec<RawFd> = kept.iter().flatten().map(|fd| fd.as_raw_fd()).collect();
        // SAFETY: this process has one thread; the child only makes system calls before it becomes another program.
        let pid = unsafe { libc::fork() };
        ensure!(pid >= 0, std::io::Error::last_os_error());
        if pid == 0 {
            become_interpreter(theirs.as_raw_fd(), &kept, &argv, &envp);
        }
        let answers = BufReader::new(ours.try_clone()?);
        let mut warm = Self { socket: ours, answers, pid, said: Default::default() };
        drop(theirs);
        ensure!(warm.line()? == "ready\n", "the warm interpreter does not answer");
        Ok(warm)
    }

    /// Forks a program that first carries out `steps`; the process id of its init, a child of this process.
    pub(super) fn fork(&mut self, steps: &[Step], ends: &Ends) -> Result<libc::pid_t> {
        if self.said.0 != steps {
            let text = literal(steps);
            self.said = (steps.to_vec(), [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat());
        }
        let message = &self.said.1;
        let sent = send_with(&self.socket, message, [ends.stdin, ends.stdout, ends.stderr, ends.job, ends.result, ends.status])?;
        self.socket.write_all(&message[sent..]).context("the warm interpreter")?;
        let answer = self.line()?;
        let numbers: Option<(i32, i32)> = answer.trim_end().split_once(' ').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let (pid, errno) = numbers.context("the warm interpreter does not answer as it should")?;
        if pid <= 0 {
            return Err(std::io::Error::from_raw_os_error(errno)).context("a new process");
        }
        Ok(pid)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line).context("the warm interpreter")?;
        ensure!(line.ends_with('\n'), "the warm interpreter has ended");
        Ok(line)
    }
}

impl Drop for Warm {
    fn drop(&mut self) {
        // SAFETY: a child of ours that is not waited for yet.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

/// In the fork: only descriptors 0 to 9 and those kept, then the interpreter. Descriptors 0 to 8 lead nowhere, so that those it is sent lie above.
fn become_interpreter(socket: RawFd, kept: &[RawFd], argv: &[*const libc::c_char], envp: &[*const libc::c_char]) -> ! {
    // SAFETY: numbers and tables that outlive the calls; nothing is allocated.
    unsafe {
        let parent = libc::getppid();
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        if parent == libc::getppid() && parent != 1 {
            let nowhere = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            (0..SOCKET).filter(|fd| *fd != nowhere).for_each(|fd| {
                libc::dup2(nowhere, fd);
            });
            libc::dup2(socket, SOCKET);
            kept.iter().for_each(|fd| {
                libc::fcntl(*fd, libc::F_SETFD, 0);
            });
            libc::execve(argv[0], argv.as_ptr(), envp.as_ptr());
        }
        libc::_exit(127)
    }
}

/// Sends bytes together with six descriptors; how many bytes went.
fn send_with(socket: &UnixStream, bytes: &[u8], ends: [RawFd; 6]) -> Result<usize> {
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // Room for a header and six numbers, aligned as the header wants it.
    let mut control = [0u64; 16];
    let size = std::mem::size_of_val(&ends) as u32;
    // SAFETY: every address is of a variable here that lives until the call returns; `control` holds more than CMSG_SPACE(24) bytes.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size) as _;
        std::ptr::copy_nonoverlapping(ends.as_ptr(), libc::CMSG_DATA(header).cast(), ends.len());
        libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL)
    };
    usize::try_from(sent).map_err(|_| std::io::Error::last_os_error()).context("the warm interpreter")
}
