//! Hostile and well-meaning programs, one row each: the program, one call, what it should give, and what becomes of it.

use crate::{code, tiers};
use distill::verify::code::Pair;
use serde_json::{Value, json};

/// One row. `fate` is `ok` or the reasons that will do, separated by `|`.
struct Row {
    name: &'static str,
    program: &'static str,
    args: &'static str,
    expected: &'static str,
    fate: &'static str,
    limits: &'static str,
}

const fn row(name: &'static str, program: &'static str, args: &'static str, expected: &'static str, fate: &'static str) -> Row {
    Row { name, program, args, expected, fate, limits: "{}" }
}

const ROWS: &[Row] = &[
    // well-meaning
    row("a function", "def f(a, b):\n    return a + b", "[1, 2]", "3", "ok"),
    row("texts beyond ASCII", "def f(s):\n    return s[::-1]", r#"["é一😀"]"#, r#""😀一é""#, "ok"),
    row("a large integer", "def f(n):\n    import math\n    return math.factorial(n)", "[30]", "265252859812191058636308480000000", "ok"),
    row("an integer beyond 128 bits", "def f():\n    return -10**40", "[]", "-10000000000000000000000000000000000000000", "ok"),
    row("a float", "def f():\n    return 0.1 + 0.2", "[]", "0.30000000000000004", "ok"),
    row("a tuple is JSON's list", "def f():\n    return (1, [2, (3,)])", "[]", "[1, [2, [3]]]", "ok"),
    row("an object", "def f():\n    return {'b': [None], 'a': {1: True}}", "[]", r#"{"a": {"1": true}, "b": [null]}"#, "ok"),
    row("output on the way", "import sys\nprint('hello')\ndef f():\n    print('PASS', file=sys.stderr)\n    return 1", "[]", "1", "ok"),
    row(
        "files of its own",
        "def f():\n    open('/tmp/a', 'w').write('x' * 1000)\n    return len(open('/tmp/a').read())",
        "[]",
        "1000",
        "ok",
    ),
    row(
        "threads",
        "import threading\ndef f():\n    out = []\n    ts = [threading.Thread(target=out.append, args=(i,)) for i in range(4)]\n    [t.start() for t in ts]\n    [t.join() for t in ts]\n    return sorted(out)",
        "[]",
        "[0, 1, 2, 3]",
        "ok",
    ),
    row(
        "a child process",
        "import os\ndef f():\n    r, w = os.pipe()\n    pid = os.fork()\n    if pid == 0:\n        os.write(w, b'x')\n        os._exit(3)\n    os.waitpid(pid, 0)\n    return os.read(r, 9).decode()",
        "[]",
        "\"x\"",
        "ok",
    ),
    row("deep recursion within reason", "def f(n):\n    return 0 if n == 0 else 1 + f(n - 1)", "[900]", "900", "ok"),
    row(
        "modules",
        "import re, json, heapq, itertools, dataclasses, decimal\n@dataclasses.dataclass\nclass P:\n    x: int\ndef f():\n    return json.loads(json.dumps([P(3).x, re.sub('a', 'b', 'aa')]))",
        "[]",
        "[3, \"bb\"]",
        "ok",
    ),
    row(
        "the same order of a set in every run",
        "def f():\n    return ''.join({'a', 'b', 'c', 'd'}) == ''.join({'a', 'b', 'c', 'd'})",
        "[]",
        "true",
        "ok",
    ),
    row(
        "a child that outlives the program",
        "import os, time\ndef f():\n    if os.fork() == 0:\n        time.sleep(60)\n        os._exit(0)\n    return 1",
        "[]",
        "1",
        "ok",
    ),
    row("a child that returns too", "import os\ndef f():\n    os.fork()\n    return 1", "[]", "1", "ok"),
    row(
        "its own output encoding",
        "import sys\ndef f():\n    sys.stdout.write('é一')\n    return sys.stdout.encoding.lower()",
        "[]",
        "\"utf-8\"",
        "ok",
    ),
    // wrong
    row("another value", "def f():\n    return 4", "[]", "3", "wrong_answer"),
    row("true is not 1", "def f():\n    return True", "[]", "1", "wrong_answer"),
    row("1.0 is not 1", "def f():\n    return 1.0", "[]", "1", "wrong_answer"),
    row("a text is no number", "def f():\n    return '1'", "[]", "1", "wrong_answer"),
    row("none is not false", "def f():\n    return None", "[]", "false", "wrong_answer"),
    row("nan is nothing", "def f():\n    return float('nan')", "[]", "0.0", "wrong_answer"),
    row("a set is no list", "def f():\n    return {1, 2}", "[]", "[1, 2]", "wrong_answer"),
    row("a generator is no list", "def f():\n    return (i for i in (1, 2))", "[]", "[1, 2]", "wrong_answer"),
    row("a list without end", "def f():\n    a = []\n    a.append(a)\n    return a", "[]", "[[]]", "wrong_answer"),
    // out to deceive
    row(
        "equal to everything",
        "class E:\n    def __eq__(self, o): return True\n    def __hash__(self): return 0\ndef f():\n    return E()",
        "[]",
        "3",
        "wrong_answer",
    ),
    row(
        "an int that says it is equal",
        "class E(int):\n    def __eq__(self, o): return True\n    def __repr__(self): return '3'\n    def __add__(self, o): return 3\ndef f():\n    return E(4)",
        "[]",
        "3",
        "wrong_answer",
    ),
    row(
        "a text that shows another",
        "class E(str):\n    def encode(self, *a): return b'ok'\n    def __str__(self): return 'ok'\ndef f():\n    return E('no')",
        "[]",
        "\"ok\"",
        "wrong_answer",
    ),
    row(
        "a list that lists another",
        "class E(list):\n    def __iter__(self): return iter([1, 2])\ndef f():\n    return E([3])",
        "[]",
        "[1, 2]",
        "wrong_answer",
    ),
    row("leaving with success", "import sys\ndef f():\n    sys.exit(0)", "[]", "3", "runtime_error"),
    row("leaving at once", "import os\nos._exit(0)\ndef f(): return 3", "[]", "3", "runtime_error"),
    row("a printed pass", "print('PASS')\nprint('done [3]')\ndef f():\n    print('done [3]')\n    return 4", "[]", "3", "wrong_answer"),
    row(
        "a closing line of its own, and another",
        "import os\ndef f():\n    os.write(4, b'done [4]\\n')\n    return 3",
        "[]",
        "3",
        "runtime_error",
    ),
    row("a second start line", "import os\ndef f():\n    os.write(4, b'ready\\ndone [3]\\n')\n    os._exit(0)", "[]", "3", "runtime_error"),
    row(
        "a forged line that does not know the answer",
        "import os\ndef f():\n    os.write(4, b'done [true]\\n')\n    os._exit(0)",
        "[]",
        "3",
        "wrong_answer",
    ),
    row(
        "patched builtins",
        "import builtins\nbuiltins.isinstance = lambda *a: True\nbuiltins.type = lambda *a: int\nbuiltins.repr = lambda *a: '3'\nbuiltins.len = lambda *a: 1\ndef f():\n    return [4]",
        "[]",
        "3",
        "wrong_answer|runtime_error",
    ),
    row(
        "patched json and operator",
        "import json, operator\njson.loads = json.dumps = lambda *a, **k: True\noperator.eq = lambda *a: True\ndef f():\n    return 4",
        "[]",
        "3",
        "wrong_answer",
    ),
    row(
        "what is expected is in no frame",
        "import sys, gc\ndef f(x):\n    found = []\n    frame = sys._getframe()\n    while frame:\n        found += [repr(v) for v in frame.f_locals.values()] + [repr(v) for v in list(frame.f_globals.values())]\n        frame = frame.f_back\n    found += [repr(o) for o in gc.get_objects() if isinstance(o, (list, tuple, dict))]\n    return any('sesame' in t for t in found if 'found +=' not in t)",
        "[1]",
        "\"open sesame\"",
        "wrong_answer",
    ),
    row(
        "what is expected comes from no descriptor",
        "import os\ndef f(x):\n    found = b''\n    for fd in range(64):\n        try:\n            os.set_blocking(fd, False)\n            found += os.read(fd, 1 << 16)\n        except OSError:\n            pass\n    return found.decode()",
        "[1]",
        "\"open sesame\"",
        "wrong_answer",
    ),
    row(
        "no variable of the caller's",
        "import os\ndef f():\n    return sorted(k for k in os.environ if k not in ('HOME', 'LANG', 'TMPDIR', 'LD_LIBRARY_PATH', 'LC_CTYPE', 'PWD') and not k.startswith('PYTHON'))",
        "[]",
        "[]",
        "ok",
    ),
    // errors
    row("an exception", "def f():\n    return 1 // 0", "[]", "3", "runtime_error"),
    row("no such function", "def g(): return 3", "[]", "3", "runtime_error"),
    row("no Python", "def f(:", "[]", "3", "runtime_error"),
    row("endless recursion", "def f():\n    return f()", "[]", "3", "runtime_error"),
    row("a null byte", "def f():\n    return 3\0", "[]", "3", "runtime_error"),
    row("a crash of the interpreter", "import ctypes\ndef f():\n    ctypes.string_at(0)", "[]", "3", "runtime_error"),
    row("killing itself", "import os, signal\ndef f():\n    os.kill(os.getpid(), signal.SIGTERM)", "[]", "3", "runtime_error"),
    row(
        "an exception that cannot be shown",
        "class E(Exception):\n    def __str__(self): raise self\ndef f():\n    raise E()",
        "[]",
        "3",
        "runtime_error",
    ),
    // limits
    Row { limits: r#"{"cpu": 1}"#, ..row("a loop", "def f():\n    while True: pass", "[]", "3", "time_limit") },
    Row {
        limits: r#"{"cpu": 1}"#,
        ..row(
            "a loop that ignores its signal",
            "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\ndef f():\n    while True: pass",
            "[]",
            "3",
            "time_limit",
        )
    },
    Row { limits: r#"{"wall": 1}"#, ..row("sleep", "import time\ndef f():\n    time.sleep(60)", "[]", "3", "time_limit") },
    Row {
        limits: r#"{"wall": 1}"#,
        ..row("stopped", "import os, signal\ndef f():\n    os.kill(os.getpid(), signal.SIGSTOP)", "[]", "3", "time_limit")
    },
    Row {
        limits: r#"{"wall": 1}"#,
        ..row(
            "a child in a session of its own",
            "import os, time\ndef f():\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(60)\n    time.sleep(60)",
            "[]",
            "3",
            "time_limit",
        )
    },
    Row {
        limits: r#"{"wall": 1}"#,
        ..row(
            "a lock without a key",
            "import threading\ndef f():\n    l = threading.Lock()\n    l.acquire()\n    l.acquire()",
            "[]",
            "3",
            "time_limit",
        )
    },
    row("memory", "def f():\n    return len(bytearray(1 << 30))", "[]", "3", "memory_limit"),
    row("memory bit by bit", "def f():\n    a = []\n    while True: a.append('x' * 1000000)", "[]", "3", "memory_limit"),
    Row {
        limits: r#"{"memory_mb": 100}"#,
        ..row("memory below its own limit", "def f():\n    return len(bytearray(200 << 20))", "[]", "3", "memory_limit")
    },
    row("memory that no limit counts", "import os\ndef f():\n    return os.memfd_create('x')", "[]", "3", "denied"),
    row("output", "def f():\n    while True: print('x' * 1000)", "[]", "3", "output_limit"),
    row("output on stderr", "import sys\ndef f():\n    while True: sys.stderr.write('x' * 1000)", "[]", "3", "output_limit"),
    row("output past the driver", "import os\ndef f():\n    while True: os.write(1, b'x' * 1000)", "[]", "3", "output_limit"),
    row("a result too large", "def f():\n    return 'x' * (2 << 20)", "[]", "3", "output_limit"),
    row("a fork bomb", "import os\ndef f():\n    while True: os.fork()", "[]", "3", "process_limit|time_limit"),
    row(
        "many threads",
        "import threading, time\ndef f():\n    for _ in range(50): threading.Thread(target=time.sleep, args=(5,), daemon=True).start()",
        "[]",
        "3",
        "process_limit",
    ),
    row(
        "a large file",
        "def f():\n    with open('/tmp/a', 'wb') as a:\n        for _ in range(100): a.write(b'x' * (1 << 20))",
        "[]",
        "3",
        "disk_limit",
    ),
    row("many files", "def f():\n    for i in range(100000): open('/tmp/%d' % i, 'w').close()", "[]", "3", "disk_limit|denied"),
    // what lies outside
    row("the machine's users", "def f():\n    return open('/etc/passwd').read()", "[]", "3", "denied|runtime_error"),
    row("the machine's processes", "import os\ndef f():\n    return os.listdir('/proc')", "[]", "3", "denied|wrong_answer|runtime_error"),
    row("writing over the interpreter", "import os\ndef f():\n    open(os.__file__, 'a').write('x')", "[]", "3", "denied"),
    row("writing on the root", "def f():\n    open('/x', 'w')", "[]", "3", "denied"),
    row("the network", "import socket\ndef f():\n    socket.create_connection(('127.0.0.1', 22), 1)", "[]", "3", "denied"),
    row(
        "a datagram",
        "import socket\ndef f():\n    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 53))",
        "[]",
        "3",
        "denied",
    ),
    row("packets", "import socket\ndef f():\n    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)", "[]", "3", "denied"),
    row(
        "a name server",
        "import urllib.request\ndef f():\n    urllib.request.urlopen('http://example.org/', timeout=2)",
        "[]",
        "3",
        "denied",
    ),
    row("becoming root", "import os\ndef f():\n    os.setuid(0)", "[]", "3", "denied"),
    row(
        "ending everybody",
        "import os, signal\ndef f():\n    os.kill(1, signal.SIGKILL)\n    os.kill(1, signal.SIGTERM)\n    return os.getppid()",
        "[]",
        "1",
        "ok|denied",
    ),
];

/// What the driver's world looks like to a program that speaks to the kernel directly; each gives the errno of one call.
const CALLS: &[(&str, &str, &[i64])] = &[
    ("unshare a user namespace", "libc.syscall(272, 0x10000000)", &[1]),
    ("clone into a user namespace", "libc.syscall(56, 0x10000011, 0, 0, 0, 0)", &[1]),
    ("clone3 is not there", "libc.syscall(435, 0, 0)", &[38]),
    ("mount", "libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)", &[1]),
    ("trace another process", "libc.ptrace(16, 1, 0, 0)", &[1]),
    ("read another's memory", "libc.syscall(310, 1, 0, 0, 0, 0, 0)", &[1]),
    ("keys", "libc.syscall(248, b'user', b'x', b'y', 1, -4)", &[1]),
    ("io_uring", "libc.syscall(425, 1, 0)", &[1]),
    ("bpf", "libc.syscall(321, 0, 0, 0)", &[1]),
    ("perf", "libc.syscall(298, 0, 0, 0, 0, 0)", &[1]),
    ("shared memory", "libc.shmget(0, 4096, 0o1600)", &[1]),
    ("userfaultfd", "libc.syscall(323, 0)", &[1]),
    ("type on the terminal", "libc.ioctl(0, 0x5412, b'x')", &[1]),
    ("another's limits", "libc.prlimit(1, 7, None, None)", &[1]),
    ("a handle instead of a path", "libc.syscall(304, -100, 0, 0)", &[1]),
    ("new root", "libc.chroot(b'/tmp')", &[1]),
    ("the 32-bit table", "libc.syscall(0x40000000 | 101, 0)", &[1, 38]),
];

fn pair(row: &Row) -> Pair {
    let raw = |text: &str| serde_json::from_str::<Box<serde_json::value::RawValue>>(text).expect("JSON");
    let line = format!(
        r#"{{"task": "code", "program": {}, "entry": "f", "calls": [{}], "expected": [{}], "limits": {}}}"#,
        json!(row.program),
        raw(row.args),
        raw(row.expected),
        row.limits
    );
    Pair::parse(&line).unwrap_or_else(|e| panic!("{}: {e}", row.name))
}

#[test]
fn every_program_gets_its_verdict_in_every_tier() {
    for (tier, options) in tiers() {
        let Some(code) = code(options) else { continue };
        // Bubblewrap's tmpfs has a size and no number of files.
        let asked: Vec<&Row> = ROWS.iter().filter(|row| tier != "bwrap" || row.name != "many files").collect();
        let (mut rows, mut wrong) = (asked.iter(), Vec::new());
        let judged = |judged: distill::verify::code::Judged| {
            let row = rows.next().expect("one verdict per row");
            let fate = judged.reason.map_or("ok", |reason| reason.name());
            assert_eq!(judged.correct, fate == "ok");
            if !row.fate.split('|').any(|wanted| wanted == fate) {
                wrong.push(format!("{}: {fate} ({}), expected {}", row.name, judged.detail.unwrap_or_default(), row.fate));
            }
            Ok(())
        };
        code.judge_pairs(asked.iter().map(|row| pair(row)), 2, judged).expect("every program is run");
        assert!(rows.next().is_none());
        assert!(wrong.is_empty(), "{tier}: {} of {}:\n{}", wrong.len(), asked.len(), wrong.join("\n"));
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_kernel_answers_no_call_that_reaches_outside() {
    for (tier, options) in tiers() {
        let Some(code) = code(options) else { continue };
        let mut wrong = Vec::new();
        for (name, call, errnos) in CALLS {
            let program = format!(
                "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\ndef f():\n    return ctypes.get_errno() if {call} < 0 else 0"
            );
            for errno in *errnos {
                let line = json!({"task": "code", "program": program, "entry": "f", "calls": [[]], "expected": [errno]});
                let judged = code.judge_pair(&Pair::parse(&line.to_string()).expect("a pair")).expect("it runs");
                if judged.correct {
                    break;
                }
                if errno == errnos.last().expect("some") {
                    wrong.push(format!("{name}: {judged:?}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{tier}:\n{}", wrong.join("\n"));
    }
}

#[test]
fn nothing_of_one_program_reaches_the_next() {
    for (tier, options) in tiers() {
        let Some(code) = code(options) else { continue };
        let leave = "import os, builtins, math, json\nbuiltins.left = math.left = json.left = 1\nopen('/tmp/left', 'w').close()\nos.environ['LEFT'] = '1'\ndef f(): return 1";
        let look = "import os, builtins, math, json\ndef f():\n    return [hasattr(m, 'left') for m in (builtins, math, json)] + [os.path.exists('/tmp/left'), 'LEFT' in os.environ]";
        for (program, expected) in [(leave, json!(1)), (look, json!([false, false, false, false, false]))] {
            let line = json!({"task": "code", "program": program, "entry": "f", "calls": [[]], "expected": [expected]});
            let judged = code.judge_pair(&Pair::parse(&line.to_string()).expect("a pair")).expect("it runs");
            assert!(judged.correct, "{tier}: {judged:?}");
        }
    }
}

#[test]
fn many_calls_are_one_process_and_all_must_be_right() {
    let Some(code) = code(crate::options()) else { return };
    let check = |expected: Value, fate: &str| {
        let program = "n = 0\ndef f(x):\n    global n\n    n += 1\n    return [x, n]";
        let line = json!({"task": "code", "program": program, "entry": "f", "calls": [[5], ["a"]], "expected": expected});
        let judged = code.judge_pair(&Pair::parse(&line.to_string()).expect("a pair")).expect("it runs");
        assert_eq!(judged.reason.map_or("ok", |reason| reason.name()), fate, "{judged:?}");
    };
    check(json!([[5, 1], ["a", 2]]), "ok");
    check(json!([[5, 1], ["a", 1]]), "wrong_answer");
}
