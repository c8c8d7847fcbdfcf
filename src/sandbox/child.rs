//! One program from start to end: the new namespaces, our init in them, and the interpreter that it starts.
//!
//! Runs in the helper, which has one thread and a small memory, so forking is cheap and sound. The init does nothing but wait: it is process 1, and
//! its end makes the kernel end every process in the namespace.

use super::filter;
use super::limits::Limits;
use super::root;
use super::steps::{Arg, Step, c_text, carry_out};
use std::os::fd::RawFd;

/// The descriptors that a program is born with; the helper holds the other ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub stdin: RawFd,
    pub stdout: RawFd,
    pub stderr: RawFd,
    /// Where the driver reads its job: descriptor 3.
    pub job: RawFd,
    /// Where it writes what came of it: descriptor 4.
    pub result: RawFd,
    /// Where init tells how the program ended; never open in the program.
    pub status: RawFd,
}

/// What init writes on the status pipe: a kind and a number.
pub(super) const ENDED: u8 = b'e';
pub(super) const REFUSED: u8 = b'r';

/// How a program is started.
pub(super) struct Start<'a> {
    pub namespaces: i32,
    /// No init: the new process is the program itself. For tiers where it may not fork, and so has nobody to be waited for.
    pub alone: bool,
    /// What init does before it starts the program.
    pub steps: &'a [Step],
    /// The arguments as the kernel takes them.
    pub argv: &'a [*const libc::c_char],
    pub envp: &'a [*const libc::c_char],
    pub ends: Ends,
}

/// All namespaces that a program gets anew.
pub(super) const NAMESPACES: i32 =
    libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// The limits as steps, with `spare` processes more than the program's own.
pub(super) fn limits(limits: &Limits, spare: u32) -> Vec<Step> {
    let cpu = limits.cpu_seconds.ceil() as u64;
    let same = |name, resource: libc::__rlimit_resource_t, value| Step::limit(name, resource, value, value);
    vec![
        Step::limit("limits", libc::RLIMIT_CPU, cpu, cpu + 1),
        same("limits", libc::RLIMIT_AS, limits.memory),
        same("limits", libc::RLIMIT_FSIZE, limits.files),
        same("limits", libc::RLIMIT_NPROC, u64::from(limits.processes + spare)),
        same("limits", libc::RLIMIT_NOFILE, 128),
        same("limits", libc::RLIMIT_CORE, 0),
        same("limits", libc::RLIMIT_MEMLOCK, 0),
        same("limits", libc::RLIMIT_MSGQUEUE, 0),
    ]
}

/// The steps of the native tier, carried out by process 1 of the new namespaces.
pub(super) fn native(proc: RawFd, ids: (u32, u32), given: &Limits, ruleset: Option<RawFd>, programs: &[Vec<u8>]) -> Vec<Step> {
    let mut steps = vec![Step::prctl("parent", libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64)];
    steps.extend(root::identity(proc, (root::NOBODY, root::NOBODY), ids));
    // Where memory runs out, these are to go first.
    steps.extend(Step::write("oom", proc, "self/oom_score_adj", "1000").into_iter().map(Step::optional));
    steps.extend(root::files(given.files));
    steps.push(Step::new("session", libc::SYS_setsid, Vec::new()));
    steps.extend(limits(given, 1));
    steps.extend(filter::without_capabilities());
    steps.extend(filter::steps(programs, ruleset));
    steps
}

/// The steps where there are no namespaces: whatever of the rest there is.
pub(super) fn bare(given: &Limits, ruleset: Option<RawFd>, programs: &[Vec<u8>]) -> Vec<Step> {
    let mut steps = vec![Step::prctl("parent", libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64)];
    steps.push(Step::new("session", libc::SYS_setsid, Vec::new()).optional());
    steps.push(Step::new("folder", libc::SYS_chdir, vec![c_text("/")]));
    // Processes are not counted here: of this user there may be any number, and where they matter, forks are denied.
    steps.extend(limits(given, 0).into_iter().filter(|step| step.args[1] != Arg::Number(libc::RLIMIT_NPROC.into())));
    steps.extend(filter::steps(programs, ruleset));
    steps
}

/// Starts a program; returns the process id of its init.
pub(super) fn start(start: &Start) -> std::io::Result<libc::pid_t> {
    // SAFETY: a fork without shared memory, in a process of one thread; the child never returns from `init`.
    let pid = unsafe { libc::syscall(libc::SYS_clone, i64::from(start.namespaces | libc::SIGCHLD), 0, 0, 0, 0) };
    match pid {
        -1 => Err(std::io::Error::last_os_error()),
        0 => init(start),
        pid => Ok(pid as libc::pid_t),
    }
}

/// Process 1: confines itself, starts the program, waits for it, tells how it ended, and ends.
fn init(start: &Start) -> ! {
    let status = start.ends.status;
    if let Err((step, errno)) = carry_out(start.steps) {
        tell(status, REFUSED, (step as i32) << 16 | errno);
        leave(0);
    }
    // The signal of the parent's death is only set from now on: one that died before is noticed by its end of the pipe.
    let mut poll = libc::pollfd { fd: status, events: 0, revents: 0 };
    // SAFETY: one structure that lives until the call returns.
    if unsafe { libc::poll(&raw mut poll, 1, 0) } > 0 {
        leave(0);
    }
    if start.alone {
        program(start);
    }
    // SAFETY: a fork without shared memory, in a process of one thread.
    match unsafe { libc::syscall(libc::SYS_clone, i64::from(libc::SIGCHLD), 0, 0, 0, 0) } {
        -1 => tell(status, REFUSED, -1 << 16 | std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        0 => program(start),
        pid => {
            // The ends of the helper among them: a program reads its job to the end, which comes when nobody else could write more.
            // SAFETY: numbers only; this process uses no other descriptor from here on.
            unsafe {
                libc::syscall(libc::SYS_close_range, 0, status - 1, 0);
                libc::syscall(libc::SYS_close_range, status + 1, u32::MAX, 0);
            }
            tell(status, ENDED, wait(pid as libc::pid_t));
        }
    }
    leave(0)
}

/// Reaps whatever ends until the program itself does; its wait status.
fn wait(program: libc::pid_t) -> i32 {
    let mut status = 0;
    loop {
        // SAFETY: one number that lives until the call returns.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
        if pid == program || pid < 0 && std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            return status;
        }
    }
}

/// The program: its six descriptors become five, all others close, the interpreter takes over.
fn program(start: &Start) -> ! {
    // SAFETY: numbers and tables that outlive the calls; nothing is allocated. The descriptors are above 9 (`helper.rs`), so none is overwritten
    // before it is moved.
    unsafe {
        let ends = &start.ends;
        for (to, from) in [ends.stdin, ends.stdout, ends.stderr, ends.job, ends.result].into_iter().enumerate() {
            libc::dup2(from, to as i32);
        }
        libc::syscall(libc::SYS_close_range, 5, u32::MAX, 0);
        libc::execve(start.argv[0], start.argv.as_ptr(), start.envp.as_ptr());
    }
    leave(127)
}

fn tell(status: RawFd, kind: u8, value: i32) {
    let [a, b, c, d] = value.to_le_bytes();
    let record = [kind, a, b, c, d];
    // SAFETY: five bytes that live until the call returns.
    unsafe { libc::write(status, record.as_ptr().cast(), record.len()) };
}

fn leave(code: i32) -> ! {
    // SAFETY: ends this process; nothing of the parent's is flushed or dropped twice.
    unsafe { libc::_exit(code) }
}
