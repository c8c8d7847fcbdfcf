//! GRPO: groups of attempts at each problem, advantages inside the group, a clipped surrogate, no critic.
//!
//! Differs from "DeepSeekMath" in what its successors found: the KL term is optional and off where `beta` is 0, groups without spread are
//! not computed (they still count in the denominators), and the loss can be aggregated as DAPO or Dr. GRPO do. One update per batch needs no old
//! log-probabilities: the ratio is 1 by definition. With several, the trainer computes the old ones itself before the first; the sampler's serve
//! only to measure how far the two disagree.

use super::advantage::{Advantage, has_spread};
use super::learner::{Example, Learner, Seeds, Values};
use super::objective::{Clip, Clipped, Counts, KlEstimator, KlPlacement, LossType, surrogate};
use super::optimizer::{AdamWSettings, Optim};
use super::schedule::{Decay, Schedule};
use super::state::State;
use crate::judge::{self, Case, Opinion};
use crate::key::Key;
use crate::measure;
use crate::model::Decoder;
use crate::problem::Problem;
use crate::rollout::{Ask, Judged, Rollout};
use crate::sampler::{LocalSampler, Sampler};
use crate::trace::FinishReason;
use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

/// DAPO's soft punishment of length: 0 up to `max - buffer` tokens, then falling to `-factor` at `max`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverlongPenalty {
    pub buffer: usize,
    pub factor: f64,
}

/// Settings of a GRPO phase; names as in TRL where TRL has the thing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GrpoSettings {
    pub steps: usize,
    /// Problems per step.
    pub prompts_per_step: usize,
    /// Attempts at each problem: G.
    pub num_generations: usize,
    pub learning_rate: f64,
    pub schedule: Decay,
    pub warmup_steps: usize,
    pub adam_beta1: f64,
    pub adam_beta2: f64,
    pub weight_decay: f64,
    pub max_grad_norm: f64,
    #[serde(skip_serializing_if = "Optim::is_default")]
    pub optim: Optim,
    /// Optimiser steps on each batch of attempts.
    pub num_iterations: usize,
    pub advantage: Advantage,
    pub loss_type: LossType,
    /// Clip below: the ratio stays above 1 - epsilon.
    pub epsilon: f64,
    /// Clip above: the ratio stays below 1 + epsilon_high ("clip-higher").
    pub epsilon_high: f64,
    /// Weight of the KL to the reference; 0 needs no reference.
    pub beta: f64,
    pub kl: KlEstimator,
    pub kl_in: KlPlacement,
    /// Multiplies the KL in the loss by the ratio (1 in value at the first update, with a derivative), which makes the gradient of k3 that of KL(policy || reference)
    /// without bias; DeepSeek-V3.2, and TRL's default as of 1.16. R1 and most published settings go without.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub use_bias_correction_kl: bool,
    /// The reference becomes the current policy every so many steps; 0 never.
    pub reference_reset: usize,
    /// Groups of which all attempts are right, or none is, are replaced by groups of new problems, in at most so many further rounds ("DAPO"); 0 keeps them.
    pub dynamic_sampling: usize,
    /// Attempts that did not end by themselves have no loss.
    pub mask_truncated: bool,
    pub overlong_penalty: Option<OverlongPenalty>,
}

impl GrpoSettings {
    pub fn optimizer(&self) -> AdamWSettings {
        AdamWSettings {
            betas: (self.adam_beta1, self.adam_beta2),
            eps: 1e-8,
            weight_decay: self.weight_decay,
            max_grad_norm: self.max_grad_norm,
            optim: self.optim,
        }
    }

    fn schedule_for(&self) -> Schedule {
        Schedule { peak: self.learning_rate, warmup_steps: self.warmup_steps, steps: self.steps, decay: self.schedule, floor: 0.1 }
    }

    fn clip(&self) -> Clip {
        Clip { low: self.epsilon, high: self.epsilon_high }
    }
}

/// What is to be resumed: the next step, and how many problems have been asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Cursor {
    step: usize,
    asked: u64,
}

/// One line of a GRPO phase's `metrics.jsonl`: what was sampled at a step and what the update did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StepRecord {
    /// From 0.
    pub step: usize,
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

/// One sampled batch, with what training needs of it.
#[derive(Default)]
pub struct Batch {
    /// Groups of `num_generations` attempts each, end to end.
    pub judged: Vec<Judged>,
    /// Of the same length; the advantage of each attempt.
    pub advantages: Vec<f64>,
    /// Attempts that dynamic sampling threw away: judged and paid, never trained on.
    pub wasted: Vec<Judged>,
}

/// A GRPO phase.
pub struct Grpo<'a> {
    pub settings: &'a GrpoSettings,
    pub rollout: &'a Rollout,
    /// The n-th problem of the phase, counted from 0 over all steps.
    pub problem: &'a dyn Fn(u64) -> Result<Arc<Problem>>,
    pub key: Key,
    pub state: &'a State,
    pub save_steps: usize,
    /// Who pays attempts at problems that no rule can check; `None` where there are none.
    pub opinions: Option<RefCell<&'a mut AskOpinions<'a>>>,
}

/// Gives a model's opinion on each case, in their order.
pub type AskOpinions<'a> = dyn FnMut(&[Case]) -> Result<Vec<Opinion>> + 'a;

/// The caller's two ends: attempts to store before the update, metrics after it.
pub trait Observer {
    fn attempts(&mut self, step: usize, batch: &Batch) -> Result<()>;
    fn record(&mut self, record: &StepRecord) -> Result<ControlFlow<()>>;
}

impl Grpo<'_> {
    /// The step at which `run` would go on; an error where the phase has no such step.
    pub fn resume_step(&self) -> Result<usize> {
        let step = self.state.cursor::<Cursor>()?.map_or(0, |c| c.step);
        self.state.check_step(step, self.settings.steps)?;
        Ok(step)
    }

    /// Trains from the saved state, if there is one, to the last step; `Ok(false)` says that the observer broke off.
    ///
    /// `sampler` must share its memory with `learner`'s decoder. `reference` is the model at the beginning of the phase in memory of its own; it is not needed
    /// where `beta` is 0.
    pub fn run(
        &self,
        learner: &mut Learner,
        sampler: &mut LocalSampler,
        reference: Option<Decoder>,
        observer: &mut dyn Observer,
    ) -> Result<bool> {
        let settings = self.settings;
        let group = settings.advantage.smallest_group();
        ensure!(
            settings.num_generations >= group,
            "num_generations must be at least {group} for this advantage, got {}",
            settings.num_generations
        );
        let mut reference = reference.filter(|_| settings.beta > 0.0).map(|model| model.frozen()).transpose()?;
        ensure!(reference.is_some() || settings.beta == 0.0, "a reference is needed where beta is not 0");
        let mut cursor = Cursor { step: 0, asked: 0 };
        self.resume_step()?;
        if let Some((saved, extra)) = self.state.restore::<Cursor>(learner.optimizer_mut())? {
            cursor = saved;
            if let Some(reference) = &mut reference
                && !extra.is_empty()
            {
                *reference = reference.with_tensors(&|name| extra.get(&format!("reference.{name}")).cloned())?;
            }
        }
        while cursor.step < settings.steps {
            if let Some(reference) = &mut reference
                && settings.reference_reset > 0
                && cursor.step > 0
                && cursor.step.is_multiple_of(settings.reference_reset)
            {
                *reference = learner.decoder().snapshot()?;
            }
            let mut record = StepRecord { step: cursor.step, ..StepRecord::default() };
            let mut batch = self.sample(sampler, &mut cursor, &mut record)?;
            if let Some(reference) = reference.as_ref().filter(|_| settings.kl_in == KlPlacement::Reward) {
                record.kl = self.charge(learner, reference, &mut batch)?;
            }
            batch.advantages =
                batch.judged.chunks(settings.num_generations).flat_map(|group| settings.advantage.of(&rewards(group))).collect();
            observer.attempts(cursor.step, &batch)?;
            describe(&batch, &mut record);
            self.update(learner, reference.as_ref(), &batch, &mut record)?;
            let flow = observer.record(&record)?;
            cursor.step += 1;
            let stop = flow.is_break() && cursor.step < settings.steps;
            if stop || cursor.step.is_multiple_of(self.save_steps) && cursor.step < settings.steps {
                self.state.save(learner.optimizer(), &self.reference_tensors(reference.as_ref()), &cursor)?;
            }
            if stop {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A reference that is no longer the phase's first model has to be in the state.
    fn reference_tensors(&self, reference: Option<&Decoder>) -> Vec<(String, Tensor)> {
        match reference {
            Some(reference) if self.settings.reference_reset > 0 => {
                reference.tensors().into_iter().map(|(name, tensor)| (format!("reference.{name}"), tensor)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Samples and pays the step's groups, and further ones in place of those that dynamic sampling throws away.
    fn sample(&self, sampler: &mut LocalSampler, cursor: &mut Cursor, record: &mut StepRecord) -> Result<Batch> {
        let (settings, begin, before) = (self.settings, Instant::now(), sampler.usage().sampled);
        let mut batch = Batch::default();
        let mut occurrences = BTreeMap::new();
        let (mut seen, mut flat) = (0, 0);
        for round in 0..=settings.dynamic_sampling {
            let wanted = settings.prompts_per_step - batch.judged.len() / settings.num_generations;
            let mut groups = self.groups(sampler, cursor, wanted, &mut occurrences)?;
            self.ask(cursor.step, &mut groups)?;
            for mut group in groups {
                group.iter_mut().for_each(|judged| self.pay(judged));
                seen += 1;
                flat += usize::from(!has_spread(&rewards(&group)));
                let correct = group.iter().filter(|j| j.trace.is_correct()).count();
                let is_open = group.iter().all(|j| j.trace.verdict.is_none());
                let teaches = if is_open { has_spread(&rewards(&group)) } else { 0 < correct && correct < group.len() };
                if teaches || round == settings.dynamic_sampling { batch.judged.extend(group) } else { batch.wasted.extend(group) }
            }
            if batch.judged.len() == settings.prompts_per_step * settings.num_generations {
                break;
            }
        }
        record.wasted = batch.wasted.len();
        record.without_spread = flat as f64 / f64::max(f64::from(seen), 1.0);
        record.sampled_per_second = (sampler.usage().sampled - before) as f64 / begin.elapsed().as_secs_f64();
        Ok(batch)
    }

    /// `count` groups of attempts at the next problems, in the problems' order.
    ///
    /// A problem that a step asks again (where an epoch ends, or a round of dynamic sampling begins) makes a group of its own, with attempts
    /// numbered on from those of its earlier groups: `occurrences` counts these.
    fn groups(
        &self,
        sampler: &mut LocalSampler,
        cursor: &mut Cursor,
        count: usize,
        occurrences: &mut BTreeMap<String, u32>,
    ) -> Result<Vec<Vec<Judged>>> {
        let attempts = self.settings.num_generations as u32;
        let key = self.key.name("attempts").number(cursor.step as u64).number(cursor.asked);
        let mut asked: Vec<(Arc<Problem>, u32)> = Vec::with_capacity(count);
        for i in 0..count as u64 {
            let problem = (self.problem)(cursor.asked + i)?;
            let occurrence = occurrences.entry(problem.id.0.clone()).or_default();
            asked.push((problem, *occurrence));
            *occurrence += 1;
        }
        cursor.asked += count as u64;
        let mut asks = asked.iter().flat_map(|(p, occurrence)| (0..attempts).map(move |a| (p.clone(), occurrence * attempts + a)));
        let mut finished: Vec<Judged> = Vec::with_capacity(count * attempts as usize);
        self.rollout.run(
            sampler,
            key,
            &mut || Ok(asks.next().map_or(Ask::End, |(problem, attempt)| Ask::Attempt { problem, attempt })),
            &mut |judged| {
                finished.push(judged);
                Ok(())
            },
        )?;
        let place: BTreeMap<(&str, u32), usize> = asked.iter().enumerate().map(|(i, (p, o))| ((p.id.0.as_str(), *o), i)).collect();
        let mut groups = vec![Vec::with_capacity(attempts as usize); count];
        finished.sort_by_key(|j| j.trace.attempt);
        for judged in finished {
            let group = place[&(judged.trace.problem.0.as_str(), judged.trace.attempt / attempts)];
            groups[group].push(judged);
        }
        Ok(groups)
    }

    /// Has attempts that no rule has judged paid by a model's opinion. Where no reply could be read, which is not the attempt's fault, it is paid the mean of its
    /// group: that teaches nothing.
    fn ask(&self, step: usize, groups: &mut [Vec<Judged>]) -> Result<()> {
        let open = |judged: &Judged| judged.trace.verdict.is_none();
        // The same attempt at another step is another case.
        let case = |judged: &Judged| Case { id: format!("{}@{step}", judged.trace.id), ..Case::of(&judged.trace) };
        let cases: Vec<Case> = groups.iter().flatten().filter(|judged| open(judged)).map(case).collect();
        if cases.is_empty() {
            return Ok(());
        }
        let asked = self.opinions.as_ref().context("no rule can check these problems, and no judge is there")?;
        let opinions = (asked.borrow_mut())(&cases)?;
        ensure!(opinions.len() == cases.len(), "{} opinions came on {} attempts", opinions.len(), cases.len());
        let mut opinions = opinions.into_iter();
        for group in groups {
            let (mut sum, mut paid) = (0.0, 0usize);
            for judged in group.iter_mut().filter(|judged| open(judged)) {
                let Some(opinion) = opinions.next() else { break };
                judged.trace.other.insert("judge".to_owned(), serde_json::to_value(&opinion)?);
                if let Some(score) = judge::reward(&judged.trace, &opinion) {
                    add_reward(judged, "judge", score);
                    (sum, paid) = (sum + score, paid + 1);
                }
            }
            for judged in group.iter_mut().filter(|judged| open(judged) && !judged.trace.rewards.contains_key("judge")) {
                add_reward(judged, "unread", sum / paid.max(1) as f64);
            }
        }
        Ok(())
    }

    /// Adds the length penalty to an attempt's rewards.
    fn pay(&self, judged: &mut Judged) {
        if let Some(penalty) = self.settings.overlong_penalty {
            let max = self.rollout.params.max_tokens;
            let value = crate::reward::overlong_penalty(judged.completion.tokens.len(), max, penalty.buffer, penalty.factor);
            add_reward(judged, "overlong", value);
        }
    }

    /// Takes each completion's KL to the reference, summed over its tokens, from its reward; returns the mean estimate per token.
    fn charge(&self, learner: &Learner, reference: &Decoder, batch: &mut Batch) -> Result<Option<f64>> {
        let examples = examples(batch.judged.iter());
        let temperature = self.rollout.params.temperature;
        let lp = learner.values(learner.decoder(), &examples, temperature)?.logprobs;
        let lp_ref = learner.values(reference, &examples, temperature)?.logprobs;
        let mut kl = lp.iter().zip(&lp_ref).map(|(lp, r)| self.settings.kl.estimate(f64::from(*lp), f64::from(*r)).0);
        let mut sum = 0.0;
        for judged in &mut batch.judged {
            let of_completion: f64 = kl.by_ref().take(judged.completion.tokens.len()).sum();
            add_reward(judged, "kl", -self.settings.beta * of_completion);
            sum += of_completion;
        }
        Ok((!lp.is_empty()).then(|| sum / lp.len() as f64))
    }

    /// All optimiser steps on one batch.
    fn update(&self, learner: &mut Learner, reference: Option<&Decoder>, batch: &Batch, record: &mut StepRecord) -> Result<()> {
        let begin = Instant::now();
        let settings = self.settings;
        let masked = |j: &Judged| settings.mask_truncated && j.completion.finish != FinishReason::Stop;
        let has_loss = |j: &Judged| !j.completion.tokens.is_empty() && !masked(j);
        let loss_tokens = batch.judged.iter().filter(|j| has_loss(j)).map(|j| j.completion.tokens.len()).sum();
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
        let old = match settings.num_iterations {
            0 | 1 => None,
            _ => Some(learner.values(&policy, &examples, temperature)?.logprobs),
        };
        let sampled_kl = in_loss.filter(|_| settings.kl != KlEstimator::Full);
        let reference_logprobs = sampled_kl.map(|r| learner.values(r, &examples, temperature)).transpose()?.map(|v| v.logprobs);
        let full = in_loss.filter(|_| settings.kl == KlEstimator::Full);
        let offsets: Vec<usize> = std::iter::once(0)
            .chain(examples.iter().scan(0, |sum, e| {
                *sum += e.targets();
                Some(*sum)
            }))
            .collect();
        let step = Update {
            settings,
            batch,
            chosen: &chosen,
            offsets: &offsets,
            old: old.as_deref(),
            reference: reference_logprobs.as_deref(),
            counts: Counts {
                sequences: batch.judged.len(),
                tokens: loss_tokens,
                max_tokens: self.rollout.params.max_tokens,
                micro_batches: 0,
                micro_batch_tokens: 0,
            },
        };
        let iterations = settings.num_iterations.max(1);
        let mut tally = Tally::default();
        for iteration in 0..iterations {
            tally = learner.fitting(|learner| {
                let mut tally = tally.clone();
                let micro_batches = learner.packing(&examples).0;
                learner.accumulate(&examples, temperature, full, &mut |indices, values| {
                    Ok(step.seeds(indices, &values, (iteration == 0, micro_batches), &mut tally))
                })?;
                Ok(tally)
            })?;
            record.grad_norm = Some(learner.step(record.learning_rate)?);
        }
        let n = tally.tokens as f64;
        record.entropy = Some(tally.entropy / n);
        record.kl = record.kl.or_else(|| in_loss.map(|_| tally.kl / n));
        record.loss = Some(tally.loss);
        record.mismatch_mean = Some(tally.mismatch / n);
        record.mismatch_max = Some(tally.mismatch_max);
        record.clip_low = Some(tally.clip_low as f64 / (n * iterations as f64));
        record.clip_high = Some(tally.clip_high as f64 / (n * iterations as f64));
        record.trained_per_second = Some(n * iterations as f64 / begin.elapsed().as_secs_f64());
        Ok(())
    }

    /// Entropy and mismatch of a batch in which no attempt has a loss.
    fn look(&self, learner: &Learner, batch: &Batch, record: &mut StepRecord) -> Result<()> {
        let values = learner.values(learner.decoder(), &examples(batch.judged.iter()), self.rollout.params.temperature)?;
        let sampled = batch.judged.iter().flat_map(|j| &j.completion.logprobs);
        let differences: Vec<f64> = values.logprobs.iter().zip(sampled).map(|(a, b)| f64::from(a - b).abs()).collect();
        let n = differences.len() as f64;
        if !differences.is_empty() {
            record.entropy = Some(values.entropy.iter().map(|e| f64::from(*e)).sum::<f64>() / n);
            record.mismatch_mean = Some(differences.iter().sum::<f64>() / n);
            record.mismatch_max = differences.into_iter().reduce(f64::max);
        }
        Ok(())
    }
}

/// Sums over the tokens of a step's updates.
#[derive(Clone, Default)]
struct Tally {
    /// Of the first update.
    tokens: usize,
    entropy: f64,
    kl: f64,
    loss: f64,
    mismatch: f64,
    mismatch_max: f64,
    clip_low: usize,
    clip_high: usize,
}

/// What the loss of one batch is made of.
struct Update<'a> {
    settings: &'a GrpoSettings,
    batch: &'a Batch,
    /// Attempts that are computed.
    chosen: &'a [usize],
    /// Where the tokens of each chosen attempt start in `old` and `reference`.
    offsets: &'a [usize],
    old: Option<&'a [f32]>,
    reference: Option<&'a [f32]>,
    counts: Counts,
}

impl Update<'_> {
    /// Derivatives of the loss for the micro-batch of the chosen attempts at `indices`, one of `micro_batches`; the first update's numbers go into `tally`.
    fn seeds(&self, indices: &[usize], values: &Values, (first, micro_batches): (bool, usize), tally: &mut Tally) -> Seeds {
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
                    None => (f64::from(values.kl[i]), 0.0),
                };
                d_logprob[i] = (weight * (settings.beta * kl_slope - slope)) as f32;
                if full {
                    d_kl[i] = (weight * settings.beta) as f32;
                }
                tally.clip_low += usize::from(clipped == Some(Clipped::Low));
                tally.clip_high += usize::from(clipped == Some(Clipped::High));
                if first {
                    let difference = (lp - f64::from(attempt.completion.logprobs[position])).abs();
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
        Seeds { logprobs: d_logprob, entropy: None, kl: full.then_some(d_kl) }
    }
}

/// Training rows of the attempts that have a token.
fn examples<'a>(judged: impl Iterator<Item = &'a Judged>) -> Vec<Example> {
    let present = judged.filter(|j| !j.completion.tokens.is_empty());
    present.map(|j| Example { tokens: [&j.prompt[..], &j.completion.tokens].concat(), completion: j.prompt.len() }).collect()
}

fn rewards(group: &[Judged]) -> Vec<f64> {
    group.iter().map(|j| j.trace.reward()).collect()
}

/// Adds a part to an attempt's rewards and to their total.
fn add_reward(judged: &mut Judged, part: &str, value: f64) {
    let total = judged.trace.reward() + value;
    judged.trace.rewards.insert(part.into(), value.into());
    judged.trace.rewards.insert("total".into(), total.into());
}

/// Fills in what the attempts of a step are like, the wasted ones included.
fn describe(batch: &Batch, record: &mut StepRecord) {
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

#[cfg(test)]
mod tests;
