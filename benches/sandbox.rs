//! Programs per second through the sandbox: cold, cold with eleven imports, warm, and warm with the imports, on one thread and on two; and, as the
//! measure of the machine at that moment, bare: the start and end of an interpreter that does nothing, outside.
//!
//!     cargo bench --bench sandbox -- [FILTER] [--quick]      FILTER as in warm/2
//!
//! `cpu_ms` is the CPU time of everything below this program for each of its programs, starting the sandbox included; it depends less than the rate on what
//! else the machine does.

use distill::sandbox::{Job, Options, Python, Sandbox, Tier};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const IMPORTS: &str = "import math, re, collections, itertools, functools, heapq, bisect, random, string, typing, json\n";
const PROGRAM: &str = "def f(n):\n    return sum(i * i for i in range(n))\n";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let time = Duration::from_secs(if args.iter().any(|arg| arg == "--quick") { 1 } else { 5 });
    let filter = args.iter().find(|arg| !arg.starts_with("--")).cloned().unwrap_or_default();
    for threads in [1, 2] {
        let Ok(python) = Python::find(None) else { return println!("skipped: Python is missing") };
        if format!("bare/{threads}").contains(&filter) {
            let before = cpu_seconds();
            let start = || {
                let status = Command::new(&python.executable).args(["-I", "-S", "-B", "-c", "pass"]).status();
                assert!(status.expect("it starts").success());
            };
            report(&format!("bare/{threads}"), rate(&start, threads, time), before);
        }
    }
    for (name, warm, imports) in
        [("cold", false, ""), ("cold+imports", false, IMPORTS), ("warm", true, ""), ("warm+imports", true, IMPORTS)]
    {
        let job = Job::Calls { program: format!("{imports}{PROGRAM}"), entry: "f".to_owned(), calls: vec!["(100,)".to_owned()] };
        for threads in [1, 2] {
            if !format!("{name}/{threads}").contains(&filter) {
                continue;
            }
            let before = cpu_seconds();
            let helper = PathBuf::from(env!("CARGO_BIN_EXE_distill"));
            let sandbox = match Sandbox::open(Options { helper, warm, only: Some(Tier::Native), ..Options::default() }) {
                Ok(sandbox) => sandbox,
                Err(error) => return println!("skipped: {error}"),
            };
            let run = || drop(sandbox.run(&job, "", None).expect("it runs").result.expect("it is right"));
            let rate = rate(&run, threads, time);
            drop(sandbox);
            report(&format!("{name}/{threads}"), rate, before);
        }
    }
}

fn report(name: &str, (rate, n): (f64, usize), cpu_before: f64) {
    let cpu = (cpu_seconds() - cpu_before) * 1000.0 / n as f64;
    println!("{{\"bench\": \"sandbox/{name}\", \"programs_per_s\": {rate:.1}, \"cpu_ms\": {cpu:.1}, \"programs\": {n}}}");
}

/// Runs per second over at least `time`, and how many there were.
fn rate(run: &(dyn Fn() + Sync), threads: usize, time: Duration) -> (f64, usize) {
    let together = |work: &(dyn Fn() -> usize + Sync)| -> usize {
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            all.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        })
    };
    together(&|| (0..3).map(|_| run()).count()); // helpers are started
    let begin = Instant::now();
    let n = together(&|| std::iter::from_fn(|| (begin.elapsed() < time).then(run)).count());
    (n as f64 / begin.elapsed().as_secs_f64(), n)
}

/// Of all processes below this one that have ended and were waited for.
fn cpu_seconds() -> f64 {
    // SAFETY: zeros are a valid value of this plain structure, whose address is valid until the call returns.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
