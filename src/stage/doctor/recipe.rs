//! `distill doctor RECIPE`: what would go wrong in a run, found before it begins and in seconds.
//!
//! Nothing is written, fetched or trained. Each check is a finding with its remedy; a check that cannot be made says so.

use super::super::models::{self, Origin};
use super::super::plan;
use super::super::problems::{self, ProblemSet, evaluation};
use super::super::rules::rules;
use super::super::run::Run;
use super::super::ui::Ui;
use super::completion::{perfect, wrong};
use super::finding::{Finding, State};
use super::{model, sizes};
use crate::hub;
use crate::problem::{Answer, Problem};
use crate::recipe::{Method, Model, Recipe};
use crate::report::text::thousands;
use crate::response::Response;
use crate::reward::{RewardPreset, score};
use crate::trace::FinishReason;
use crate::verify::{Rules, Verifier};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Problems of each task that are tried.
pub(super) const TRIED: usize = 16;

/// Problems of one task, with what an answer to them is judged by.
pub(super) struct Tried {
    pub task: String,
    /// Which of the recipe's evaluation tasks it is; `None` for what is trained on.
    pub evaluation: Option<usize>,
    pub problems: Vec<Arc<Problem>>,
    /// For each: whole responses that answer it, or why none is known.
    pub perfect: Vec<Result<Vec<String>, String>>,
}

/// Looks at a recipe and at what it names, with the run directory `dir` as it is now.
pub(super) fn findings(recipe: Recipe, dir: PathBuf) -> Vec<Finding> {
    let mut all = vec![Finding::good("recipe", format!("{} is one that can be run", recipe.name))];
    let run = match Run::look(dir, recipe, Ui { json: true, verbose: false }) {
        Ok(run) => run,
        Err(error) => return vec![failed("recipe", &error)],
    };
    let rules = match rules(&run) {
        Ok(rules) => rules,
        Err(error) => {
            all.push(failed("verifier", &error));
            return all;
        }
    };
    let tried = tried(&run, &mut all);
    all.extend(tried.iter().map(|tried| verdicts(tried, &rules)));
    all.extend(rewards(&run.recipe, tried.first(), &rules));
    for (role, of) in [("teacher", &run.recipe.teacher), ("student", &run.recipe.student)] {
        if let Some(of) = of {
            all.extend(of_model(&run, role, of, &tried, &rules));
        }
    }
    all.extend(memory_and_disk(&run));
    all
}

/// An error as a finding: what is behind its last semicolon is what to do.
pub(super) fn failed(check: &'static str, error: &anyhow::Error) -> Finding {
    let text = format!("{error:#}");
    match text.rsplit_once("; ") {
        Some((says, remedy)) => Finding::fault(check, says, remedy),
        None => Finding::fault(check, text, "correct what is named; nothing was begun"),
    }
}

/// The first problems of the recipe's own task and of each evaluation task.
fn tried(run: &Run, findings: &mut Vec<Finding>) -> Vec<Tried> {
    let mut all: Vec<(String, Option<usize>, Vec<Arc<Problem>>)> = Vec::new();
    let recipe = &run.recipe;
    if !recipe.problems.task.is_empty() {
        match ProblemSet::training(run, "sample").and_then(|set| Ok((set.len(), set.first(TRIED, "sample.problems")?))) {
            Ok((count, problems)) => {
                let count = count.map_or("generated without end".to_owned(), |n| format!("{} problems", thousands(n)));
                findings.push(Finding::good("problems", format!("{}: {count}", recipe.problems.task)));
                all.push((recipe.problems.task.clone(), None, problems));
            }
            Err(error) => findings.push(failed("problems", &error)),
        }
    }
    match problems::held_out(run) {
        Ok(sets) => {
            let counts: Vec<String> =
                recipe.evaluate.tasks.iter().zip(&sets).map(|(task, set)| format!("{} {}", task.name, thousands(set.len()))).collect();
            if !counts.is_empty() {
                findings.push(Finding::good("evaluation", format!("{}; none of them is trained on", counts.join(", "))));
            }
        }
        Err(error) => findings.push(failed("evaluation", &error)),
    }
    for (i, task) in recipe.evaluate.tasks.iter().enumerate() {
        // What is wrong with them was said above.
        let Ok(mut problems) = evaluation(run, task) else { continue };
        problems.truncate(TRIED);
        let name = if all.iter().any(|(name, ..)| *name == task.name) { format!("{} (evaluation)", task.name) } else { task.name.clone() };
        all.push((name, Some(i), problems));
    }
    all.into_iter()
        .filter(|(.., problems)| !problems.is_empty())
        .map(|(task, evaluation, problems)| Tried {
            task,
            evaluation,
            perfect: problems.iter().map(|problem| perfect(problem)).collect(),
            problems,
        })
        .collect()
}

/// Whether right answers are judged right and nothing is judged wrong or unanswered.
fn verdicts(tried: &Tried, rules: &Rules) -> Finding {
    let task = &tried.task;
    if let Err(unavailable) = rules.ready(tried.problems.iter().map(|problem| &**problem)) {
        return Finding::fault("verifier", format!("{task}: {unavailable}"), "distill doctor without a recipe says what the machine lacks");
    }
    let judge = |problem: &Problem, text: &str| rules.verify(problem, &Response::parse(text));
    let (mut right, mut unknown) = (0, 0);
    for (problem, perfect) in tried.problems.iter().zip(&tried.perfect) {
        let forms = match perfect {
            Ok(forms) => forms,
            Err(why) if matches!(problem.answer, Answer::Regex { .. } | Answer::Countdown { .. }) => {
                let remedy = "correct the reference of this problem: whatever is answered would be wrong";
                return Finding::fault("verifier", format!("{task}: {} cannot be answered: {why}", problem.id), remedy);
            }
            Err(_) => {
                unknown += 1;
                continue;
            }
        };
        let verdicts: Vec<_> = forms.iter().map(|text| judge(problem, text)).collect();
        if let Some(Err(unavailable)) = verdicts.iter().find(|verdict| verdict.is_err()) {
            return Finding::fault("verifier", format!("{task}: {unavailable}"), "make it available; nothing is guessed in its place");
        }
        if !verdicts.iter().flatten().any(|verdict| verdict.is_correct()) {
            let said = verdicts.iter().flatten().next().map_or("nothing".to_owned(), |verdict| format!("{verdict:?}"));
            let says = format!(
                "{task}: the reference of {} ({:?}), given back as the answer, is not judged right: {said}",
                problem.id,
                problem.answer.gold()
            );
            return Finding::fault(
                "verifier",
                says,
                "correct the reference, or name another check in problems.verify (distill verify --audit lists all such)",
            );
        }
        right += 1;
        if judge(problem, "").is_ok_and(|verdict| verdict.is_correct()) {
            return Finding::fault(
                "verifier",
                format!("{task}: an empty response to {} is judged right", problem.id),
                "correct the reference: it asks for nothing",
            );
        }
    }
    let why = tried.perfect.iter().find_map(|perfect| perfect.as_ref().err());
    match (right, why) {
        (0, Some(why)) => Finding::note("verifier", format!("{task}: not tried, {why}")),
        _ => {
            let rest = if unknown > 0 { format!(", {unknown} could not be tried") } else { String::new() };
            Finding::good(
                "verifier",
                format!(
                    "{task}: the references of {right} problems, given as answers, are judged right, and an empty response is not{rest}"
                ),
            )
        }
    }
}

/// Whether the best answer is paid best, and nothing is paid for nothing.
fn rewards(recipe: &Recipe, tried: Option<&Tried>, rules: &Rules) -> Vec<Finding> {
    let mut phases: Vec<(String, RewardPreset, usize)> = Vec::new();
    for (role, model) in [("teacher", &recipe.teacher), ("student", &recipe.student)] {
        for phase in model.iter().flat_map(|model| &model.phases) {
            if let Method::Grpo(grpo) = &phase.method {
                phases.push((format!("{role}/{}", phase.name), grpo.reward, grpo.max_tokens));
            }
        }
    }
    let Some(tried) = tried.filter(|_| !recipe.problems.task.is_empty()) else { return Vec::new() };
    phases.iter().map(|(stage, preset, max_tokens)| paid(stage, *preset, *max_tokens, tried, rules)).collect()
}

fn paid(stage: &str, preset: RewardPreset, max_tokens: usize, tried: &Tried, rules: &Rules) -> Finding {
    let Some(best) = preset.best() else {
        return Finding::note("reward", format!("{stage}: not tried, {preset:?} is paid by what is not ours"));
    };
    let pay = |problem: &Problem, text: &str| -> Option<f64> {
        let response = Response::parse(text);
        let judgement = rules.judgement(problem, &response).ok()?;
        // Short, so that no part of it is for length.
        Some(score(preset, problem, &response, &judgement, FinishReason::Stop, 1, max_tokens).total)
    };
    let most = |problem: &Problem, texts: &[String]| texts.iter().filter_map(|text| pay(problem, text)).reduce(f64::max);
    let (mut paid, mut empty, mut failed) = (f64::MAX, f64::MIN, f64::MIN);
    for (problem, perfect) in tried.problems.iter().zip(&tried.perfect) {
        let Ok(forms) = perfect else { continue };
        let Some(right) = most(problem, forms) else { continue };
        paid = paid.min(right);
        empty = empty.max(pay(problem, "").unwrap_or(f64::MIN));
        failed = failed.max(wrong(problem).and_then(|texts| most(problem, &texts)).unwrap_or(f64::MIN));
    }
    if paid == f64::MAX {
        return Finding::note("reward", format!("{stage}: not tried, no perfect completion is known"));
    }
    let wrong = if failed == f64::MIN { String::new() } else { format!(", for a wrong one {}", short(failed)) };
    let says = format!("{stage}: {preset:?} pays {} for a perfect completion{wrong}, for an empty one {}", short(paid), short(empty));
    if paid < best - 1e-9 {
        let remedy = "a form of answer that this reward wants is none that this task's answers have; take another reward for this task";
        Finding::fault("reward", format!("{says}; the most that it can pay is {best}"), remedy)
    } else if empty >= paid || failed >= paid {
        Finding::fault("reward", says, "this reward does not tell right from wrong here; take another one, or correct the references")
    } else if failed > f64::MIN && empty > failed {
        Finding::note("reward", format!("{says}: not to answer is paid better than to try, as this preset has it"))
    } else {
        Finding::good("reward", says)
    }
}

fn of_model(run: &Run, role: &'static str, model: &Model, tried: &[Tried], rules: &Rules) -> Vec<Finding> {
    if model.served.is_some() {
        return vec![Finding::note(role, format!("{}: it is behind a server, which renders and samples itself; not tried", model.model))];
    }
    if !model.is_fresh()
        && !Path::new(&model.model).exists()
        && let Err(error) = hub::model(&model.model, model.revision.as_deref(), hub::Access::CACHE)
    {
        if !error.is::<hub::Temporary>() && !error.is::<hub::NotCached>() {
            return vec![failed(role, &error)];
        }
        let remedy = format!("hf download {} into the same cache (HF_HOME), and look again; a run fetches it by itself", model.model);
        return vec![Finding::warning(role, format!("{} is not in the cache, so nothing of it is checked", model.model), remedy)];
    }
    let origin = match models::origin(run, model) {
        Ok(origin) => origin,
        Err(error) => return vec![failed(role, &error)],
    };
    model::findings(&model::Patient { run, role, model, origin: &origin, tried, rules })
}

/// What each stage needs against what is there.
fn memory_and_disk(run: &Run) -> Vec<Finding> {
    let needs = match plan::needs(&run.recipe, &run.dir) {
        Ok(needs) => needs,
        Err(error) => return vec![failed("memory", &error)],
    };
    sizes::findings(&needs)
}

/// A sum of shares without the noise of its last bits.
fn short(reward: f64) -> f64 {
    (reward * 1e6).round() / 1e6
}

/// The origin's folder, where it has one.
pub(super) fn folder_of(origin: &Origin) -> Option<&Path> {
    match origin {
        Origin::Folder(folder) => Some(folder),
        Origin::Fresh | Origin::Server => None,
    }
}

/// Makes findings of a check that may fail as a whole.
pub(super) fn or_failed(check: &'static str, found: Result<Vec<Finding>>) -> Vec<Finding> {
    found.with_context(|| format!("{check} could not be checked")).unwrap_or_else(|error| vec![failed(check, &error)])
}

/// Whether any of these is a fault.
pub(super) fn has_fault(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.state == State::Fault)
}
