//! `judge`: a model's opinions on traces, into `judged/`: each trace again with the field `judge`, beside what the rules have found.
//!
//! `DONE` says what it has cost and how far judge and rules agree. Opinions are journaled one by one, so that none is paid for twice.

use super::filter;
use super::run::{Interrupted, Run, Status, config, shards};
use super::sample;
use super::speaker::Speaker;
use super::{models, ui::interrupt_requested};
use crate::judge::{Agreement, Case, Cost, Judge, Opinion, reward};
use crate::key::Key;
use crate::publish;
use crate::shard::{Entry, Journal, Manifest, SealOptions, Sealer, Source, traces};
use crate::trace::{Trace, Verdict};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

/// Folder of this stage in the run directory.
pub const FOLDER: &str = "judged";

/// A line of the journal.
#[derive(Serialize, Deserialize)]
struct Line {
    id: String,
    opinion: Opinion,
}

/// Judges traces at `input`: a run's, a folder of shards or a JSONL file.
pub fn stage(run: &Run, input: &Path) -> Result<()> {
    let begin = Instant::now();
    let settings = run.recipe.judge.as_ref().context("[judge] is missing: name a model in judge.model")?;
    let input = config(shards(input, [sample::FOLDER, filter::FOLDER]))?;
    let hash = if input.is_dir() { Manifest::load(&input)?.hash()? } else { publish::sha256_file(&input)? };
    let origin = models::origin(run, &settings.model)?;
    let model = models::identity(run, &origin, "judge", &settings.model)?;
    let inputs = json!({
        "traces": hash, "model": model, "sampling": settings.params, "votes": settings.votes, "limit": settings.traces, "seed": run.seed(),
    });
    if run.status(FOLDER, &inputs, &Value::Null)? == Status::Done {
        return Ok(());
    }
    let key = Key::new(run.seed(), "judge");
    let chosen = chosen(&input, settings.traces, key)?;
    let folder = run.folder(FOLDER);
    let mut opinions = BTreeMap::new();
    let (mut journal, _) = Journal::<Line>::open(folder.join("journal"), |line, _| {
        opinions.insert(line.id, line.opinion);
        Ok(())
    })?;
    let mut cases = Vec::new();
    for trace in traces(&input)? {
        let trace = trace?;
        if chosen.contains(&trace.id) && !opinions.contains_key(&trace.id) {
            cases.push(Case::of(&trace));
        }
    }
    let speaker = Speaker::open(run, &settings.model, &origin, "judge")?;
    let judge = Judge { text: speaker.text(), votes: settings.votes, params: settings.params.clone(), key };
    let name = speaker.name().to_owned();
    let mut sampler = speaker.sampler_for(run, &settings.model, &|positions| judge.room(&cases, positions))?;
    sampler.stop_when(interrupt_requested);
    let bar = run.ui.bar("judge", chosen.len() as u64);
    bar.set_position(opinions.len() as u64);
    let asked = judge.run(&mut *sampler, &cases, &mut |case, opinion| {
        bar.inc(1);
        journal.append(&[Line { id: case.id.clone(), opinion: opinion.clone() }])?;
        opinions.insert(case.id.clone(), opinion);
        Ok(())
    });
    bar.finish_and_clear();
    sampler.remarks().into_iter().for_each(|remark| run.ui.say(remark));
    asked?;
    if opinions.len() < chosen.len() {
        bail!(Interrupted);
    }
    publish::folder(&folder, |new| {
        let (manifest, found) = write(&input, new, &opinions, &name, settings.votes)?;
        let counts = json!({"traces": manifest.rows, "cost": found.0, "agreement": found.1});
        Run::mark_done(new, Run::done_record(FOLDER, &inputs, &Value::Null, counts, begin))
    })
}

/// The ids of the traces that are judged: those whose keyed numbers are the smallest.
fn chosen(input: &Path, limit: usize, key: Key) -> Result<BTreeSet<String>> {
    let mut all = Vec::new();
    for trace in traces(input)? {
        let id = trace?.id;
        all.push((key.name("choice").name(&id).block(0, 0), id));
    }
    all.sort();
    let limit = if limit == 0 { all.len() } else { limit };
    Ok(all.into_iter().take(limit).map(|(_, id)| id).collect())
}

/// Writes the judged traces with their opinions; gives what these have cost and how they stand to the rules.
fn write(input: &Path, new: &Path, opinions: &BTreeMap<String, Opinion>, name: &str, votes: u32) -> Result<(Manifest, (Cost, Value))> {
    let mut sources = if input.is_dir() { Manifest::load(input)?.sources } else { vec![Source::default()] };
    for source in &mut sources {
        // What others have written there need not be an object.
        if !source.sampling.is_object() {
            source.sampling = json!({"before": source.sampling});
        }
        source.sampling["judge"] = json!({"model": name, "votes": votes});
    }
    let options = SealOptions::new("judged", sources);
    let mut sealer = Sealer::new(new, &options)?;
    let (mut cost, mut agreement) = (Cost::default(), Agreement::default());
    for trace in traces(input)? {
        let mut trace = trace?;
        let Some(opinion) = opinions.get(&trace.id) else { continue };
        cost.requests += votes as usize;
        cost.prompt_tokens += opinion.prompt_tokens;
        cost.completion_tokens += opinion.completion_tokens;
        if let Some(rules) = decided(&trace) {
            agreement.add(rules, opinion.verdict);
        }
        if let Some(score) = reward(&trace, opinion) {
            trace.rewards.insert("judge".to_owned(), score.into());
        }
        trace.other.insert("judge".to_owned(), serde_json::to_value(opinion)?);
        sealer.push(Entry { trace, tokens: None })?;
    }
    let found = json!({"counts": agreement, "share": agreement.share(), "kappa": agreement.kappa()});
    Ok((sealer.finish()?, (cost, found)))
}

/// What rules have decided on an answer; `None` where there are no rules, no answer or no decision.
fn decided(trace: &Trace) -> Option<bool> {
    match trace.verdict.as_ref()? {
        Verdict::Correct { .. } => Some(true),
        Verdict::Wrong { .. } => Some(false),
        Verdict::NoAnswer { .. } | Verdict::Undecided { .. } => None,
    }
}
