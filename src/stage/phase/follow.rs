//! What an SFT phase, or one of distillation, leaves on the disk as it goes on.

use super::checkpoints::Checkpoints;
use super::rollouts::Rollouts;
use super::watch::Watch;
use super::{BEST, Job};
use crate::model::Precision;
use crate::model::text::Text;
use crate::rollout::Judged;
use crate::train::{Best, Learner, SftObserver, SftRecord};
use anyhow::Result;
use std::ops::ControlFlow;

/// Writes down what an SFT phase does as it does it.
pub(super) struct Follow<'a> {
    pub job: &'a Job<'a>,
    pub text: &'a Text,
    pub watch: Watch<'a>,
    /// Of the best model.
    pub precision: Precision,
    pub checkpoints: Checkpoints<'a>,
    /// Of own attempts, where there are some.
    pub rollouts: Option<Rollouts>,
}

impl SftObserver for Follow<'_> {
    fn record(&mut self, record: &SftRecord) -> Result<ControlFlow<()>> {
        self.watch.metrics.append(record)?;
        self.watch.bar.set_message(format!("loss {:.3}  {:.0} tokens/s", record.loss, record.tokens_per_second));
        self.watch.after(record.step)
    }

    fn attempts(&mut self, step: usize, attempts: &[Judged]) -> Result<()> {
        self.rollouts.as_mut().map_or(Ok(()), |rollouts| rollouts.append(step, attempts.iter().map(|judged| (judged, None))))
    }

    fn rehearsed(&mut self, learner: &Learner, tokens: usize) {
        self.job.rehearsed(learner, tokens);
    }

    fn best(&mut self, learner: &Learner, _: Best) -> Result<()> {
        self.job.keep(learner, self.text, &self.job.run.folder(&self.job.stage).join(BEST), self.precision)
    }

    fn after(&mut self, learner: &Learner, steps: usize) -> Result<()> {
        self.checkpoints.after(learner, steps)
    }

    fn sync(&mut self) -> Result<()> {
        self.watch.sync()
    }
}
