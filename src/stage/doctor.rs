//! `distill doctor`: what this machine has and lacks, one finding per check, with what to do about it.
//!
//! It writes nothing and runs no program but its own. A fault (exit code 78) is what would stop a run; what only makes one slow or small is a warning.

mod finding;
mod machine;

pub use finding::{Finding, Findings, State};

use anyhow::Result;
use serde_json::json;
use std::path::Path;

/// What the doctor is asked for.
pub struct Ask<'a> {
    /// The run directory that is meant; where there is none, that of any run.
    pub run: Option<&'a Path>,
    pub json: bool,
    /// Columns that the text is laid out in.
    pub columns: usize,
    pub colour: bool,
}

/// What was found.
pub struct Report {
    /// To print, as text or as JSON.
    pub text: String,
    /// An error (exit code 78) where there is a fault.
    pub verdict: Result<()>,
}

/// Examines the machine, whatever is to be run on it. With `json`, one object with the findings and what was tried in the sandbox, or null.
pub fn machine(ask: &Ask) -> Report {
    let machine::Examined { findings, sandbox } = machine::examine(ask.run);
    let text = if ask.json {
        let all = json!({"version": env!("CARGO_PKG_VERSION"), "findings": findings.json(), "sandbox": sandbox});
        format!("{all:#}\n")
    } else {
        findings.text(ask.columns, ask.colour)
    };
    Report { text, verdict: findings.verdict() }
}
