//! The ladder of contexts: a phase that begins with short attempts and lets them grow.
//!
//! Source: DeepScaleR, which trains at 8, 16 and 24 thousand tokens in turn. A step's rung follows from the number of the step alone.

use super::GrpoSettings;
use serde::{Deserialize, Serialize};

/// So many steps, in which an attempt has at most so many tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rung {
    pub steps: usize,
    pub max_tokens: usize,
}

impl GrpoSettings {
    /// Tokens of an attempt at most at a step, counted from 0: those of its rung, and `max_tokens` behind the ladder.
    pub fn max_tokens_at(&self, step: usize, max_tokens: usize) -> usize {
        let mut end = 0usize;
        let rung = self.context_ladder.iter().find(|rung| {
            end = end.saturating_add(rung.steps);
            step < end
        });
        rung.map_or(max_tokens, |rung| rung.max_tokens)
    }

    /// Tokens at most of one attempt at each step of the phase.
    pub fn tokens_of_all_steps(&self, max_tokens: usize) -> usize {
        let on_ladder: usize = self.context_ladder.iter().map(|rung| rung.steps).sum();
        let tokens: usize = self.context_ladder.iter().map(|rung| rung.steps * rung.max_tokens).sum();
        tokens + self.steps.saturating_sub(on_ladder) * max_tokens
    }
}
