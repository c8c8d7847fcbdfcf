//! `--plan`: what a run would do and what it needs, without doing any of it.
//!
//! Times are those of the products alone, at the rate that this machine reaches right now and with every sequence at full length: what is not a
//! product makes a run slower, what ends early makes it faster. They say whether a run takes an hour or a week.

use super::{evaluate, filter, show};
use crate::hub;
use crate::model::{Config, KvCache, text::Text};
use crate::publish;
use crate::recipe::{Method, Model, Recipe};
use crate::report::text::{self, size};
use crate::tasks::Task;
use anyhow::Result;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

/// Bytes per parameter in training: weights, gradient and two moments, all f32.
const TRAINING_BYTES: usize = 16;

struct Stage {
    name: String,
    state: &'static str,
    what: String,
    /// Bytes at least; `None` where the model's configuration is not here.
    memory: Option<usize>,
    /// Floating-point operations at most; `None` where the number of problems or the model is not known here.
    flops: Option<f64>,
    /// Bytes on disk while it runs, and what it leaves.
    disk: Option<(usize, usize)>,
}

impl Stage {
    fn seconds(&self, rate: f64) -> Option<f64> {
        self.flops.map(|f| f / rate)
    }
}

/// Bytes of a sampled token on disk: text, id and log-probability, compressed; 2.9 to 4.7 in the shards of a run of the tiny recipe.
const TOKEN_BYTES: usize = 5;
/// Bytes per parameter that a phase keeps: its model, in f32.
const MODEL_BYTES: usize = 4;
/// Bytes per parameter of a resumable state, which is there twice while a new one takes the old one's place.
const STATE_BYTES: usize = 12;

/// The plan as text or JSON.
pub fn plan(recipe: &Recipe, run: &Path, json: bool, columns: usize) -> Result<String> {
    let stages = stages(recipe, run)?;
    let (memory, disk) = (available_memory(), available_disk(run));
    let rate = products_per_second();
    if json {
        let rows: Vec<Value> = stages
            .iter()
            .map(|s| json!({"stage": s.name, "state": s.state, "what": s.what, "memory_bytes": s.memory, "seconds": s.seconds(rate), "disk_bytes": s.disk.map(|d| d.0)}))
            .collect();
        let value = json!({
            "recipe": recipe.resolved, "run": run, "stages": rows, "downloads": downloads(recipe), "missing_files": missing_files(recipe),
            "disk_needed": disk_needed(&stages), "memory_available": memory, "disk_available": disk,
        });
        return Ok(serde_json::to_string_pretty(&value)? + "\n");
    }
    let title = text::wrap(&format!("# plan: {}", run.display()), columns, 2).join("\n");
    let mut out = format!("# resolved recipe\n{}\n{title}\n", recipe.to_toml());
    let width = stages.iter().map(|s| text::width(&s.name)).max().unwrap_or(0).min((columns / 2).max(16));
    for s in &stages {
        let memory = s.memory.map_or("memory unknown".to_owned(), |m| format!("{} of memory", size(m)));
        let time = s.seconds(rate).map_or("time unknown".to_owned(), |t| format!("about {}", duration(t)));
        let time = if s.name == filter::FOLDER { String::new() } else { format!("; {memory}; {time}") };
        let head = format!("  {}  {:<5}  ", text::column(&s.name, width), s.state);
        text::beside(&head, &format!("{}{time}", s.what), columns).iter().for_each(|line| out += &format!("{line}\n"));
    }
    let mut lines = Vec::new();
    let left: Vec<f64> = stages.iter().filter(|s| s.state != "done").filter_map(|s| s.seconds(rate)).collect();
    let left =
        if left.is_empty() { "unknown".to_owned() } else { format!("{} for what is known and not done", duration(left.iter().sum())) };
    lines.push(format!("time: {left}; the products alone at {:.0} GFLOP/s, measured just now, every sequence at full length", rate / 1e9));
    lines.extend(downloads(recipe).iter().map(|id| format!("download: {id} (not in the cache)")));
    lines.extend(missing_files(recipe).iter().map(|missing| format!("missing: {missing}")));
    let needed = disk_needed(&stages);
    if let Some(disk) = disk {
        lines.push(format!("disk: up to {} for what is known, {} free where the run will be", size(needed), size(disk)));
        if needed > disk {
            lines.push("does not fit on the disk: choose another --run, or a smaller model or max_tokens".into());
        }
    }
    if let Some(memory) = memory {
        lines.push(format!("memory: {} available", size(memory)));
        let worst = stages.iter().filter(|s| s.state != "done").filter_map(|s| Some((s.memory?, s))).max_by_key(|(m, _)| *m);
        if let Some((need, stage)) = worst.filter(|(need, _)| *need > memory) {
            lines.push(format!("does not fit: {} needs {}; {}", stage.name, size(need), advice(stage)));
        }
    }
    lines.iter().flat_map(|line| text::wrap(line, columns, 2)).for_each(|line| out += &format!("{line}\n"));
    Ok(out)
}

/// The first thing to change where a stage does not fit.
fn advice(stage: &Stage) -> &'static str {
    match stage.name.split('/').next() {
        Some("teacher" | "student" | "controls") => "choose a smaller model, or a smaller execution.slots for GRPO",
        _ => "lower execution.slots or max_tokens",
    }
}

fn stages(recipe: &Recipe, run: &Path) -> Result<Vec<Stage>> {
    let mut all = Vec::new();
    for name in show::stages(recipe) {
        let state = state(run, &name)?;
        all.push(describe(recipe, name, state));
    }
    for task in &recipe.evaluate.tasks {
        let problems = match task.name.parse::<Task>() {
            _ if task.problems > 0 => Some(task.problems),
            Ok(Task::Arithmetic) if task.file.is_none() => Some(1024),
            _ => None,
        };
        for (name, role) in evaluate::names(recipe) {
            let Some(model) = (if role == "teacher" { &recipe.teacher } else { &recipe.student }) else { continue };
            let config = config_of(model);
            let stage = format!("evaluation/{name}-{}", task.name);
            let tokens = problems.map(|n| n * (task.n as usize + 1) * task.params.max_tokens);
            all.push(Stage {
                state: state(run, &stage)?,
                name: stage,
                what: format!("{} sampled and one greedy attempt at each problem, {} tokens at most", task.n, task.params.max_tokens),
                memory: config.as_ref().map(|c| sampling_bytes(c, recipe, task.params.max_tokens)),
                flops: config.as_ref().zip(tokens).map(|(c, t)| 2.0 * (c.parameters() * t) as f64),
                disk: tokens.map(|t| (t * TOKEN_BYTES, t * TOKEN_BYTES)),
            });
        }
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
    let open = || stages.iter().filter(|s| s.state != "done").filter_map(|s| s.disk);
    let extra = open().map(|(peak, kept)| peak - kept).max().unwrap_or(0);
    open().map(|(_, kept)| kept).sum::<usize>() + extra
}

/// Files that the recipe names and that are not there.
fn missing_files(recipe: &Recipe) -> Vec<String> {
    let problems = recipe.problems.file.iter().map(|file| ("problems.file".to_owned(), file));
    let tasks = recipe.evaluate.tasks.iter().filter_map(|t| Some((format!("evaluate.{}.file", t.name), t.file.as_ref()?)));
    problems.chain(tasks).filter(|(_, file)| !file.exists()).map(|(key, file)| format!("{} ({key})", file.display())).collect()
}

fn describe(recipe: &Recipe, name: String, state: &'static str) -> Stage {
    let (role, phase) = name.split_once('/').unwrap_or((&name, ""));
    let model = if role == "teacher" || role == "traces" { &recipe.teacher } else { &recipe.student };
    let config = model.as_ref().and_then(config_of);
    let parameters = config.as_ref().map(|c| c.parameters() as f64);
    match role {
        "traces" => {
            let s = &recipe.sample;
            let tokens = s.problems as f64 * f64::from(s.n) * s.params.max_tokens as f64;
            let problems = if s.problems == 0 { "all".to_owned() } else { s.problems.to_string() };
            Stage {
                what: format!("{problems} problems x {} attempts, {} tokens at most", s.n, s.params.max_tokens),
                memory: config.as_ref().map(|c| sampling_bytes(c, recipe, s.params.max_tokens)),
                flops: parameters.filter(|_| s.problems > 0).map(|p| 2.0 * p * tokens),
                disk: (s.problems > 0).then_some((tokens as usize * TOKEN_BYTES, tokens as usize * TOKEN_BYTES)),
                name,
                state,
            }
        }
        "corpus" => Stage { what: "filter the traces".to_owned(), memory: None, flops: None, disk: None, name, state },
        _ => {
            let phase = model.iter().flat_map(|m| &m.phases).find(|p| p.name == phase || role == "controls" && p.uses_corpus());
            let training = config.as_ref().map(|c| c.parameters() * TRAINING_BYTES);
            let disk = |tokens: usize| {
                let weights = config.as_ref()?.parameters();
                let kept = weights * MODEL_BYTES + tokens * TOKEN_BYTES;
                Some((kept + 2 * weights * STATE_BYTES, kept))
            };
            match phase.map(|p| &p.method) {
                Some(Method::Grpo(g)) => {
                    let attempts = g.settings.prompts_per_step * g.settings.num_generations;
                    let tokens = (g.settings.steps * attempts * g.max_tokens) as f64;
                    let cache = config.as_ref().map(|c| sampling_bytes(c, recipe, g.max_tokens));
                    Stage {
                        what: format!("grpo, {} steps of {attempts} attempts", g.settings.steps),
                        memory: training.zip(cache).map(|(t, c)| t + c),
                        flops: parameters.map(|p| 8.0 * p * tokens),
                        disk: disk(tokens as usize),
                        name,
                        state,
                    }
                }
                Some(Method::Sft(sft)) => {
                    let s = &sft.settings;
                    let length = if s.steps > 0 { format!("{} steps", s.steps) } else { format!("{} epochs", s.epochs) };
                    let what = format!("sft on {}, {length}, {} sequences each", sft.data, s.batch_size);
                    // A sequence is at most as long as an attempt; the corpus has at most as many as were sampled.
                    let sampled = recipe.sample.problems * recipe.sample.n as usize;
                    let rows = match (s.steps, sft.data.as_str(), &recipe.cold_start) {
                        (steps, _, _) if steps > 0 => Some((steps * s.batch_size) as f64),
                        (_, "cold-start", Some(cold)) => Some(s.epochs * cold.traces as f64),
                        (_, "corpus", _) if sampled > 0 => Some(s.epochs * sampled as f64),
                        _ => None,
                    };
                    let length = recipe.sample.params.max_tokens as f64;
                    let flops = parameters.zip(rows).map(|(p, rows)| 6.0 * p * rows * length);
                    Stage { what, memory: training, flops, disk: disk(0), name, state }
                }
                None => Stage { what: "a control without a corpus phase".to_owned(), memory: None, flops: None, disk: None, name, state },
            }
        }
    }
}

/// Weights and cache of a sampler.
fn sampling_bytes(config: &Config, recipe: &Recipe, max_tokens: usize) -> usize {
    let room = (max_tokens + 256).min(config.max_positions);
    config.parameters() * size_of::<f32>() + KvCache::bytes(config, recipe.execution.slots, room)
}

/// A model's configuration where it can be had without a download.
fn config_of(model: &Model) -> Option<Config> {
    match &model.shape {
        Some(shape) => {
            let text = Text::tiny();
            Config::fresh(shape, text.vocab_size(), text.end_id(), text.pad_id()).ok()
        }
        None => Config::load(&hub::model(&model.model, model.revision.as_deref(), true).ok()?).ok(),
    }
}

/// Hub ids that are not in the cache.
fn downloads(recipe: &Recipe) -> Vec<String> {
    let models = [&recipe.teacher, &recipe.student].into_iter().flatten().filter(|m| !m.is_fresh());
    let missing = models.filter(|m| hub::model(&m.model, m.revision.as_deref(), true).is_err());
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

fn available_memory() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("MemAvailable:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? * 1024)
}

fn available_disk(run: &Path) -> Option<usize> {
    let existing = run.ancestors().find(|p| p.exists()).filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let stat = rustix::fs::statvfs(existing).ok()?;
    Some((stat.f_bavail * stat.f_frsize) as usize)
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => "a second".to_owned(),
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
