//! Supervised fine-tuning on completions.
//!
//! Differs from the textbook in this: rows are packed without padding, only completion tokens are in the loss (the end token among them), and
//! the loss is the mean over the tokens of the whole batch, however it is cut into micro-batches.

use super::learner::{Example, Learner, Seeds};
use super::optimizer::{AdamWSettings, Optim};
use super::schedule::{Decay, Schedule};
use super::state::State;
use crate::key::Key;
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::time::Instant;

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
}

impl SftSettings {
    /// Optimiser steps for so many examples.
    pub fn steps_for(&self, examples: usize) -> usize {
        if self.steps > 0 { self.steps } else { (self.epochs * examples as f64 / self.batch_size as f64).ceil() as usize }
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

/// What is to be resumed: the next step.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Cursor {
    step: usize,
}

/// One line of an SFT phase's `metrics.jsonl`.
#[derive(Clone, Debug, Serialize)]
pub struct SftRecord {
    /// From 0.
    pub step: usize,
    /// Mean negative log-probability of the batch's target tokens, in nats.
    pub loss: f64,
    pub learning_rate: f64,
    /// Before clipping.
    pub grad_norm: f64,
    /// Target tokens of the batch.
    pub tokens: usize,
    pub tokens_per_second: f64,
}

/// An SFT phase over fixed examples.
pub struct Sft<'a> {
    pub settings: &'a SftSettings,
    pub examples: &'a [Example],
    /// Orders the epochs.
    pub key: Key,
    pub state: &'a State,
    /// Steps between two states on disk.
    pub save_steps: usize,
}

impl Sft<'_> {
    /// Trains from the saved state, if there is one, to the last step.
    ///
    /// `record` gets each step's metrics and may break off, which saves the state first; `Ok(false)` says that this happened.
    pub fn run(&self, learner: &mut Learner, record: &mut dyn FnMut(&SftRecord) -> Result<ControlFlow<()>>) -> Result<bool> {
        ensure!(!self.examples.is_empty(), "there is nothing to train on: no examples");
        let steps = self.settings.steps_for(self.examples.len());
        let schedule = self.settings.schedule_for(steps);
        let first = self.resume_step()?;
        self.state.restore::<Cursor>(learner.optimizer_mut())?;
        learner.drop_under(self.key.name("dropout"));
        let mut order = Order::new(self.key, self.examples.len());
        for step in first..steps {
            let start = Instant::now();
            let batch: Vec<Example> =
                (0..self.settings.batch_size).map(|i| self.examples[order.at(step * self.settings.batch_size + i)].clone()).collect();
            let tokens: usize = batch.iter().map(Example::targets).sum();
            let mut loss = 0.0;
            learner.accumulate(&batch, 1.0, None, &mut |_, values| {
                loss -= values.logprobs.iter().map(|lp| f64::from(*lp)).sum::<f64>();
                Ok(Seeds { logprobs: vec![-1.0 / tokens as f32; values.logprobs.len()], entropy: None, kl: None })
            })?;
            let learning_rate = schedule.rate(step);
            let grad_norm = learner.step(learning_rate)?;
            let seconds = start.elapsed().as_secs_f64();
            let tokens_per_second = tokens as f64 / seconds;
            let flow = record(&SftRecord { step, loss: loss / tokens as f64, learning_rate, grad_norm, tokens, tokens_per_second })?;
            let next = step + 1;
            let stop = flow.is_break() && next < steps;
            if stop || next.is_multiple_of(self.save_steps) && next < steps {
                self.state.save(learner.optimizer(), &[], &Cursor { step: next })?;
            }
            if stop {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The step at which `run` would go on; an error where the phase has no such step.
    pub fn resume_step(&self) -> Result<usize> {
        let step = self.state.cursor::<Cursor>()?.map_or(0, |c| c.step);
        self.state.check_step(step, self.settings.steps_for(self.examples.len()))?;
        Ok(step)
    }
}

/// Epoch after epoch, each in an order of its own, by random access.
struct Order {
    key: Key,
    epoch: Option<u64>,
    indices: Vec<usize>,
}

impl Order {
    fn new(key: Key, len: usize) -> Self {
        Self { key, epoch: None, indices: (0..len).collect() }
    }

    fn at(&mut self, i: usize) -> usize {
        let len = self.indices.len();
        let epoch = (i / len) as u64;
        if self.epoch != Some(epoch) {
            self.indices = (0..len).collect();
            self.key.name("epoch").number(epoch).stream().shuffle(&mut self.indices);
            self.epoch = Some(epoch);
        }
        self.indices[i % len]
    }
}
