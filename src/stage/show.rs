//! `show`: look at a run, at shards, at one problem's attempts, at what was dropped and why. Changes nothing.

use super::filter;
use super::run::{self, Run, read_json};
use super::sample;
use crate::publish;
use crate::recipe::Recipe;
use crate::report;
use crate::shard::{Manifest, traces};
use crate::trace::{Reason, Trace};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What to look at.
pub struct Look {
    pub problem: Option<String>,
    pub dropped: Option<String>,
    pub n: usize,
    pub json: bool,
}

/// Text, or JSON, about what lies at `path`.
pub fn show(path: &Path, look: &Look) -> Result<String> {
    ensure!(path.exists(), "{} does not exist; show wants a run directory, a folder of shards or a file of traces", path.display());
    if let Some(problem) = &look.problem {
        return show_problem(path, problem, look);
    }
    if let Some(rule) = &look.dropped {
        return show_dropped(path, rule, look);
    }
    if path.join("recipe.toml").exists() { show_run(path, look) } else { show_shards(path, look) }
}

/// The folder of the last finished model of a role in a run directory.
pub fn last_model(run: &Path, role: &str) -> Result<PathBuf> {
    let recipe = recipe_of(run)?;
    let of = |role: &str| if role == "teacher" { recipe.teacher.as_ref() } else { recipe.student.as_ref() };
    let other = if role == "teacher" { "student" } else { "teacher" };
    for role in [role, other] {
        let finished = of(role).into_iter().flat_map(|m| m.phases.iter().rev()).map(|p| run.join(role).join(&p.name));
        if let Some(folder) = finished.into_iter().find(|f| f.join("DONE").exists()) {
            return Ok(folder);
        }
    }
    bail!("{} has no finished model", run.display())
}

fn recipe_of(run: &Path) -> Result<Recipe> {
    let path = run.join("recipe.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Recipe::parse(&text, &[]).with_context(|| format!("in {}", path.display()))
}

/// Every stage of a recipe, in order.
pub fn stages(recipe: &Recipe) -> Vec<String> {
    let mut all = Vec::new();
    let phases = |role: &str, all: &mut Vec<String>| {
        let model = if role == "teacher" { &recipe.teacher } else { &recipe.student };
        all.extend(model.iter().flat_map(|m| &m.phases).map(|p| format!("{role}/{}", p.name)));
    };
    phases("teacher", &mut all);
    if recipe.teacher.is_some() {
        all.extend([sample::FOLDER.to_owned(), filter::FOLDER.to_owned()]);
    }
    phases("student", &mut all);
    all.extend(recipe.controls.iter().map(|c| format!("controls/{}", c.name)));
    all
}

fn show_run(run: &Path, look: &Look) -> Result<String> {
    let recipe = recipe_of(run)?;
    let mut stages = stages(&recipe);
    if !stages.iter().any(|s| s == filter::FOLDER) && run.join(filter::FOLDER).exists() {
        stages.push(filter::FOLDER.to_owned()); // of traces from elsewhere
    }
    let evaluations = run.join("evaluation");
    if evaluations.is_dir() {
        let mut names: Vec<String> = std::fs::read_dir(&evaluations)
            .with_context(|| format!("cannot read {}", evaluations.display()))?
            .map(|e| Ok(e?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        names.retain(|n| !n.starts_with('.'));
        names.sort();
        stages.extend(names.into_iter().map(|n| format!("evaluation/{n}")));
    }
    let rows = stages.into_iter().map(|stage| {
        let folder = run.join(&stage);
        let done = publish::done(&folder)?;
        let state = if done.is_some() {
            "done"
        } else if folder.join("STARTED").exists() {
            "begun"
        } else {
            "to do"
        };
        let cursor = read_json(&folder.join("state/cursor.json"))?.map(|c| c["cursor"].clone());
        Ok(json!({
            "stage": stage,
            "state": state,
            "seconds": done.as_ref().map(|d| d["seconds"].clone()),
            "counts": done.as_ref().map(|d| d["counts"].clone()),
            "cursor": cursor,
        }))
    });
    let rows = rows.collect::<Result<Vec<Value>>>()?;
    if look.json {
        return Ok(serde_json::to_string_pretty(&json!({"recipe": recipe.name, "stages": rows}))? + "\n");
    }
    let mut out = format!("run {} (recipe {}, seed {})\n\n", run.display(), recipe.name, recipe.seed);
    for row in &rows {
        let seconds = row["seconds"].as_f64().map_or(String::new(), |s| format!("{s:.1} s"));
        let detail = if row["counts"].is_null() { cursor_text(&row["cursor"]) } else { plain_pairs(&row["counts"]) };
        writeln!(
            out,
            "  {:<34} {:<6} {:>9}  {detail}",
            row["stage"].as_str().unwrap_or_default(),
            row["state"].as_str().unwrap_or_default(),
            seconds
        )?;
    }
    if rows.iter().all(|r| r["state"] == "done") && run.join("report.json").exists() {
        write!(out, "\n{}", report::terminal(&report::Report::of(run)?, run))?;
    }
    Ok(out)
}

fn cursor_text(cursor: &Value) -> String {
    cursor["step"].as_u64().map_or(String::new(), |step| format!("goes on at step {step}"))
}

/// `a 1, b 2` of a flat object.
fn plain_pairs(value: &Value) -> String {
    let pairs = value.as_object().into_iter().flatten().map(|(key, value)| format!("{} {value}", key.replace('_', " ")));
    pairs.collect::<Vec<_>>().join(", ")
}

fn show_shards(path: &Path, look: &Look) -> Result<String> {
    let path = run::shards(path, [filter::FOLDER, sample::FOLDER])?;
    let mut rows = traces(&path)?;
    let manifest = rows.manifest().cloned();
    let first = rows.by_ref().take(look.n).collect::<Result<Vec<Trace>>>()?;
    if look.json {
        return Ok(serde_json::to_string_pretty(&json!({"manifest": manifest, "traces": first}))? + "\n");
    }
    let mut out = String::new();
    if let Some(manifest) = &manifest {
        out += &manifest_text(&path, manifest)?;
    }
    for trace in &first {
        out += &trace_text(trace)?;
    }
    Ok(out)
}

fn manifest_text(path: &Path, manifest: &Manifest) -> Result<String> {
    let bytes: u64 = manifest.shards.iter().map(|s| s.bytes).sum();
    let mut out = format!(
        "{}: {} of {} rows in {} shards, {} tokens, {:.1} MB\n",
        path.display(),
        manifest.kind,
        manifest.rows,
        manifest.shards.len(),
        manifest.tokens(),
        bytes as f64 / 1e6
    );
    for (i, source) in manifest.sources.iter().enumerate() {
        writeln!(out, "source {i}: {} sampled by distill {} with {}", source.model, source.distill_version, source.sampling)?;
    }
    out.push('\n');
    Ok(out)
}

/// A trace as a person reads it.
fn trace_text(trace: &Trace) -> Result<String> {
    let mut out = format!("── {}  ", trace.id);
    let verdict = match &trace.verdict {
        Some(v) if v.is_correct() => "correct".to_owned(),
        Some(v) => v.reason().map_or_else(|| "wrong".to_owned(), |r| format!("not correct: {r}")),
        None => "not judged".to_owned(),
    };
    write!(out, "{verdict}; reference {}; {} tokens, ", trace.gold, trace.completion_tokens)?;
    writeln!(out, "{}; reward {:.2}", json!(trace.finish).as_str().unwrap_or_default(), trace.reward())?;
    if let Some(reason) = trace.other.get("dropped").and_then(|v| serde_json::from_value::<Reason>(v.clone()).ok()) {
        writeln!(out, "   dropped: {reason}")?;
    }
    writeln!(out, "{}\n{}\n", report::harmless(&trace.question), report::harmless(&trace.response))?;
    Ok(out)
}

fn show_dropped(path: &Path, rule: &str, look: &Look) -> Result<String> {
    let folder = [path.join("corpus/dropped"), path.join("dropped"), path.to_path_buf()];
    let folder = folder.into_iter().find(|f| f.join("manifest.json").exists());
    let folder = folder.with_context(|| format!("{} holds no dropped traces", path.display()))?;
    let mut rules = std::collections::BTreeMap::<String, usize>::new();
    let mut found = Vec::new();
    for trace in traces(&folder)? {
        let trace = trace?;
        let name = trace.other.get("dropped").and_then(|d| d["rule"].as_str()).unwrap_or_default().to_owned();
        let matches = name == rule || name.strip_prefix(rule).is_some_and(|rest| rest.starts_with('.'));
        *rules.entry(name).or_default() += 1;
        if matches && found.len() < look.n {
            found.push(trace);
        }
    }
    if found.is_empty() {
        let list: Vec<String> = rules.iter().map(|(rule, n)| format!("{rule} ({n})")).collect();
        bail!("no trace was dropped by {rule:?}; there are: {}", list.join(", "));
    }
    if look.json {
        return Ok(serde_json::to_string_pretty(&found)? + "\n");
    }
    found.iter().map(trace_text).collect()
}

/// All attempts at a problem, wherever in the run they are, and its probes at several training steps.
fn show_problem(path: &Path, problem: &str, look: &Look) -> Result<String> {
    let mut places: Vec<PathBuf> = Vec::new();
    collect_manifests(path, &mut places)?;
    places.sort();
    let mut sections: Vec<(String, Vec<Trace>)> = Vec::new();
    for place in places {
        let of_problem = traces(&place)?.filter(|t| t.as_ref().map_or(true, |t| t.problem.0 == problem));
        let found = of_problem.collect::<Result<Vec<Trace>>>()?;
        if !found.is_empty() {
            let name = place.strip_prefix(path).unwrap_or(&place).display().to_string();
            sections.push((name, found));
        }
    }
    let probes = probes_of(path, problem)?;
    ensure!(!sections.is_empty() || !probes.is_empty(), "no attempt at problem {problem:?} in {}", path.display());
    if look.json {
        let sections: Vec<Value> = sections.iter().map(|(name, traces)| json!({"folder": name, "traces": traces})).collect();
        let probes: Vec<Value> = probes.iter().map(|(name, step, trace)| json!({"phase": name, "step": step, "trace": trace})).collect();
        return Ok(serde_json::to_string_pretty(&json!({"problem": problem, "attempts": sections, "probes": probes}))? + "\n");
    }
    let mut out = String::new();
    for (name, traces) in &sections {
        writeln!(out, "{name}")?;
        for trace in traces {
            out += &trace_text(trace)?;
        }
    }
    for (phase, step, trace) in &probes {
        writeln!(out, "{phase}, greedy after step {step}")?;
        out += &trace_text(trace)?;
    }
    Ok(out)
}

fn collect_manifests(path: &Path, places: &mut Vec<PathBuf>) -> Result<()> {
    if path.join("manifest.json").exists() {
        places.push(path.to_path_buf());
    }
    for entry in std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir() && !name.to_string_lossy().starts_with('.') && name != "superseded" {
            collect_manifests(&entry.path(), places)?;
        }
    }
    Ok(())
}

/// What the phases answered to a problem as they went: (phase, step, trace).
fn probes_of(run: &Path, problem: &str) -> Result<Vec<(String, u64, Trace)>> {
    let Ok(recipe) = recipe_of(run) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for stage in stages(&recipe) {
        let path = run.join(&stage).join("probes.jsonl");
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for (i, line) in text.lines().enumerate() {
            let row: Value = serde_json::from_str(line).with_context(|| format!("{}:{}", path.display(), i + 1))?;
            let trace: Trace = serde_json::from_value(row["trace"].clone()).with_context(|| format!("{}:{}", path.display(), i + 1))?;
            if trace.problem.0 == problem {
                found.push((stage.clone(), row["step"].as_u64().unwrap_or_default(), trace));
            }
        }
    }
    Ok(found)
}

/// The funnel of a finished corpus.
pub fn funnel(corpus: &Path, json: bool) -> Result<String> {
    let done = publish::done(corpus)?.with_context(|| format!("{} is not finished", corpus.display()))?;
    if json {
        return Ok(serde_json::to_string_pretty(&done)? + "\n");
    }
    let mut out = String::new();
    for step in done["funnel"].as_array().into_iter().flatten() {
        writeln!(out, "{:<18} {:>9}", step["step"].as_str().unwrap_or_default(), step["count"])?;
    }
    writeln!(out, "kept in {}, dropped with reasons in {}", corpus.display(), corpus.join("dropped").display())?;
    Ok(out)
}

/// Where a finished stage left its result.
pub fn finished(run: &Run, stage: &str, json: bool) -> Result<String> {
    let folders: Vec<String> = stages(&run.recipe).into_iter().filter(|s| s == stage || s.starts_with(&format!("{stage}/"))).collect();
    let mut out = String::new();
    for name in folders {
        let folder = run.folder(&name);
        let Some(done) = publish::done(&folder)? else { continue };
        if json {
            writeln!(out, "{}", serde_json::to_string(&done)?)?;
        } else {
            writeln!(out, "{}: {}", folder.display(), plain_pairs(&done["counts"]))?;
        }
    }
    Ok(out)
}
