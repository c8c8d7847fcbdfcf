//! `sample`: the teacher's attempts at the problems, verified, into `traces/`.

use super::collect::{Collection, capacity, extends, slots};
use super::models::{self, Loaded};
use super::problems::{Origin, ProblemSet, identity};
use super::rules::{add_identity, rules};
use super::run::{Run, Status};
use crate::key::Key;
use crate::publish;
use crate::rollout::Rollout;
use crate::sampler::LocalSampler;
use crate::shard::Source;
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
    let Loaded { decoder, text, name, hash: weights_hash } = models::open(run, teacher, &origin, "teacher")?;
    let rollout = Rollout { text, prompt: settings.prompt, params: settings.params.clone(), verifier, reward: settings.reward };
    if settings.params.truncates() {
        run.ui.detail("top_p, top_k or min_p cut tokens away: stored log-probabilities are those of the uncut distribution");
    }
    let room = capacity(&rollout, &problems, decoder.config().max_positions)?;
    let slots = slots(run, decoder.config(), room)?;
    let mut sampler = LocalSampler::fixed(decoder, rollout.text.clone(), slots, room)?;
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
    .collect(&mut sampler)?;
    let source = source(&rollout, name, weights_hash, run);
    publish::folder(&folder, |new| {
        let manifest = collected.seal(new, sealed, "traces", source)?;
        let counts = json!({"problems": problems.len(), "attempts": manifest.rows, "tokens": manifest.tokens()});
        Run::mark_done(new, Run::done_record(FOLDER, &inputs, &extent, counts, begin))
    })
}

/// Where attempts of a rollout come from, for their manifest.
pub(super) fn source(rollout: &Rollout, model: String, weights_hash: String, run: &Run) -> Source {
    Source {
        distill_version: env!("CARGO_PKG_VERSION").to_owned(),
        model,
        weights_hash: Some(weights_hash),
        tokenizer_hash: Some(rollout.text.tokenizer_hash()),
        template_hash: rollout.text.template_hash(),
        sampling: json!({"prompt": rollout.prompt, "params": rollout.params}),
        seed: Some(run.seed()),
        verifier: Some(rollout.verifier.name()),
        filter: serde_json::Value::Null,
        input_manifest: None,
    }
}
