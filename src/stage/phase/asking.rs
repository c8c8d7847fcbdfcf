//! The problems of a phase that asks its model for attempts, and how they are asked.

use super::super::cache;
use super::super::collect::capacity;
use super::super::problems::ProblemSet;
use super::super::rules::rules;
use super::Job;
use crate::model::text::Text;
use crate::problem::Problem;
use crate::reward::RewardPreset;
use crate::rollout::{PromptStyle, Rollout};
use crate::sampler::{LocalSampler, SamplingParams};
use crate::train::Learner;
use anyhow::Result;
use std::sync::Arc;

/// What a phase asks.
pub(super) struct Asking {
    pub problems: ProblemSet,
    /// All of a file, or as many as lengths are judged by.
    pub seen: Vec<Arc<Problem>>,
    pub rollout: Rollout,
    /// Tokens of a prompt and an attempt at most.
    pub room: usize,
}

impl Asking {
    pub fn open(
        job: &Job,
        text: &Arc<Text>,
        positions: usize,
        (prompt, params, reward): (PromptStyle, SamplingParams, RewardPreset),
    ) -> Result<Self> {
        let problems = ProblemSet::training(job.run, &job.stage)?;
        let rollout = Rollout { text: Some(text.clone()), prompt, params, verifier: rules(job.run)?, reward };
        let seen = problems.len().map_or_else(|| problems.first(256, ""), |_| problems.first(0, ""))?;
        let slack = if problems.len().is_some() { 0 } else { 32 };
        rollout.verifier.ready(seen.iter().map(|problem| &**problem))?;
        let room = (capacity(&rollout, &seen, positions)? + slack).min(positions);
        Ok(Self { problems, seen, rollout, room })
    }

    /// A sampler of the model that is trained, with its weights as they are at each step.
    pub fn sampler(&self, job: &Job, learner: &Learner, text: &Arc<Text>) -> Result<LocalSampler> {
        let execution = &job.run.recipe.execution;
        let sampler = LocalSampler::new(learner.decoder(), text.clone(), execution.slots, self.room)?;
        cache::sized(sampler, execution, learner.decoder().config())
    }
}
