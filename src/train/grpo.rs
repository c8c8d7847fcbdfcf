//! GRPO: groups of attempts at each problem, advantages inside the group, a clipped surrogate, no critic.
//!
//! Differs from "DeepSeekMath" in what its successors found: the KL term is optional and off where `beta` is 0, groups without spread are
//! not computed (they still count in the denominators), and the loss can be aggregated as DAPO or Dr. GRPO do. One update per batch needs no old
//! log-probabilities: the ratio is 1 by definition. With several, the trainer computes the old ones itself before the first; the sampler's serve
//! to measure how far the two disagree, and are the old ones only of what was sampled ahead (`ahead.rs`), whose policy is gone.

mod ahead;
mod collapse;
mod ladder;
mod record;
mod update;

pub use collapse::{Collapse, Collapsed, Window};
pub use ladder::Rung;
pub use record::StepRecord;

use super::advantage::{Advantage, has_spread};
use super::finite::{self, Broken};
use super::groups::{Problems, examples, groups};
use super::learner::Learner;
use super::objective::{Clip, KlEstimator, KlPlacement, LossType};
use super::optimizer::{AdamWSettings, Optim};
use super::schedule::{Decay, Schedule};
use super::state::State;
use crate::judge::{self, Case, Opinion};
use crate::key::Key;
use crate::model::Decoder;
use crate::rollout::{Judged, Rollout};
use crate::sampler::{LocalSampler, Sampler, SamplingParams};
use ahead::Ahead;
use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use collapse::Rewards;
use record::describe;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
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
    /// Times that each batch of attempts is gone through.
    pub num_iterations: usize,
    /// Parts of whole groups that each time is cut into, with an optimiser step on each; the denominators of the loss are those of the part.
    #[serde(skip_serializing_if = "is_one")]
    pub steps_per_generation: usize,
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
    /// The attempts of the next step are sampled while this step's update is computed: from the policy before it, whose log-probabilities are the old ones of their
    /// ratio. Off, sampling and training take turns.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub one_step_off_policy: bool,
    /// Groups of which all attempts are right, or none is, are replaced by groups of new problems, in at most so many further rounds ("DAPO"); 0 keeps them.
    pub dynamic_sampling: usize,
    /// Attempts that did not end by themselves have no loss.
    pub mask_truncated: bool,
    pub overlong_penalty: Option<OverlongPenalty>,
    /// The first steps sample fewer tokens, rung by rung.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub context_ladder: Vec<Rung>,
    /// When the phase is given up. No part of what it makes, and so not written among a stage's inputs: a run may go on under another rule.
    #[serde(skip)]
    pub collapse: Option<Collapse>,
}

/// For serde: what was the only way says nothing.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_one(n: &usize) -> bool {
    *n == 1
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

/// What is to be resumed: the next step, how many problems have been asked, and what the rule for a collapse has to remember.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Cursor {
    step: usize,
    asked: u64,
    /// The attempts of the next step, where they were sampled ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ahead: Option<Ahead>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rewards: Option<Rewards>,
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
    /// Whether it was sampled from the policy before the last update.
    pub is_behind: bool,
}

/// A GRPO phase.
pub struct Grpo<'a> {
    pub settings: &'a GrpoSettings,
    pub rollout: &'a Rollout,
    pub problem: &'a Problems<'a>,
    pub key: Key,
    pub state: &'a State,
    pub save_steps: usize,
    /// Who pays attempts at problems that no rule can check; `None` where there are none.
    pub opinions: Option<RefCell<&'a mut AskOpinions<'a>>>,
}

/// Gives a model's opinion on each case, in their order.
pub type AskOpinions<'a> = dyn FnMut(&[Case]) -> Result<Vec<Opinion>> + 'a;

/// The caller's ends: attempts to store before the update, metrics after it, models to keep.
pub trait Observer {
    fn attempts(&mut self, step: usize, batch: &Batch) -> Result<()>;
    fn record(&mut self, record: &StepRecord) -> Result<ControlFlow<()>>;

    /// Under a rule for a collapse: the rewards up to here are the best of those at which a state was saved, as one is about to be.
    fn best(&mut self, _learner: &Learner, _window: &Window) -> Result<()> {
        Ok(())
    }

    /// After each step, when `steps` are done and before the state that may be due is saved: what is made here is made again where a kill comes in between.
    fn after(&mut self, _learner: &Learner, _steps: usize) -> Result<()> {
        Ok(())
    }

    /// Before a state is saved out of turn: what was recorded has to be on the device first.
    fn sync(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Grpo<'_> {
    /// The step at which `run` would go on; an error where the phase has no such step.
    pub fn resume_step(&self) -> Result<usize> {
        let step = self.state.cursor::<Cursor>()?.map_or(0, |c| c.step);
        self.state.check_step(step, self.settings.steps)?;
        Ok(step)
    }

    /// The window at whose end the observer was last told to keep the best model, as far as the saved state knows.
    pub fn best(&self) -> Result<Option<Window>> {
        Ok(self.state.cursor::<Cursor>()?.and_then(|cursor| cursor.rewards?.kept()))
    }

    /// Trains from the saved state, if there is one, to the last step; `Ok(false)` says that the observer broke off.
    ///
    /// A step with something in it that is not finite ends it with [`Broken`], a collapse with [`Collapsed`]: each after the state was saved, and each again where
    /// the same phase is run again.
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
        let mut cursor = Cursor::default();
        self.resume_step()?;
        if let Some((saved, extra)) = self.state.restore::<Cursor>(learner.optimizer_mut())? {
            cursor = saved;
            if let Some(reference) = &mut reference
                && !extra.is_empty()
            {
                *reference = reference.with_tensors(&|name| extra.get(&format!("reference.{name}")).cloned())?;
            }
        }
        cursor.rewards = settings.collapse.as_ref().map(|rule| cursor.rewards.take().unwrap_or_default().under(rule));
        if let Some(collapsed) = self.collapsed(&mut cursor, || "its steps were taken under another rule".to_owned()) {
            return Err(collapsed.into());
        }
        while cursor.step < settings.steps {
            if let Some(reference) = &mut reference
                && settings.reference_reset > 0
                && cursor.step > 0
                && cursor.step.is_multiple_of(settings.reference_reset)
            {
                *reference = learner.decoder().snapshot()?;
            }
            let before = cursor.clone();
            let on_ladder = (!settings.context_ladder.is_empty()).then(|| self.max_tokens(cursor.step));
            let mut record = StepRecord { step: cursor.step, max_tokens: on_ladder, ..StepRecord::default() };
            let mut batch = match cursor.ahead.take() {
                Some(ahead) => ahead.batch(settings.num_generations, &mut record),
                None => self.sample(sampler, &mut cursor, &mut record)?,
            };
            let updates = learner.optimizer().steps();
            let learnt = if settings.one_step_off_policy && cursor.step + 1 < settings.steps {
                self.learn_and_sample(learner, sampler, reference.as_ref(), &mut batch, (&mut cursor, &mut record), observer)
            } else {
                self.learn(learner, reference.as_ref(), &mut batch, &mut record, observer)
            };
            learnt.map_err(|error| {
                Broken::of(
                    error,
                    cursor.step,
                    || in_words(&batch),
                    || {
                        let made = learner.optimizer().steps() - updates;
                        ensure!(made == 0, "{made} of its updates were made before, and the weights are not those that it began with");
                        observer.sync()?;
                        self.save(learner, reference.as_ref(), &before)
                    },
                )
            })?;
            let flow = observer.record(&record)?;
            cursor.step += 1;
            if let Some(rewards) = &mut cursor.rewards {
                rewards.push(record.reward.get("total").map_or(0.0, |total| total.0), cursor.step);
            }
            let collapsed = self.collapsed(&mut cursor, || in_words(&batch));
            let is_last = cursor.step == settings.steps;
            let stop = flow.is_break() && !is_last;
            let is_due = cursor.step.is_multiple_of(self.save_steps) && !is_last;
            if let Some(best) = cursor.rewards.as_mut().filter(|_| is_due).and_then(Rewards::keep) {
                observer.best(learner, &best)?;
            }
            observer.after(learner, cursor.step)?;
            if collapsed.is_some() {
                observer.sync()?;
            }
            if stop || is_due || collapsed.is_some() {
                self.save(learner, reference.as_ref(), &cursor)?;
            }
            if let Some(collapsed) = collapsed {
                return Err(collapsed.into());
            }
            if stop {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How the reward has collapsed, if it has; `problems` are those of the last step, in words.
    fn collapsed(&self, cursor: &mut Cursor, problems: impl FnOnce() -> String) -> Option<Collapsed> {
        let rule = self.settings.collapse.as_ref()?;
        cursor.rewards.as_mut()?.collapsed(rule, problems)
    }

    /// Stores a step's attempts and learns from them.
    fn learn(
        &self,
        learner: &mut Learner,
        reference: Option<&Decoder>,
        batch: &mut Batch,
        record: &mut StepRecord,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let settings = self.settings;
        let in_reward = reference.filter(|_| settings.kl_in == KlPlacement::Reward);
        let charged = in_reward.map(|reference| self.charge(learner, reference, batch)).transpose();
        batch.advantages = batch.judged.chunks(settings.num_generations).flat_map(|group| settings.advantage.of(&rewards(group))).collect();
        // Stored whatever went wrong: they are what one would look at.
        observer.attempts(record.step, batch)?;
        describe(batch, record);
        record.kl = charged?.flatten();
        self.update(learner, reference, batch, record)
    }

    /// Tokens of an attempt at most at a step.
    fn max_tokens(&self, step: usize) -> usize {
        self.settings.max_tokens_at(step, self.rollout.params.max_tokens)
    }

    fn save(&self, learner: &Learner, reference: Option<&Decoder>, cursor: &Cursor) -> Result<()> {
        self.state.save(learner.optimizer(), &self.reference_tensors(reference), cursor)
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
            let key = self.key.name("attempts").number(cursor.step as u64).number(cursor.asked);
            let problems = (cursor.asked..).take(wanted).map(|n| (self.problem)(n)).collect::<Result<_>>()?;
            cursor.asked += wanted as u64;
            let attempts = settings.num_generations as u32;
            let mut groups = groups(&self.rollout_at(cursor.step), sampler, key, problems, attempts, &mut occurrences)?;
            self.ask(cursor.step, &mut groups)?;
            for mut group in groups {
                group.iter_mut().for_each(|judged| self.pay(cursor.step, judged));
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

    /// The rollout with the tokens of a step's rung.
    fn rollout_at(&self, step: usize) -> Rollout {
        let params = SamplingParams { max_tokens: self.max_tokens(step), ..self.rollout.params.clone() };
        Rollout { params, ..self.rollout.clone() }
    }

    /// Adds the length penalty to an attempt's rewards.
    fn pay(&self, step: usize, judged: &mut Judged) {
        if let Some(penalty) = self.settings.overlong_penalty {
            let max = self.max_tokens(step);
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
        finite::check("the log-probability of a token", &lp)?;
        finite::check("the reference's log-probability of a token", &lp_ref)?;
        let mut kl = lp.iter().zip(&lp_ref).map(|(lp, r)| self.settings.kl.estimate(f64::from(*lp), f64::from(*r)).0);
        let mut sum = 0.0;
        for judged in &mut batch.judged {
            let of_completion: f64 = kl.by_ref().take(judged.completion.tokens.len()).sum();
            add_reward(judged, "kl", -self.settings.beta * of_completion);
            sum += of_completion;
        }
        Ok((!lp.is_empty()).then(|| sum / lp.len() as f64))
    }
}

fn rewards(group: &[Judged]) -> Vec<f64> {
    group.iter().map(|j| j.trace.reward()).collect()
}

/// Problems that an error names.
const NAMED: usize = 8;

/// The problems of a batch: the first of them, and how many more there are.
fn in_words(batch: &Batch) -> String {
    let mut ids: Vec<&str> = batch.judged.iter().map(|judged| judged.trace.problem.0.as_str()).collect();
    let mut seen = BTreeSet::new();
    ids.retain(|id| seen.insert(*id));
    let more = if ids.len() > NAMED { format!(" and {} more", ids.len() - NAMED) } else { String::new() };
    ids.truncate(NAMED);
    format!("its problems are {}{more}", ids.join(", "))
}

/// Adds a part to an attempt's rewards and to their total.
fn add_reward(judged: &mut Judged, part: &str, value: f64) {
    let total = judged.trace.reward() + value;
    judged.trace.rewards.insert(part.into(), value.into());
    judged.trace.rewards.insert("total".into(), total.into());
}

#[cfg(test)]
mod tests;
