//! What a GRPO step writes down of itself: what was sampled, and what the update did.

use super::Batch;
use crate::measure;
use crate::rollout::Judged;
use crate::trace::FinishReason;
use serde::Serialize;
use std::collections::BTreeMap;

/// One line of a GRPO phase's `metrics.jsonl`: what was sampled at a step and what the update did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StepRecord {
    /// From 0.
    pub step: usize,
    /// Tokens of an attempt at most, where a ladder of contexts decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<usize>,
    /// Mean and sample standard deviation of each reward component over all attempts, `total` among them; those that dynamic sampling
    /// threw away are attempts too, here and in every share and mean of what was sampled.
    pub reward: BTreeMap<String, (f64, f64)>,
    /// Share of correct attempts among those that rules have judged; 0 where there are none.
    pub accuracy: f64,
    /// Share of the sampled groups whose rewards are all equal.
    pub without_spread: f64,
    /// Attempts sampled and thrown away by dynamic sampling.
    pub wasted: usize,
    /// Mean entropy of the policy per computed token, in nats, before the update; of all tokens where no attempt has a loss.
    pub entropy: Option<f64>,
    /// Mean of the KL estimate per token before the update: of computed tokens where it stands in the loss, of all where it stands in the
    /// reward; `None` without a reference.
    pub kl: Option<f64>,
    /// Shares of computed tokens whose gradient the clip cut off, over all updates of the step; `None` where there was no update.
    pub clip_low: Option<f64>,
    pub clip_high: Option<f64>,
    pub loss: Option<f64>,
    /// Before clipping; of the last update.
    pub grad_norm: Option<f64>,
    pub learning_rate: f64,
    /// Mean tokens of all attempts, and of those that ended by themselves, if any did.
    pub length: f64,
    pub length_ended: Option<f64>,
    /// Share of attempts that did not end by themselves.
    pub truncated: f64,
    /// Mean share of words in the target language.
    pub language: f64,
    /// Share of attempts that pass the readability rule.
    pub readable: f64,
    /// Mean number of reflection words per attempt.
    pub reflection: f64,
    /// Sampled tokens per second of sampling, and computed tokens per second of training.
    pub sampled_per_second: f64,
    pub trained_per_second: Option<f64>,
    /// Mean and largest difference between the trainer's and the sampler's log-probability of a token.
    pub mismatch_mean: Option<f64>,
    pub mismatch_max: Option<f64>,
}

/// Fills in what the attempts of a step are like, the wasted ones included.
pub(super) fn describe(batch: &Batch, record: &mut StepRecord) {
    let all = || batch.judged.iter().chain(&batch.wasted);
    let n = all().count() as f64;
    let mean = |f: &dyn Fn(&Judged) -> f64| all().map(f).sum::<f64>() / n;
    let mut parts: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for judged in all() {
        for (name, value) in &judged.trace.rewards {
            parts.entry(name.clone()).or_default().push(value.as_f64().unwrap_or(0.0));
        }
    }
    record.reward = parts.into_iter().map(|(name, values)| (name, mean_and_std(&values))).collect();
    let ended = |j: &Judged| j.completion.finish == FinishReason::Stop;
    let ruled = all().filter(|j| j.trace.verdict.is_some()).count();
    record.accuracy = all().filter(|j| j.trace.is_correct()).count() as f64 / ruled.max(1) as f64;
    record.length = mean(&|j| j.completion.tokens.len() as f64);
    let stopped: Vec<f64> = all().filter(|j| ended(j)).map(|j| j.completion.tokens.len() as f64).collect();
    record.length_ended = (!stopped.is_empty()).then(|| mean_and_std(&stopped).0);
    record.truncated = mean(&|j| f64::from(!ended(j)));
    record.language = mean(&|j| j.trace.language.share);
    record.readable = mean(&|j| f64::from(measure::readability::is_readable(&measure::readability::measure(&j.trace.response)).is_ok()));
    record.reflection = mean(&|j| measure::reflection::words(&j.trace.response) as f64);
}

/// Mean and sample standard deviation; 0 where there are too few values.
fn mean_and_std(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / n };
    let variance = if values.len() < 2 { 0.0 } else { values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0) };
    (mean, variance.sqrt())
}
