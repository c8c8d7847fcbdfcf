//! `--plan`: what a run would do and what it needs, without doing any of it.
//!
//! Times are those of the products alone, at the rate that this machine reaches right now and with every sequence at full length: what is not a
//! product makes a run slower, what ends early makes it faster. They say whether a run takes an hour or a week.

use super::doctor::free_memory;
use super::problems::{self, Origin, generated_problems};
use super::{evaluate, filter, sample, show};
use crate::hub;
use crate::model::{self, Config, LoraSettings, text::Text};
use crate::publish;
use crate::recipe::{DataPart, EvaluationTask, Grpo, Method, Model, Recipe, Sft};
use crate::report::text::{self, size, thousands};
use crate::shard::Manifest;
use crate::tasks::{Loaded, Task};
use crate::train::memory::{Memory, Setup};
use crate::train::{GrpoSettings, Optim, Part};
use anyhow::Result;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

/// Bytes of a sampled token on disk: text, id and log-probability, compressed; 2.9 to 4.7 in the shards of a run of the tiny recipe.
const TOKEN_BYTES: usize = 5;
/// Bytes per parameter that a phase keeps: its model, in f32.
const MODEL_BYTES: usize = 4;
/// Bytes per parameter of a model that it keeps beside that, in bf16; an adapter has the others'.
const HALF_MODEL_BYTES: usize = 2;
/// Bytes per parameter of a resumable state, which is there twice while a new one takes the old one's place.
const STATE_BYTES: usize = 12;

/// What a plan is asked for.
pub struct Ask<'a> {
    /// What the folders of the stages begin with that are to be planned.
    pub stages: &'a [&'a str],
    pub json: bool,
    /// Columns that the text is laid out in.
    pub columns: usize,
}

#[derive(Default)]
struct Stage {
    name: String,
    state: &'static str,
    what: String,
    /// Whose model it works with; `None` where it needs none.
    model: Option<&'static str>,
    /// Of that model; `None` where its configuration is not here.
    parameters: Option<usize>,
    /// Tokens at most: sampled ones, or those of the sequences that are trained on; `None` where the number of problems is not known here.
    tokens: Option<usize>,
    /// Bytes of the cache of keys and values.
    cache: Option<usize>,
    /// Bytes at least.
    memory: Option<usize>,
    /// Of them, what training holds.
    training: Option<Memory>,
    /// Floating-point operations for a token and a parameter: 2 forward, 6 in training, 8 where what is trained on is sampled first; in distillation 2 more for the share
    /// that is sampled, and 2 for each parameter of the teacher. `None` where the teacher's configuration is not here.
    per_token: Option<f64>,
    /// Whether the teacher stands beside that model.
    is_taught: bool,
    /// Bytes on disk while it runs, and what it leaves.
    disk: Option<(usize, usize)>,
}

impl Stage {
    fn seconds(&self, rate: f64) -> Option<f64> {
        Some(self.per_token? * self.parameters? as f64 * self.tokens? as f64 / rate)
    }

    fn is_open(&self) -> bool {
        self.state != "done"
    }
}

/// The plan as text or JSON.
///
/// # Errors
/// Where the run directory cannot be read.
pub fn plan(recipe: &Recipe, run: &Path, ask: &Ask) -> Result<String> {
    let files = Files::of(recipe, ask);
    let mut stages = stages(recipe, run, &files)?;
    stages.retain(|s| ask.stages.iter().any(|prefix| s.name.starts_with(prefix)));
    let (memory, disk) = (free_memory(), available_disk(run));
    let rate = products_per_second();
    let downloads = downloads(recipe, &stages);
    if ask.json {
        let row = |s: &Stage| {
            json!({
                "stage": s.name, "state": s.state, "what": s.what, "parameters": s.parameters, "tokens": s.tokens, "cache_bytes": s.cache,
                "memory_bytes": s.memory, "training_bytes": s.training, "seconds": s.seconds(rate), "disk_bytes": s.disk.map(|d| d.0),
            })
        };
        let value = json!({
            "recipe": recipe.resolved, "run": run, "stages": stages.iter().map(row).collect::<Vec<Value>>(), "downloads": downloads,
            "missing_files": files.missing, "unreadable_files": files.unreadable,
            "disk_needed": disk_needed(&stages), "memory_available": memory, "disk_available": disk,
        });
        return Ok(serde_json::to_string_pretty(&value)? + "\n");
    }
    let title = text::wrap(&format!("# plan: {}", run.display()), ask.columns, 2).join("\n");
    let mut out = format!("# resolved recipe\n{}\n{title}\n", recipe.to_toml());
    let width = stages.iter().map(|s| text::width(&s.name)).max().unwrap_or(0).min((ask.columns / 2).max(16));
    for s in &stages {
        let memory = s.memory.map_or("memory unknown".to_owned(), |m| format!("{} of memory", size(m)));
        let time = s.seconds(rate).map_or("time unknown".to_owned(), |t| format!("about {}", duration(t)));
        let needs = if s.name == filter::FOLDER { String::new() } else { format!("; {memory}; {time}") };
        let head = format!("  {}  {:<5}  ", text::column(&s.name, width), s.state);
        text::beside(&head, &format!("{}{needs}", s.what), ask.columns).iter().for_each(|line| out += &format!("{line}\n"));
        if let Some(t) = s.training.filter(|_| s.is_open()) {
            let parts = [
                ("weights", t.weights),
                ("gradients", t.gradients),
                ("moments", t.optimizer),
                ("activations", t.activations),
                ("logits", t.logits),
            ];
            let cache = s.cache.map(|cache| ("cache", cache));
            let all: Vec<String> = parts.into_iter().chain(cache).map(|(what, bytes)| format!("{what} {}", size(bytes))).collect();
            text::beside(&" ".repeat(width + 11), &all.join(", "), ask.columns).iter().for_each(|line| out += &format!("{line}\n"));
        }
    }
    let left: Vec<f64> = stages.iter().filter(|s| s.is_open()).filter_map(|s| s.seconds(rate)).collect();
    let left = if stages.iter().all(|s| !s.is_open()) {
        "none, all is done".to_owned()
    } else if left.is_empty() {
        "unknown".to_owned()
    } else {
        format!("{} for what is known and not done", duration(left.iter().sum()))
    };
    let mut lines =
        vec![format!("time: {left}; the products alone at {:.0} GFLOP/s, measured just now, every sequence at full length", rate / 1e9)];
    lines.extend(downloads.iter().map(|id| format!("download: {id} (not in the cache)")));
    lines.extend(files.missing.iter().map(|file| format!("missing: {file}")));
    lines.extend(files.unreadable.iter().map(|file| format!("cannot be read: {file}")));
    let needed = disk_needed(&stages);
    if let Some(disk) = disk {
        let needed_text =
            if stages.iter().all(|s| s.disk.is_none()) { "unknown".into() } else { format!("up to {} for what is known", size(needed)) };
        lines.push(format!("disk: {needed_text}, {} free where the run will be", size(disk)));
        if needed > disk {
            lines.push("does not fit on the disk: choose another --run, or a smaller model or max_tokens".into());
        }
    }
    if let Some(memory) = memory {
        lines.push(format!("memory: {} available", size(memory)));
        let worst = stages.iter().filter(|s| s.is_open()).filter_map(|s| Some((s.memory?, s))).max_by_key(|(m, _)| *m);
        if let Some((need, stage)) = worst.filter(|(need, _)| *need > memory) {
            lines.push(format!("does not fit: {} needs {}; {}", stage.name, size(need), advice(stage)));
        }
    }
    lines.iter().flat_map(|line| text::wrap(line, ask.columns, 2)).for_each(|line| out += &format!("{line}\n"));
    Ok(out)
}

/// What a run needs against what is there; `None` where it is not known.
pub(super) struct Needs {
    pub largest: Option<Largest>,
    /// Bytes that are free.
    pub memory: Option<usize>,
    /// Bytes that are written at most.
    pub disk: Option<usize>,
    pub disk_free: Option<usize>,
}

/// The open stage that needs the most memory.
pub(super) struct Largest {
    pub name: String,
    pub bytes: usize,
    /// What to change where it does not fit.
    pub advice: &'static str,
}

pub(super) fn needs(recipe: &Recipe, run: &Path) -> Result<Needs> {
    let stages = stages(recipe, run, &Files::of(recipe, &Ask { stages: &[""], json: false, columns: 0 }))?;
    let open = || stages.iter().filter(|s| s.is_open());
    let largest =
        open().filter_map(|s| Some(Largest { name: s.name.clone(), bytes: s.memory?, advice: advice(s) })).max_by_key(|l| l.bytes);
    let disk = open().any(|s| s.disk.is_some()).then(|| disk_needed(&stages));
    Ok(Needs { largest, memory: free_memory(), disk, disk_free: available_disk(run) })
}

/// The first thing to change where a stage does not fit.
fn advice(stage: &Stage) -> &'static str {
    match stage.name.split('/').next() {
        Some("teacher" | "student" | "controls") => {
            "lower execution.micro_batch_tokens (or execution.slots for GRPO), train an adapter ([student.lora]), or set optim = \"adamw_8bit\""
        }
        _ => "lower execution.slots or max_tokens",
    }
}

/// The problems that a recipe names or finds, read and counted.
#[derive(Default)]
struct Files {
    /// To sample and train on; `None` for generated ones, and where they cannot be counted.
    problems: Option<usize>,
    /// Of each evaluation task in the recipe's order.
    evaluation: Vec<Option<usize>>,
    /// With the keys that name them.
    missing: Vec<String>,
    unreadable: Vec<String>,
}

impl Files {
    fn of(recipe: &Recipe, ask: &Ask) -> Self {
        let mut files = Self::default();
        let planned = |stage: &str| ask.stages.iter().any(|prefix| stage.starts_with(prefix) || prefix.starts_with(stage));
        let trains = planned("teacher/") || planned("student/");
        if (trains || planned(sample::FOLDER)) && !recipe.problems.task.is_empty() {
            let origin = Origin::training(&recipe.problems);
            files.problems = files.count(origin, "problems.file", || problems::load_training(&recipe.problems));
        }
        for task in &recipe.evaluate.tasks {
            let origin = Origin::evaluation(&recipe.problems, task);
            let generated = (origin == Origin::Generated).then(|| task.name.parse::<Task>().map(generated_problems).ok()).flatten();
            let key = if task.file.is_some() { format!("evaluate.{}.file", task.name) } else { "problems.file".to_owned() };
            let wanted = trains || planned("evaluation/");
            let counted = wanted.then(|| files.count(origin, &key, || problems::load_evaluation(&recipe.problems, task))).flatten();
            let there = counted.or(generated);
            files.evaluation.push(match (task.problems, there) {
                (0, there) => there,
                (limit, _) if generated.is_some() => Some(limit),
                (limit, there) => Some(there.map_or(limit, |n| n.min(limit))),
            });
        }
        for phase in recipe.teacher.iter().chain(&recipe.student).flat_map(|m| &m.phases) {
            let Method::Sft(sft) = &phase.method else { continue };
            for place in sft.data.iter().filter_map(DataPart::place).filter(|place| trains && !place.exists()) {
                files.missing.push(format!("{} (data of phase {})", place.display(), phase.name));
            }
        }
        files
    }

    fn count(&mut self, origin: Origin, key: &str, load: impl FnOnce() -> Result<Loaded>) -> Option<usize> {
        match &origin {
            Origin::Generated => return None,
            Origin::Named(file) if !file.exists() => {
                self.missing.push(format!("{} ({key})", file.display()));
                return None;
            }
            Origin::Data(file) if !file.exists() => {
                self.missing.push(format!("{} (in DISTILL_DATA)", file.display()));
                return None;
            }
            _ => {}
        }
        match load() {
            Ok(loaded) => Some(loaded.problems.len()),
            Err(error) => {
                self.unreadable.push(format!("{error:#} ({key})"));
                None
            }
        }
    }
}

fn stages(recipe: &Recipe, run: &Path, files: &Files) -> Result<Vec<Stage>> {
    let plan = Plan { recipe, run, files };
    let mut all: Vec<Stage> = show::stages(recipe).into_iter().map(|name| plan.stage(name)).collect();
    if !all.iter().any(|s| s.name == filter::FOLDER) && recipe.teacher.is_none() && recipe.student.is_none() {
        all.push(plan.filter()); // of traces from elsewhere
    }
    for (task, problems) in recipe.evaluate.tasks.iter().zip(&files.evaluation) {
        all.extend(evaluate::names(recipe).into_iter().map(|(name, role)| plan.evaluation(&name, role, task, *problems)));
    }
    for stage in &mut all {
        stage.state = state(run, &stage.name)?;
    }
    Ok(all)
}

/// `done`, `begun` or `to do`.
fn state(run: &Path, stage: &str) -> Result<&'static str> {
    let folder = run.join(stage);
    Ok(if publish::done(&folder)?.is_some() {
        "done"
    } else if folder.join("STARTED").exists() {
        "begun"
    } else {
        "to do"
    })
}

/// The most that lies on the disk at once: what each stage leaves, and the largest that one needs beside that while it runs.
fn disk_needed(stages: &[Stage]) -> usize {
    let open = || stages.iter().filter(|s| s.is_open()).filter_map(|s| s.disk);
    let extra = open().map(|(peak, kept)| peak - kept).max().unwrap_or(0);
    open().map(|(_, kept)| kept).sum::<usize>() + extra
}

/// What the stages are described from.
struct Plan<'a> {
    recipe: &'a Recipe,
    run: &'a Path,
    files: &'a Files,
}

impl Plan<'_> {
    fn stage(&self, name: String) -> Stage {
        let (role, phase) = name.split_once('/').unwrap_or((&name, ""));
        let role = match role {
            "traces" => return self.sample(),
            "corpus" => return self.filter(),
            "judged" => return Stage { name, what: "opinions of a model on traces".to_owned(), ..Stage::default() },
            "teacher" => "teacher",
            _ => "student",
        };
        let model = if role == "teacher" { &self.recipe.teacher } else { &self.recipe.student };
        let control = name.starts_with("controls/");
        let found = model.iter().flat_map(|m| &m.phases).find(|p| if control { p.uses_corpus() } else { p.name == phase });
        let config = model.as_ref().and_then(config_of);
        let stage = match model.as_ref().zip(found.map(|p| &p.method)) {
            Some((model, Method::Grpo(grpo))) => self.grpo(grpo, model, config.as_ref()),
            Some((model, Method::Sft(sft))) => self.sft(sft, model, config.as_ref()),
            None => Stage { what: "a control without a corpus phase".to_owned(), ..Stage::default() },
        };
        Stage { name, model: Some(role), parameters: config.map(|c| c.parameters()), ..stage }
    }

    /// Problems that are sampled on, as far as they can be counted.
    fn sampled(&self) -> Option<usize> {
        match (self.recipe.sample.problems, self.files.problems) {
            (0, there) => there,
            (limit, None) => Some(limit),
            (limit, Some(there)) => Some(limit.min(there)),
        }
    }

    fn sample(&self) -> Stage {
        let s = &self.recipe.sample;
        let config = self.recipe.teacher.as_ref().and_then(config_of);
        let problems = self.sampled().map_or("all".to_owned(), thousands);
        let tokens = self.sampled().map(|n| n * s.n as usize * s.params.max_tokens);
        Stage {
            name: sample::FOLDER.to_owned(),
            what: format!("{problems} problems x {} attempts, {} tokens at most", s.n, thousands(s.params.max_tokens)),
            ..self.sampling(config.as_ref(), "teacher", tokens, s.params.max_tokens)
        }
    }

    fn evaluation(&self, name: &str, role: &'static str, task: &EvaluationTask, problems: Option<usize>) -> Stage {
        let model = if role == "teacher" { &self.recipe.teacher } else { &self.recipe.student };
        let config = model.as_ref().and_then(config_of);
        let tokens = problems.map(|n| n * (task.n as usize + 1) * task.params.max_tokens);
        let each = problems.map_or("each problem".to_owned(), |n| format!("each of {} problems", thousands(n)));
        Stage {
            name: format!("evaluation/{name}-{}", task.name),
            what: format!("{} sampled and one greedy attempt at {each}, {} tokens at most", task.n, thousands(task.params.max_tokens)),
            ..self.sampling(config.as_ref(), role, tokens, task.params.max_tokens)
        }
    }

    fn sampling(&self, config: Option<&Config>, role: &'static str, tokens: Option<usize>, max_tokens: usize) -> Stage {
        let cache = config.map(|c| cache_bytes(c, self.recipe, max_tokens));
        Stage {
            model: Some(role),
            parameters: config.map(Config::parameters),
            tokens,
            cache,
            memory: config.zip(cache).map(|(c, cache)| sampling_bytes(c) + cache),
            per_token: Some(2.0),
            disk: tokens.map(|t| (t * TOKEN_BYTES, t * TOKEN_BYTES)),
            ..Stage::default()
        }
    }

    fn filter(&self) -> Stage {
        let there = Manifest::load(self.run.join(sample::FOLDER)).ok();
        let what = there.map_or("filter the traces".to_owned(), |m| format!("filter {} traces", thousands(m.rows as usize)));
        Stage { name: filter::FOLDER.to_owned(), what, ..Stage::default() }
    }

    fn grpo(&self, grpo: &Grpo, model: &Model, config: Option<&Config>) -> Stage {
        let s = &grpo.settings;
        let attempts = s.prompts_per_step * s.num_generations;
        let tokens = attempts * s.tokens_of_all_steps(grpo.max_tokens);
        let cache = config.map(|c| cache_bytes(c, self.recipe, grpo.max_tokens));
        let lora = model.lora.as_ref();
        // An adapter's reference is its own base.
        let reference = config.filter(|_| s.beta > 0.0 && lora.is_none());
        let training = config.map(|config| self.training(config, lora, s.optim, (attempts, grpo.max_tokens), reference));
        Stage {
            what: format!("grpo, {} steps of {attempts} attempts{}", s.steps, on_ladder(s)),
            tokens: Some(tokens),
            cache,
            memory: config.zip(cache).zip(training).map(|((c, cache), t)| match s.one_step_off_policy {
                // A copy of the weights is laid out and sampled from meanwhile.
                true => t.total() + sampling_bytes(c) + cache,
                false => turns(c, cache, t),
            }),
            training,
            per_token: Some(8.0),
            disk: training_disk(config, lora, tokens, self.recipe.execution.checkpoints + usize::from(s.collapse.is_some())),
            ..Stage::default()
        }
    }

    /// What training holds for its longest micro-batch, of so many sequences in a step, each at most so long.
    fn training(
        &self,
        config: &Config,
        lora: Option<&LoraSettings>,
        optim: Optim,
        (sequences, longest): (usize, usize),
        beside: Option<&Config>,
    ) -> Memory {
        let execution = &self.recipe.execution;
        let longest = longest.min(config.max_positions);
        let tokens = execution.micro_batch_tokens.min(sequences * longest).max(longest);
        let recompute = execution.recompute.unwrap_or(!config.is_small());
        Setup { config, lora, optim, tokens, targets: tokens, recompute, beside }.memory()
    }

    fn sft(&self, sft: &Sft, model: &Model, config: Option<&Config>) -> Stage {
        let s = &sft.settings;
        let lora = model.lora.as_ref();
        let sampled = self.recipe.sample.params.max_tokens;
        let limit = if model.max_length > 0 { model.max_length } else { sampled };
        let own = sft.own.as_ref().map(|own| own.max_tokens);
        let own_at_most = own.unwrap_or(0);
        // A row is at most as long as an attempt; a corpus from elsewhere may have longer ones.
        let (longest, each) =
            if sft.data.is_empty() { (own_at_most, own_at_most) } else { (limit.max(own_at_most), limit.min(sampled).max(own_at_most)) };
        let is_taught = s.kd.is_some();
        let teacher = self.recipe.teacher.as_ref().filter(|_| is_taught).and_then(config_of);
        // Without the teacher's part neither memory nor time is known.
        let known = config.filter(|_| teacher.is_some() || !is_taught);
        let training = known.map(|config| self.training(config, lora, s.optim, (s.batch_size, longest), teacher.as_ref()));
        // What the teacher's forward pass takes, in parameters of the student.
        let beside = |own: &Config| teacher.as_ref().map_or(0.0, |teacher| teacher.parameters() as f64 / own.parameters() as f64);
        let cache = config.zip(own).map(|(config, own)| cache_bytes(config, self.recipe, own));
        let steps = if s.steps > 0 { Some(s.steps) } else { self.rows(sft).map(|n| s.steps_for(n)) };
        let own_tokens = own.zip(s.kd).zip(steps).map_or(0, |((own, kd), steps)| kd.own_before(steps, s.batch_size) * own);
        let length = if s.steps > 0 { format!("{} steps", thousands(s.steps)) } else { format!("{} epochs", s.epochs) };
        Stage {
            what: format!("{} on {}, {length}, {} sequences each", sft.method(), sft.sources(), s.batch_size),
            tokens: steps.map(|steps| steps * s.batch_size * each),
            cache,
            memory: training.map(|t| config.zip(cache).map_or(t.total(), |(c, cache)| turns(c, cache, t))),
            training,
            per_token: known.map(|own| 6.0 + 2.0 * s.kd.map_or(0.0, |kd| kd.lmbda) + 2.0 * beside(own)),
            is_taught,
            disk: training_disk(config, lora, own_tokens, self.recipe.execution.checkpoints),
            ..Stage::default()
        }
    }

    /// Traces that an epoch of an SFT phase learns from, at most.
    fn rows(&self, sft: &Sft) -> Option<usize> {
        let rows = |folder: &Path| Manifest::load(folder).ok().map(|m| m.rows as usize);
        let of = |part: &DataPart| match part.place() {
            Some(place) => rows(place),
            None if part.from == DataPart::COLD_START => self.recipe.cold_start.as_ref().map(|cold| cold.traces),
            None => rows(&self.run.join(filter::FOLDER)).or_else(|| Some(self.sampled()? * self.recipe.sample.n as usize)),
        };
        let taken = |part: &DataPart| Some(Part { rows: of(part)?, weight: part.weight }.taken());
        sft.data.iter().map(taken).sum()
    }
}

/// What a phase takes that samples and trains in turn. Sampling has a copy of the weights laid out, which is gone before gradients take its place, and so is a large
/// model's cache.
fn turns(config: &Config, cache: usize, training: Memory) -> usize {
    let sampling = training.weights + training.optimizer + sampling_bytes(config) + cache;
    sampling.max(training.total() + if config.is_small() { cache } else { 0 })
}

/// What the rungs of a ladder are, in words.
fn on_ladder(settings: &GrpoSettings) -> String {
    let rungs = settings.context_ladder.iter().map(|rung| format!(", {} of {} tokens", rung.steps, thousands(rung.max_tokens)));
    rungs.collect()
}

/// What a training phase takes on the disk while it runs, and what it leaves; `models` are kept beside its own.
fn training_disk(config: Option<&Config>, lora: Option<&LoraSettings>, tokens: usize, models: usize) -> Option<(usize, usize)> {
    let weights = lora.map_or(config?.parameters(), |lora| config.map_or(0, |config| lora.parameters(config)));
    let each = if lora.is_some() { MODEL_BYTES } else { HALF_MODEL_BYTES };
    let kept = weights * (MODEL_BYTES + models * each) + tokens * TOKEN_BYTES;
    Some((kept + 2 * weights * STATE_BYTES, kept))
}

/// Bytes of the weights in sampling: tied embeddings are there as a table and laid out for products. (In GRPO a copy of all takes the place of the gradient.)
pub(super) fn sampling_bytes(config: &Config) -> usize {
    let twice = if config.tie_embeddings { config.vocab_size * config.hidden_size } else { 0 };
    (config.parameters() + twice) * size_of::<f32>()
}

/// Bytes of a sampler's cache for attempts of so many tokens, and 256 for a prompt.
pub(super) fn cache_bytes(config: &Config, recipe: &Recipe, max_tokens: usize) -> usize {
    let room = (max_tokens + 256).min(config.max_positions);
    super::cache::bytes(&recipe.execution, config, room, free_memory())
}

/// A model's configuration where it can be had without a download: of a folder, or in the cache, be the weights there or not.
fn config_of(model: &Model) -> Option<Config> {
    if let Some(shape) = &model.shape {
        let text = Text::tiny();
        return Config::fresh(shape, text.vocab_size(), text.end_id(), text.pad_id()).ok();
    }
    let folder = hub::cached_config(&model.model, model.revision.as_deref()).or_else(|| Some(model.model.clone().into()))?;
    if model::is_adapter(&folder) {
        let (_, base) = model::adapter_settings(&folder).ok()?;
        return Config::load(&hub::cached_config(&base.model, base.revision.as_deref())?).ok();
    }
    Config::load(&folder).ok()
}

/// Hub ids that these stages work with and that are not in the cache.
fn downloads(recipe: &Recipe, stages: &[Stage]) -> Vec<String> {
    let models = [("teacher", &recipe.teacher), ("student", &recipe.student)];
    let uses = |stage: &Stage, role: &str| stage.model == Some(role) || (stage.is_taught && role == "teacher");
    let used = models.into_iter().filter(|(role, _)| stages.iter().any(|s| s.is_open() && uses(s, role)));
    let models = used.filter_map(|(_, model)| model.as_ref()).filter(|m| !m.is_fresh() && m.served.is_none());
    let missing = models.filter(|m| hub::model(&m.model, m.revision.as_deref(), hub::Access::CACHE).is_err());
    let mut ids: Vec<String> = missing.map(|m| m.model.clone()).collect();
    ids.dedup();
    ids
}

/// Floating-point operations per second of a product of the size that training uses, on all threads.
fn products_per_second() -> f64 {
    let n = 512;
    let a = candle_core::Tensor::ones((n, n), candle_core::DType::F32, &candle_core::Device::Cpu);
    let Ok(a) = a else { return 1e9 };
    let begin = Instant::now();
    let mut done = 0;
    while begin.elapsed().as_millis() < 100 {
        if a.matmul(&a).is_err() {
            return 1e9;
        }
        done += 1;
    }
    2.0 * (n * n * n) as f64 * f64::from(done) / begin.elapsed().as_secs_f64()
}

pub(super) fn available_disk(run: &Path) -> Option<usize> {
    let stat = rustix::fs::statvfs(existing(run)).ok()?;
    Some((stat.f_bavail * stat.f_frsize) as usize)
}

/// A path itself, or what is there of the folders above it.
pub(super) fn existing(path: &Path) -> &Path {
    path.ancestors().find(|p| p.exists()).filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => "a second".to_owned(),
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
