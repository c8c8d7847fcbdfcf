//! `evaluate`: each model of the run on the same held-out problems, sampled and greedy, into `evaluation/<model>-<task>/`.

use super::collect::{Collection, extends};
use super::models::{self, Origin};
use super::phase;
use super::problems;
use super::rules::{add_identity, rules};
use super::run::{Run, Status, config};
use super::speaker::Speaker;
use crate::key::Key;
use crate::metric::{Outcome, ci95, maj_at_n, mean, share_ci95};
use crate::problem::Problem;
use crate::publish;
use crate::recipe::{EvaluationTask, Model, Recipe};
use crate::report::text::plain_json;
use crate::reward::RewardPreset;
use crate::rollout::Rollout;
use crate::sampler::SamplingParams;
use crate::shard::{manifest, traces};
use crate::tasks::Task;
use crate::trace::{FinishReason, Group, Trace, Verdict};
use anyhow::{Context, Result, anyhow};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// A model to measure, under the name that reports use.
pub struct Candidate<'a> {
    pub name: String,
    pub role: &'static str,
    pub model: &'a Model,
    pub origin: Origin,
}

/// Measures every model of the run on every task of the recipe.
pub fn stage(run: &Run) -> Result<()> {
    measure_all(run, &problems::held_out(run)?)
}

/// Measures every model of the run on the problems of every task, which the caller has from [`problems::held_out`].
pub fn measure_all(run: &Run, held_out: &[Vec<Arc<Problem>>]) -> Result<()> {
    let candidates = candidates(run)?;
    for (task, problems) in run.recipe.evaluate.tasks.iter().zip(held_out) {
        if let Some(note) = problems::Origin::evaluation(&run.recipe.problems, task).note(&task.name) {
            run.ui.say(&note);
        }
        for candidate in &candidates {
            measure(run, candidate, task, problems)?;
        }
    }
    Ok(())
}

/// The models of a run in the order of the report.
pub fn candidates(run: &Run) -> Result<Vec<Candidate<'_>>> {
    let before_grpo = |model: &Model| match model.phases.iter().position(|p| p.is_grpo()) {
        Some(i) if i > 0 => Ok(Origin::Folder(run.folder(&format!("teacher/{}", model.phases[i - 1].name)))),
        _ => models::origin(run, model),
    };
    names(&run.recipe)
        .into_iter()
        .map(|(name, role)| {
            let model = if role == "teacher" { &run.recipe.teacher } else { &run.recipe.student };
            let model = model.as_ref().context("a model is named that the recipe has")?;
            let last_on_corpus = model.phases.iter().rfind(|p| p.uses_corpus());
            let origin = match name.as_str() {
                "base" => before_grpo(model)?,
                "student-base" => phase::before_corpus(run, model)?.context("a student has a model before its corpus phase")?,
                "student-sft" => {
                    let phase = last_on_corpus.context("a student has a phase on the corpus")?;
                    Origin::Folder(run.folder(&format!("student/{}", phase.name)))
                }
                "teacher" | "student" => models::last_folder(run, model, role)?,
                control => Origin::Folder(run.folder(&format!("controls/{}", control.trim_start_matches("student-")))),
            };
            Ok(Candidate { name, role, model, origin })
        })
        .collect()
}

/// The models of a recipe by name and role, in the order of the report.
pub fn names(recipe: &Recipe) -> Vec<(String, &'static str)> {
    let mut all: Vec<(String, &'static str)> = Vec::new();
    if let Some(model) = &recipe.teacher {
        let grpo = model.phases.iter().position(|p| p.is_grpo());
        if grpo.is_some_and(|i| i > 0 || !model.is_fresh()) {
            all.push(("base".into(), "teacher"));
        }
        all.push(("teacher".into(), "teacher"));
    }
    if let Some(model) = &recipe.student {
        let corpus = model.phases.iter().position(|p| p.uses_corpus());
        if corpus.is_some_and(|i| i > 0 || !model.is_fresh()) {
            all.push(("student-base".into(), "student"));
        }
        all.extend(recipe.controls.iter().map(|control| (format!("student-{}", control.name), "student")));
        if model.phases.iter().rposition(|p| p.uses_corpus()).is_some_and(|last| last + 1 < model.phases.len()) {
            all.push(("student-sft".into(), "student"));
        }
        all.push(("student".into(), "student"));
    }
    all
}

/// Takes over a stored evaluation as the teacher's, so that a student can be compared with it.
pub fn adopt(run: &Run, folder: &Path) -> Result<()> {
    let mut done = publish::done(folder)?.with_context(|| format!("{} is not a finished evaluation", folder.display()))?;
    let task = done["result"]["task"].as_str().with_context(|| format!("{} holds no evaluation", folder.display()))?.to_owned();
    if let Some(ours) = run.recipe.evaluate.tasks.iter().find(|t| task == t.name || task == format!("{}-sample", t.name)) {
        let said = &done["inputs"];
        let own = task.parse::<Task>().is_err() && !task.ends_with("-sample");
        let command = if own { rules(run)?.command.map(|command| command.identity()) } else { None };
        for (key, here) in [
            ("sampling", json!(ours.params)),
            ("prompt", json!(ours.prompt)),
            ("extraction", json!(run.recipe.problems.extraction)),
            ("verify", json!(command)),
        ] {
            let there = &said[key];
            config(if *there == here {
                Ok(())
            } else {
                Err(anyhow!(
                    "{} was not measured as {task} would be here: {key} is {} there and {} here; give the same settings",
                    folder.display(),
                    plain_json(there),
                    plain_json(&here)
                ))
            })?;
        }
    }
    let stage = format!("evaluation/teacher-{task}");
    let target = run.folder(&stage);
    if target.exists() {
        if std::fs::canonicalize(folder)? == std::fs::canonicalize(&target)? {
            return Ok(());
        }
        run.supersede(&stage)?;
    }
    done["result"]["model"] = "teacher".into();
    done["stage"] = stage.into();
    // Only the results come along, not the attempts behind them.
    done.as_object_mut().and_then(|done| done.remove(manifest::BOUND));
    publish::folder(&target, |new| {
        let results =
            std::fs::read(folder.join("results.jsonl")).with_context(|| format!("cannot read the results in {}", folder.display()))?;
        publish::file(new.join("results.jsonl"), &results)?;
        publish::mark_done(new, &done)
    })
}

/// Measures one model on one task.
pub fn measure(run: &Run, candidate: &Candidate, task: &EvaluationTask, problems: &[Arc<Problem>]) -> Result<Value> {
    let begin = Instant::now();
    let stage = format!("evaluation/{}-{}", candidate.name, task.name);
    let model = models::identity(run, &candidate.origin, candidate.role, candidate.model)?;
    let verifier = rules(run)?;
    let extraction = verifier.extraction;
    let mut inputs = json!({"model": model, "sampling": task.params, "prompt": task.prompt, "extraction": extraction, "seed": run.seed()});
    add_identity(&mut inputs, &verifier, problems);
    let extent = json!({"problems": problems::identity(problems), "n": task.n});
    let folder = run.folder(&stage);
    let mut status = run.status(&stage, &inputs, &extent)?;
    if status == Status::Extend && !(extends(&folder.join("sampled"), problems, task.n)? && extends(&folder.join("greedy"), problems, 1)?) {
        run.supersede(&stage)?;
        status = run.status(&stage, &inputs, &extent)?;
    }
    if status == Status::Done {
        return Ok(publish::done(&folder)?.context("a stage that is done says so")?["result"].clone());
    }
    let speaker = Speaker::open(run, candidate.model, &candidate.origin, candidate.role)?;
    let text = speaker.text();
    let rollout = |params: SamplingParams| Rollout {
        text: text.clone(),
        prompt: task.prompt,
        params,
        verifier: verifier.clone(),
        reward: RewardPreset::SimplerlZoo,
    };
    let sampled = rollout(task.params.clone());
    let greedy = rollout(SamplingParams { stop: task.params.stop.clone(), ..SamplingParams::at(0.0, task.params.max_tokens) });
    let sources = [&sampled, &greedy].map(|rollout| speaker.source(rollout, run));
    let mut sampler = speaker.sampler(run, candidate.model, &sampled, problems)?;
    let key = Key::new(run.seed(), "evaluate").name(&candidate.name).name(&task.name);
    let extends = status == Status::Extend;
    let mut collect = |rollout: &Rollout, kind: &str, attempts: u32| {
        let shards = folder.join(kind);
        let label = format!("{} on {} ({kind})", candidate.name, task.name);
        let collected = Collection {
            run,
            label: &label,
            rollout,
            key: key.name(kind),
            problems,
            attempts,
            sealed: extends.then_some(shards.as_path()),
            journal: &folder.join(format!("{kind}.journal")),
        }
        .collect(&mut *sampler)?;
        Ok::<_, anyhow::Error>((collected, shards))
    };
    let parts = [("sampled", collect(&sampled, "sampled", task.n)?), ("greedy", collect(&greedy, "greedy", 1)?)];
    let mut result = Value::Null;
    publish::folder(&folder, |new| {
        for ((kind, (collected, shards)), source) in parts.into_iter().zip(sources) {
            let inner = new.join(kind);
            std::fs::create_dir_all(&inner).with_context(|| format!("cannot make {}", inner.display()))?;
            collected.seal(&inner, extends.then_some(shards.as_path()), kind, source)?;
        }
        let per_problem = outcomes(new, problems)?;
        let key = Key::new(run.seed(), "report").name(&candidate.name).name(&task.name);
        // Our own samples stand in for a task under a name of their own, so that published figures do not stand beside them.
        let shown = problems.first().map_or(task.name.as_str(), |p| p.task.as_str());
        result = summary(&candidate.name, shown, task.n, &per_problem, key)?;
        let mut lines = publish::Lines::open(new.join("results.jsonl"))?;
        for (problem, p) in problems.iter().zip(&per_problem) {
            lines.append(&json!({
                "problem": problem.id,
                "attempts": p.sampled.attempts,
                "correct": p.sampled.correct,
                "greedy": p.greedy,
            }))?;
        }
        let counts = json!({"problems": problems.len(), "attempts": problems.len() as u64 * u64::from(task.n + 1)});
        let mut record = Run::done_record(&stage, &inputs, &extent, counts, begin);
        record["result"] = result.clone();
        Run::mark_done(new, record)
    })?;
    Ok(result)
}

/// How one problem went.
struct PerProblem {
    sampled: Outcome,
    greedy: bool,
    majority: f64,
    tokens: usize,
    truncated: usize,
    no_answer: usize,
    undecided: usize,
    language: f64,
}

/// Reads back both kinds of attempts, problem by problem.
fn outcomes(folder: &Path, problems: &[Arc<Problem>]) -> Result<Vec<PerProblem>> {
    let mut groups: BTreeMap<String, Vec<Trace>> = BTreeMap::new();
    for trace in traces(folder.join("sampled"))? {
        let trace = trace?;
        groups.entry(trace.problem.0.clone()).or_default().push(trace);
    }
    let mut greedy = BTreeMap::new();
    for trace in traces(folder.join("greedy"))? {
        let trace = trace?;
        greedy.insert(trace.problem.0.clone(), trace.is_correct());
    }
    let of = |problem: &Arc<Problem>| {
        let traces = groups.remove(&problem.id.0).unwrap_or_default();
        let count = |f: &dyn Fn(&Trace) -> bool| traces.iter().filter(|t| f(t)).count();
        let (tokens, truncated) = (traces.iter().map(|t| t.completion_tokens).sum(), count(&|t| t.finish != FinishReason::Stop));
        let no_answer = count(&|t| matches!(t.verdict, Some(Verdict::NoAnswer { .. })));
        let undecided = count(&|t| matches!(t.verdict, Some(Verdict::Undecided { .. })));
        let language = traces.iter().map(|t| t.language.share).sum();
        let group = Group { problem: problem.id.clone(), traces };
        PerProblem {
            sampled: Outcome::of(&group),
            greedy: greedy.get(&problem.id.0).copied().unwrap_or(false),
            majority: maj_at_n(&group),
            tokens,
            truncated,
            no_answer,
            undecided,
            language,
        }
    };
    Ok(problems.iter().map(of).collect())
}

fn summary(model: &str, task: &str, n: u32, per_problem: &[PerProblem], key: Key) -> Result<Value> {
    let rates: Vec<f64> = per_problem.iter().map(|p| p.sampled.rate()).collect();
    let greedy: Vec<f64> = per_problem.iter().map(|p| f64::from(p.greedy)).collect();
    let majority: Vec<f64> = per_problem.iter().map(|p| p.majority).collect();
    // Every problem has as many attempts, so the mean over problems is that over attempts.
    let each = |f: &dyn Fn(&PerProblem) -> f64| -> Vec<f64> {
        per_problem.iter().map(|p| f(p) / f64::from(p.sampled.attempts).max(1.0)).collect()
    };
    let of = |f: &dyn Fn(&PerProblem) -> f64, name: &str| {
        let values = each(f);
        (mean(&values).unwrap_or(0.0), share_ci95(&values, key.name(name)))
    };
    let tokens = each(&|p| p.tokens as f64);
    let (truncated, truncated_ci) = of(&|p| p.truncated as f64, "truncated");
    let (no_answer, no_answer_ci) = of(&|p| p.no_answer as f64, "no answer");
    let (language, language_ci) = of(&|p| p.language, "language");
    let (mut pass_at_k, mut pass_at_k_ci) = (Map::new(), Map::new());
    for k in (0..16).map(|i| 1 << i).filter(|k| *k < n).chain([n]) {
        let values: Option<Vec<f64>> = per_problem.iter().map(|p| p.sampled.pass_at(k)).collect();
        if let Some(values) = values
            && let Some(value) = mean(&values)
        {
            pass_at_k.insert(k.to_string(), value.into());
            pass_at_k_ci.insert(k.to_string(), json!(share_ci95(&values, key.name("pass at k").number(k.into()))));
        }
    }
    Ok(json!({
        "model": model,
        "task": task,
        "problems": per_problem.len(),
        "samples": n,
        "pass_at_1": mean(&rates),
        "ci95": share_ci95(&rates, key.name("sampled")),
        "greedy": mean(&greedy),
        "greedy_ci95": share_ci95(&greedy, key.name("greedy")),
        "maj_at_n": mean(&majority),
        "maj_at_n_ci95": share_ci95(&majority, key.name("majority")),
        "pass_at_k": pass_at_k,
        "pass_at_k_ci95": pass_at_k_ci,
        "mean_tokens": mean(&tokens).unwrap_or(0.0),
        "mean_tokens_ci95": ci95(&tokens, key.name("tokens")),
        "truncated": truncated,
        "truncated_ci95": truncated_ci,
        "no_answer": no_answer,
        "no_answer_ci95": no_answer_ci,
        "undecided": of(&|p| p.undecided as f64, "undecided").0,
        "language_share": language,
        "language_share_ci95": language_ci,
    }))
}
