//! What stages left in the run directory: the recipe, `DONE` markers, the funnel, results per problem.

use crate::filter::Step;
use crate::metric::{self, Outcome};
use crate::problem::ProblemId;
use crate::publish;
use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What the report needs of `recipe.toml`; other keys are passed over.
#[derive(Debug, Deserialize)]
pub(super) struct Recipe {
    pub name: String,
    #[serde(flatten)]
    pub setup: Setup,
    #[serde(default, rename = "control")]
    controls: Vec<Named>,
    #[serde(default)]
    evaluate: Evaluate,
}

/// What a run was made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    #[serde(default)]
    pub seed: u64,
    #[serde(default)]
    pub problems: Option<Problems>,
    #[serde(default)]
    pub sample: Option<Sample>,
    #[serde(default)]
    pub teacher: Option<Model>,
    #[serde(default)]
    pub student: Option<Model>,
    /// There where a model was first taught by rule-made, corrupted traces.
    #[serde(default, deserialize_with = "planted")]
    pub cold_start: Option<Planted>,
}

/// Demonstrations that are all right have no shares of faults, and nothing is planted.
fn planted<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Planted>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum ColdStart {
        Corrupted(Planted),
        Right(serde::de::IgnoredAny),
    }
    Ok(match Option::deserialize(from)? {
        Some(ColdStart::Corrupted(planted)) => Some(planted),
        Some(ColdStart::Right(_)) | None => None,
    })
}

/// Where the problems came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problems {
    #[serde(default)]
    pub task: Option<String>,
    #[serde(default)]
    pub file: Option<String>,
}

/// How the teacher was sampled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// 0 is all of them.
    #[serde(default)]
    pub problems: usize,
    /// Attempts at each.
    #[serde(default)]
    pub n: u32,
    #[serde(default)]
    pub temperature: Option<f64>,
}

/// A model and the trainings that it went through.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// A folder, a Hub id, `fresh`, or a server's address.
    pub model: String,
    /// Of a server's model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, rename = "phase")]
    pub phases: Vec<Phase>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    #[serde(default)]
    name: Option<String>,
    pub method: String,
}

impl Phase {
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.method)
    }
}

/// Shares of the cold-start traces that are corrupted on purpose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planted {
    pub traces: u64,
    /// Work from left to right, against precedence.
    pub left_to_right: f64,
    pub slip: f64,
    pub skip: f64,
    pub mixed_language: f64,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
struct Evaluate {
    #[serde(default)]
    tasks: Vec<String>,
    #[serde(default)]
    max_drop: Option<f64>,
}

impl Recipe {
    pub fn load(run: &Path) -> Result<Self> {
        let path = run.join("recipe.toml");
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("{} is not a run directory: it has no recipe.toml; give the folder that --run named", run.display())
            }
            text => text.with_context(|| format!("cannot read {}", path.display()))?,
        };
        toml::from_str(&text).with_context(|| format!("{} is not a recipe that a run has written", path.display()))
    }

    /// How far a model may fall on tasks that it is not trained on; `None` is no gate.
    pub fn max_drop(&self) -> Option<f64> {
        self.evaluate.max_drop
    }

    /// Folders of the stages before evaluation, in the order of the pipeline.
    fn folders(&self) -> Vec<String> {
        let phases = |who: &str, model: &Option<Model>| -> Vec<String> {
            let names = model.iter().flat_map(|model| model.phases.iter().map(Phase::name));
            names.map(|name| format!("{who}/{name}")).collect()
        };
        let mut folders = phases("teacher", &self.setup.teacher);
        folders.extend(["traces".into(), "corpus".into()]);
        folders.extend(phases("student", &self.setup.student));
        folders.extend(self.controls.iter().map(|control| format!("controls/{}", control.name)));
        folders
    }
}

/// A finished stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Its folder in the run directory, such as `teacher/grpo`.
    pub name: String,
    /// Wall time.
    pub seconds: f64,
    pub counts: Map<String, Value>,
    pub inputs: Map<String, Value>,
}

/// The finished stages in the order of the pipeline.
pub(super) fn stages(run: &Path, recipe: &Recipe, evaluated: &[Evaluated]) -> Result<Vec<Stage>> {
    let evaluations = evaluated.iter().map(|one| format!("evaluation/{}", one.folder.file_name().unwrap_or_default().to_string_lossy()));
    recipe.folders().into_iter().chain(evaluations).filter_map(|name| stage(run, name).transpose()).collect()
}

fn stage(run: &Path, name: String) -> Result<Option<Stage>> {
    #[derive(Deserialize)]
    struct Done {
        seconds: f64,
        #[serde(default)]
        counts: Map<String, Value>,
        #[serde(default)]
        inputs: Map<String, Value>,
    }
    let done: Option<Done> = done(&run.join(&name))?;
    Ok(done.map(|Done { seconds, counts, inputs }| Stage { name, seconds, counts, inputs }))
}

/// Reads what a finished stage said; `None` where it is not finished.
pub(super) fn done<T: DeserializeOwned>(dir: &Path) -> Result<Option<T>> {
    let Some(value) = publish::done(dir)? else { return Ok(None) };
    let parsed = serde_json::from_value(value);
    parsed.map(Some).with_context(|| format!("{} is damaged; remove it to run the stage again", dir.join("DONE").display()))
}

/// The funnel of the filter; empty where nothing was filtered.
pub(super) fn funnel(run: &Path) -> Result<Vec<Step>> {
    #[derive(Deserialize)]
    struct Done {
        #[serde(default)]
        funnel: Vec<Step>,
    }
    Ok(done::<Done>(&run.join("corpus"))?.map(|done| done.funnel).unwrap_or_default())
}

/// One model on one task. Rates and shares are in [0, 1], intervals are 95 % over problems.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// `base`, `teacher`, `student-base`, `student-sft`, `student`, or a control.
    pub model: String,
    pub task: String,
    pub problems: usize,
    pub samples: usize,
    /// Sampled attempts at each problem.
    #[serde(default)]
    pub n: u32,
    /// Mean over the sampled attempts.
    pub pass_at_1: f64,
    pub ci95: [f64; 2],
    pub greedy: f64,
    pub greedy_ci95: [f64; 2],
    #[serde(default)]
    pub maj_at_n: Option<f64>,
    #[serde(default)]
    pub maj_at_n_ci95: Option<[f64; 2]>,
    #[serde(default)]
    pub pass_at_k: BTreeMap<u32, f64>,
    #[serde(default)]
    pub pass_at_k_ci95: BTreeMap<u32, [f64; 2]>,
    pub mean_tokens: f64,
    #[serde(default)]
    pub mean_tokens_ci95: Option<[f64; 2]>,
    /// Shares of the sampled attempts.
    pub truncated: f64,
    #[serde(default)]
    pub truncated_ci95: Option<[f64; 2]>,
    pub no_answer: f64,
    #[serde(default)]
    pub no_answer_ci95: Option<[f64; 2]>,
    /// Answers that no rule could judge; they count as not solved.
    #[serde(default)]
    pub undecided: f64,
    pub language_share: f64,
    #[serde(default)]
    pub language_share_ci95: Option<[f64; 2]>,
}

/// An evaluation with what became of each problem.
#[derive(Debug)]
pub(super) struct Evaluated {
    pub evaluation: Evaluation,
    /// Where it was read.
    pub folder: PathBuf,
    pub sampled: BTreeMap<ProblemId, Outcome>,
    pub greedy: BTreeMap<ProblemId, Outcome>,
    /// How it was measured: all that must be equal where two models are compared.
    pub protocol: Map<String, Value>,
}

/// The finished evaluations on the recipe's tasks, in its order, models from base to student. What is left of a task that the recipe no longer
/// names stays on disk and out of the report.
pub(super) fn evaluations(run: &Path, recipe: &Recipe) -> Result<Vec<Evaluated>> {
    let mut all = evaluation_folders(run)?.into_iter().map(evaluated).collect::<Result<Vec<_>>>()?;
    // Problems of our own stand in for a task under a name of their own.
    let task_place = |task: &str| recipe.evaluate.tasks.iter().position(|t| t == task || task.strip_suffix("-sample") == Some(t));
    all.retain(|one| task_place(&one.evaluation.task).is_some());
    all.sort_by_cached_key(|one| {
        let e = &one.evaluation;
        (task_place(&e.task), e.task.clone(), model_place(&e.model), e.model.clone())
    });
    for pair in all.windows(2) {
        let (a, b) = (&pair[0].evaluation, &pair[1].evaluation);
        ensure!(
            (&a.task, &a.model) != (&b.task, &b.model),
            "{} and {} both evaluate {} on {}: remove the older one",
            pair[0].folder.display(),
            pair[1].folder.display(),
            a.model,
            a.task
        );
    }
    Ok(all)
}

/// Controls stand between the student's base and what was trained on the corpus.
fn model_place(model: &str) -> usize {
    let order = ["base", "teacher", "student-base", "", "student-sft", "student"];
    order.iter().position(|name| *name == model).unwrap_or(3)
}

/// The finished folders in `evaluation/`, sorted.
fn evaluation_folders(run: &Path) -> Result<Vec<PathBuf>> {
    let dir = run.join("evaluation");
    let failed = || format!("cannot read {}", dir.display());
    let entries = match std::fs::read_dir(&dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(failed)?,
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.with_context(failed)?;
        // A leading point is a folder that is being published.
        if !entry.file_name().as_encoded_bytes().starts_with(b".") && entry.path().join("DONE").exists() {
            folders.push(entry.path());
        }
    }
    folders.sort();
    Ok(folders)
}

fn evaluated(folder: PathBuf) -> Result<Evaluated> {
    #[derive(Deserialize)]
    struct Done {
        result: Evaluation,
        #[serde(default)]
        inputs: Map<String, Value>,
        #[serde(default)]
        extent: Map<String, Value>,
    }
    #[derive(Deserialize)]
    struct Row {
        problem: ProblemId,
        attempts: u32,
        correct: u32,
        greedy: bool,
    }
    let Done { mut result, inputs, extent } =
        done(&folder)?.with_context(|| format!("{} is gone: it was there a moment ago", folder.join("DONE").display()))?;
    let path = folder.join("results.jsonl");
    let (mut sampled, mut greedy) = (BTreeMap::new(), BTreeMap::new());
    let mut seen = HashSet::new();
    for (number, row) in rows::<Row>(&path)? {
        let at = || format!("{}:{number}", path.display());
        ensure!(row.correct <= row.attempts, "{}: {} correct of {} attempts", at(), row.correct, row.attempts);
        ensure!(seen.insert(row.problem.clone()), "{}: {} was there before", at(), row.problem);
        result.n = result.n.max(row.attempts);
        if row.attempts > 0 {
            sampled.insert(row.problem.clone(), Outcome { attempts: row.attempts, correct: row.correct });
        }
        greedy.insert(row.problem, Outcome { attempts: 1, correct: u32::from(row.greedy) });
    }
    let mut protocol = inputs;
    protocol.extend(extent.into_iter().filter(|(key, _)| key == "problems"));
    protocol.retain(|key, _| !["model", "seed"].contains(&key.as_str()));
    let found = Evaluated { evaluation: result, folder, sampled, greedy, protocol };
    found.check(&path)?;
    Ok(found)
}

impl Evaluated {
    /// What `DONE` says is what the rows say.
    fn check(&self, path: &Path) -> Result<()> {
        let Self { evaluation: e, sampled, greedy, .. } = self;
        ensure!(
            greedy.len() == e.problems,
            "{}: {} problems, DONE says {}: the file was cut or exchanged; remove DONE to run the stage again",
            path.display(),
            greedy.len(),
            e.problems
        );
        for (name, said, outcomes) in [("pass_at_1", e.pass_at_1, sampled), ("greedy", e.greedy, greedy)] {
            let rates: Vec<f64> = outcomes.values().map(|outcome| outcome.rate()).collect();
            let Some(found) = metric::mean(&rates) else { continue };
            ensure!(
                (found - said).abs() < 1e-3,
                "{}: {name} is {found}, DONE says {said}: the file was exchanged; remove DONE to run the stage again",
                path.display()
            );
        }
        Ok(())
    }
}

/// The values of a file of JSON lines with their line numbers, from 1.
pub(super) fn rows<T: DeserializeOwned>(path: &Path) -> Result<Vec<(usize, T)>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(i, line)| Ok((i + 1, serde_json::from_str(line).with_context(|| format!("{}:{} is damaged", path.display(), i + 1))?));
    lines.map(parse).collect()
}
