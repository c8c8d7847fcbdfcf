//! The optimiser steps on one batch of attempts: the derivatives of its loss, by token, and what they add up to.

use super::record::StepRecord;
use super::{Batch, Grpo, GrpoSettings};
use crate::model::{Against, Decoder, Divergence};
use crate::rollout::Judged;
use crate::trace::FinishReason;
use crate::train::groups::examples;
use crate::train::learner::{Learner, Seeds, Values};
use crate::train::objective::{Clipped, Counts, KlEstimator, KlPlacement, surrogate};
use anyhow::Result;
use std::ops::Range;
use std::time::Instant;

impl Grpo<'_> {
    /// All optimiser steps on one batch.
    pub(super) fn update(&self, learner: &mut Learner, reference: Option<&Decoder>, batch: &Batch, record: &mut StepRecord) -> Result<()> {
        let begin = Instant::now();
        let settings = self.settings;
        let masked = |j: &Judged| settings.mask_truncated && j.completion.finish != FinishReason::Stop;
        let has_loss = |j: &Judged| !j.completion.tokens.is_empty() && !masked(j);
        let in_loss = reference.filter(|_| settings.kl_in == KlPlacement::Loss);
        let computed = |i: usize| has_loss(&batch.judged[i]) && (batch.advantages[i] != 0.0 || in_loss.is_some());
        let chosen: Vec<usize> = (0..batch.judged.len()).filter(|i| computed(*i)).collect();
        record.learning_rate = settings.schedule_for().rate(record.step);
        if chosen.is_empty() {
            return self.look(learner, batch, record);
        }
        let examples = examples(chosen.iter().map(|i| &batch.judged[*i]));
        let temperature = self.rollout.params.temperature;
        let policy = learner.decoder().clone();
        let parts = self.parts(batch, &chosen);
        let iterations = settings.num_iterations.max(1);
        // With one update the ratio is 1, whatever the old ones are. A policy that is gone left those that it sampled with.
        let old = match batch.is_behind {
            true => Some(chosen.iter().flat_map(|i| batch.judged[*i].completion.logprobs.iter().copied()).collect()),
            false if iterations * parts.len() > 1 => Some(learner.values(&policy, &examples, temperature)?.logprobs),
            false => None,
        };
        let sampled_kl = in_loss.filter(|_| settings.kl != KlEstimator::Full);
        let reference_logprobs = sampled_kl.map(|r| learner.values(r, &examples, temperature)).transpose()?.map(|v| v.logprobs);
        let full = in_loss.filter(|_| settings.kl == KlEstimator::Full).map(|model| Against { model, divergence: Divergence::Reverse });
        let offsets: Vec<usize> = std::iter::once(0)
            .chain(examples.iter().scan(0, |sum, e| {
                *sum += e.targets();
                Some(*sum)
            }))
            .collect();
        let mut tally = Tally::default();
        for iteration in 0..iterations {
            // A part without an attempt to compute has a loss of 0, and no update.
            for Part { attempts, chosen: of } in parts.iter().filter(|part| !part.chosen.is_empty()) {
                let tokens = batch.judged[attempts.clone()].iter().filter(|j| has_loss(j)).map(|j| j.completion.tokens.len()).sum();
                let step = Update {
                    settings,
                    batch,
                    chosen: &chosen[of.clone()],
                    offsets: &offsets[of.start..=of.end],
                    old: old.as_deref(),
                    reference: reference_logprobs.as_deref(),
                    counts: Counts {
                        sequences: attempts.len(),
                        tokens,
                        max_tokens: self.max_tokens(record.step),
                        micro_batches: 0,
                        micro_batch_tokens: 0,
                    },
                };
                let examples = &examples[of.clone()];
                tally = learner.fitting(|learner| {
                    let mut tally = tally.clone();
                    let micro_batches = learner.packing(examples).0;
                    learner.accumulate(examples, temperature, full, &mut |indices, values| {
                        Ok(step.seeds(indices, &values, (iteration == 0, micro_batches), &mut tally))
                    })?;
                    Ok(tally)
                })?;
                record.grad_norm = Some(learner.step(record.learning_rate)?);
            }
        }
        let n = tally.tokens as f64;
        record.entropy = Some(tally.entropy / n);
        record.kl = record.kl.or_else(|| in_loss.map(|_| tally.kl / n));
        record.loss = Some(tally.loss / parts.len() as f64);
        // Of a batch that is behind there is nothing of the same policy to hold it against.
        record.mismatch_mean = (!batch.is_behind).then_some(tally.mismatch / n);
        record.mismatch_max = (!batch.is_behind).then_some(tally.mismatch_max);
        record.clip_low = Some(tally.clip_low as f64 / (n * iterations as f64));
        record.clip_high = Some(tally.clip_high as f64 / (n * iterations as f64));
        record.trained_per_second = Some(n * iterations as f64 / begin.elapsed().as_secs_f64());
        Ok(())
    }

    /// The batch cut into as many parts of whole groups as there are updates in an iteration.
    fn parts(&self, batch: &Batch, chosen: &[usize]) -> Vec<Part> {
        let group = self.settings.num_generations;
        let (groups, count) = (batch.judged.len() / group, self.settings.steps_per_generation.max(1));
        let bound = |part: usize| part * groups / count * group;
        let place = |attempt: usize| chosen.partition_point(|i| *i < attempt);
        (0..count)
            .map(|part| bound(part)..bound(part + 1))
            .map(|attempts| Part { chosen: place(attempts.start)..place(attempts.end), attempts })
            .collect()
    }

    /// Entropy and mismatch of a batch in which no attempt has a loss.
    fn look(&self, learner: &Learner, batch: &Batch, record: &mut StepRecord) -> Result<()> {
        let values = learner.values(learner.decoder(), &examples(batch.judged.iter()), self.rollout.params.temperature)?;
        let sampled = batch.judged.iter().flat_map(|j| &j.completion.logprobs);
        let differences: Vec<f64> = values.logprobs.iter().zip(sampled).map(|(a, b)| f64::from(a - b).abs()).collect();
        let n = differences.len() as f64;
        if !differences.is_empty() {
            record.entropy = Some(values.entropy.iter().map(|e| f64::from(*e)).sum::<f64>() / n);
        }
        if !differences.is_empty() && !batch.is_behind {
            record.mismatch_mean = Some(differences.iter().sum::<f64>() / n);
            record.mismatch_max = differences.into_iter().reduce(f64::max);
        }
        Ok(())
    }
}

/// What one update is computed on.
struct Part {
    /// Of the batch.
    attempts: Range<usize>,
    /// Places among those that are computed.
    chosen: Range<usize>,
}

/// Sums over the tokens of a step's updates.
#[derive(Clone, Default)]
pub(super) struct Tally {
    /// Of the first iteration.
    pub(super) tokens: usize,
    pub(super) entropy: f64,
    pub(super) kl: f64,
    pub(super) loss: f64,
    pub(super) mismatch: f64,
    pub(super) mismatch_max: f64,
    pub(super) clip_low: usize,
    pub(super) clip_high: usize,
}

/// What the loss of one batch is made of.
pub(super) struct Update<'a> {
    pub(super) settings: &'a GrpoSettings,
    pub(super) batch: &'a Batch,
    /// Attempts that are computed.
    pub(super) chosen: &'a [usize],
    /// Where the tokens of each chosen attempt start in `old` and `reference`.
    pub(super) offsets: &'a [usize],
    pub(super) old: Option<&'a [f32]>,
    pub(super) reference: Option<&'a [f32]>,
    pub(super) counts: Counts,
}

impl Update<'_> {
    /// Derivatives of the loss for the micro-batch of the chosen attempts at `indices`, one of `micro_batches`; the first iteration's numbers go into `tally`.
    pub(super) fn seeds(&self, indices: &[usize], values: &Values, (first, micro_batches): (bool, usize), tally: &mut Tally) -> Seeds {
        let settings = self.settings;
        let counts = Counts { micro_batches, micro_batch_tokens: values.logprobs.len(), ..self.counts };
        let full =
            self.reference.is_none() && settings.beta > 0.0 && settings.kl == KlEstimator::Full && settings.kl_in == KlPlacement::Loss;
        let mut d_logprob = vec![0f32; values.logprobs.len()];
        let mut d_kl = vec![0f32; if full { values.logprobs.len() } else { 0 }];
        let mut i = 0;
        for &which in indices {
            let attempt = &self.batch.judged[self.chosen[which]];
            let advantage = self.batch.advantages[self.chosen[which]];
            let tokens = self.offsets[which]..self.offsets[which + 1];
            let weight = settings.loss_type.weight(&counts, tokens.len());
            for (position, at) in tokens.enumerate() {
                let lp = f64::from(values.logprobs[i]);
                let old = self.old.map_or(lp, |old| f64::from(old[at]));
                let (value, slope, clipped) = surrogate(lp, old, advantage, settings.clip());
                let (kl, kl_slope) = match self.reference {
                    Some(reference) => {
                        let (kl, slope) = settings.kl.estimate(lp, f64::from(reference[at]));
                        let ratio = (lp - old).exp();
                        // d(ratio kl) = ratio (kl + d kl)
                        if settings.use_bias_correction_kl { (ratio * kl, ratio * (kl + slope)) } else { (kl, slope) }
                    }
                    None => (f64::from(values.divergence[i]), 0.0),
                };
                d_logprob[i] = (weight * (settings.beta * kl_slope - slope)) as f32;
                if full {
                    d_kl[i] = (weight * settings.beta) as f32;
                }
                tally.clip_low += usize::from(clipped == Some(Clipped::Low));
                tally.clip_high += usize::from(clipped == Some(Clipped::High));
                if first {
                    // The policy that sampled is the old one, whatever updates this iteration has made.
                    let difference = (old - f64::from(attempt.completion.logprobs[position])).abs();
                    tally.tokens += 1;
                    tally.entropy += f64::from(values.entropy[i]);
                    tally.kl += kl;
                    tally.loss += weight * (settings.beta * kl - value);
                    tally.mismatch += difference;
                    tally.mismatch_max = tally.mismatch_max.max(difference);
                }
                i += 1;
            }
        }
        Seeds { logprobs: d_logprob, entropy: None, divergence: full.then_some(d_kl) }
    }
}
