//! `distill doctor`: what this machine can do, one line per check.
//!
//! So far it tries the sandbox: which tier programs would run in, and a dozen escapes in it. It writes nothing and runs no program but its own.

mod completion;
mod finding;
mod model;
mod preview;
mod recipe;
mod sizes;
mod talk;
mod trial;

use super::config;
use crate::sandbox::{Check, Options, Sandbox, selftest};
use anyhow::{Result, anyhow};
use serde_json::json;

/// What was found.
pub struct Findings {
    /// The lines to print.
    pub text: String,
    /// An error (exit code 78) where a check failed.
    pub verdict: Result<()>,
}

/// Tries the sandbox. With `json`, one object with the tier, the interpreter and the checks.
///
/// # Errors
/// Where there is no sandbox, naming what is missing; or where it broke.
pub fn doctor(json: bool) -> Result<Findings> {
    let sandbox = config(Sandbox::open(Options::default()).map_err(|refused| anyhow!(refused)))?;
    let checks = config(selftest(&sandbox).map_err(|failed| anyhow!(failed)))?;
    let held = checks.iter().all(|check| check.held);
    let unsafe_here = || anyhow!("the sandbox does not hold on this machine: run no untrusted program here");
    let verdict = config(if held { Ok(()) } else { Err(unsafe_here()) });
    let (tier, python) = (sandbox.tier(), sandbox.python());
    if json {
        let one = |check: &Check| json!({"name": check.name, "held": check.held, "detail": check.detail});
        let checks: Vec<_> = checks.iter().map(one).collect();
        let python = json!({"executable": python.executable, "version": python.version});
        return Ok(Findings { text: format!("{:#}\n", json!({"sandbox": {"tier": tier, "python": python, "checks": checks}})), verdict });
    }
    let mut text = format!("sandbox  {tier}, Python {} at {}\n", python.version, python.executable.display());
    for Check { name, held, detail } in &checks {
        text += &format!("  {}  {name}: {detail}\n", if *held { "held   " } else { "ESCAPED" });
    }
    Ok(Findings { text, verdict })
}

/// Looks at a recipe before a run of it.
pub fn recipe(parsed: Result<crate::recipe::Recipe>, run: Option<std::path::PathBuf>, json: bool, columns: usize) -> Findings {
    let all = finding::Findings(match parsed {
        Err(error) => format!("{error:#}").lines().map(|line| finding::Finding::fault("recipe", line, "correct the recipe")).collect(),
        Ok(parsed) => {
            let folder = run.unwrap_or_else(|| super::default_folder(&parsed.name));
            recipe::findings(parsed, folder)
        }
    });
    let text = if json { format!("{:#}\n", json!({"findings": all.json()})) } else { all.text(columns, false) };
    Findings { text, verdict: all.verdict() }
}
