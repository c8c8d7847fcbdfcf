//! The attempts of a GRPO phase on disk, journaled as they are made and sealed at its end.

use super::super::collect::entry;
use super::super::run::Run;
use super::checkpoints::Checkpoints;
use super::watch::Watch;
use crate::publish;
use crate::rollout::Judged;
use crate::shard::{Entry, Journal, Manifest, Place, SealOptions, seal};
use crate::trace::Trace;
use crate::train::{Batch, Learner, Observer, StepRecord, Window};
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// The attempts of a GRPO phase on disk.
pub(super) struct Rollouts {
    folder: PathBuf,
    journal: Journal<Entry>,
    places: Vec<Place>,
    /// Steps that were taken and whose attempts the disk has lost.
    pub(super) missing: Vec<usize>,
}

impl Rollouts {
    pub(super) const JOURNAL: &str = "rollouts.journal";

    /// Opens the journal and drops what belongs to steps that will be taken again.
    pub(super) fn open(run: &Run, stage: &str, resume: usize) -> Result<Self> {
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
        let missing: Vec<usize> = (0..resume).filter(|step| !steps.contains(step)).collect();
        if !missing.is_empty() || !recovered.damaged.is_empty() {
            run.ui.say(&format!(
                "{stage}: the attempts stored before step {resume} are damaged ({} damaged ranges, {} steps without any): training goes on, and DONE will name these steps",
                recovered.damaged.len(),
                missing.len()
            ));
        }
        Ok(Self { folder, journal, places, missing })
    }

    fn append(&mut self, step: usize, batch: &Batch) -> Result<()> {
        let row = |judged: &Judged, advantage: Option<f64>| {
            let mut judged = judged.clone();
            let trace = &mut judged.trace;
            trace.id = format!("{}@{step}#{}", trace.problem, trace.attempt);
            trace.other.insert("step".to_owned(), step.into());
            trace.other.insert("advantage".to_owned(), advantage.into());
            entry(judged)
        };
        let trained = batch.judged.iter().zip(&batch.advantages).map(|(judged, advantage)| row(judged, Some(*advantage)));
        let rows: Vec<Entry> = trained.chain(batch.wasted.iter().map(|judged| row(judged, None))).collect();
        self.places.extend(self.journal.append(&rows)?);
        Ok(())
    }

    pub(super) fn seal(mut self, source: crate::shard::Source) -> Result<Manifest> {
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
        self.rollouts.append(step, batch)
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
