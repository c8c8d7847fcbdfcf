//! The recipe: one TOML file is one complete run.
//!
//! Unknown keys are refused with a suggestion, and all problems are reported at once with their key paths. This file says what can be
//! written and what it means; it neither opens models nor knows where stages keep their files.

mod adapters;
mod base;
mod classes;
mod draft;
mod execution;
mod judged;
mod kd;
mod ladder;
mod phases;
mod served;
mod table;
mod value;

pub use base::{BaseChanges, TemplateOf};
pub use classes::{Change, Class, changes};
pub use draft::{Draft, check_pair};
pub use judged::JudgeSettings;
pub use kd::OwnAttempts;
pub use phases::{DataPart, Grpo, Method, Phase, Probes, Sft, TooLong};
pub use served::ServedModel;

use crate::filter::FilterSettings;
use crate::model::{LoraSettings, Shape};
use crate::reward::RewardPreset;
use crate::rollout::PromptStyle;
use crate::sampler::{SamplingParams, is_url};
use crate::sandbox::Limits;
use crate::tasks::cold_start::Corruption;
use crate::tasks::{Check, Fields, Task};
use crate::verify::Extraction;
use anyhow::{Context, Result};
use std::path::PathBuf;
use table::Table;

/// The recipe that runs without arguments.
pub const TINY: &str = include_str!("../../recipes/tiny.toml");

/// A whole run.
#[derive(Clone, Debug)]
pub struct Recipe {
    pub name: String,
    pub seed: u64,
    pub problems: Problems,
    pub cold_start: Option<ColdStart>,
    pub teacher: Option<Model>,
    pub sample: Sample,
    pub filter: FilterSettings,
    pub student: Option<Model>,
    pub controls: Vec<Control>,
    pub evaluate: Evaluate,
    pub judge: Option<JudgeSettings>,
    pub execution: Execution,
    /// Everything above as it will be used, defaults filled in.
    pub resolved: toml::Table,
}

/// Where the problems come from.
#[derive(Clone, Debug)]
pub struct Problems {
    /// A task that we know by name, or the name of the user's own.
    pub task: String,
    /// JSONL to read; without one a generated task is generated and another is read from the embedded samples or the data folder.
    pub file: Option<PathBuf>,
    pub fields: Fields,
    /// How the references of the user's own problems are checked.
    pub verify: Option<Check>,
    pub extraction: Extraction,
    /// What a program may use that is an answer; `None` is what the sandbox gives.
    pub limits: Option<Limits>,
    /// Levels that a generated task draws from; empty is the task's own choice.
    pub levels: Vec<u8>,
    /// Evaluation sets of which no problem is trained on: tasks by name, or files.
    pub decontaminate: Vec<String>,
}

/// Demonstrations made by rule for a model that starts from nothing, corrupted on purpose.
#[derive(Clone, Debug)]
pub struct ColdStart {
    pub traces: usize,
    /// Of arithmetic; demonstrations of countdown are all right.
    pub corruption: Option<Corruption>,
}

/// A teacher or a student.
#[derive(Clone, Debug)]
pub struct Model {
    /// A folder, a Hub id, `fresh`, or the address of a server.
    pub model: String,
    /// Of a server: which of its models, and how it is asked.
    pub served: Option<ServedModel>,
    /// Commit or tag of a Hub id.
    pub revision: Option<String>,
    /// Of a fresh model.
    pub shape: Option<Shape>,
    pub phases: Vec<Phase>,
    /// In which chat template it talks.
    pub template: TemplateOf,
    /// What is changed in the checkpoint when it is first opened.
    pub base: BaseChanges,
    /// Longest sequence that is trained on, prompt included; 0 is what the model's positions allow.
    pub max_length: usize,
    /// The adapter that its phases train in place of all weights, from the first to the last.
    pub lora: Option<LoraSettings>,
}

impl Model {
    /// Whether it starts from random weights and the embedded tokenizer.
    pub fn is_fresh(&self) -> bool {
        self.model == "fresh"
    }
}

/// Mass sampling from the teacher.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Problems to sample on; 0 is all of them.
    pub problems: usize,
    /// Attempts at each.
    pub n: u32,
    pub prompt: PromptStyle,
    /// Written beside each trace.
    pub reward: RewardPreset,
    pub params: SamplingParams,
}

/// A student trained on other data, to compare with.
#[derive(Clone, Debug)]
pub struct Control {
    pub name: String,
    pub data: ControlData,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlData {
    /// As many of the teacher's traces as the corpus has, unfiltered.
    Unfiltered,
}

/// What models are measured on.
#[derive(Clone, Debug)]
pub struct Evaluate {
    pub tasks: Vec<EvaluationTask>,
    /// How far a model may fall, as a share, on tasks that it is not trained on; `None` is no gate.
    pub max_drop: Option<f64>,
}

/// One evaluation task and its protocol.
#[derive(Clone, Debug)]
pub struct EvaluationTask {
    pub name: String,
    pub file: Option<PathBuf>,
    /// Problems at most; 0 is all.
    pub problems: usize,
    /// Sampled attempts at each problem, beside one greedy.
    pub n: u32,
    pub prompt: PromptStyle,
    pub params: SamplingParams,
}

/// Keys that change how fast a run is and what it keeps beside its results, not what comes out of it.
#[derive(Clone, Debug)]
pub struct Execution {
    /// Attempts in flight at once.
    pub slots: usize,
    /// Tokens of the cache of keys and values, over all attempts in flight; 0: as many as these can have, within half of the memory that is free.
    pub cache_tokens: usize,
    /// Tokens of a training micro-batch at most.
    pub micro_batch_tokens: usize,
    /// Whether training computes layers again in the backward pass instead of keeping what is in them; `None`: where the model is large.
    pub recompute: Option<bool>,
    /// Requests to a server under way at once.
    pub requests: usize,
    /// Seconds until a server must have answered one.
    pub request_seconds: u64,
    /// Seconds without any answer, until a server is given up for now.
    pub patience_seconds: u64,
    /// Optimiser steps of SFT between two resumable states.
    pub save_steps: usize,
    /// Steps of GRPO between two resumable states; each takes as long as many of SFT.
    pub grpo_save_steps: usize,
    /// Whole models of its last steps that a phase keeps beside its own.
    pub checkpoints: usize,
    /// Steps between two of them; `None`: those between two states.
    pub checkpoint_steps: Option<usize>,
}

impl Recipe {
    /// Reads a recipe; `overrides` are `key=value` pairs whose keys are paths such as `sample.n` or `student.phase[0].steps`.
    pub fn parse(text: &str, overrides: &[String]) -> Result<Self> {
        Draft { text: text.to_owned(), ..Draft::default() }.parse(overrides)
    }

    /// The resolved recipe as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.resolved).unwrap_or_else(|error| format!("# {error}"))
    }
}

fn read(t: &mut Table) -> Recipe {
    let name: String = t.required("name", "the run's folder is runs/<name>");
    t.check("name", is_plain(&name) || name.is_empty(), "letters, digits, '-', '_' or '.'", format!("{name:?}"));
    let seed = t.or("seed", 0u64);
    let problems = t.table("problems", read_problems).unwrap_or_else(empty_problems);
    let evaluations = problems.decontaminate.clone();
    let corrupts = problems.task != "countdown-tiny";
    let recipe = Recipe {
        name,
        seed,
        problems,
        cold_start: t.table("cold_start", |t| ColdStart {
            traces: t.or("traces", 16_000),
            corruption: corrupts.then(|| {
                let d = Corruption::default();
                Corruption {
                    left_to_right: t.or("left_to_right", d.left_to_right),
                    slip: t.or("slip", d.slip),
                    skip: t.or("skip", d.skip),
                    mixed_language: t.or("mixed_language", d.mixed_language),
                }
            }),
        }),
        teacher: t.table("teacher", read_model),
        sample: t.table("sample", read_sample).unwrap_or_else(default_sample),
        filter: t.table("filter", |t| read_filter(t, &evaluations)).unwrap_or_else(|| read_filter(&mut t.blank(), &evaluations)),
        student: t.table("student", read_model),
        controls: t.tables("control", |t| {
            let name: String = t.required("name", "controls are named in the report");
            t.check("name", name.is_empty() || is_plain(&name), "letters, digits, '-', '_' or '.'", format!("{name:?}"));
            t.check("name", !["base", "sft"].contains(&name.as_str()), "another name: the report uses this one", format!("{name:?}"));
            Control { name, data: t.or("data", ControlData::Unfiltered) }
        }),
        evaluate: t.table("evaluate", read_evaluate).unwrap_or(Evaluate { tasks: Vec::new(), max_drop: None }),
        judge: t.table("judge", judged::read),
        execution: t.table("execution", execution::read).unwrap_or_default(),
        resolved: toml::Table::new(),
    };
    t.refuse_unknown();
    check_whole(t, &recipe);
    recipe
}

/// What no table can check alone.
fn check_whole(t: &Table, recipe: &Recipe) {
    recipe.filter.faults().into_iter().for_each(|fault| t.problem(fault));
    if let Some(corruption) = recipe.cold_start.as_ref().and_then(|c| c.corruption.as_ref()) {
        t.note(corruption.validate().context("cold_start"));
    }
    for (who, model) in [("teacher", &recipe.teacher), ("student", &recipe.student)] {
        let Some(model) = model else { continue };
        let mut names = std::collections::BTreeSet::new();
        for phase in &model.phases {
            if !names.insert(&phase.name) {
                t.problem(format!("{who}.phase: two phases are named {:?}; give one a name of its own", phase.name));
            }
            if phase.uses_cold_start() && recipe.cold_start.is_none() && t.is_sound("cold_start") {
                t.problem(format!("{who}.phase {:?} trains on the cold start, but [cold_start] is missing", phase.name));
            }
            if who == "teacher" && phase.uses_corpus() && t.is_sound("teacher.phase") {
                t.problem(format!("teacher.phase {:?} trains on the corpus, which the teacher has yet to make; set data", phase.name));
            }
        }
    }
    if recipe.teacher.as_ref().is_some_and(|m| m.template == TemplateOf::Teacher) {
        t.problem("teacher.template: the teacher has its own; student.template can be \"teacher\"".into());
    }
    if recipe.teacher.is_none() && t.is_sound("teacher") && recipe.student.as_ref().is_some_and(|m| m.template == TemplateOf::Teacher) {
        t.problem("student.template is \"teacher\", but [teacher] is missing".into());
    }
    kd::check_whole(t, recipe);
    served::check_whole(t, recipe);
    if let Some(name) = twice(recipe.controls.iter().map(|c| &c.name)) {
        t.problem(format!("control: two controls are named {name:?}"));
    }
    if let Some(name) = twice(recipe.evaluate.tasks.iter().map(|task| &task.name)) {
        t.problem(format!("evaluate.tasks: {name:?} is there twice"));
    }
    if let Some(control) = recipe.controls.first().filter(|_| t.is_sound("student")) {
        let corpus_phase = recipe.student.as_ref().and_then(|m| Some((m, m.phases.iter().position(Phase::uses_corpus)?)));
        match corpus_phase {
            None => t.problem(format!("control {:?} copies the student's phase on the corpus, but there is none", control.name)),
            Some((student, 0)) if student.is_fresh() => t.problem(format!(
                "control {:?} starts from the student before its phase on the corpus, which is random weights; give the student a phase before it",
                control.name
            )),
            Some(_) => {}
        }
    }
    let trains = recipe.teacher.iter().chain(&recipe.student).any(|m| !m.phases.is_empty());
    let unknown = |task: &&EvaluationTask| trains && task.file.is_none() && !is_task(&task.name);
    for task in recipe.evaluate.tasks.iter().filter(unknown).filter(|_| t.is_sound("evaluate")) {
        t.problem(format!("evaluate.{0}.file is missing: {0:?} would be measured on the problems that this recipe trains on", task.name));
    }
    let pays = recipe.teacher.iter().chain(&recipe.student).flat_map(|m| &m.phases).any(|phase| match &phase.method {
        Method::Grpo(grpo) => grpo.reward == RewardPreset::Command,
        Method::Sft(_) => false,
    });
    check_opinions(t, recipe);
    let commanded = matches!(recipe.problems.verify, Some(Check::Command(_)));
    if (pays || recipe.sample.reward == RewardPreset::Command) && !commanded && t.is_sound("problems") {
        t.problem(
            "reward = \"command\" is what a program of yours pays: problems.verify must be { command = [\"python\", \"check.py\"] }".into(),
        );
    }
    let asks = recipe.teacher.iter().chain(&recipe.student).flat_map(|m| &m.phases).any(|phase| phase.asks().is_some());
    if asks && recipe.problems.task.is_empty() && t.is_sound("problems") {
        t.problem("[problems] is missing: name a task or a file".into());
    }
    let can_start = ["arithmetic", "countdown-tiny"].contains(&recipe.problems.task.as_str());
    if recipe.cold_start.is_some() && !can_start && t.is_sound("problems") {
        t.problem(format!("[cold_start] can make traces for arithmetic and countdown-tiny only, not {:?}", recipe.problems.task));
    }
}

/// Where no rule can check, a model's opinion is all that can be paid, and where one can, it is never paid.
fn check_opinions(t: &Table, recipe: &Recipe) {
    let is_open = recipe.problems.verify == Some(Check::Judge);
    let phases = recipe.teacher.iter().chain(&recipe.student).flat_map(|model| &model.phases);
    let rewards: Vec<RewardPreset> = phases
        .filter_map(|phase| match &phase.method {
            Method::Grpo(grpo) => Some(grpo.reward),
            Method::Sft(_) => None,
        })
        .collect();
    if !t.is_sound("problems") {
        return;
    }
    if rewards.iter().any(|reward| (*reward == RewardPreset::Judge) != is_open) {
        t.problem(if is_open {
            "problems.verify is \"judge\": no rule can check them, so a GRPO phase on them needs reward = \"judge\"".into()
        } else {
            "reward = \"judge\" is for problems that no rule can check: problems.verify must be \"judge\"".into()
        });
    }
    if recipe.sample.reward == RewardPreset::Judge {
        t.problem("sample.reward: a judge is asked after sampling; see distill judge".into());
    }
    if is_open && !rewards.is_empty() && recipe.judge.is_none() && t.is_sound("judge") {
        t.problem("[judge] is missing: which model's opinion is the reward?".into());
    }
    for task in recipe.evaluate.tasks.iter().filter(|task| is_open && !is_task(&task.name)) {
        t.problem(format!("evaluate.tasks: {:?} would be checked as the problems are, and no rule can check these", task.name));
    }
}

/// Whether a name can be a folder's: it is made of letters, digits, '-', '_' and '.', and is not hidden.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c)) && !name.starts_with('.')
}

/// The first name that is there twice.
fn twice<'a>(names: impl IntoIterator<Item = &'a String>) -> Option<&'a String> {
    let mut seen = std::collections::BTreeSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
}

fn is_task(name: &str) -> bool {
    name.parse::<Task>().is_ok()
}

fn task_names() -> String {
    Task::ALL.map(Task::name).join(", ")
}

fn empty_problems() -> Problems {
    Problems {
        task: String::new(),
        file: None,
        fields: Fields::default(),
        verify: None,
        extraction: Extraction::Flexible,
        limits: None,
        levels: Vec::new(),
        decontaminate: Vec::new(),
    }
}

fn read_problems(t: &mut Table) -> Problems {
    let file: Option<PathBuf> = t.optional("file");
    let says_verify = t.has("verify");
    let default_task = if file.is_some() { "own".to_owned() } else { String::new() };
    let problems = Problems {
        task: t.or("task", default_task),
        fields: t
            .table("fields", |t| Fields {
                question: t.or("question", Fields::default().question),
                answer: t.or("answer", Fields::default().answer),
                id: t.optional("id"),
            })
            .unwrap_or_default(),
        verify: t.optional("verify"),
        extraction: t.or("extraction", Extraction::Flexible),
        limits: t.optional("limits"),
        levels: t.or("levels", Vec::new()),
        decontaminate: t.optional("decontaminate").unwrap_or_default(),
        file,
    };
    if let Some(Err(problem)) = problems.limits.as_ref().map(Limits::check) {
        t.problem(format!("problems.{problem}"));
    }
    let range = match problems.task.parse::<Task>() {
        Ok(Task::Arithmetic) => Some((3, 5)),
        Ok(Task::Countdown) => Some((3, 6)),
        Ok(Task::Knights) => Some((2, 8)),
        _ => None,
    };
    match range {
        _ if problems.levels.is_empty() || !t.is_sound("task") || !t.is_sound("file") => {}
        Some((low, high)) if problems.file.is_none() => {
            let fits = problems.levels.iter().all(|level| (low..=high).contains(level));
            t.check("levels", fits, &format!("from {low} to {high} for {}", problems.task), format!("{:?}", problems.levels));
        }
        _ => t.problem(format!("{}: only arithmetic, countdown and knights are generated by level", t.path("levels"))),
    }
    let generated =
        [Task::Arithmetic, Task::Countdown, Task::CountdownTiny, Task::Knights].map(Task::name).contains(&problems.task.as_str());
    if !problems.decontaminate.is_empty() && generated && problems.file.is_none() {
        t.problem(format!("{}: generated problems never ask a held-out question; leave it out", t.path("decontaminate")));
    }
    let known = is_task(&problems.task);
    if !(t.is_sound("task") && t.is_sound("file")) {
        // What is missing beside them would only follow.
    } else if problems.task.is_empty() {
        t.problem(format!("{} is missing: name a task ({}) or a file", t.path("task"), task_names()));
    } else if problems.file.is_none() && !known {
        t.problem(format!("{}: {:?} is not a task ({}) and no file is given", t.path("task"), problems.task, task_names()));
    } else if problems.file.is_some() && !known && !says_verify {
        t.problem(format!("{} is missing: how are the answers of your own problems checked? ({})", t.path("verify"), Check::KNOWN));
    }
    problems
}

fn read_model(t: &mut Table) -> Model {
    let model: String = t.required("model", "a folder, a Hub id, \"fresh\", or the address of a server");
    let is_server = is_url(&model);
    let model = Model {
        served: served::read(t, &model),
        model,
        revision: t.optional("revision"),
        shape: t.optional("shape"),
        template: t.or("template", TemplateOf::Own),
        base: base::read(t),
        max_length: t.or("max_length", 0),
        phases: t.tables("phase", phases::read),
        lora: t.table("lora", adapters::read),
    };
    let fresh = model.is_fresh();
    if model.lora.is_some() && fresh {
        t.problem(format!("{}: there is nothing to adapt in random weights; train them all, or name a checkpoint", t.path("lora")));
    }
    if model.lora.is_some() && model.phases.is_empty() && t.is_sound("phase") {
        t.problem(format!("{}: there is no phase that would train it", t.path("lora")));
    }
    if is_server {
        served::check(t, &model);
        return model;
    }
    if model.template != TemplateOf::Own && fresh {
        t.problem(format!("{}: a fresh model has the embedded tokenizer and its template", t.path("template")));
    }
    if !model.base.is_none() && fresh {
        t.problem(format!("{}: add_tokens and rope_theta are for checkpoints; a fresh model is trained as it is", t.path("model")));
    }
    if !model.base.is_none() && model.lora.is_some() {
        t.problem(format!(
            "{}: add_tokens and rope_theta change the model beneath an adapter, whose folder would not hold that, and an adapter leaves the rows of new tokens untrained; \
             train all weights, or leave them out",
            t.path("lora")
        ));
    }
    if fresh && model.shape.is_none() && t.is_sound("shape") {
        t.problem(format!("{} is missing: a fresh model needs one", t.path("shape")));
    }
    if !fresh && model.shape.is_some() && t.is_sound("model") {
        t.problem(format!("{}: it is for model = \"fresh\" only, a checkpoint has its own", t.path("shape")));
    }
    model
}

/// Other programs say -1 for "off"; here it is 0, and said so.
fn read_top_k(t: &mut Table, default: usize) -> usize {
    let k = t.or("top_k", i64::try_from(default).unwrap_or_default());
    t.check("top_k", k >= 0, "a number of tokens, or 0 for off", k);
    usize::try_from(k).unwrap_or_default()
}

/// Reads the sampling keys that vLLM names.
fn read_params(t: &mut Table, defaults: SamplingParams) -> SamplingParams {
    let params = SamplingParams {
        temperature: t.or("temperature", defaults.temperature),
        top_p: t.or("top_p", defaults.top_p),
        top_k: read_top_k(t, defaults.top_k),
        min_p: t.or("min_p", defaults.min_p),
        max_tokens: t.or("max_tokens", defaults.max_tokens),
        stop: t.or("stop", defaults.stop),
    };
    t.note(params.check(t.path("").trim_end_matches('.')));
    params
}

fn default_sample() -> Sample {
    Sample { problems: 0, n: 4, prompt: PromptStyle::Plain, reward: RewardPreset::SimplerlZoo, params: SamplingParams::at(1.0, 2048) }
}

fn read_sample(t: &mut Table) -> Sample {
    let d = default_sample();
    let sample = Sample {
        problems: t.or("problems", d.problems),
        n: t.or("n", d.n),
        prompt: t.or("prompt", d.prompt),
        reward: t.or("reward", d.reward),
        params: read_params(t, d.params),
    };
    t.check("n", sample.n > 0, "at least 1", sample.n);
    sample
}

/// Keys that came later are not written into the resolved recipe where they are not given, so that runs that were begun before go on.
fn read_filter(t: &mut Table, evaluations: &[String]) -> FilterSettings {
    FilterSettings {
        correct: t.or("correct", false),
        finished: t.or("finished", false),
        format: t.optional("format"),
        length: t.optional("length"),
        language: t.optional("language"),
        readable: t.optional("readable"),
        repetition: t.optional("repetition").unwrap_or(false),
        decontaminate: t.optional("decontaminate").unwrap_or_else(|| evaluations.to_vec()),
        pass_rate: t.optional("pass_rate"),
        exact_duplicate: t.or("exact_duplicate", false),
        near_duplicate: t.optional("near_duplicate"),
        per_problem: t.optional("per_problem"),
        source: t.optional("source").unwrap_or_default(),
    }
}

fn read_evaluate(t: &mut Table) -> Evaluate {
    let names: Vec<String> = t.required("tasks", "a list of task names");
    let mut defaults = EvaluationTask {
        name: String::new(),
        file: None,
        problems: t.or("problems", 0),
        n: t.or("n", 1),
        prompt: t.or("prompt", PromptStyle::Plain),
        params: read_params(t, SamplingParams::at(1.0, 2048)),
    };
    t.check("n", defaults.n > 0, "at least 1", defaults.n);
    let keys = ["temperature", "top_p", "top_k", "min_p", "max_tokens", "stop", "n"];
    if !keys.iter().all(|key| t.is_sound(key)) {
        // What is wrong for all tasks is said once.
        (defaults.n, defaults.params) = (1, SamplingParams::at(1.0, 2048));
    }
    let tasks = t.named(&names, |name, t| {
        let task = EvaluationTask {
            name: name.to_owned(),
            file: t.optional("file"),
            problems: t.or("problems", defaults.problems),
            n: t.or("n", defaults.n),
            prompt: t.or("prompt", defaults.prompt),
            params: read_params(t, defaults.params.clone()),
        };
        t.check("n", task.n > 0, "at least 1", task.n);
        task
    });
    for task in &tasks {
        t.check("tasks", is_plain(&task.name), "names of letters, digits, '-', '_' or '.'", format!("{:?}", task.name));
        let file_is_wrong = !t.is_sound(&format!("{}.file", task.name));
        if task.file.is_none() && !is_task(&task.name) && task.name != "own" && !file_is_wrong {
            t.problem(format!("{}: {:?} is not a task ({}); give it a file", t.path("tasks"), task.name, task_names()));
        }
    }
    if t.is_sound("tasks") {
        for name in t.tables_left() {
            t.problem(format!("{}: {} does not name this task", t.path(&name), t.path("tasks")));
        }
    }
    t.pass_over(|_, value| value.is_table());
    let max_drop = t.optional("max_drop");
    t.check("max_drop", max_drop.is_none_or(|drop| (0.0..1.0).contains(&drop)), "in [0, 1)", max_drop.unwrap_or_default());
    Evaluate { tasks, max_drop }
}
