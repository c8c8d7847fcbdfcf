//! One step off policy: the next step's attempts are sampled while an update is computed, from a copy of the policy before it.
//!
//! Source: Noukhovitch et al. (2024), and verl's recipe of this name. Draws are keyed and the copy is made before the first weight changes, so who is faster changes
//! nothing. What was sampled ahead is in the state, for the policy that sampled it is gone by then.

use super::record::StepRecord;
use super::{Batch, Cursor, Grpo, Observer, rewards};
use crate::model::Decoder;
use crate::rollout::Judged;
use crate::sampler::{LocalSampler, Sampler};
use crate::train::advantage::has_spread;
use crate::train::groups::groups;
use crate::train::learner::Learner;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Groups that were sampled, judged and paid for the next step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ahead {
    judged: Vec<Judged>,
    sampled_per_second: f64,
}

impl Ahead {
    /// The batch of the step that they were sampled for.
    pub(super) fn batch(self, group: usize, record: &mut StepRecord) -> Batch {
        let flat = self.judged.chunks(group).filter(|group| !has_spread(&rewards(group))).count();
        record.without_spread = flat as f64 / (self.judged.len() / group).max(1) as f64;
        record.sampled_per_second = self.sampled_per_second;
        Batch { judged: self.judged, is_behind: true, ..Batch::default() }
    }
}

impl Grpo<'_> {
    /// Learns from a step's attempts, and samples those of the next one meanwhile.
    pub(super) fn learn_and_sample(
        &self,
        learner: &mut Learner,
        sampler: &mut LocalSampler,
        reference: Option<&Decoder>,
        batch: &mut Batch,
        (cursor, record): (&mut Cursor, &mut StepRecord),
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let next = cursor.step + 1;
        let (count, attempts) = (self.settings.prompts_per_step, self.settings.num_generations as u32);
        let key = self.key.name("attempts").number(next as u64).number(cursor.asked);
        let problems = (cursor.asked..).take(count).map(|n| (self.problem)(n)).collect::<Result<_>>()?;
        let rollout = self.rollout_at(next);
        sampler.fix(learner.decoder())?;
        let mut sampled = None;
        // Not on a thread of its own: this is one of the pool's, and while it waited for another it would do nothing of what that one waits for.
        let learnt = rayon::in_place_scope(|scope| {
            scope.spawn(|_| {
                let (begin, before) = (Instant::now(), sampler.usage().sampled);
                let groups = groups(&rollout, sampler, key, problems, attempts, &mut Default::default());
                sampled = Some((groups, (sampler.usage().sampled - before) as f64 / begin.elapsed().as_secs_f64()));
            });
            self.learn(learner, reference, batch, record, observer)
        });
        learnt?;
        let (groups, sampled_per_second) = sampled.context("the scope ends when all in it has ended")?;
        let mut groups = groups?;
        self.ask(next, &mut groups)?;
        groups.iter_mut().flatten().for_each(|judged| self.pay(next, judged));
        cursor.asked += count as u64;
        cursor.ahead = Some(Ahead { judged: groups.into_iter().flatten().collect(), sampled_per_second });
        Ok(())
    }
}
