//! Knowledge distillation: the student's distribution moves to its teacher's, token by token, on rows of a corpus, on the student's own attempts, or on some of each.
//!
//! Sources: Hinton et al. (2015), which learns a teacher's distribution over its own text; GKD (Agarwal et al., 2024) with its mixture of both texts and its
//! divergences. Differs from TRL's `GKDTrainer` in that a fixed share of each batch is sampled, where a coin decides there for a whole batch, and that the mean is over
//! all tokens of the batch. The teacher is run beside the student: nothing of it is stored. No gradient goes through what was sampled, as in both.

use super::groups::{Problems, examples, groups};
use super::learner::Example;
use super::sft::SftLoss;
use crate::key::Key;
use crate::model::{Against, Decoder, Divergence};
use crate::rollout::{Judged, Rollout};
use crate::sampler::LocalSampler;
use crate::trace::FinishReason;
use anyhow::Result;
use serde::Serialize;
use std::cell::RefCell;
use std::time::Instant;

/// What distillation adds to the settings of supervised fine-tuning; names as in TRL.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct KdSettings {
    /// 0: KL(teacher || student), 1: KL(student || teacher), between: the generalised Jensen-Shannon divergence.
    pub beta: f64,
    /// Share of the sequences that are the student's own attempts.
    pub lmbda: f64,
    /// Both distributions are taken at it, and attempts are sampled at it. The loss is not multiplied by its square.
    pub temperature: f32,
}

impl KdSettings {
    /// How many sequences of the first `steps` steps, of `batch_size` each, are own attempts.
    pub fn own_before(&self, steps: usize, batch_size: usize) -> usize {
        // The sum is that of all steps, so that no share is lost to rounding.
        (self.lmbda * (steps * batch_size) as f64 + 1e-9) as usize
    }
}

/// A phase's teacher, and where own attempts come from.
pub struct Kd<'a> {
    pub settings: &'a KdSettings,
    /// Gives ids the student's meaning.
    pub teacher: Decoder,
    /// There where the share of own attempts is not 0.
    pub own: Option<Own<'a>>,
}

/// How the student answers problems itself; its prompt is all that the teacher is told too.
pub struct Own<'a> {
    pub rollout: &'a Rollout,
    pub problem: &'a Problems<'a>,
    pub key: Key,
    /// Shares its memory with the learner's decoder.
    pub sampler: RefCell<LocalSampler>,
}

impl Kd<'_> {
    pub(super) fn loss(&self) -> Loss<'_> {
        Loss::Teacher { against: self.against(), temperature: self.settings.temperature }
    }

    pub(super) fn against(&self) -> Against<'_> {
        Against { model: &self.teacher, divergence: Divergence::of_beta(self.settings.beta) }
    }

    /// Training rows of attempts, fewer than those where some teach nothing, even none. One without a token teaches nothing, and one ends before an id that the teacher has no row for, which stands for no token.
    pub(super) fn rows(&self, attempts: &[Judged]) -> Vec<Example> {
        known(examples(attempts.iter()), self.teacher.config().vocab_size)
    }
}

impl Own<'_> {
    /// Attempts `numbers` of the phase, sampled at a step.
    pub(super) fn attempts(&self, step: usize, numbers: std::ops::Range<usize>) -> Result<(Vec<Judged>, OwnRecord)> {
        let begin = Instant::now();
        let problems = numbers.map(|n| (self.problem)(n as u64)).collect::<Result<_>>()?;
        let sampler = &mut self.sampler.borrow_mut();
        let attempts = groups(self.rollout, sampler, self.key.number(step as u64), problems, 1, &mut Default::default())?;
        let attempts: Vec<Judged> = attempts.into_iter().flatten().collect();
        let record = OwnRecord::of(&attempts, begin.elapsed().as_secs_f64());
        Ok((attempts, record))
    }

    /// As long as an attempt can be, with its prompt.
    pub(super) fn longest(&self) -> Example {
        Example { tokens: vec![0; self.sampler.borrow().capacity()], completion: 1 }
    }
}

/// Rows that end before the first of their targets that is none of the first `ids`; those that are left without a target go.
fn known(mut rows: Vec<Example>, ids: usize) -> Vec<Example> {
    for row in &mut rows {
        let unknown = row.tokens[row.completion..].iter().position(|id| *id as usize >= ids);
        row.tokens.truncate(unknown.map_or(row.tokens.len(), |place| row.completion + place));
    }
    rows.retain(|row| row.targets() > 0);
    rows
}

/// What a step's own attempts are like.
#[derive(Clone, Debug, Serialize)]
pub struct OwnRecord {
    pub attempts: usize,
    /// Share of correct ones among those that rules have judged; `None` where there are none.
    pub accuracy: Option<f64>,
    /// Mean tokens.
    pub length: f64,
    /// Share that did not end by themselves.
    pub truncated: f64,
    pub sampled_per_second: f64,
}

impl OwnRecord {
    fn of(attempts: &[Judged], seconds: f64) -> Self {
        let n = attempts.len().max(1) as f64;
        let count = |f: &dyn Fn(&Judged) -> bool| attempts.iter().filter(|judged| f(judged)).count() as f64;
        let tokens = attempts.iter().map(|judged| judged.completion.tokens.len()).sum::<usize>() as f64;
        let ruled = count(&|judged| judged.trace.verdict.is_some());
        Self {
            attempts: attempts.len(),
            accuracy: (ruled > 0.0).then(|| count(&|judged| judged.trace.is_correct()) / ruled),
            length: tokens / n,
            truncated: count(&|judged| judged.completion.finish != FinishReason::Stop) / n,
            sampled_per_second: tokens / seconds,
        }
    }
}

/// What a step descends on: the mean of it over the batch's target tokens.
#[derive(Clone, Copy)]
pub enum Loss<'a> {
    /// Of the text alone.
    Text(SftLoss),
    /// The divergence from a teacher's distribution, both taken at a temperature.
    Teacher { against: Against<'a>, temperature: f32 },
}

impl From<SftLoss> for Loss<'_> {
    fn from(loss: SftLoss) -> Self {
        Self::Text(loss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_ends_before_an_id_that_the_teacher_has_not() {
        let rows = [&[1, 2, 9, 10, 3][..], &[1, 2, 10], &[1, 11, 9]].map(|tokens| Example { tokens: tokens.to_vec(), completion: 2 });
        let left: Vec<Vec<u32>> = known(rows.to_vec(), 10).into_iter().map(|row| row.tokens).collect();
        assert_eq!(left, [vec![1, 2, 9], vec![1, 11, 9]], "the second would have no target, and of the third's prompt nothing is learnt");
    }

    #[test]
    fn the_share_of_own_attempts_is_kept_over_the_steps() {
        let of = |lmbda: f64, batch: usize, steps: usize| {
            let settings = KdSettings { beta: 0.0, lmbda, temperature: 1.0 };
            let before: Vec<usize> = (0..=steps).map(|step| settings.own_before(step, batch)).collect();
            before.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<usize>>()
        };
        assert_eq!(of(0.0, 8, 3), [0, 0, 0]);
        assert_eq!(of(1.0, 8, 3), [8, 8, 8]);
        assert_eq!(of(0.3, 4, 5), [1, 1, 1, 1, 2]);
        assert_eq!(of(0.29, 100, 2), [29, 29], "what f64 makes of 29 is just below it");
    }
}
