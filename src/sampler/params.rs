//! How tokens are chosen: the settings that a decoder in this process and a server share.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// How tokens are chosen; names and meanings as in vLLM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SamplingParams {
    /// 0 is greedy, and so is what is nearly 0.
    #[serde(serialize_with = "shortest")]
    pub temperature: f32,
    /// Smallest set of most likely tokens whose probability reaches this; 1 keeps all.
    #[serde(serialize_with = "shortest")]
    pub top_p: f32,
    /// This many most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Tokens at least this likely relative to the most likely one; 0 keeps all.
    #[serde(serialize_with = "shortest")]
    pub min_p: f32,
    /// New tokens at most.
    pub max_tokens: usize,
    /// Strings that end an attempt, kept in its text.
    pub stop: Vec<String>,
}

/// Writes a number as a person has written it: 0.7, not 0.699999988079071.
fn shortest<S: serde::Serializer>(x: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(x.to_string().parse().unwrap_or(f64::from(*x)))
}

impl SamplingParams {
    /// Plain sampling at a temperature.
    pub fn at(temperature: f32, max_tokens: usize) -> Self {
        Self { temperature, top_p: 1.0, top_k: 0, min_p: 0.0, max_tokens, stop: Vec::new() }
    }

    /// Whether some tokens can be cut away, so that log-probabilities are not those of what is sampled.
    pub fn truncates(&self) -> bool {
        self.top_p < 1.0 || self.top_k > 0 || self.min_p > 0.0
    }

    /// The first value out of range, under the given table's name.
    pub fn check(&self, table: &str) -> Result<()> {
        let Self { temperature, top_p, min_p, max_tokens, .. } = self;
        ensure!(temperature.is_finite() && *temperature >= 0.0, "{table}.temperature must be 0 (greedy) or more, got {temperature}");
        ensure!(*top_p > 0.0 && *top_p <= 1.0, "{table}.top_p must be in (0, 1], got {top_p}");
        ensure!((0.0..=1.0).contains(min_p), "{table}.min_p must be in [0, 1], got {min_p}");
        ensure!(*max_tokens > 0, "{table}.max_tokens must be at least 1, got 0");
        ensure!(self.stop.iter().all(|s| !s.is_empty()), "{table}.stop holds an empty string, which would end every attempt at once");
        Ok(())
    }
}
