//! Programs with calls and expected values, one JSON line each: judged on several threads, answered in order.

use super::{Code, Passed};
use crate::sandbox::{Fault, Limits};
use crate::verify::Unavailable;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::mpsc::sync_channel;

/// One line `{task: "code", program, entry, calls: [[args]…], expected: […], limits?}`.
#[derive(Clone, Debug)]
pub struct Pair {
    program: String,
    entry: String,
    calls: Vec<String>,
    expected: Vec<String>,
    limits: Option<BTreeMap<String, f64>>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Judged {
    pub correct: bool,
    /// Why not; null where it is correct.
    pub reason: Option<Fault>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// `unsandboxed`, where nothing confined the program; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<&'static str>,
}

/// The limits that a line may set, by any of these names with or without a unit behind it (`memory_mb`, `wall_s`); bare, in seconds and bytes.
const LIMITS: [(&str, &[&str]); 7] = [
    ("cpu_seconds", &["cpu", "cpu_time", "time"]),
    ("wall_seconds", &["wall", "wall_time", "timeout"]),
    ("memory", &["memory", "mem"]),
    ("processes", &["processes", "nproc"]),
    ("files", &["files", "file", "file_size", "disk"]),
    ("output", &["output"]),
    ("result", &["result"]),
];
const UNITS: [(&str, f64); 9] = [
    ("_seconds", 1.0),
    ("_s", 1.0),
    ("_ms", 0.001),
    ("_bytes", 1.0),
    ("_kb", 1024.0),
    ("_kib", 1024.0),
    ("_mb", 1_048_576.0),
    ("_mib", 1_048_576.0),
    ("_gb", 1_073_741_824.0),
];

/// The limit that a name stands for, and what its unit is worth.
fn limit(name: &str) -> Option<(&'static str, f64)> {
    let (base, unit) = UNITS.iter().find_map(|(suffix, unit)| Some((name.strip_suffix(suffix)?, *unit))).unwrap_or((name, 1.0));
    let (limit, _) = LIMITS.iter().find(|(_, names)| names.contains(&base))?;
    Some((limit, unit))
}

impl Pair {
    /// Reads a line.
    ///
    /// # Errors
    /// What is missing or does not fit; without the line's number, which the caller knows.
    pub fn parse(line: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Line<'a> {
            task: String,
            program: String,
            entry: String,
            #[serde(borrow)]
            calls: Vec<&'a RawValue>,
            #[serde(borrow)]
            expected: Vec<&'a RawValue>,
            limits: Option<BTreeMap<String, f64>>,
        }
        let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if line.task != "code" {
            return Err(format!("the task is {:?}, expected \"code\"", line.task));
        }
        if line.calls.len() != line.expected.len() {
            return Err(format!("{} calls but {} expected values", line.calls.len(), line.expected.len()));
        }
        if let Some(call) = line.calls.iter().find(|call| !call.get().starts_with('[')) {
            return Err(format!("a call is {}, expected a list of arguments", call.get()));
        }
        let texts = |values: Vec<&RawValue>| values.into_iter().map(|value| value.get().to_owned()).collect();
        let pair = Self {
            program: line.program,
            entry: line.entry,
            calls: texts(line.calls),
            expected: texts(line.expected),
            limits: line.limits,
        };
        pair.limits(Limits::default())?;
        Ok(pair)
    }

    /// Its limits, where it says none those of `base`.
    fn limits(&self, base: Limits) -> Result<Limits, String> {
        let mut limits = base;
        for (name, value) in self.limits.iter().flatten() {
            let Some((limit, unit)) = limit(name) else {
                return Err(format!("unknown limit {name:?}; known are {}", LIMITS.map(|(limit, _)| limit).join(", ")));
            };
            let value = value * unit;
            match limit {
                "cpu_seconds" => limits.cpu_seconds = value,
                "wall_seconds" => limits.wall_seconds = value,
                "memory" => limits.memory = value as u64,
                "processes" => limits.processes = value as u32,
                "files" => limits.files = value as u64,
                "output" => limits.output = value as u64,
                _ => limits.result = value as u64,
            }
        }
        limits.check()?;
        Ok(limits)
    }
}

impl Code {
    /// Runs one pair.
    ///
    /// # Errors
    /// Where it could not be run.
    pub fn judge_pair(&self, pair: &Pair) -> Result<Judged, Unavailable> {
        let limits = pair.limits(self.sandbox.limits()).map_err(Unavailable)?;
        let tested = self.calls(&pair.program, &pair.entry, &pair.calls, &pair.expected, Some(limits))?;
        let sandbox = (self.tier() == crate::sandbox::Tier::Unsandboxed).then_some("unsandboxed");
        Ok(match tested {
            Ok(Passed { .. }) => Judged { correct: true, reason: None, detail: None, sandbox },
            Err((fault, detail)) => Judged { correct: false, reason: Some(fault), detail: Some(detail), sandbox },
        })
    }

    /// Runs pairs as they come on `threads` threads and hands what came of each to `done`, in their order. At most a few pairs per thread are held.
    ///
    /// # Errors
    /// The first pair that could not be run, or what `done` says; nothing after it is handed over.
    pub fn judge_pairs(
        &self,
        pairs: impl Iterator<Item = Pair> + Send,
        threads: usize,
        mut done: impl FnMut(Judged) -> Result<(), Unavailable>,
    ) -> Result<(), Unavailable> {
        let threads = threads.max(1);
        let source = std::sync::Mutex::new(pairs.enumerate());
        std::thread::scope(|scope| {
            let (to_us, from_them) = sync_channel(2 * threads);
            for _ in 0..threads {
                let (source, to_us) = (&source, to_us.clone());
                scope.spawn(move || {
                    let next = || source.lock().ok().and_then(|mut source| source.next());
                    while let Some((i, pair)) = next() {
                        let judged = self.judge_pair(&pair);
                        let failed = judged.is_err();
                        if to_us.send((i, judged)).is_err() || failed {
                            break;
                        }
                    }
                });
            }
            drop(to_us);
            let (mut early, mut next) = (BTreeMap::new(), 0);
            for (i, judged) in from_them {
                early.insert(i, judged);
                while let Some(judged) = early.remove(&next) {
                    done(judged?)?;
                    next += 1;
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_their_faults_named() {
        let good = r#"{"task": "code", "program": "def f(x): return x", "entry": "f", "calls": [[1], [[2]]], "expected": [1, [2]], "limits": {"cpu": 1, "memory_mb": 100}}"#;
        let pair = Pair::parse(good).expect("a good line");
        assert_eq!((pair.calls, pair.expected), (vec!["[1]".into(), "[[2]]".into()], vec!["1".to_owned(), "[2]".into()]));
        let limits = Pair::parse(good).expect("good").limits(Limits::default()).expect("good");
        assert_eq!((limits.cpu_seconds, limits.memory, limits.processes), (1.0, 100 << 20, 8));
        let check = |from: &str, to: &str, part: &str| {
            let error = Pair::parse(&good.replace(from, to)).expect_err(to);
            assert!(error.contains(part), "{error}");
        };
        check("\"code\"", "\"math\"", "expected \"code\"");
        check("[[1], [[2]]]", "[[1]]", "1 calls but 2 expected");
        check("[[1], [[2]]]", "[1, [2]]", "a call is 1");
        check("\"cpu\": 1", "\"cpus\": 1", "unknown limit \"cpus\"; known are cpu_seconds");
        check("\"cpu\": 1", "\"cpu\": -1", "cpu_seconds must be above 0");
        check("\"entry\"", "\"entries\"", "missing field `entry`");
    }
}
