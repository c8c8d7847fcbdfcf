//! Judging text by rules: answer extraction and the verifiers for mathematics, Countdown, and Knights & Knaves.
//!
//! Verification is total over responses: every string gets a verdict after bounded work, and what the rules cannot decide is `Undecided`,
//! never `Correct`. What counts as equal in mathematics is `math/`'s; the decisions are listed in `README.md` beside this file.
//! This module does not know rewards, tokens, or how an attempt ended.

pub mod audit;
pub mod code;
mod countdown;
mod expression;
mod extract;
mod knights;
pub mod math;
mod number;

pub use expression::compare;
pub use extract::Extraction;

use crate::problem::{Answer, Problem};
use crate::response::Response;
use crate::trace::{Reason, Verdict};

/// What could not be run, and so is no statement about the response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("verifier unavailable: {0}")]
pub struct Unavailable(pub String);

/// Decides whether a response answers a problem.
pub trait Verifier: Send + Sync {
    /// Judges one response. An error says that the verifier itself could not run: stop or retry, never a reward.
    fn verify(&self, problem: &Problem, response: &Response) -> Result<Verdict, Unavailable>;
}

/// The rule that belongs to each kind of reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub extraction: Extraction,
}

impl Rules {
    /// The verdict, without the trait's error: rules need nothing but the text. Programs are not run here, and so undecided.
    pub fn judge(&self, problem: &Problem, response: &Response) -> Verdict {
        let verdict = match &problem.answer {
            Answer::Number { value: gold } | Answer::Math { text: gold } => expression::judge(gold, response, self.extraction),
            Answer::Countdown { numbers, target } => extract::explicit(response).map(|found| countdown::judge(numbers, *target, &found)),
            Answer::Knights { names, knights } => {
                extract::explicit_or_all(response, self.extraction).and_then(|found| knights::judge(names, knights, &found))
            }
            Answer::Code { .. } => Ok(Verdict::Undecided { reason: Reason::rule("not_run") }),
        };
        verdict.unwrap_or_else(|reason| Verdict::NoAnswer { reason })
    }
}

impl Rules {
    /// Opens what judging these problems takes beyond rules: the sandbox, where one of them asks for a program.
    ///
    /// # Errors
    /// Where it is not to be had, before anything is sampled.
    pub fn ready<'a>(&self, mut problems: impl Iterator<Item = &'a Problem>) -> Result<(), Unavailable> {
        let runs = problems.any(|problem| matches!(problem.answer, Answer::Code { .. }));
        if runs { code::Code::shared(self.extraction).map(|_| ()) } else { Ok(()) }
    }

    /// What judged, for manifests: this program's rules, and how programs are confined where any were run.
    pub fn name(&self) -> String {
        let rules = format!("rules {}", env!("CARGO_PKG_VERSION"));
        code::Code::tier_in_use(self.extraction).map_or(rules.clone(), |tier| format!("{rules}, programs: {tier}"))
    }
}

impl Verifier for Rules {
    fn verify(&self, problem: &Problem, response: &Response) -> Result<Verdict, Unavailable> {
        match &problem.answer {
            Answer::Code { .. } => code::Code::shared(self.extraction)?.verify(problem, response),
            _ => Ok(self.judge(problem, response)),
        }
    }
}

/// The first 80 characters: verdicts travel with every trace, so they do not carry whole responses.
fn excerpt(text: &str) -> String {
    text.trim().chars().take(80).collect()
}

#[cfg(test)]
mod tests;
