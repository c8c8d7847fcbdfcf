//! What a person is told where a phase gives itself up: what happened, what is kept, and what can be done about it.

use super::checkpoints::FOLDER as CHECKPOINTS;
use super::rollouts::Rollouts;
use super::{BEST, Job};
use crate::recipe::Method;
use crate::train::{Broken, Collapsed};
use anyhow::{Error, anyhow};

/// The error of a phase's training with the remedy; one that is not about training is given back as it is.
pub(super) fn explained(job: &Job, error: Error) -> Error {
    let stage = &job.stage;
    match (error.downcast_ref::<Broken>(), error.downcast_ref::<Collapsed>()) {
        (Some(broken), _) => anyhow!("{stage}: {broken}. {}", after_broken(job, broken)),
        (_, Some(collapsed)) => anyhow!("{stage}: {collapsed}. {}", after_collapse(job, collapsed)),
        _ => error,
    }
}

fn after_broken(job: &Job, broken: &Broken) -> String {
    let look = match &job.phase.method {
        Method::Sft(sft) if sft.own.is_none() => String::new(),
        _ => format!("look at its attempts ({}) and ", attempts(job, broken.step)),
    };
    let checkpoints = job.run.folder(&job.stage).join(CHECKPOINTS);
    let earlier = if checkpoints.exists() { format!(", and could begin with a model in {}", checkpoints.display()) } else { String::new() };
    format!(
        "The same command tries the step again; if it fails again, {look}lower learning_rate or max_grad_norm: that is another phase, which --force begins anew{earlier}"
    )
}

fn after_collapse(job: &Job, collapsed: &Collapsed) -> String {
    let best = job.run.folder(&job.stage).join(BEST);
    let kept = collapsed.kept.map_or_else(
        || "no model was kept before it".to_owned(),
        |kept| format!("{} holds the model after {} steps, with a mean reward of {:.3}", best.display(), kept.steps, kept.mean),
    );
    format!(
        "The state of that moment is saved, and {kept}. Look at what was paid for ({}); then go on from {BEST}/ as the model of another recipe, with a lower \
         learning_rate or a beta above 0. With a higher collapse.drop, or without collapse, the same command goes on training from here",
        attempts(job, collapsed.last.steps - 1)
    )
}

/// How to see the attempts of a step while a phase is not done.
fn attempts(job: &Job, step: usize) -> String {
    let journal = job.run.folder(&job.stage).join(Rollouts::JOURNAL);
    format!("zstdcat {} | grep '@{step}#'", journal.display())
}
