//! Supervised fine-tuning on completions; with a teacher beside it (`kd.rs`), distillation.
//!
//! Differs from the textbook in this: sequences are packed without padding, only completion tokens are in the loss (the end token among them), and
//! the loss is the mean over the tokens of the whole batch, however it is cut into micro-batches.

use super::finite::Broken;
use super::kd::{Kd, KdSettings, Loss, Own, OwnRecord};
use super::learner::{Example, Learner, Seeds};
use super::mixture::{Order, Part, epoch_rows};
use super::optimizer::{AdamWSettings, Optim};
use super::schedule::{Decay, Schedule};
use super::state::State;
use crate::key::Key;
use crate::rollout::Judged;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::time::Instant;

/// What is taken the mean of over target tokens of probability p; names as in TRL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SftLoss {
    /// -ln p.
    #[default]
    Nll,
    /// -p ln p with the first p a constant: dynamic fine-tuning (Wu et al., 2025), which leaves alone what the model finds unlikely.
    Dft,
}

impl SftLoss {
    /// For serde: what was the only way says nothing.
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Value and derivative by ln p.
    fn of(self, logprob: f32) -> (f64, f64) {
        let logprob = f64::from(logprob);
        match self {
            Self::Nll => (-logprob, -1.0),
            Self::Dft => (-logprob.exp() * logprob, -logprob.exp()),
        }
    }
}

/// Settings of an SFT phase.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SftSettings {
    /// Optimiser steps; where 0, `epochs` decides.
    pub steps: usize,
    pub epochs: f64,
    /// Sequences per optimiser step.
    pub batch_size: usize,
    pub learning_rate: f64,
    pub schedule: Decay,
    /// Share of the steps that the rate rises.
    pub warmup_ratio: f64,
    pub adam_beta1: f64,
    pub adam_beta2: f64,
    pub weight_decay: f64,
    pub max_grad_norm: f64,
    #[serde(skip_serializing_if = "Optim::is_default")]
    pub optim: Optim,
    #[serde(skip_serializing_if = "SftLoss::is_default")]
    pub loss_type: SftLoss,
    /// Of NEFTune.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neftune_noise_alpha: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out: Option<HeldOut>,
    /// Of distillation, whose loss takes the place of `loss_type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kd: Option<KdSettings>,
}

/// Examples that are not trained on, to measure the loss on as training goes on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldOut {
    /// Share of the problems, drawn by the hash of their ids, so that all attempts at a problem stand on one side.
    pub share: f64,
    /// Optimiser steps between two measurements; the last step is measured too.
    #[serde(default = "HeldOut::every_100_steps")]
    pub eval_steps: usize,
    /// Whether the phase ends with the model whose loss was the lowest, in place of the last.
    #[serde(default)]
    pub load_best: bool,
}

impl HeldOut {
    fn every_100_steps() -> usize {
        100
    }
}

impl SftSettings {
    /// Optimiser steps, where an epoch takes so many examples. Without `steps` a share of own attempts below 1 is taken for granted: epochs are of examples.
    pub fn steps_for(&self, examples: usize) -> usize {
        let rows = self.batch_size as f64 * (1.0 - self.kd.map_or(0.0, |kd| kd.lmbda));
        // What 1 less a share is just off by must not make another step.
        if self.steps > 0 { self.steps } else { (self.epochs * examples as f64 / rows - 1e-9).ceil() as usize }
    }

    /// How many sequences of the first `steps` steps are own attempts; all others are examples.
    fn own_before(&self, steps: usize) -> usize {
        self.kd.map_or(0, |kd| kd.own_before(steps, self.batch_size))
    }

    /// Whether a step, the first being 0, has own attempts.
    pub fn samples_at(&self, step: usize) -> bool {
        self.own_before(step + 1) > self.own_before(step)
    }

    pub fn optimizer(&self) -> AdamWSettings {
        AdamWSettings {
            betas: (self.adam_beta1, self.adam_beta2),
            eps: 1e-8,
            weight_decay: self.weight_decay,
            max_grad_norm: self.max_grad_norm,
            optim: self.optim,
        }
    }

    fn schedule_for(&self, steps: usize) -> Schedule {
        let warmup_steps = (self.warmup_ratio * steps as f64).ceil() as usize;
        Schedule { peak: self.learning_rate, warmup_steps, steps, decay: self.schedule, floor: 0.1 }
    }
}

/// What is to be resumed: the next step, and the best model so far.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Cursor {
    step: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    best: Option<Best>,
}

/// The lowest loss on held-out examples, and the number of optimiser steps before it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    pub steps: usize,
    pub loss: f64,
}

/// One line of an SFT phase's `metrics.jsonl`.
#[derive(Clone, Debug, Serialize)]
pub struct SftRecord {
    /// From 0.
    pub step: usize,
    /// Mean over the batch's target tokens of what `loss_type` says, or of the divergence from the teacher, in nats.
    pub loss: f64,
    pub learning_rate: f64,
    /// Before clipping.
    pub grad_norm: f64,
    /// Target tokens of the batch.
    pub tokens: usize,
    pub tokens_per_second: f64,
    /// Into which the batch was packed.
    pub micro_batches: usize,
    /// Share of the room of all micro-batches that tokens took; the rest was not computed.
    pub filled: f64,
    /// After the step: mean negative log-probability of the target tokens of held-out examples, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_loss: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own: Option<OwnRecord>,
}

/// The caller's two ends: metrics of each step, and models that are the best so far.
pub trait SftObserver {
    /// May break off, which saves the state first.
    fn record(&mut self, record: &SftRecord) -> Result<ControlFlow<()>>;
    fn best(&mut self, learner: &Learner, best: Best) -> Result<()>;

    /// Own attempts at a step, before what is learnt from them.
    fn attempts(&mut self, _step: usize, _attempts: &[Judged]) -> Result<()> {
        Ok(())
    }

    /// The longest micro-batch, of so many tokens, was tried before the first step.
    fn rehearsed(&mut self, _learner: &Learner, _tokens: usize) {}

    /// After each step, when `steps` are done and before the state that may be due is saved: what is made here is made again where a kill comes in between.
    fn after(&mut self, _learner: &Learner, _steps: usize) -> Result<()> {
        Ok(())
    }

    /// Before a state is saved out of turn: what was recorded has to be on the device first.
    fn sync(&mut self) -> Result<()> {
        Ok(())
    }
}

/// An SFT phase over fixed examples, or a phase of distillation over examples, own attempts, or both.
pub struct Sft<'a> {
    pub settings: &'a SftSettings,
    /// Those of all parts, end to end.
    pub examples: &'a [Example],
    /// How many of `examples` are of which corpus, and how often each is gone through.
    pub parts: &'a [Part],
    /// Not trained on; empty without `settings.held_out`.
    pub held_out: &'a [Example],
    /// Orders the epochs.
    pub key: Key,
    pub state: &'a State,
    /// Steps between two states on disk.
    pub save_steps: usize,
    /// With the settings' `kd`.
    pub kd: Option<Kd<'a>>,
}

impl Sft<'_> {
    /// Trains from the saved state, if there is one, to the last step.
    pub fn run(&self, learner: &mut Learner, observer: &mut dyn SftObserver) -> Result<Run> {
        let samples_all = self.settings.kd.is_some_and(|kd| kd.lmbda == 1.0);
        ensure!(!self.examples.is_empty() || samples_all, "there is nothing to train on: no examples");
        ensure!(self.settings.kd.is_some() == self.kd.is_some(), "a teacher comes with settings of distillation, and they with it");
        let parts: usize = self.parts.iter().map(|part| part.rows).sum();
        ensure!(parts == self.examples.len(), "parts of {parts} rows for {} examples", self.examples.len());
        let steps = self.steps();
        let schedule = self.settings.schedule_for(steps);
        let first = self.resume_step()?;
        let mut best = self.state.restore::<Cursor>(learner.optimizer_mut())?.and_then(|(cursor, _)| cursor.best);
        learner.perturb(self.settings.neftune_noise_alpha.unwrap_or(0.0), self.key.name("noise"));
        if first < steps && !learner.decoder().config().is_small() {
            let tokens = self.rehearse(learner).context("the longest micro-batch, tried before the first step")?;
            observer.rehearsed(learner, tokens);
        }
        let mut order = Order::new(self.key, self.parts);
        for step in first..steps {
            let next = step + 1;
            let (own_before, own_after) = (self.settings.own_before(step), self.settings.own_before(next));
            let rows = step * self.settings.batch_size - own_before..next * self.settings.batch_size - own_after;
            let mut batch: Vec<Example> = rows.map(|i| self.examples[order.at(i)].clone()).collect();
            let mut own = None;
            let sampling = self.kd.as_ref().filter(|_| own_after > own_before);
            if let Some((kd, from)) = sampling.and_then(|kd| Some((kd, kd.own.as_ref()?))) {
                let (attempts, record) = from.attempts(step, own_before..own_after)?;
                observer.attempts(step, &attempts)?;
                batch.extend(kd.rows(&attempts));
                own = Some(record);
            }
            let loss = self.kd.as_ref().map_or(Loss::Text(self.settings.loss_type), Kd::loss);
            let taken = sft_step(learner, &batch, loss, schedule.rate(step)).map_err(|error| {
                Broken::of(
                    error,
                    step,
                    || in_words(&batch),
                    || {
                        observer.sync()?;
                        self.state.save(learner.optimizer(), &[], &Cursor { step, best })
                    },
                )
            });
            let mut record = SftRecord { step, own, ..taken? };
            if self.is_measured_after(next, steps) {
                let loss = mean_loss(learner, self.held_out)?;
                record.eval_loss = Some(loss);
                if loss.is_finite() && best.is_none_or(|best| loss < best.loss) {
                    best = Some(Best { steps: next, loss });
                    observer.best(learner, Best { steps: next, loss })?;
                }
            }
            let flow = observer.record(&record)?;
            let stop = flow.is_break() && next < steps;
            observer.after(learner, next)?;
            if stop || next.is_multiple_of(self.save_steps) && next < steps {
                self.state.save(learner.optimizer(), &[], &Cursor { step: next, best })?;
            }
            if stop {
                return Ok(Run::Stopped);
            }
        }
        Ok(Run::Complete { best })
    }

    /// The longest micro-batch that the phase can have; its tokens.
    fn rehearse(&self, learner: &mut Learner) -> Result<usize> {
        let against = self.kd.as_ref().map(Kd::against);
        let longest = self.examples.iter().map(|example| example.tokens.len()).max().unwrap_or(0);
        match self.kd.as_ref().and_then(|kd| kd.own.as_ref()).map(Own::longest).filter(|own| own.tokens.len() > longest) {
            Some(own) => {
                let copies = (learner.micro_batch_tokens() / own.tokens.len()).clamp(1, self.settings.batch_size);
                learner.rehearse(&vec![own; copies], against)
            }
            None => learner.rehearse(self.examples, against),
        }
    }

    fn is_measured_after(&self, done: usize, steps: usize) -> bool {
        let every = self.settings.held_out.map_or(0, |held_out| held_out.eval_steps);
        !self.held_out.is_empty() && (done == steps || every > 0 && done.is_multiple_of(every))
    }

    /// The step at which `run` would go on; an error where the phase has no such step.
    pub fn resume_step(&self) -> Result<usize> {
        let step = self.state.cursor::<Cursor>()?.map_or(0, |c| c.step);
        self.state.check_step(step, self.steps())?;
        Ok(step)
    }

    /// Optimiser steps of the phase.
    pub fn steps(&self) -> usize {
        self.settings.steps_for(epoch_rows(self.parts))
    }
}

/// How a phase ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Run {
    /// With the best model on held-out examples, where there are some.
    Complete { best: Option<Best> },
    /// The observer broke off, and the state was saved.
    Stopped,
}

fn in_words(batch: &[Example]) -> String {
    format!("a batch of {} sequences with {} target tokens", batch.len(), batch.iter().map(Example::targets).sum::<usize>())
}

/// Mean negative log-probability of the target tokens of some examples, in nats.
fn mean_loss(learner: &Learner, examples: &[Example]) -> Result<f64> {
    let logprobs = learner.values(learner.decoder(), examples, 1.0)?.logprobs;
    Ok(-logprobs.iter().map(|lp| f64::from(*lp)).sum::<f64>() / logprobs.len().max(1) as f64)
}

/// One optimiser step on a batch; the record's step is 0.
pub fn sft_step<'a>(learner: &mut Learner, batch: &[Example], loss: impl Into<Loss<'a>>, learning_rate: f64) -> Result<SftRecord> {
    let (start, loss_of) = (Instant::now(), loss.into());
    let tokens: usize = batch.iter().map(Example::targets).sum();
    // Of a batch without a target nothing is learnt, and its loss is 0.
    let n = tokens.max(1) as f64;
    let loss = learner.fitting(|learner| {
        let mut loss = 0.0;
        match loss_of {
            Loss::Text(of) => learner.accumulate(batch, 1.0, None, &mut |_, values| {
                let mut slope = |logprob: &f32| {
                    let (value, slope) = of.of(*logprob);
                    loss += value;
                    (slope / n) as f32
                };
                Ok(Seeds { logprobs: values.logprobs.iter().map(&mut slope).collect(), entropy: None, divergence: None })
            })?,
            Loss::Teacher { against, temperature } => learner.accumulate(batch, temperature, Some(against), &mut |_, values| {
                let targets = values.divergence.len();
                loss += values.divergence.into_iter().map(f64::from).sum::<f64>();
                Ok(Seeds { logprobs: vec![0.0; targets], entropy: None, divergence: Some(vec![(1.0 / n) as f32; targets]) })
            })?,
        }
        Ok(loss / n)
    })?;
    let (micro_batches, filled) = learner.packing(batch);
    let grad_norm = learner.step(learning_rate)?;
    let tokens_per_second = tokens as f64 / start.elapsed().as_secs_f64();
    Ok(SftRecord { step: 0, loss, learning_rate, grad_norm, tokens, tokens_per_second, micro_batches, filled, eval_loss: None, own: None })
}
