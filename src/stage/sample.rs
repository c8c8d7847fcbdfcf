//! `sample`: the teacher's attempts at the problems, verified, into `traces/`.

use super::collect::{Collection, extends};
use super::models;
use super::problems::{Origin, ProblemSet, identity};
use super::rules::{add_identity, rules};
use super::run::{Run, Status};
use super::speaker::Speaker;
use crate::key::Key;
use crate::publish;
use crate::rollout::Rollout;
use anyhow::{Context, Result};
use serde_json::json;
use std::time::Instant;

/// Folder of this stage in the run directory.
pub const FOLDER: &str = "traces";

/// Samples from the recipe's teacher as its last phase left it.
pub fn stage(run: &Run) -> Result<()> {
    let begin = Instant::now();
    let teacher = run.recipe.teacher.as_ref().context("[teacher] is missing: sampling needs one")?;
    let origin = models::last_folder(run, teacher, "teacher")?;
    let settings = &run.recipe.sample;
    let problems = ProblemSet::training(run, "sample")?.first(settings.problems, "sample.problems")?;
    let model = models::identity(run, &origin, "teacher", teacher)?;
    let verifier = rules(run)?;
    let mut inputs = json!({
        "model": model,
        "sampling": settings.params,
        "prompt": settings.prompt,
        "extraction": run.recipe.problems.extraction,
        "reward": settings.reward,
        "seed": run.seed(),
    });
    add_identity(&mut inputs, &verifier, &problems);
    let extent = json!({"problems": identity(&problems), "n": settings.n});
    let mut status = run.status(FOLDER, &inputs, &extent)?;
    if status == Status::Extend && !extends(&run.folder(FOLDER), &problems, settings.n)? {
        run.supersede(FOLDER)?;
        status = run.status(FOLDER, &inputs, &extent)?;
    }
    if status == Status::Done {
        return Ok(());
    }
    if let Some(note) = Origin::training(&run.recipe.problems).note(&run.recipe.problems.task) {
        run.ui.say(&note);
    }
    // Before weights are read, which may take long.
    verifier.ready(problems.iter().map(|problem| &**problem))?;
    let speaker = Speaker::open(run, teacher, &origin, "teacher")?;
    let rollout =
        Rollout { text: speaker.text(), prompt: settings.prompt, params: settings.params.clone(), verifier, reward: settings.reward };
    if settings.params.truncates() {
        run.ui.detail("top_p, top_k or min_p cut tokens away: stored log-probabilities are those of the uncut distribution");
    }
    let mut source = speaker.source(&rollout, run);
    let mut sampler = speaker.sampler(run, teacher, &rollout, &problems)?;
    let folder = run.folder(FOLDER);
    let sealed = (status == Status::Extend).then_some(folder.as_path());
    let collected = Collection {
        run,
        label: "sample",
        rollout: &rollout,
        key: Key::new(run.seed(), "sample"),
        problems: &problems,
        attempts: settings.n,
        sealed,
        journal: &folder.join("journal"),
    }
    .collect(&mut *sampler)?;
    // What a server would not do belongs to where the traces come from; a command that had only to seal them has not met it.
    let remarks = sampler.remarks();
    if !remarks.is_empty() {
        source.sampling["remarks"] = json!(remarks);
    }
    publish::folder(&folder, |new| {
        let manifest = collected.seal(new, sealed, "traces", source)?;
        let counts = json!({"problems": problems.len(), "attempts": manifest.rows, "tokens": manifest.tokens()});
        Run::mark_done(new, Run::done_record(FOLDER, &inputs, &extent, counts, begin))
    })
}
