//! `distill doctor`: what this machine has and lacks, one finding per check, with what to do about it.
//!
//! With a recipe it looks at a run before it is begun. It writes nothing and runs no program but its own and a recipe's verifier. A fault (exit code 78) is what would stop a run; what only makes one slow or small is a warning.

mod completion;
mod finding;
mod machine;
mod model;
mod preview;
mod recipe;
mod sizes;
mod talk;
mod taught;
mod trial;

pub use finding::{Finding, Findings, State};
pub(super) use machine::free_memory;

use crate::recipe::Recipe;
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

/// Looks at a recipe before a run of it; one that is none is a finding for each of its problems.
pub fn recipe(parsed: Result<Recipe>, ask: &Ask) -> Report {
    let all = Findings(match parsed {
        Err(error) => format!("{error:#}").lines().map(|line| Finding::fault("recipe", line, "correct the recipe")).collect(),
        Ok(parsed) => {
            let folder = ask.run.map_or_else(|| super::default_folder(&parsed.name), Path::to_path_buf);
            recipe::findings(parsed, folder)
        }
    });
    let text = if ask.json {
        format!("{:#}\n", json!({"version": env!("CARGO_PKG_VERSION"), "findings": all.json()}))
    } else {
        all.text(ask.columns, ask.colour)
    };
    Report { text, verdict: all.verdict() }
}
