//! How a run's recipe has answers judged: the extraction, and the user's own command with its files.

use super::run::Run;
use crate::problem::{Answer, Problem};
use crate::recipe::Problems;
use crate::tasks::Check;
use crate::verify::{Command, Rules};
use anyhow::Result;
use serde_json::{Value, json};
use std::sync::Arc;

/// The verifier of a run. A command is looked at, and started when it is first needed.
///
/// # Errors
/// Where a file that the command names cannot be read.
pub fn rules(run: &Run) -> Result<Rules> {
    of(&run.recipe.problems)
}

/// The verifier that these settings name.
///
/// # Errors
/// As of [`rules`].
pub fn of(settings: &Problems) -> Result<Rules> {
    let command = match &settings.verify {
        Some(Check::Command(line)) => Some(Arc::new(Command::open(line)?)),
        _ => None,
    };
    Ok(Rules { extraction: settings.extraction, command, limits: settings.limits })
}

/// Adds to a stage's inputs what verdicts follow from beyond problems and extraction: where a command decides any of these, that one and the content of the
/// files that it names; where programs are answers, what these may use if the recipe says so.
pub fn add_identity(inputs: &mut Value, rules: &Rules, problems: &[Arc<Problem>]) {
    if let Some(command) = &rules.command
        && problems.iter().any(|problem| matches!(problem.answer, Answer::Command { .. }))
    {
        inputs["verify"] = command.identity();
    }
    if let Some(limits) = &rules.limits
        && problems.iter().any(|problem| matches!(problem.answer, Answer::Code { .. }))
    {
        inputs["limits"] = json!(limits);
    }
}
