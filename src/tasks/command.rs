//! The user's own verifier as a recipe names it: a command and how long it may take over one line.
//!
//! Nothing is started here, and no file is looked at; that is `verify/`'s.

use serde::{Deserialize, Serialize};

/// `{ command = ["python", "check.py"], deadline = 10 }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandLine {
    /// The program and its arguments; no shell is in between.
    pub command: Vec<String>,
    /// Seconds until the answer to a line must be there.
    #[serde(default = "ten")]
    pub deadline: f64,
}

/// Longest deadline, in seconds.
const MAX_DEADLINE: f64 = 3600.0;

fn ten() -> f64 {
    10.0
}

impl CommandLine {
    pub fn new(command: &[&str]) -> Self {
        Self { command: command.iter().map(|&word| word.to_owned()).collect(), deadline: ten() }
    }

    /// # Errors
    /// A sentence that says which value cannot be.
    pub fn check(&self) -> Result<(), String> {
        if self.command.first().is_none_or(|program| program.trim().is_empty()) {
            return Err("command must name a program, such as [\"python\", \"check.py\"]".to_owned());
        }
        if self.command.iter().any(|word| word.contains('\0')) {
            return Err("command must not hold a zero byte".to_owned());
        }
        if !(self.deadline > 0.0 && self.deadline <= MAX_DEADLINE) {
            return Err(format!("deadline must be above 0 and at most {MAX_DEADLINE} seconds, got {}", self.deadline));
        }
        Ok(())
    }
}
