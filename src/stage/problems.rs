//! Problems for a stage: generated ones by number, or a file's, in an order that the seed decides.
//!
//! For generated tasks a class of the questions, one in five by hash, is held out: evaluation draws from it and nothing else does.

use super::decontaminate;
use super::run::{Run, config};
use crate::key::Key;
use crate::problem::Problem;
use crate::recipe::{EvaluationTask, Problems};
use crate::tasks::{self, Layout, Loaded, Task, arithmetic, countdown, countdown_start, knights};
use anyhow::{Context, Result, anyhow, ensure};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Problems that a stage draws from.
pub enum ProblemSet {
    Generated { task: Task, key: Key, prefix: String, levels: Vec<u8> },
    Fixed { problems: Vec<Arc<Problem>>, key: Key },
}

impl ProblemSet {
    /// The problems of a recipe for one of its streams (`sample`, `teacher/grpo`, …).
    pub fn training(run: &Run, stream: &str) -> Result<Self> {
        let settings = &run.recipe.problems;
        let key = Key::new(run.seed(), "problems").name(stream);
        if settings.task.is_empty() {
            return config(Err(anyhow!("[problems] is missing: name a task or a file")));
        }
        let task = settings.task.parse::<Task>().ok();
        match (task, &settings.file) {
            (Some(task @ (Task::Arithmetic | Task::Countdown | Task::CountdownTiny | Task::Knights)), None) => {
                let prefix = if task == Task::Arithmetic { stream.to_owned() } else { format!("{task}/{stream}") };
                Ok(Self::Generated { task, key, prefix, levels: settings.levels.clone() })
            }
            _ => {
                let loaded = config(load_training(settings))?;
                report_unusable(run, &settings.task, &loaded)?;
                let problems = decontaminate::clean(run, loaded.problems.into_iter().map(Arc::new).collect())?;
                Ok(Self::Fixed { problems, key })
            }
        }
    }

    /// How many there are; `None` for generated ones.
    pub fn len(&self) -> Option<usize> {
        match self {
            Self::Generated { .. } => None,
            Self::Fixed { problems, .. } => Some(problems.len()),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// The n-th problem of an endless training stream: epoch after epoch, each in its own order.
    pub fn endless(&self, n: u64) -> Result<Arc<Problem>> {
        match self {
            Self::Generated { task, key, prefix, levels } => Ok(Arc::new(generate(*task, *key, prefix, n, levels, false)?)),
            Self::Fixed { problems, key } => {
                let len = problems.len() as u64;
                ensure!(len > 0, "there are no problems to train on");
                let mut order: Vec<usize> = (0..problems.len()).collect();
                key.name("epoch").number(n / len).stream().shuffle(&mut order);
                Ok(problems[order[(n % len) as usize]].clone())
            }
        }
    }

    /// The first `limit` problems in their own order; 0 is all of them, which generated ones refuse.
    pub fn first(&self, limit: usize, key_path: &str) -> Result<Vec<Arc<Problem>>> {
        match self {
            Self::Generated { task, .. } => {
                config(if limit > 0 { Ok(()) } else { Err(anyhow!("{key_path} is missing: {task} problems are generated without end")) })?;
                (0..limit as u64).map(|n| self.endless(n)).collect()
            }
            Self::Fixed { problems, .. } => {
                let limit = if limit == 0 { problems.len() } else { limit.min(problems.len()) };
                Ok(problems[..limit].to_vec())
            }
        }
    }

    /// Hash of what the set is, for a stage's inputs.
    pub fn identity(&self) -> String {
        match self {
            Self::Generated { task, prefix, levels, .. } => format!("generated {task} {prefix} {levels:?}"),
            Self::Fixed { problems, .. } => identity(problems),
        }
    }
}

/// SHA-256 over problems, with their references.
pub fn identity(problems: &[Arc<Problem>]) -> String {
    let mut hash = Sha256::new();
    for problem in problems {
        hash.update(serde_json::to_vec(&**problem).unwrap_or_default());
        hash.update(b"\n");
    }
    crate::publish::hex(hash)
}

/// A generated problem: the n-th of its stream that is, or is not, in the held-out class.
fn generate(task: Task, key: Key, prefix: &str, n: u64, levels: &[u8], held_out: bool) -> Result<Problem> {
    if task == Task::Arithmetic && levels.is_empty() {
        return Ok(arithmetic::problem(key, prefix, n));
    }
    if task == Task::CountdownTiny {
        return Ok(countdown_start::problem(key, prefix, n));
    }
    const TRIES: u64 = 1000;
    for attempt in 0..TRIES {
        let index = n * TRIES + attempt;
        let level = (!levels.is_empty()).then(|| usize::from(*key.name("level").number(index).stream().choose(levels)));
        let between = |default: (usize, usize)| level.map_or(default, |level| (level, level));
        let problem = match task {
            Task::Arithmetic => {
                let problem = arithmetic::problem(key, prefix, index);
                if !problem.level.is_some_and(|level| levels.contains(&level)) {
                    continue;
                }
                return Ok(Problem { id: crate::problem::ProblemId(format!("arithmetic/{prefix}/{n}")), ..problem });
            }
            Task::Countdown => {
                let defaults = countdown::Settings::default();
                countdown::problem(key, prefix, index, &countdown::Settings { numbers: between(defaults.numbers), ..defaults })?
            }
            _ => {
                let defaults = knights::Settings::default();
                knights::problem(key, prefix, index, &knights::Settings { people: between(defaults.people), ..defaults })?
            }
        };
        if is_held_out(&problem.question) == held_out {
            return Ok(Problem { id: crate::problem::ProblemId(format!("{prefix}/{n}")), ..problem });
        }
    }
    anyhow::bail!("none of {TRIES} draws of {task} was {} the held-out class", if held_out { "in" } else { "outside" })
}

/// FNV-1a 64 of the question, modulo 5.
fn is_held_out(question: &str) -> bool {
    let hash = question.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    hash % 5 == 0
}

/// Where problems come from.
#[derive(Debug, PartialEq, Eq)]
pub enum Origin {
    Generated,
    /// The recipe names it.
    Named(PathBuf),
    /// It lies in the folder of problem files.
    Data(PathBuf),
    /// Our own, embedded.
    Samples,
}

impl Origin {
    /// Of the problems that a recipe samples and trains on. An evaluation set is never among them.
    pub fn training(settings: &Problems) -> Self {
        let file = settings.task.parse::<Task>().ok().and_then(Task::training_file);
        match (&settings.file, file) {
            (Some(file), _) => Self::Named(file.clone()),
            (None, None) => Self::Generated,
            (None, Some(file)) => data_folder().map_or(Self::Samples, |folder| Self::Data(folder.join(file))),
        }
    }

    /// Of the problems that an evaluation task measures on.
    pub fn evaluation(settings: &Problems, task: &EvaluationTask) -> Self {
        let known = task.name.parse::<Task>().ok();
        let file = known.and_then(Task::file);
        match (&task.file, known, file, data_folder()) {
            (Some(file), ..) => Self::Named(file.clone()),
            (None, Some(_), None, _) | (None, Some(Task::Countdown | Task::Knights), _, None) => Self::Generated,
            (None, Some(_), Some(file), Some(folder)) => Self::Data(folder.join(file)),
            (None, Some(_), Some(_), None) => Self::Samples,
            (None, None, ..) => settings.file.clone().map_or(Self::Generated, Self::Named),
        }
    }

    /// What to tell a person who has not named the file; `None` where there is nothing to tell.
    pub fn note(&self, task: &str) -> Option<String> {
        match self {
            Self::Generated | Self::Named(_) => None,
            Self::Data(file) => Some(format!("{task}: problems of {}", file.display())),
            Self::Samples => Some(format!(
                "{task}: 20 problems of our own in its manner; for the real ones set DISTILL_DATA to the folder with their file, or name the file"
            )),
        }
    }
}

/// Problems of a recipe's file, of the folder of problem files, or the embedded samples.
///
/// # Errors
/// Where a file is missing or cannot be read, or the recipe does not say how.
pub fn load_training(settings: &Problems) -> Result<Loaded> {
    let task = settings.task.parse::<Task>().ok();
    match (&settings.file, task, &settings.verify) {
        (Some(file), _, Some(check)) => tasks::read(file, Layout::Own { task: &settings.task, fields: &settings.fields, check }),
        (Some(file), Some(task), None) => tasks::read(file, Layout::Named(task)),
        (Some(_), None, None) => anyhow::bail!("problems.verify is missing"),
        (None, Some(task), _) => tasks::load_training(task, data_folder().as_deref()),
        (None, None, _) => anyhow::bail!("there are no samples of {:?}; give problems.file", settings.task),
    }
}

/// Problems of an evaluation task that are read, not generated.
///
/// # Errors
/// As of [`load_training`].
pub fn load_evaluation(settings: &Problems, task: &EvaluationTask) -> Result<Loaded> {
    match (&task.file, task.name.parse::<Task>().ok()) {
        (None, Some(kind)) => tasks::load(kind, data_folder().as_deref()),
        (Some(file), Some(kind)) => tasks::read(file, Layout::Named(kind)),
        (file, None) => {
            let file = file.as_ref().or(settings.file.as_ref());
            let file = file.with_context(|| format!("problems.file is missing: where are the problems of {:?}?", task.name))?;
            let check = settings.verify.as_ref();
            let check = check.with_context(|| format!("problems.verify is missing: how are the answers of {:?} checked?", task.name))?;
            tasks::read(file, Layout::Own { task: &task.name, fields: &settings.fields, check })
        }
    }
}

/// How many held-out problems a generated task is measured on where the recipe does not say.
pub fn generated_problems(task: Task) -> usize {
    match task {
        Task::Arithmetic => 1024,
        Task::CountdownTiny => countdown_start::HELD_OUT_LIMIT,
        _ => 256,
    }
}

/// The held-out problems of an evaluation task.
pub fn evaluation(run: &Run, task: &EvaluationTask) -> Result<Vec<Arc<Problem>>> {
    let settings = &run.recipe.problems;
    let key = Key::new(run.seed(), "held-out").name(&task.name);
    let problems = match (Origin::evaluation(settings, task), task.name.parse::<Task>()) {
        (Origin::Generated, Ok(kind)) => {
            let n = if task.problems == 0 { generated_problems(kind) } else { task.problems };
            match kind {
                Task::Arithmetic => arithmetic::held_out(key, n)?,
                Task::CountdownTiny => countdown_start::held_out(key, n)?,
                _ => (0..n as u64)
                    .map(|n| generate(kind, key, &format!("{kind}/held-out"), n, &settings.levels, true))
                    .collect::<Result<_>>()?,
            }
        }
        _ => {
            let loaded = config(load_evaluation(settings, task))?;
            report_unusable(run, &task.name, &loaded)?;
            loaded.problems
        }
    };
    let limit = if task.problems == 0 { problems.len() } else { task.problems };
    Ok(problems.into_iter().take(limit).map(Arc::new).collect())
}

/// The held-out problems of every evaluation task, in the order of the recipe; refuses a recipe that also trains on some of them.
pub fn held_out(run: &Run) -> Result<Vec<Vec<Arc<Problem>>>> {
    let recipe = &run.recipe;
    let all = recipe.evaluate.tasks.iter().map(|task| evaluation(run, task)).collect::<Result<Vec<_>>>()?;
    let trains = recipe.teacher.iter().chain(&recipe.student).any(|m| !m.phases.is_empty());
    if !trains || recipe.problems.task.is_empty() {
        return Ok(all);
    }
    let ProblemSet::Fixed { problems, .. } = ProblemSet::training(run, "sample")? else { return Ok(all) };
    // The same text, case and white space aside. What more than that is too much alike is the recipe's to say: problems.decontaminate.
    let text = |p: &Arc<Problem>| p.question.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let trained: std::collections::HashSet<String> = problems.iter().map(text).collect();
    for (task, held_out) in recipe.evaluate.tasks.iter().zip(&all) {
        let mut both = held_out.iter().filter(|p| trained.contains(&text(p)));
        if let Some(first) = both.next() {
            return config(Err(anyhow!(
                "{} of the {} problems of evaluate.{3} are also trained on (the first: {2}): name it in problems.decontaminate = [{3:?}], which leaves them out, \
                 or take them out of problems.file, or evaluate on others",
                1 + both.count(),
                held_out.len(),
                first.id,
                task.name
            )));
        }
    }
    Ok(all)
}

/// Where the known tasks' files lie, if the person has them.
pub(super) fn data_folder() -> Option<PathBuf> {
    std::env::var_os("DISTILL_DATA").filter(|v| !v.is_empty()).map(PathBuf::from)
}

/// Problems without a usable reference are listed in the run directory, by task, and counted, never dropped in silence.
fn report_unusable(run: &Run, task: &str, loaded: &Loaded) -> Result<()> {
    let path: &Path = &run.dir.join("unusable_problems.json");
    let mut all = super::run::read_json(path)?.unwrap_or_else(|| serde_json::json!({}));
    let Some(first) = loaded.unusable.first() else {
        if all.as_object_mut().is_some_and(|all| all.remove(task).is_some()) {
            run.write_json(path, &all)?;
        }
        return config(if loaded.problems.is_empty() { Err(anyhow!("the file of task {task:?} holds no problems")) } else { Ok(()) });
    };
    all[task] = serde_json::to_value(&loaded.unusable)?;
    run.write_json(path, &all)?;
    let text = format!(
        "{} of {} problems have no usable reference (the first: {}, {}); they are listed in {}",
        loaded.unusable.len(),
        loaded.unusable.len() + loaded.problems.len(),
        first.place,
        first.reason,
        path.display()
    );
    if loaded.problems.is_empty() {
        return config(Err(anyhow!(text)));
    }
    run.ui.say(&text);
    Ok(())
}
