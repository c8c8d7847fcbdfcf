//! The sandbox as its users see it: opened once, then programs in, outcomes out, from as many threads as one likes.
//!
//! Each program that runs has a helper of its own; idle ones are kept. Helpers are started by one thread that lives as long as the sandbox:
//! they end with the thread that started them, and a worker's thread may end at any time.

use super::bwrap;
use super::driver::Job;
use super::helper::ARGUMENT;
use super::limits::{Fault, Limits};
use super::lines::{receive, send};
use super::python::Python;
use super::tier::{Options, Refused, Tier};
use super::watch::Seen;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// What a helper is told first.
#[derive(Serialize, Deserialize)]
pub(super) struct Setup {
    pub parent: i32,
    pub tier: Tier,
    pub python: Python,
    pub bwrap: Option<std::path::PathBuf>,
    pub warm: bool,
}

/// One program for a helper.
#[derive(Serialize, Deserialize)]
pub(super) struct Order {
    pub job: String,
    pub stdin: String,
    pub limits: Limits,
    pub warm: bool,
}

/// What a helper says.
#[derive(Serialize, Deserialize)]
pub(super) enum Answer {
    Ready,
    /// It cannot confine anything here.
    Refused(String),
    Seen(Box<Seen>),
    /// This program could not be started.
    Failed(String),
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The values that it gave, in the form of `driver.py`; or what went wrong, and how the program put it.
    pub result: Result<Vec<Value>, (Fault, String)>,
    pub stdout: String,
    pub stderr: String,
    pub wall_seconds: f64,
    pub cpu_seconds: f64,
    /// Largest resident memory of a process, in bytes.
    pub memory: u64,
}

/// The sandbox could not run a program, which says nothing about the program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failed(pub String);

/// A place to run programs in.
pub struct Sandbox {
    tier: Tier,
    python: Python,
    options: Options,
    idle: Mutex<Vec<Connection>>,
    starter: Mutex<Sender<Sender<Result<Connection, String>>>>,
}

/// A helper at work for one program at a time.
struct Connection {
    socket: UnixStream,
    child: Child,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Its end takes its programs with it. Waiting for it leaves no zombie.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How often a program is tried anew where a helper failed.
const TRIES: usize = 3;
/// How long a helper may take beyond a program's wall clock limit, for the start of interpreters and for clearing up.
const PATIENCE: Duration = Duration::from_secs(60);

impl Sandbox {
    /// The first tier that works here; a small program is run to see that it does.
    ///
    /// # Errors
    /// Where none does: nothing of the user's was run, and the message says what is missing.
    pub fn open(options: Options) -> Result<Self, Refused> {
        let mut tried = Vec::new();
        if let Err(error) = options.limits.check() {
            return Err(Refused { tried: vec![("limits".into(), error)], remedies: Vec::new() });
        }
        let python = match Python::find(options.python.as_deref()) {
            Ok(python) => python,
            Err(error) => return Err(Refused { tried: vec![("python".into(), error)], remedies: Vec::new() }),
        };
        for tier in options.order() {
            match Self::with(tier, &python, &options) {
                Ok(sandbox) => return Ok(sandbox),
                Err(error) => tried.push((tier, error)),
            }
            // Bubblewrap cannot show an interpreter that lies below a folder of root's; the system's own is then as good.
            if let (Tier::Bwrap, true, Ok(system)) = (tier, options.python.is_none(), Python::find(Some(Path::new("/usr/bin/python3"))))
                && system != python
                && let Ok(sandbox) = Self::with(tier, &system, &options)
            {
                return Ok(sandbox);
            }
        }
        Err(Refused::new(tried))
    }

    fn with(tier: Tier, python: &Python, options: &Options) -> Result<Self, String> {
        let bwrap = bwrap::find();
        if tier == Tier::Bwrap && bwrap.is_none() {
            return Err("bwrap is not installed".into());
        }
        let setup = Setup { parent: 0, tier, python: python.clone(), bwrap, warm: options.warm };
        let starter = Mutex::new(starter(setup, &options.helper));
        let sandbox = Self { tier, python: python.clone(), options: options.clone(), idle: Mutex::default(), starter };
        sandbox.trial()?;
        Ok(sandbox)
    }

    /// Runs a program that forks more often than it may.
    fn trial(&self) -> Result<(), String> {
        let program = "import os
def count():
    for n in range(12):
        try:
            pid = os.fork()
        except OSError:
            return n
        if pid == 0:
            import time
            time.sleep(5)
            os._exit(0)
    return n + 1";
        let job = Job::Calls { program: program.into(), entry: "count".into(), calls: vec!["()".into()] };
        let outcome = self.run(&job, "", None).map_err(|failed| failed.0)?;
        match (&outcome.result, self.tier) {
            (Ok(values), Tier::Native | Tier::Bwrap) if values[..] == [Value::from(12)] => {
                Err("uid 0: the kernel does not count processes of its root, and programs would run as that".into())
            }
            (Ok(_), _) => Ok(()),
            (Err((fault, said)), _) => Err(format!("a first program failed: {fault}: {said}")),
        }
    }

    pub fn tier(&self) -> Tier {
        self.tier
    }

    pub fn python(&self) -> &Python {
        &self.python
    }

    /// What a program may use where nothing else is said.
    pub fn limits(&self) -> Limits {
        self.options.limits
    }

    /// Runs one program. `stdin` is what it reads; `limits` are its own, or the sandbox's.
    ///
    /// # Errors
    /// Where the program could not be run, also at the third try.
    pub fn run(&self, job: &Job, stdin: &str, limits: Option<Limits>) -> Result<Outcome, Failed> {
        let limits = limits.unwrap_or(self.options.limits);
        limits.check().map_err(Failed)?;
        let order = Order { job: job.literal(), stdin: stdin.to_owned(), limits, warm: self.options.warm };
        let mut last = String::new();
        for _ in 0..TRIES {
            match self.attempt(&order).and_then(|seen| outcome(*seen, &limits)) {
                Ok(outcome) => return Ok(outcome),
                Err(error) => last = error,
            }
        }
        Err(Failed(last))
    }

    fn attempt(&self, order: &Order) -> Result<Box<Seen>, String> {
        let idle = self.idle.lock().map_or_else(|poisoned| poisoned.into_inner().pop(), |mut idle| idle.pop());
        let mut helper = match idle {
            Some(helper) => helper,
            None => self.helper()?,
        };
        let patience = PATIENCE + Duration::from_secs_f64(order.limits.wall_seconds);
        let lost = |error: std::io::Error| format!("the sandbox's helper has gone: {error}");
        helper.socket.set_read_timeout(Some(patience)).map_err(lost)?;
        send(&mut helper.socket, order).map_err(lost)?;
        match receive(&mut helper.socket).map_err(lost)? {
            Answer::Seen(seen) => {
                if let Ok(mut idle) = self.idle.lock() {
                    idle.push(helper);
                }
                Ok(seen)
            }
            Answer::Failed(error) | Answer::Refused(error) => Err(error),
            Answer::Ready => Err("the sandbox's helper talks out of turn".into()),
        }
    }

    /// A new helper, started by the thread for that.
    fn helper(&self) -> Result<Connection, String> {
        let gone = || "the sandbox is closed".to_owned();
        let (to_us, answer) = channel();
        let starter = self.starter.lock().map_err(|_| gone())?.clone();
        starter.send(to_us).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }
}

/// The thread that starts helpers, until nobody can ask any more.
fn starter(mut setup: Setup, helper: &Path) -> Sender<Sender<Result<Connection, String>>> {
    let (ask, asked) = channel::<Sender<Result<Connection, String>>>();
    let helper = helper.to_owned();
    setup.parent = std::process::id() as i32;
    std::thread::spawn(move || {
        for to in asked {
            // Nobody waits where the asker has gone; the helper then ends by being dropped.
            let _ = to.send(connect(&setup, &helper));
        }
    });
    ask
}

fn connect(setup: &Setup, program: &Path) -> Result<Connection, String> {
    let cannot = |error: std::io::Error| format!("the helper {} does not start: {error}", program.display());
    let (socket, theirs) = UnixStream::pair().map_err(cannot)?;
    let mut command = Command::new(program);
    command.arg(ARGUMENT).env_clear().stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().map_err(cannot)?;
    drop(command);
    socket.set_read_timeout(Some(PATIENCE)).map_err(cannot)?;
    let mut connection = Connection { socket, child };
    match send(&mut connection.socket, setup).and_then(|()| receive(&mut connection.socket)) {
        Ok(Answer::Ready) => Ok(connection),
        Ok(Answer::Refused(error)) => Err(error),
        Ok(_) => Err(format!("{} answers out of turn", program.display())),
        Err(error) => Err(format!("{} is no helper of this sandbox: {error}", program.display())),
    }
}

/// Gives what was seen its meaning. The error is that the program was not run.
fn outcome(seen: Seen, limits: &Limits) -> Result<Outcome, String> {
    if let Some(refusal) = &seen.refusal {
        return Err(refusal.clone());
    }
    let Some(said) = seen.result.strip_prefix("ready\n") else {
        let last: String = seen.stderr.trim().chars().rev().take(300).collect::<Vec<_>>().into_iter().rev().collect();
        return Err(format!("the interpreter did not start (status {:?}): {last}", seen.status));
    };
    let result = judge(&seen, said, limits);
    let Seen { stdout, stderr, wall_seconds, cpu_seconds, memory, .. } = seen;
    Ok(Outcome { result, stdout, stderr, wall_seconds, cpu_seconds, memory })
}

/// What was seen from outside comes first; then what the program says of itself, which must be one line.
fn judge(seen: &Seen, said: &str, limits: &Limits) -> Result<Vec<Value>, (Fault, String)> {
    if seen.timed_out {
        return Err((Fault::TimeLimit, format!("still running after {} s", limits.wall_seconds)));
    }
    if let Some(overflow) = seen.overflow {
        return Err((Fault::OutputLimit, format!("too much on {overflow:?}")));
    }
    let status = seen.status.unwrap_or(0);
    if libc::WIFSIGNALED(status) {
        // Where bubblewrap is between, its CPU time is not told: a second beyond the limit is when the kernel kills, whatever the program ignores.
        let used_up = seen.cpu_seconds >= limits.cpu_seconds || seen.wall_seconds >= limits.cpu_seconds.ceil() + 1.0;
        return Err(signalled(libc::WTERMSIG(status), used_up));
    }
    let line = said.strip_suffix('\n').filter(|line| !line.contains('\n')).unwrap_or_default();
    if let Some(values) = line.strip_prefix("done ")
        && libc::WEXITSTATUS(status) == 0
        && let Ok(Value::Array(values)) = serde_json::from_str(values)
    {
        return Ok(values);
    }
    if let Some((name, detail)) = line.strip_prefix("fail ").and_then(|rest| rest.split_once(' '))
        && let Some(fault) = Fault::named(name).filter(|fault| *fault != Fault::WrongAnswer)
    {
        return Err((fault, unhex(detail)));
    }
    Err((Fault::RuntimeError, format!("it ended without a result (exit code {})", libc::WEXITSTATUS(status))))
}

fn signalled(signal: i32, cpu_used_up: bool) -> (Fault, String) {
    match signal {
        libc::SIGXCPU => (Fault::TimeLimit, "its CPU time was used up".into()),
        libc::SIGKILL if cpu_used_up => (Fault::TimeLimit, "its CPU time was used up".into()),
        // Nobody else here kills a process without ending all of them.
        libc::SIGKILL => (Fault::MemoryLimit, "killed, as the kernel does where memory runs out".into()),
        libc::SIGXFSZ => (Fault::DiskLimit, "a file grew too large".into()),
        libc::SIGSYS => (Fault::Denied, "a system call of another architecture".into()),
        signal => (Fault::RuntimeError, format!("ended by signal {signal}")),
    }
}

/// `x` and hexadecimal digits of UTF-8, as the driver writes texts; anything else as it stands, since a program may have written it.
pub(super) fn unhex(text: &str) -> String {
    let digits = text.strip_prefix('x').filter(|digits| digits.is_ascii() && digits.len() % 2 == 0);
    let bytes = digits.and_then(|digits| {
        (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).ok()).collect::<Option<Vec<u8>>>()
    });
    bytes.map_or_else(|| text.chars().take(300).collect(), |bytes| String::from_utf8_lossy(&bytes).chars().take(400).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(change: impl FnOnce(&mut Seen)) -> Result<Vec<Value>, Fault> {
        let mut seen = Seen { status: Some(0), result: "ready\ndone [1]\n".into(), ..Seen::default() };
        change(&mut seen);
        outcome(seen, &Limits::default()).expect("it ran").result.map_err(|(fault, _)| fault)
    }

    #[test]
    fn what_is_seen_outside_counts_before_what_a_program_says() {
        assert_eq!(judged(|_| {}), Ok(vec![Value::from(1)]));
        assert_eq!(judged(|seen| seen.timed_out = true), Err(Fault::TimeLimit));
        assert_eq!(judged(|seen| seen.overflow = Some(super::super::watch::Overflow::Stderr)), Err(Fault::OutputLimit));
        assert_eq!(judged(|seen| seen.status = Some(libc::SIGSEGV)), Err(Fault::RuntimeError));
        assert_eq!(judged(|seen| seen.status = Some(libc::SIGXCPU)), Err(Fault::TimeLimit));
        assert_eq!(judged(|seen| seen.status = Some(libc::SIGKILL)), Err(Fault::MemoryLimit));
        assert_eq!(judged(|seen| (seen.status, seen.cpu_seconds) = (Some(libc::SIGKILL), 4.5)), Err(Fault::TimeLimit));
        assert_eq!(judged(|seen| seen.status = Some(1 << 8)), Err(Fault::RuntimeError));
    }

    #[test]
    fn there_is_exactly_one_closing_line() {
        let check = |said: &str, expect: Result<usize, Fault>| {
            let got = judged(|seen| seen.result = format!("ready\n{said}"));
            assert_eq!(got.map(|values| values.len()), expect, "{said:?}");
        };
        check("done []\n", Ok(0));
        check("fail denied x6869\n", Err(Fault::Denied));
        for said in [
            "",
            "done [1]",
            "done [1]\ndone [1]\n",
            "\ndone [1]\n",
            "done [1]\n\n",
            "done 1\n",
            "done [1\n",
            "PASS\n",
            "fail wrong_answer x\n",
        ] {
            check(said, Err(Fault::RuntimeError));
        }
    }

    #[test]
    fn what_was_not_run_is_no_outcome() {
        let refused = Seen { refusal: Some("mount: no".into()), result: "ready\ndone []\n".into(), ..Seen::default() };
        assert_eq!(outcome(refused, &Limits::default()), Err("mount: no".into()));
        let silent = Seen { stderr: "no such file".into(), ..Seen::default() };
        assert!(outcome(silent, &Limits::default()).expect_err("nothing ran").contains("did not start"));
    }
}
