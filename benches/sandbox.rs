//! Programs per second through the sandbox: cold, cold with eleven imports, warm, and warm with the imports, on one thread and on two.
//!
//!     cargo bench --bench sandbox -- [FILTER] [--quick]      FILTER as in warm/2

use distill::sandbox::{Job, Options, Sandbox, Tier};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const IMPORTS: &str = "import math, re, collections, itertools, functools, heapq, bisect, random, string, typing, json\n";
const PROGRAM: &str = "def f(n):\n    return sum(i * i for i in range(n))\n";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let quick = args.iter().any(|arg| arg == "--quick");
    let filter = args.iter().find(|arg| !arg.starts_with("--")).cloned().unwrap_or_default();
    for (name, warm, imports) in
        [("cold", false, false), ("cold+imports", false, true), ("warm", true, false), ("warm+imports", true, true)]
    {
        let helper = PathBuf::from(env!("CARGO_BIN_EXE_distill"));
        let sandbox = match Sandbox::open(Options { helper, warm, only: Some(Tier::Native), ..Options::default() }) {
            Ok(sandbox) => sandbox,
            Err(error) => {
                println!("skipped: {error}");
                return;
            }
        };
        let program = if imports { format!("{IMPORTS}{PROGRAM}") } else { PROGRAM.to_owned() };
        let job = Job::Calls { program, entry: "f".to_owned(), calls: vec!["(100,)".to_owned()] };
        for threads in [1, 2] {
            if format!("{name}/{threads}").contains(&filter) {
                let (rate, n) = rate(&sandbox, &job, threads, Duration::from_secs(if quick { 1 } else { 5 }));
                println!("{{\"bench\": \"sandbox/{name}/{threads}\", \"programs_per_s\": {rate:.1}, \"programs\": {n}}}");
            }
        }
    }
}

/// Programs per second over at least `time`, and how many there were.
fn rate(sandbox: &Sandbox, job: &Job, threads: usize, time: Duration) -> (f64, usize) {
    let run = || sandbox.run(job, "", None).expect("it runs").result.expect("it is right");
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(run)))); // helpers are started
    let begin = Instant::now();
    let count = || {
        let mut n = 0;
        while begin.elapsed() < time {
            run();
            n += 1;
        }
        n
    };
    let n: usize = std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(count)).collect();
        all.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    (n as f64 / begin.elapsed().as_secs_f64(), n)
}
