//! The run directory: lock, resolved recipe, and for each stage whether it is done, can go on, or is of another recipe.

use super::decontaminate;
use super::ui::{Ui, complain, interrupt_requested};
use crate::hub;
use crate::publish::{self, Busy, Lock};
use crate::recipe::{Change, Class, Recipe, changes};
use crate::shard::manifest;
use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The recipe or the environment is wrong: doing the same again cannot help (exit code 78).
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct ConfigError(anyhow::Error);

/// Marks what went wrong before any work as a matter of recipe or environment, unless it is one of time.
pub fn config<T>(result: Result<T>) -> Result<T> {
    let is_for_now = |error: &anyhow::Error| error.is::<Busy>() || error.is::<hub::Temporary>() || error.is::<hub::Stopped>();
    result.map_err(|error| if is_for_now(&error) { error } else { anyhow!(ConfigError(error)) })
}

/// The person asked to stop; what is finished is kept (exit code 143).
#[derive(Debug, thiserror::Error)]
#[error("stopped; nothing is lost. The same command goes on from here")]
pub struct Interrupted;

/// Whether a stage has to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Done,
    /// It has not begun, or it has and can go on.
    Open,
    /// It is done for a smaller extent: only the difference is missing.
    Extend,
}

/// An open run directory.
pub struct Run {
    pub dir: PathBuf,
    pub recipe: Recipe,
    pub ui: Ui,
    /// Seconds since 1970 at which the run was begun: the day that chat templates print, on every later day too.
    pub date: i64,
    force: bool,
    /// `None` where the run is only looked at.
    lock: Option<Lock>,
}

impl Run {
    /// Opens or makes the run directory of a recipe, locked until dropped.
    ///
    /// Where the directory was made with another recipe, changed execution keys are taken over, extensions too, and a changed meaning is
    /// refused by name; with `force` it is taken over, and every stage it reaches is moved to `superseded/`.
    pub fn open(dir: PathBuf, recipe: Recipe, force: bool, ui: Ui) -> Result<Self> {
        let lock = Lock::take(&dir).map_err(|busy| match busy {
            // Neither the recipe nor the environment is wrong: with some room the same command goes on.
            Busy::Io { path, source } if publish::is_full(&source) => publish::not_written(&path, source),
            busy => busy.into(),
        })?;
        let path = dir.join("recipe.toml");
        let mut as_it_was = String::new();
        if path.exists() {
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let before = text.parse::<toml::Table>().with_context(|| format!("{} is not valid TOML", path.display()))?;
            if toml::to_string(&before)? != text {
                return config(Err(anyhow!(
                    "{} is not as a run has written it, and would be overwritten; give the run a folder of its own with --run",
                    path.display()
                )));
            }
            as_it_was = text;
            let meaning: Vec<Change> = changes(&before, &recipe.resolved).into_iter().filter(|c| c.class == Class::Meaning).collect();
            if !meaning.is_empty() && !force && has_results(&dir)? {
                let list: Vec<String> = meaning.iter().map(|c| format!("{}: {} -> {}", c.key, c.before, c.after)).collect();
                return config(Err(anyhow!(
                    "{} was begun with another recipe; these keys change what its results mean:\n  {}\n\
                     choose another --run, or --force to move what they reach to {}/superseded",
                    dir.display(),
                    list.join("\n  "),
                    dir.display()
                )));
            }
        }
        if as_it_was != recipe.to_toml() {
            publish::file(&path, recipe.to_toml().as_bytes())?;
        }
        let date = date(&dir)?;
        Ok(Self { dir, recipe, ui, date, force, lock: Some(lock) })
    }

    /// A run as it would be, to be looked at: nothing is locked, written or fetched.
    pub fn look(dir: PathBuf, recipe: Recipe, ui: Ui) -> Result<Self> {
        let stored = read_json(&dir.join(DATE))?.and_then(|stored| stored["unix_seconds"].as_i64());
        Ok(Self { date: stored.unwrap_or_else(now), dir, recipe, ui, force: false, lock: None })
    }

    /// What may be done about models that are named and not here.
    pub fn access(&self) -> hub::Access {
        if self.lock.is_none() { hub::Access::CACHE } else { hub::Access { offline: false, stopped: interrupt_requested, say: complain } }
    }

    /// Publishes a list beside the stages, where the run is more than looked at.
    pub fn write_json(&self, path: &Path, value: &Value) -> Result<()> {
        if self.lock.is_some() { publish::json(path, value) } else { Ok(()) }
    }

    /// The commit that this run took for a Hub name (`organisation/name@revision`): a branch may move while a run rests, the run's model must not.
    pub fn commit_of(&self, name: &str) -> Result<Option<String>> {
        let path = self.dir.join(MODELS);
        let Some(stored) = read_json(&path)? else { return Ok(None) };
        let wrong = || format!("{}: {name:?} must be a commit, got {}; remove the file to take the newest", path.display(), stored[name]);
        if stored[name].is_null() { Ok(None) } else { config(stored[name].as_str().map(|c| Some(c.to_owned())).with_context(wrong)) }
    }

    /// Keeps what `commit_of` gives.
    pub fn keep_commit(&self, name: &str, commit: &str) -> Result<()> {
        let path = self.dir.join(MODELS);
        let mut stored = read_json(&path)?.unwrap_or_else(|| json!({}));
        stored[name] = commit.into();
        self.write_json(&path, &stored)
    }

    /// Where a stage keeps its files.
    pub fn folder(&self, stage: &str) -> PathBuf {
        self.dir.join(stage)
    }

    /// Looks at a stage: `inputs` is everything its result follows from, `extent` how much of it is wanted.
    ///
    /// What was made from other inputs is moved to `superseded/`, never deleted; so is, with `force`, a finished stage with a damaged manifest,
    /// which is an error otherwise.
    pub fn status(&self, stage: &str, inputs: &Value, extent: &Value) -> Result<Status> {
        let folder = self.folder(stage);
        publish::recover(&folder)?;
        let wanted = json!({"inputs": inputs, "extent": extent});
        if let Some(done) = publish::done(&folder)? {
            if done["inputs"] != *inputs {
                self.supersede(stage)?;
            } else if let Err(error) = manifest::check_bound(&folder, &done) {
                if !self.force {
                    return Err(error);
                }
                self.move_away(stage, "has a damaged manifest")?;
            } else {
                return Ok(if done["extent"] == *extent { Status::Done } else { Status::Extend });
            }
        } else if let Some(started) = read_json(&folder.join("STARTED"))? {
            if started["inputs"] != *inputs {
                self.supersede(stage)?;
            }
        } else if folder.is_dir() && has_results(&folder)? {
            // It lost its marks: what it was made from is unknown, so it is not taken, and not deleted either.
            self.supersede(stage)?;
        }
        publish::json(folder.join("STARTED"), &wanted)?;
        Ok(Status::Open)
    }

    /// Moves a stage that was made from other inputs out of the way.
    pub fn supersede(&self, stage: &str) -> Result<()> {
        self.move_away(stage, "was made from other inputs")
    }

    fn move_away(&self, stage: &str, why: &str) -> Result<()> {
        let from = self.folder(stage);
        let place = (0..10_000).map(|i| self.dir.join(format!("superseded/{i}/{stage}"))).find(|p| !p.exists());
        let to = place.context("superseded/ holds 10,000 runs of one stage")?;
        publish::move_folder(&from, &to).with_context(|| format!("cannot move {} to {}", from.display(), to.display()))?;
        self.ui.say(&format!("{stage} {why}; moved to {}", to.display()));
        Ok(())
    }

    /// The `DONE` of a stage.
    pub fn done_record(stage: &str, inputs: &Value, extent: &Value, counts: Value, begin: Instant) -> Value {
        json!({
            "stage": stage,
            "version": env!("CARGO_PKG_VERSION"),
            "seconds": (begin.elapsed().as_secs_f64() * 10.0).round() / 10.0,
            "counts": counts,
            "inputs": inputs,
            "extent": extent,
        })
    }

    /// Writes a stage's `DONE`, which binds the manifests in its folder.
    pub fn mark_done(folder: &Path, mut record: Value) -> Result<()> {
        let manifests = manifest::bind(folder)?;
        if !manifests.is_empty() {
            record[manifest::BOUND] = json!(manifests);
        }
        publish::mark_done(folder, &record)
    }

    /// Gives up where the person has asked for it.
    pub fn check_interrupt(&self) -> Result<()> {
        if interrupt_requested() { bail!(Interrupted) } else { Ok(()) }
    }

    pub fn seed(&self) -> u64 {
        self.recipe.seed
    }
}

/// Where a run keeps the time of its beginning.
const DATE: &str = "date.json";

/// Where a run keeps which commit it took for each Hub name.
const MODELS: &str = "models.json";

/// When the run in this directory was begun, written down the first time.
fn date(dir: &Path) -> Result<i64> {
    let path = dir.join(DATE);
    if let Some(stored) = read_json(&path)? {
        let wrong = || {
            format!("{}: unix_seconds must be an integer, got {}; remove the file to take today", path.display(), stored["unix_seconds"])
        };
        return config(stored["unix_seconds"].as_i64().with_context(wrong));
    }
    let now = now();
    publish::json(&path, &json!({"unix_seconds": now}))?;
    Ok(now)
}

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// Whether any stage has left something: a recipe that failed before that may be corrected freely.
fn has_results(dir: &Path) -> Result<bool> {
    const NOTHING: [&str; 7] = [".lock", "recipe.toml", DATE, MODELS, "unusable_problems.json", decontaminate::FILE, "STARTED"];
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let found =
            if entry.file_type()?.is_dir() { has_results(&entry.path())? } else { !NOTHING.iter().any(|n| entry.file_name() == *n) };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The shards at a path: itself, or the first of these folders of a run directory that is finished.
///
/// A finished folder that lost its manifest is found too: reading it says so, where passing over it would take other traces in silence.
pub fn shards(path: &Path, folders: [&str; 2]) -> Result<PathBuf> {
    let inside = folders.map(|folder| path.join(folder));
    let is_there = |p: &&Path| p.is_file() || p.join(manifest::FILE).exists() || manifest::bound(p).is_some();
    let found = std::iter::once(path).chain(inside.iter().map(PathBuf::as_path)).find(is_there);
    found.map(Path::to_path_buf).with_context(|| {
        let folders: Vec<String> = inside.iter().map(|folder| folder.display().to_string()).collect();
        format!("{} holds no finished shards (no manifest.json in it, nor in {})", path.display(), folders.join(" or "))
    })
}

/// A JSON file, `None` where it does not exist.
pub fn read_json(path: &Path) -> Result<Option<Value>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(|| format!("{} is not JSON", path.display()))?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}
