//! The attempts of a phase on disk, journaled as they are made and sealed at its end.

use super::super::collect::entry;
use super::super::run::Run;
use super::super::speaker;
use super::Job;
use super::checkpoints::Checkpoints;
use super::watch::Watch;
use crate::publish;
use crate::rollout::{Judged, Rollout};
use crate::shard::{Entry, Journal, Manifest, Place, SealOptions, Source, seal};
use crate::trace::Trace;
use crate::train::{Batch, Learner, Observer, StepRecord, Window};
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// The attempts of a phase on disk.
pub(super) struct Rollouts {
    folder: PathBuf,
    journal: Journal<Entry>,
    places: Vec<Place>,
    /// Steps that were taken and whose attempts the disk has lost.
    missing: Vec<usize>,
}

impl Rollouts {
    pub(super) const JOURNAL: &str = "rollouts.journal";

    /// Opens the journal and drops what belongs to steps that will be taken again; `samples` says at which steps there are attempts.
    pub(super) fn open(run: &Run, stage: &str, resume: usize, samples: impl Fn(usize) -> bool) -> Result<Self> {
        let folder = run.folder(stage);
        let (mut places, mut cut, mut steps) = (Vec::new(), None, BTreeSet::new());
        let (mut journal, recovered) = Journal::open(folder.join(Self::JOURNAL), |entry: Entry, place| {
            let step = entry.trace.other.get("step").and_then(Value::as_u64).context("a rollout has its step")?;
            if step < resume as u64 {
                places.push(place);
                steps.insert(step as usize);
            } else if cut.is_none() {
                cut = Some(place);
            }
            Ok(())
        })?;
        if let Some(place) = cut {
            journal.cut_from(place)?;
        }
        let missing: Vec<usize> = (0..resume).filter(|step| samples(*step) && !steps.contains(step)).collect();
        if !missing.is_empty() || !recovered.damaged.is_empty() {
            run.ui.say(&format!(
                "{stage}: the attempts stored before step {resume} are damaged ({} damaged ranges, {} steps without any): training goes on, and DONE will name these steps",
                recovered.damaged.len(),
                missing.len()
            ));
        }
        Ok(Self { folder, journal, places, missing })
    }

    /// Adds the attempts of a step, each with what it is said to be worth, in a phase that says so.
    pub(super) fn append<'j>(&mut self, step: usize, attempts: impl Iterator<Item = (&'j Judged, Option<Value>)>) -> Result<()> {
        let row = |(judged, advantage): (&Judged, Option<Value>)| {
            let mut judged = judged.clone();
            let trace = &mut judged.trace;
            trace.id = format!("{}@{step}#{}", trace.problem, trace.attempt);
            trace.other.insert("step".to_owned(), step.into());
            trace.other.extend(advantage.map(|advantage| ("advantage".to_owned(), advantage)));
            entry(judged)
        };
        let rows: Vec<Entry> = attempts.map(row).collect();
        self.places.extend(self.journal.append(&rows)?);
        Ok(())
    }

    /// Seals them and counts them.
    pub(super) fn finish(self, job: &Job, rollout: &Rollout, counts: &mut Value) -> Result<()> {
        let source = speaker::source(rollout, job.stage.clone(), String::new(), job.run);
        let missing = self.missing.clone();
        let manifest = self.seal(Source { weights_hash: None, ..source })?;
        (counts["attempts"], counts["tokens"]) = (manifest.rows.into(), manifest.tokens().into());
        if !missing.is_empty() {
            counts["steps_without_rollouts"] = missing.into();
        }
        Ok(())
    }

    fn seal(mut self, source: Source) -> Result<Manifest> {
        let target = self.folder.join("rollouts");
        let (journal, places) = (&mut self.journal, &self.places);
        let manifest = publish::folder(&target, |new| {
            let mut n = 0u64;
            let count = |_: &Trace| {
                n += 1;
                n
            };
            seal(
                new,
                places.iter().map(|p| journal.read(*p)),
                count,
                &SealOptions { level: 6, ..SealOptions::new("rollouts", vec![source]) },
            )
        })?;
        Ok(manifest)
    }
}

/// The ends of a GRPO phase.
pub(super) struct Keeper<'a> {
    pub(super) watch: Watch<'a>,
    pub(super) rollouts: Rollouts,
    pub(super) checkpoints: Checkpoints<'a>,
}

impl Observer for Keeper<'_> {
    fn attempts(&mut self, step: usize, batch: &Batch) -> Result<()> {
        let trained = batch.judged.iter().zip(batch.advantages.iter().map(|advantage| Some((*advantage).into())));
        self.rollouts.append(step, trained.chain(batch.wasted.iter().map(|judged| (judged, Some(Value::Null)))))
    }

    fn record(&mut self, record: &StepRecord) -> Result<ControlFlow<()>> {
        self.watch.metrics.append(record)?;
        let reward = record.reward.get("total").map_or(0.0, |r| r.0);
        self.watch
            .bar
            .set_message(format!("reward {reward:.3}  correct {:.2}  {:.0} tokens/s", record.accuracy, record.sampled_per_second));
        self.watch.after(record.step)
    }

    fn best(&mut self, learner: &Learner, _: &Window) -> Result<()> {
        self.checkpoints.best(learner)
    }

    fn after(&mut self, learner: &Learner, steps: usize) -> Result<()> {
        self.checkpoints.after(learner, steps)
    }

    fn sync(&mut self) -> Result<()> {
        self.watch.sync()
    }
}
