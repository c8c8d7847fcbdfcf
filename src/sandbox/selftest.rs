//! About a dozen escapes, tried in the sandbox: what `distill doctor` shows.

use super::driver::Job;
use super::launch::{Failed, Sandbox};
use super::limits::{Fault, Limits};

/// One escape that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    /// The sandbox held.
    pub held: bool,
    /// What the program met.
    pub detail: String,
}

/// What a program tries; it gives `held` and why, or anything else where it got out.
const TRIES: [(&str, &str); 11] = [
    (
        "files of the machine",
        "import os
def f():
    seen = [p for p in ('/etc/passwd', '/etc/hostname', '/proc/1/environ', '/proc/self/environ', '/root/.bashrc', '/var/log') if os.access(p, os.R_OK)]
    return 'read ' + ', '.join(seen) if seen else 'held: none can be read'",
    ),
    (
        "processes of the machine",
        "import os
def f():
    others = 0
    for pid in range(2, 70000):
        try:
            os.kill(pid, 0)
            others += pid != os.getpid()
        except OSError:
            pass
    return 'held: alone with its init' if not others and os.getpid() < 10 else 'sees %d others' % others",
    ),
    (
        "the caller's environment",
        "import os
def f():
    own = ('HOME', 'LANG', 'TMPDIR', 'LD_LIBRARY_PATH', 'LC_CTYPE', 'PWD')
    more = [k for k in os.environ if k not in own and not k.startswith('PYTHON')]
    return 'finds ' + ', '.join(more) if more else 'held: nothing of it'",
    ),
    (
        "the network",
        "import socket
def f():
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, getattr(socket, 'AF_VSOCK', 40)):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
            try:
                socket.socket(family, kind)
                return 'has a socket of family %d' % family
            except OSError as error:
                last = error
    return 'held: ' + last.strerror",
    ),
    (
        "writing outside",
        "import os
def f():
    for folder in ('/', '/usr', '/etc', '/box', '/dev', '/lib', os.path.dirname(os.__file__)):
        try:
            open(folder + '/distill-was-here', 'w')
            return 'wrote in ' + folder
        except OSError as error:
            last = error
    return 'held: ' + last.strerror",
    ),
    (
        "new namespaces",
        "import ctypes, os
def f():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x10000000) == 0:
        return 'has a user namespace'
    return 'held: ' + os.strerror(ctypes.get_errno())",
    ),
    (
        "mounting",
        "import ctypes, os
def f():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b'proc', b'/tmp', b'proc', 0, None) == 0:
        return 'has mounted'
    return 'held: ' + os.strerror(ctypes.get_errno())",
    ),
    (
        "the memory of its init",
        "import ctypes, os
def f():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(16, 1, 0, 0) == 0:
        return 'traces process 1'
    return 'held: ' + os.strerror(ctypes.get_errno())",
    ),
    (
        "memory without a limit",
        "import os, ctypes
def f():
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(os, 'memfd_create'):
        try:
            os.memfd_create('x')
            return 'has a memory file'
        except OSError:
            pass
    return 'has shared memory' if libc.shmget(0, 4096, 0o1600) >= 0 else 'held: neither files nor shared memory'",
    ),
    (
        "privileges",
        "import os
def f():
    for change in (lambda: os.setuid(0), lambda: os.setgroups([0]), lambda: os.chroot('/tmp'), lambda: os.chown('/tmp', 0, 0)):
        try:
            change()
            return 'changed who it is'
        except OSError as error:
            last = error
    return 'held: ' + last.strerror if os.getuid() != 0 else 'is root'",
    ),
    (
        "kernel interfaces",
        "import ctypes, platform
def f():
    libc = ctypes.CDLL(None, use_errno=True)
    if platform.machine() != 'x86_64':
        return 'held: the numbers of this architecture are not tried'
    numbers = dict(bpf=321, perf_event_open=298, userfaultfd=323, io_uring_setup=425, keyctl=250, add_key=248, open_by_handle_at=304)
    got = []
    for name, number in numbers.items():
        if libc.syscall(number, 0, 0, 0, 0, 0) >= 0 or ctypes.get_errno() != 1:
            got.append(name)
    return 'reaches ' + ', '.join(got) if got else 'held: none of %d' % len(numbers)",
    ),
];

/// Limits that are broken on purpose, and what must come of it.
const LIMITS: [(&str, &str, &[Fault]); 4] = [
    ("the limit on processes", "import os\ndef f():\n    while True: os.fork()", &[Fault::ProcessLimit, Fault::TimeLimit]),
    ("the limit on memory", "def f():\n    return len(bytearray(1 << 40))", &[Fault::MemoryLimit]),
    ("the limit on files", "def f():\n    open('/tmp/x', 'wb').write(b'x' * (64 << 20))", &[Fault::DiskLimit]),
    ("the limit on time", "import time\ndef f():\n    time.sleep(100)", &[Fault::TimeLimit]),
];

/// Tries every escape, one program each.
///
/// # Errors
/// Where a program could not be run.
pub fn selftest(sandbox: &Sandbox) -> Result<Vec<Check>, Failed> {
    let mut checks = Vec::new();
    let limits = Limits { wall_seconds: 4.0, cpu_seconds: 2.0, ..Limits::default() };
    let run = |program: &str| {
        let job = Job::Calls { program: program.to_owned(), entry: "f".to_owned(), calls: vec!["()".to_owned()] };
        sandbox.run(&job, "", Some(limits))
    };
    for (name, program) in TRIES {
        let (held, detail) = match run(program)?.result {
            Ok(values) => said(&values),
            Err((fault, detail)) => (false, format!("{fault}: {detail}")),
        };
        checks.push(Check { name, held, detail });
    }
    for (name, program, faults) in LIMITS {
        let (held, detail) = match run(program)?.result {
            Ok(_) => (false, "it ended by itself".to_owned()),
            Err((fault, detail)) => (faults.contains(&fault), format!("{fault}: {detail}")),
        };
        checks.push(Check { name, held, detail });
    }
    Ok(checks)
}

/// What a try says of itself: `held` and the rest.
fn said(values: &[serde_json::Value]) -> (bool, String) {
    let text = values.first().and_then(|value| value.as_str()).map(super::launch::unhex).unwrap_or_default();
    text.strip_prefix("held: ").map_or((false, text.clone()), |rest| (true, rest.to_owned()))
}
