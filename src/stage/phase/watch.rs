//! What a phase shows of itself as it goes on: a line of metrics for each step, a bar, and a few held-out problems that are answered again and again.

use super::super::cache;
use super::super::collect::capacity;
use super::super::problems::evaluation;
use super::super::rules::rules;
use super::super::run::Run;
use super::super::ui::interrupt_requested;
use super::Job;
use crate::key::Key;
use crate::model::text::Text;
use crate::problem::Problem;
use crate::publish::Lines;
use crate::recipe::Probes as Wanted;
use crate::reward::RewardPreset;
use crate::rollout::{Ask, Rollout};
use crate::sampler::{LocalSampler, SamplingParams};
use crate::train::Learner;
use anyhow::{Result, bail};
use indicatif::ProgressBar;
use serde_json::json;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Held-out problems that are answered again and again while a phase trains, where the recipe says nothing of them.
const PROBES: usize = 8;

/// Metrics, progress and probes of a phase.
pub(super) struct Watch<'a> {
    run: &'a Run,
    pub(super) metrics: Lines,
    pub(super) bar: ProgressBar,
    probes: Option<Probes>,
    steps: usize,
    /// Steps between two resumable states.
    save_steps: usize,
}

struct Probes {
    rollout: Rollout,
    sampler: LocalSampler,
    problems: Vec<Arc<Problem>>,
    lines: Lines,
    every: usize,
}

impl<'a> Watch<'a> {
    pub(super) fn open(
        job: &Job<'a>,
        learner: &Learner,
        text: &Arc<Text>,
        (steps, save_steps): (usize, usize),
        resume: usize,
    ) -> Result<Self> {
        let folder = job.run.folder(&job.stage);
        let path = folder.join("metrics.jsonl");
        let mut metrics = Lines::open(&path)?;
        if let Some(step) = first_gap(&metrics, resume)? {
            bail!(
                "{}: the line of step {step} is missing or out of its place, and the state goes on at step {resume}; restore the file, or remove {} to \
                 train the phase from its start",
                path.display(),
                folder.join("state").display()
            );
        }
        metrics.keep_lines(|line| line["step"].as_u64().is_some_and(|s| s < resume as u64))?;
        let bar = job.run.ui.bar(&job.stage, steps as u64);
        bar.set_position(resume as u64);
        bar.reset_eta();
        let mut watch = Self { run: job.run, metrics, bar, probes: probes(job, learner, text, steps, resume)?, steps, save_steps };
        if resume == 0 {
            watch.probe(0)?;
        }
        Ok(watch)
    }

    /// After a step: progress, probes when they are due, and whether to stop.
    pub(super) fn after(&mut self, step: usize) -> Result<ControlFlow<()>> {
        let done = step + 1;
        self.bar.set_position(done as u64);
        if self.probes.as_ref().is_some_and(|p| done.is_multiple_of(p.every) || done == self.steps) {
            self.probe(done)?;
        }
        let stop = interrupt_requested();
        if stop || done.is_multiple_of(self.save_steps) {
            self.sync()?;
        }
        Ok(if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// Flushes the lines, which the state that is saved next counts on.
    pub(super) fn sync(&self) -> Result<()> {
        self.metrics.sync()?;
        self.probes.as_ref().map_or(Ok(()), |p| p.lines.sync())
    }

    /// Answers the probe problems greedily with the weights as they are after `step` steps.
    fn probe(&mut self, step: usize) -> Result<()> {
        let Some(probes) = &mut self.probes else { return Ok(()) };
        let mut asks = probes.problems.iter();
        let mut answers = Vec::new();
        let key = Key::new(self.run.seed(), "probe");
        probes.rollout.run(
            &mut probes.sampler,
            key,
            &mut || Ok(asks.next().map_or(Ask::End, |p| Ask::Attempt { problem: p.clone(), attempt: 0 })),
            &mut |judged| {
                answers.push(judged.trace);
                Ok(())
            },
        )?;
        answers.sort_by(|a, b| a.problem.cmp(&b.problem));
        for trace in answers {
            probes.lines.append(&json!({"step": step, "trace": trace}))?;
        }
        Ok(())
    }
}

/// The first step before `resume` whose line is not where it belongs: there is one for each step, in order, before a state counts on it.
fn first_gap(metrics: &Lines, resume: usize) -> Result<Option<usize>> {
    let steps: Vec<Option<u64>> = metrics.values()?.iter().map(|line| line["step"].as_u64()).collect();
    let before: Vec<Option<u64>> = steps.into_iter().filter(|step| step.is_none_or(|s| s < resume as u64)).collect();
    let good = before.iter().zip(0..).take_while(|(step, i)| **step == Some(*i)).count();
    Ok((good < resume || before.len() > resume).then_some(good))
}

fn probes(job: &Job, learner: &Learner, text: &Arc<Text>, steps: usize, resume: usize) -> Result<Option<Probes>> {
    let Some(task) = job.run.recipe.evaluate.tasks.first() else { return Ok(None) };
    let wanted = job.phase.probes.unwrap_or(Wanted { problems: PROBES, steps: None });
    if wanted.problems == 0 {
        return Ok(None);
    }
    let mut problems = evaluation(job.run, task)?;
    problems.truncate(wanted.problems);
    let rollout = Rollout {
        text: Some(text.clone()),
        prompt: task.prompt,
        params: SamplingParams::at(0.0, task.params.max_tokens),
        verifier: rules(job.run)?,
        reward: RewardPreset::SimplerlZoo,
    };
    let room = capacity(&rollout, &problems, learner.decoder().config().max_positions)?;
    let mut execution = job.run.recipe.execution.clone();
    execution.slots = execution.slots.min(problems.len());
    let sampler = LocalSampler::new(learner.decoder(), text.clone(), execution.slots, room)?;
    let sampler = cache::sized(sampler, &execution, learner.decoder().config())?;
    let mut lines = Lines::open(job.run.folder(&job.stage).join("probes.jsonl"))?;
    lines.keep_lines(|line| line["step"].as_u64().is_some_and(|s| s <= resume as u64 && resume > 0))?;
    Ok(Some(Probes { rollout, sampler, problems, lines, every: wanted.steps.unwrap_or((steps / 8).max(1)) }))
}
