//! The checks of the machine itself, whatever is to be run on it: each looks at a few files of the system and takes no time to speak of.
//!
//! A check is two halves: one that looks, and one that judges what was seen, which is a function of text and numbers. What a system does not tell is
//! said to be unknown and is no fault.

mod cgroup;
mod disk;
mod gpu;
mod limits;
mod memory;
mod network;
mod processor;
mod programs;

pub use memory::free as free_memory;

use super::finding::Findings;
use crate::hub;
use serde_json::Value;
use std::path::Path;

/// What was found.
pub struct Examined {
    pub findings: Findings,
    /// What was tried in the sandbox; null where there is none.
    pub sandbox: Value,
}

/// Makes all checks. `run` is the run directory that is meant, if a certain one is.
pub fn examine(run: Option<&Path>) -> Examined {
    // These two take seconds: a network that is silent, and a program that must be stopped by its limit on time.
    let (seen, (confined, sandbox)) = rayon::join(hub::look, programs::examine);
    let mut all = vec![processor::program(), processor::processor(), processor::cores()];
    all.extend(memory::memory());
    all.extend([memory::pages(), limits::files(), limits::clock(), gpu::gpu()]);
    all.extend([disk::runs(run.unwrap_or(Path::new("runs"))), disk::cache(&seen)]);
    all.extend(network::judged(&seen));
    all.push(confined);
    Examined { findings: Findings(all), sandbox }
}

/// A file of the system; nothing where it is not there or not ours to read.
fn read(path: impl AsRef<Path>) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The value of `name: value`, as several files of `/proc` have it; of the first such line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}
