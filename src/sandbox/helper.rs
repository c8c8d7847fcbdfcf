//! The helper: this program started again with one thread, confined, starting one program after the other.
//!
//! It ends when its socket closes or the thread that started it dies, whichever is noticed first, and then takes its programs with it.

use super::child::{self, Ends, Start};
use super::filter::{self, Forks};
use super::launch::{Answer, Order, Setup};
use super::limits::Limits;
use super::lines::{receive, send};
use super::root;
use super::steps::Step;
use super::tier::Tier;
use super::warm::Warm;
use super::watch::{Drain, Feed, Pipes, Reaped, Seen, above, at_once, pipe, watch};
use super::{bwrap, driver::DRIVER, python::Python};
use anyhow::{Context, Result, ensure};
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

/// The hidden first argument that makes this program a helper, and the one with which bubblewrap starts it inside.
pub(super) const ARGUMENT: &str = "__sandbox";
pub(super) const INSIDE: &str = "__sandbox-inside";

/// To be called first thing in `main`, before any thread is started: what the helper's end is, where this process is one.
pub fn enter() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let first = args.next()?;
    if first == INSIDE {
        return Some(bwrap::inside(args));
    }
    if first != ARGUMENT {
        return None;
    }
    // The socket is standard input; without it, somebody typed the argument.
    // SAFETY: descriptor 0 is ours from the start of the process; nothing else holds it.
    let socket = unsafe { OwnedFd::from_raw_fd(0) };
    Some(match serve(socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(78),
    })
}

fn serve(socket: OwnedFd) -> Result<()> {
    let mut socket = UnixStream::from(above(socket.into_raw_fd())?);
    // Low descriptors are where a program's own will lie: nothing of ours may be there.
    for _ in 0..3 {
        // SAFETY: a path that lives until the call returns.
        unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
    }
    let setup: Setup = receive(&mut socket)?;
    let mut helper = match Helper::new(&setup) {
        Ok(helper) => helper,
        Err(error) => return Ok(send(&mut socket, &Answer::Refused(format!("{error:#}")))?),
    };
    send(&mut socket, &Answer::Ready)?;
    loop {
        let order: Order = match receive(&mut socket) {
            Ok(order) => order,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let answer = match helper.run(&order) {
            Ok(seen) => Answer::Seen(Box::new(seen)),
            Err(error) => Answer::Failed(format!("{error:#}")),
        };
        send(&mut socket, &answer)?;
    }
}

/// What stays the same from program to program.
pub(super) struct Helper {
    tier: Tier,
    python: Python,
    bwrap: Option<std::path::PathBuf>,
    proc: OwnedFd,
    ruleset: Option<OwnedFd>,
    programs: Vec<Vec<u8>>,
    ids: (u32, u32),
    warm: Option<Warm>,
}

impl Helper {
    fn new(setup: &Setup) -> Result<Self> {
        die_with(setup.parent)?;
        // SAFETY: a path that lives until the call returns.
        let proc = unsafe { libc::open(c"/proc".as_ptr(), libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) };
        ensure!(proc >= 0, "/proc is not mounted");
        let proc = above(proc)?;
        let mut ruleset = None;
        if setup.tier == Tier::Native {
            ensure!(filter::landlock_abi() > 0, "landlock: this kernel has none, or it is switched off");
            root::enter(&setup.python, proc.as_raw_fd())?;
            // A change of user has undone this.
            die_with(setup.parent)?;
            let devices: Vec<&str> = root::DEVICES.into_iter().filter(|path| std::path::Path::new(path).exists()).collect();
            ruleset = Some(filter::ruleset(&["/"], &[root::BOX], &devices).context("landlock")?);
        } else if setup.tier == Tier::Landlock {
            ruleset = Some(readable(&setup.python)?);
        } else if setup.tier == Tier::Bwrap {
            root::become_nobody();
            die_with(setup.parent)?;
        }
        let ruleset = ruleset.map(|fd| above(fd.into_raw_fd())).transpose()?;
        let forks = if setup.tier == Tier::Landlock { Forks::Denied } else { Forks::Allowed };
        // SAFETY: ids of this process.
        let ids = unsafe { (libc::geteuid(), libc::getegid()) };
        let programs = filter::programs(forks)?;
        let mut helper =
            Self { tier: setup.tier, python: setup.python.clone(), bwrap: setup.bwrap.clone(), proc, ruleset, programs, ids, warm: None };
        if setup.warm && setup.tier == Tier::Native {
            // Without it programs start cold: slower, and the same otherwise.
            let kept = [Some(&helper.proc), helper.ruleset.as_ref()];
            helper.warm = Warm::start(&helper.python, &kept).ok();
        }
        Ok(helper)
    }

    fn run(&mut self, order: &Order) -> Result<Seen> {
        let (ends, pipes, kept) = pipes(order)?;
        let steps = self.steps(&order.limits);
        let pid = match &mut self.warm {
            Some(warm) if order.warm => warm.fork(&steps, &ends)?,
            _ => self.start(order, &steps, ends)?,
        };
        drop(kept);
        let alone = matches!(self.tier, Tier::Landlock | Tier::Unsandboxed);
        let mut seen = watch(pipes, &order.limits, || kill(pid, alone), || reap(pid));
        if !alone {
            seen.status = seen.told;
        }
        if self.tier == Tier::Bwrap {
            // Bubblewrap's process 1 tells a signal as shells do.
            seen.status = seen.status.map(|status| match libc::WEXITSTATUS(status) {
                code @ 129..=192 if libc::WIFEXITED(status) => code - 128,
                _ => status,
            });
        }
        if let Some((step, errno)) = seen.refused {
            let step = usize::try_from(step).ok().and_then(|i| steps.get(i)).map_or("fork", |step| step.name);
            seen.refusal = Some(format!("{step}: {}", std::io::Error::from_raw_os_error(errno)));
        }
        Ok(seen)
    }

    /// The interpreter on the driver, from nothing.
    fn start(&self, order: &Order, steps: &[Step], ends: Ends) -> Result<libc::pid_t> {
        let argv = self.argv(order)?;
        let envp = environment(&self.python)?;
        let addresses = |texts: &[CString]| texts.iter().map(|t| t.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>();
        let (argv, envp) = (addresses(&argv), addresses(&envp));
        let namespaces = if self.tier == Tier::Native { child::NAMESPACES } else { 0 };
        let alone = matches!(self.tier, Tier::Landlock | Tier::Unsandboxed);
        let start = Start { namespaces, alone, steps, argv: &argv, envp: &envp, ends };
        child::start(&start).context("a new process")
    }

    /// What is done before the program starts.
    fn steps(&self, limits: &Limits) -> Vec<Step> {
        let ruleset = self.ruleset.as_ref().map(AsRawFd::as_raw_fd);
        match self.tier {
            Tier::Native => child::native(self.proc.as_raw_fd(), self.ids, limits, ruleset, &self.programs),
            Tier::Bwrap => Vec::new(),
            Tier::Landlock => child::bare(limits, ruleset, &self.programs),
            Tier::Unsandboxed => child::bare(limits, None, &[]),
        }
    }

    fn argv(&self, order: &Order) -> Result<Vec<CString>> {
        let own = interpreter(&self.python, &format!("{DRIVER}\nfrom posix import read as r\ndriver(lambda n: r(3, n))\n"));
        let all = match (&self.bwrap, self.tier) {
            (Some(bwrap), Tier::Bwrap) => bwrap::argv(bwrap, &self.python, &order.limits, own)?,
            _ => own,
        };
        all.into_iter().map(|text| CString::new(text).context("an argument")).collect()
    }
}

/// The interpreter's command line: no site folder, no files written, nothing of the user's.
pub(super) fn interpreter(python: &Python, source: &str) -> Vec<String> {
    [&python.executable.to_string_lossy(), "-s", "-S", "-B", "-c", source].map(str::to_owned).to_vec()
}

/// All that a program finds in its environment. Hashes of texts are the same in every run, so that sets have one order.
pub(super) fn environment(python: &Python) -> Result<Vec<CString>> {
    let set = ["HOME=/tmp", "TMPDIR=/tmp", "LANG=C.UTF-8", "PYTHONHASHSEED=0", "PYTHONUTF8=1", "PYTHONSAFEPATH=1"].map(str::to_owned);
    let set = set.into_iter().chain([format!("LD_LIBRARY_PATH={}", python.library_path())]);
    set.map(|text| CString::new(text).context("the environment")).collect()
}

/// The pipes of one program: its ends as numbers, ours, and the owners of its ends, to be dropped once it is started.
fn pipes(order: &Order) -> Result<(Ends, Pipes, [OwnedFd; 6])> {
    let make = || pipe().context("pipes");
    let ((stdin, to_stdin), (job, to_job)) = (make()?, make()?);
    let ((from_out, stdout), (from_err, stderr)) = (make()?, make()?);
    let ((from_result, result), (from_status, status)) = (make()?, make()?);
    for end in [&to_stdin, &to_job, &from_out, &from_err, &from_result, &from_status] {
        at_once(end).context("pipes")?;
    }
    let pipes = Pipes {
        stdin: Feed::new(to_stdin, order.stdin.clone().into_bytes()),
        job: Feed::new(to_job, order.job.clone().into_bytes()),
        stdout: Drain::new(from_out, order.limits.output),
        stderr: Drain::new(from_err, order.limits.output),
        result: Drain::new(from_result, order.limits.result),
        status: Drain::new(from_status, 16),
    };
    let ends = Ends {
        stdin: stdin.as_raw_fd(),
        stdout: stdout.as_raw_fd(),
        stderr: stderr.as_raw_fd(),
        job: job.as_raw_fd(),
        result: result.as_raw_fd(),
        status: status.as_raw_fd(),
    };
    Ok((ends, pipes, [stdin, stdout, stderr, job, result, status]))
}

/// What may be read where there is no root of our own: the interpreter, its libraries, and the two devices that hurt nobody.
fn readable(python: &Python) -> Result<OwnedFd> {
    ensure!(filter::landlock_abi() > 0, "landlock: this kernel has none, or it is switched off");
    let paths: Vec<&str> = python.mounts.iter().filter_map(|path| path.to_str()).collect();
    filter::ruleset(&paths, &[], &["/dev/null", "/dev/zero"]).context("landlock")
}

/// This process ends with the thread that started it, also where that has ended already.
fn die_with(parent: libc::pid_t) -> Result<()> {
    // SAFETY: a signal number, and a question.
    let is_child = unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        libc::getppid() == parent
    };
    ensure!(is_child, "the program that started this helper has gone");
    Ok(())
}

/// Ends a program; one without an init of its own with whatever it has started in its session.
fn kill(pid: libc::pid_t, alone: bool) {
    // SAFETY: a child of ours that is not waited for yet, so the number is its own.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        if alone {
            libc::kill(-pid, libc::SIGKILL);
        }
    }
}

/// Waits for a child.
fn reap(pid: libc::pid_t) -> Reaped {
    let mut status = 0;
    // SAFETY: zeros are a valid value of this plain structure.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both addresses are of variables that live until the call returns.
        let done = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        if done == pid || std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            break;
        }
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    Reaped { status, cpu_seconds, memory: usage.ru_maxrss.unsigned_abs() << 10 }
}
