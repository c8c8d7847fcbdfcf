//! Phases of distillation: which keys they have beside those of SFT, and what they need of the rest of a recipe.

use super::Recipe;
use super::phases::{Phase, Sft, read_sft};
use super::table::Table;
use crate::rollout::PromptStyle;
use crate::train::KdSettings;

/// How a student is asked for attempts of its own.
#[derive(Clone, Debug)]
pub struct OwnAttempts {
    pub prompt: PromptStyle,
    pub max_tokens: usize,
}

/// Distillation: the keys of SFT, but for the loss, and its own.
pub(super) fn read(t: &mut Table) -> Sft {
    let kd = KdSettings { beta: t.or("beta", 0.5), lmbda: t.or("lmbda", 0.0), temperature: t.or("temperature", 1.0) };
    t.check("beta", (0.0..=1.0).contains(&kd.beta), "from 0 to 1", kd.beta);
    t.check("lmbda", (0.0..=1.0).contains(&kd.lmbda), "from 0 to 1", kd.lmbda);
    t.check("temperature", kd.temperature > 0.0, "more than 0: a distribution is learnt", kd.temperature);
    let mut refuse = |keys: &[&str], why: &str| {
        for key in keys.iter().filter(|key| t.has(key)) {
            t.problem(format!("{}: {why}", t.path(key)));
        }
        t.pass_over(|key, _| keys.contains(&key));
    };
    refuse(&["loss_type"], "the divergence from the teacher is the loss; leave it out");
    if kd.lmbda == 0.0 {
        refuse(&["prompt", "max_tokens"], "no attempts are asked for where lmbda is 0; leave it out");
    }
    if kd.lmbda == 1.0 {
        refuse(
            &["data", "too_long", "held_out", "epochs"],
            "lmbda is 1, so every sequence is an own attempt and there are no rows; leave it out",
        );
        if !t.has("steps") {
            t.problem(format!("{} is missing: where every sequence is an own attempt there are no epochs", t.path("steps")));
        }
    }
    let own = (kd.lmbda > 0.0).then(|| OwnAttempts { prompt: t.or("prompt", PromptStyle::Plain), max_tokens: t.or("max_tokens", 2048) });
    if let Some(own) = &own {
        t.check("max_tokens", own.max_tokens > 0, "at least 1", own.max_tokens);
    }
    Sft { own, ..read_sft(t, Some(kd)) }
}

/// The teacher that it needs.
pub(super) fn check_whole(t: &Table, recipe: &Recipe) {
    let taught = |phases: &[Phase]| phases.iter().find(|phase| phase.is_taught()).map(|phase| phase.name.clone());
    if let Some(name) = recipe.teacher.as_ref().and_then(|teacher| taught(&teacher.phases)) {
        t.problem(format!("teacher.phase {name:?} would learn from the teacher that it makes; distillation is for the student"));
    }
    let Some(name) = recipe.student.as_ref().and_then(|student| taught(&student.phases)).filter(|_| t.is_sound("teacher")) else { return };
    match &recipe.teacher {
        None => t.problem(format!("student.phase {name:?} learns from [teacher], which is missing")),
        Some(teacher) if teacher.served.is_some() => t.problem(format!(
            "student.phase {name:?}: a teacher behind a server gives text and no distributions; learn from its traces (method = \"sft\"), or name a folder or a Hub id"
        )),
        Some(_) => {}
    }
}
