//! Evaluation problems that must not be trained on: where their texts come from, and which problems of a recipe hold one of them.

use super::problems::{data_folder, load_evaluation};
use super::run::{Run, config, read_json};
use crate::filter::Evaluations;
use crate::problem::Problem;
use crate::publish;
use crate::recipe::Recipe;
use crate::tasks::{self, Task};
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

/// Where a run lists the problems that it left out.
pub const FILE: &str = "contaminated_problems.json";
/// Fields of a line that may hold the question of an evaluation problem.
const QUESTIONS: [&str; 6] = ["question", "problem", "Problem", "prompt", "quiz", "text"];

/// Names and questions of the evaluation problems that `names` names: tasks of the recipe or known ones, or JSONL files.
///
/// # Errors
/// Where a name is neither, or its file is not there: the error says how to get it.
pub fn questions(recipe: &Recipe, names: &[String]) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for name in names {
        let of_name = of(recipe, name).with_context(|| format!("decontaminate: {name:?}"))?;
        ensure!(!of_name.is_empty(), "decontaminate: {name:?} holds no problems");
        all.extend(of_name);
    }
    Ok(all)
}

/// The index over [`questions`], and a hash of them; `None` where nothing is named.
pub(super) fn evaluations(recipe: &Recipe, names: &[String]) -> Result<Option<(Evaluations, String)>> {
    if names.is_empty() {
        return Ok(None);
    }
    let questions = config(questions(recipe, names))?;
    let mut hash = Sha256::new();
    for (name, question) in &questions {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update((question.len() as u64).to_le_bytes());
        hash.update(question);
    }
    Ok(Some((Evaluations::new(questions), publish::hex(hash))))
}

fn of(recipe: &Recipe, name: &str) -> Result<Vec<(String, String)>> {
    let named = |problems: Vec<Problem>| problems.into_iter().map(|problem| (problem.id.0, problem.question)).collect();
    if let Some(task) = recipe.evaluate.tasks.iter().find(|task| task.name == name && task.file.is_some()) {
        return Ok(named(load_evaluation(&recipe.problems, task)?.problems));
    }
    if let Ok(task) = name.parse::<Task>() {
        return Ok(named(of_task(task)?));
    }
    let path = Path::new(name);
    if !path.is_file() {
        let known: Vec<&str> = Task::ALL.into_iter().filter(|task| task.file().is_some()).map(Task::name).collect();
        bail!("it is neither a known task ({}), nor a task of [evaluate] with a file, nor a file that is there", known.join(", "));
    }
    of_file(path)
}

/// The embedded samples are no evaluation set: without the file there is nothing to compare with.
fn of_task(task: Task) -> Result<Vec<Problem>> {
    let Some(file) = task.file() else { bail!("its problems are generated, and the held-out ones are never trained on: leave it out") };
    let source = tasks::hub_of(task).map_or(String::new(), |hub| format!(" (it is {hub} on the Hugging Face Hub)"));
    let get =
        format!("get {file}{source}, put it into a folder and set DISTILL_DATA to that, or name a JSONL file of the problems instead");
    let folder = data_folder().with_context(|| format!("its problems are not here: {get}"))?;
    ensure!(folder.join(file).is_file(), "no {file} in {}: {get}", folder.display());
    Ok(tasks::load(task, Some(&folder))?.problems)
}

fn of_file(path: &Path) -> Result<Vec<(String, String)>> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut all = Vec::new();
    for (i, line) in BufReader::new(file).lines().enumerate() {
        let at = || format!("{}:{}", path.display(), i + 1);
        let line = line.with_context(at)?;
        if line.trim().is_empty() {
            continue;
        }
        let row: Value = serde_json::from_str(&line).with_context(at)?;
        let question = QUESTIONS.iter().find_map(|field| row[field].as_str());
        let question = question.with_context(|| format!("{}: none of the fields {} holds a text", at(), QUESTIONS.join(", ")))?;
        let name = row["id"].as_str().map_or_else(|| format!("{stem}/{i}"), str::to_owned);
        all.push((name, question.to_owned()));
    }
    Ok(all)
}

/// Leaves out the problems that hold an evaluation problem which `problems.decontaminate` names; they are listed in the run directory, each with its reason.
pub(super) fn clean(run: &Run, problems: Vec<Arc<Problem>>) -> Result<Vec<Arc<Problem>>> {
    let recipe = &run.recipe;
    let Some((evaluations, _)) = evaluations(recipe, &recipe.problems.decontaminate)? else { return Ok(problems) };
    let all = problems.len();
    let mut list = Vec::new();
    let clean: Vec<Arc<Problem>> = problems
        .into_iter()
        .filter(|problem| {
            let Some(hit) = evaluations.find(&problem.question) else { return true };
            list.push(json!({
                "problem": problem.id,
                "question": problem.question,
                "evaluation": hit.item,
                "words_in_a_row": hit.run,
                "text": hit.text,
                "coverage": (hit.coverage * 1000.0).round() / 1000.0,
            }));
            false
        })
        .collect();
    let path = run.dir.join(FILE);
    let mut stored = read_json(&path)?.unwrap_or_else(|| json!({}));
    let task = &recipe.problems.task;
    let before = stored[task].take();
    let first = list.first().map(|first| {
        format!("{} holds {}", first["problem"].as_str().unwrap_or_default(), first["evaluation"].as_str().unwrap_or_default())
    });
    let (left_out, list) = (list.len(), Value::Array(list));
    if before != list {
        stored[task] = list;
        run.write_json(&path, &stored)?;
        if let Some(first) = first {
            run.ui.say(&format!(
                "{left_out} of {all} problems hold a problem of {} and are left out (the first: {first}); they are listed in {}",
                recipe.problems.decontaminate.join(", "),
                path.display()
            ));
        }
    }
    config(if clean.is_empty() {
        Err(anyhow!("problems.decontaminate leaves none of {all} problems; see {}", path.display()))
    } else {
        Ok(clean)
    })
}
