//! Judging responses: answer extraction, and the verifiers for mathematics, texts, choices, patterns, Countdown, Knights & Knaves, programs, and the
//! user's own command.
//!
//! Verification is total over responses: every string gets a verdict after bounded work, and what the rules cannot decide is `Undecided`,
//! never `Correct`. What counts as equal in mathematics is `math/`'s; the decisions are listed in `README.md` beside this file.
//! This module does not know rewards, tokens, or how an attempt ended.

pub mod audit;
pub mod code;
mod command;
mod countdown;
mod expression;
mod extract;
mod knights;
pub mod math;
mod number;
mod text;

pub use command::Command;
pub use expression::compare;
pub use extract::Extraction;

use crate::problem::{Answer, Problem};
use crate::response::Response;
use crate::sandbox::Limits;
use crate::trace::{Reason, Verdict};
use std::sync::Arc;

/// What could not be run, and so is no statement about the response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("verifier unavailable: {0}")]
pub struct Unavailable(pub String);

/// Decides whether a response answers a problem.
pub trait Verifier: Send + Sync {
    /// Judges one response. An error says that the verifier itself could not run: stop or retry, never a reward.
    fn verify(&self, problem: &Problem, response: &Response) -> Result<Verdict, Unavailable>;
}

/// What a verifier says of a response.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    pub verdict: Verdict,
    /// What the user's own command pays for it, finite; rules pay nothing.
    pub reward: Option<f64>,
}

/// The rule that belongs to each kind of reference.
#[derive(Clone, Default)]
pub struct Rules {
    pub extraction: Extraction,
    /// The user's own program, for problems whose answers it decides.
    pub command: Option<Arc<Command>>,
    /// What a program may use that is an answer; `None` is what the sandbox gives.
    pub limits: Option<Limits>,
}

impl Rules {
    /// Rules alone.
    pub const fn new(extraction: Extraction) -> Self {
        Self { extraction, command: None, limits: None }
    }

    /// The verdict, without the trait's error: rules need nothing but the text. Programs and commands are not run here, and so undecided.
    pub fn judge(&self, problem: &Problem, response: &Response) -> Verdict {
        let verdict = match &problem.answer {
            Answer::Number { value: gold } | Answer::Math { text: gold } => expression::judge(gold, response, self.extraction),
            Answer::Exact { text } => text::exact(text, response, self.extraction),
            Answer::Choice { letter } => expression::judge(letter.encode_utf8(&mut [0; 4]), response, self.extraction),
            Answer::Regex { pattern } => text::regex(pattern, response, self.extraction),
            Answer::Countdown { numbers, target } => extract::explicit(response).map(|found| countdown::judge(numbers, *target, &found)),
            Answer::Knights { names, knights } => {
                extract::explicit_or_all(response, self.extraction).and_then(|found| knights::judge(names, knights, &found))
            }
            Answer::Code { .. } | Answer::Command { .. } => Ok(Verdict::Undecided { reason: Reason::rule("not_run") }),
            Answer::Open { .. } => Ok(Verdict::Undecided { reason: Reason::rule("no_rule") }),
        };
        verdict.unwrap_or_else(|reason| Verdict::NoAnswer { reason })
    }

    /// The verdict, and what the user's command pays.
    ///
    /// # Errors
    /// As of [`Verifier::verify`].
    pub fn judgement(&self, problem: &Problem, response: &Response) -> Result<Judgement, Unavailable> {
        let verdict = match &problem.answer {
            Answer::Command { reference } => return self.command()?.judge(problem, reference, response),
            Answer::Code { tests } => code::Code::shared(self.extraction)?.judge(tests, response, self.limits)?,
            _ => self.judge(problem, response),
        };
        Ok(Judgement { verdict, reward: None })
    }

    /// Whether judging this problem runs a program, and so takes milliseconds where a rule takes microseconds.
    pub fn is_slow(problem: &Problem) -> bool {
        matches!(problem.answer, Answer::Code { .. } | Answer::Command { .. })
    }

    fn command(&self) -> Result<&Command, Unavailable> {
        self.command.as_deref().ok_or_else(|| Unavailable("these problems are decided by a command, and none is named here".into()))
    }

    /// Opens what judging these problems takes beyond rules: the sandbox, where one of them asks for a program; the user's command.
    ///
    /// # Errors
    /// Where it is not to be had, before anything is sampled.
    pub fn ready<'a>(&self, problems: impl Iterator<Item = &'a Problem>) -> Result<(), Unavailable> {
        let (mut runs, mut asks) = (false, false);
        for problem in problems {
            runs |= matches!(problem.answer, Answer::Code { .. });
            asks |= matches!(problem.answer, Answer::Command { .. });
        }
        if runs {
            code::Code::shared(self.extraction)?;
        }
        if asks { self.command()?.ready() } else { Ok(()) }
    }

    /// What judged, for manifests: this program's rules, how programs are confined where any were run, and the user's command.
    pub fn name(&self) -> String {
        let rules = format!("rules {}", env!("CARGO_PKG_VERSION"));
        let tier = code::Code::tier_in_use(self.extraction).map(|tier| format!("programs: {tier}"));
        let command = self.command.as_ref().map(|command| format!("command: {}", command.name()));
        std::iter::once(rules).chain(tier).chain(command).collect::<Vec<_>>().join(", ")
    }
}

impl Verifier for Rules {
    fn verify(&self, problem: &Problem, response: &Response) -> Result<Verdict, Unavailable> {
        self.judgement(problem, response).map(|judgement| judgement.verdict)
    }
}

/// The first 80 characters: verdicts travel with every trace, so they do not carry whole responses.
fn excerpt(text: &str) -> String {
    text.trim().chars().take(80).collect()
}

#[cfg(test)]
mod tests;
