//! Whole models that a phase leaves as it goes on: those of its last steps, and of GRPO the one with the best rewards.
//!
//! Weights alone, in bf16, or an adapter as it is: nothing is resumed from them, `state/` is for that. Which steps have one depends on the recipe and on nothing that
//! happens, so a phase that was killed ends with the same ones.

use super::{BEST, Job};
use crate::model::Precision;
use crate::model::text::Text;
use crate::publish;
use crate::train::Learner;
use anyhow::{Context, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Folder in a phase's of its checkpoints, each in a folder named by the steps before it.
pub(super) const FOLDER: &str = "checkpoints";

/// The checkpoints of a phase.
pub(super) struct Checkpoints<'a> {
    job: &'a Job<'a>,
    text: &'a Text,
    /// How many are kept.
    keep: usize,
    /// Steps between two.
    every: usize,
    /// Of the phase. The model after the last one is the phase's own.
    steps: usize,
}

impl<'a> Checkpoints<'a> {
    /// Those of a phase of `steps` steps that goes on at `resume`: later ones go, they will be made again.
    pub(super) fn open(job: &'a Job<'a>, text: &'a Text, (steps, save_steps): (usize, usize), resume: usize) -> Result<Self> {
        let execution = &job.run.recipe.execution;
        let every = execution.checkpoint_steps.unwrap_or(save_steps);
        let checkpoints = Self { job, text, keep: execution.checkpoints, every, steps };
        clear_after(&checkpoints.folder(), resume)?;
        Ok(checkpoints)
    }

    fn folder(&self) -> PathBuf {
        self.job.run.folder(&self.job.stage).join(FOLDER)
    }

    /// After so many steps: makes a checkpoint where one is due, and then removes those that are too many.
    ///
    /// To be called before the step's state is saved: after a kill in between the checkpoint is made again.
    pub(super) fn after(&self, learner: &Learner, done: usize) -> Result<()> {
        if self.keep == 0 || !done.is_multiple_of(self.every) || done == self.steps {
            return Ok(());
        }
        self.job.keep(learner, self.text, &self.folder().join(name(done)), Precision::Bf16)?;
        let there = there(&self.folder())?;
        let too_many = there.len().saturating_sub(self.keep);
        there[..too_many].iter().try_for_each(|step| publish::withdraw(self.folder().join(name(*step))))
    }

    /// The model with the best rewards so far.
    pub(super) fn best(&self, learner: &Learner) -> Result<()> {
        self.job.keep(learner, self.text, &self.job.run.folder(&self.job.stage).join(BEST), Precision::Bf16)
    }
}

/// `000100`.
fn name(steps: usize) -> String {
    format!("{steps:06}")
}

/// Steps before the checkpoints in a folder, in order.
fn there(folder: &Path) -> Result<Vec<usize>> {
    let names = names(folder)?;
    let mut steps: Vec<usize> = names.iter().filter_map(|n| n.parse().ok().filter(|steps| name(*steps) == *n)).collect();
    steps.sort_unstable();
    Ok(steps)
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let read = || -> std::io::Result<Vec<String>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    match read() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        names => names.with_context(|| format!("cannot read {}", folder.display())),
    }
}

/// Removes checkpoints after more steps than these, and what a kill has left of others.
fn clear_after(folder: &Path, steps: usize) -> Result<()> {
    for later in there(folder)?.into_iter().filter(|later| *later > steps) {
        publish::withdraw(folder.join(name(later)))?;
    }
    for rest in names(folder)?.into_iter().filter(|name| name.starts_with('.')) {
        let rest = folder.join(rest);
        fs::remove_dir_all(&rest).with_context(|| format!("cannot remove {}", rest.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_later_or_half_made_goes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("checkpoints");
        clear_after(&folder, 0).unwrap();
        assert!(there(&folder).unwrap().is_empty() && !folder.exists());
        for name in ["000100", "000020", "1000000", ".000120.tmp", ".000020.gone", "notes", "40"] {
            fs::create_dir_all(folder.join(name)).unwrap();
            fs::write(folder.join(name).join("config.json"), "{}").unwrap();
        }
        assert_eq!(there(&folder).unwrap(), [20, 100, 1_000_000]);
        clear_after(&folder, 100).unwrap();
        let mut left = names(&folder).unwrap();
        left.sort();
        assert_eq!(left, ["000020", "000100", "40", "notes"]);
        clear_after(&folder, 0).unwrap();
        assert!(there(&folder).unwrap().is_empty());
    }
}
