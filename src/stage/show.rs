//! `show`: look at a run, at shards, at one problem's attempts, at what was dropped and why. Changes nothing.

use super::chain::{chain, run_with};
use super::filter;
use super::run::{self, Run, read_json};
use super::sample;
use crate::filter::{RULES, Step};
use crate::measure::census::Census;
use crate::publish;
use crate::recipe::Recipe;
use crate::report::{
    self,
    text::{self, thousands},
};
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
    /// Id of a trace whose decisions are to be shown.
    pub trace: Option<String>,
    pub n: usize,
    pub json: bool,
    /// Run directory that an id alone is looked for in; without one, those in `runs/`.
    pub run: Option<PathBuf>,
    /// Columns that the text is laid out in.
    pub columns: usize,
}

/// Text, or JSON, about what lies at `path`.
pub fn show(path: &Path, look: &Look) -> Result<String> {
    if let Some(id) = path.to_str().filter(|id| !path.exists() && id.contains('#')) {
        return chain(&look.run.clone().map_or_else(|| run_with(id), Ok)?, id, look);
    }
    ensure!(path.exists(), "{} does not exist; show wants a run directory, a folder of shards or a file of traces", path.display());
    if let Some(id) = &look.trace {
        return chain(path, id, look);
    }
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

pub(super) fn recipe_of(run: &Path) -> Result<Recipe> {
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
    all.extend(recipe.judge.is_some().then(|| super::judge::FOLDER.to_owned()));
    all
}

/// The stages of a run with their states: those of its recipe in the order of the pipeline, then what else was evaluated.
fn stages_of_run(run: &Path, recipe: &Recipe) -> Result<Vec<String>> {
    let mut all = stages(recipe);
    if !all.iter().any(|s| s == filter::FOLDER) && run.join(filter::FOLDER).exists() {
        all.push(filter::FOLDER.to_owned()); // of traces from elsewhere
    }
    all.extend(evaluations_of(recipe));
    let evaluations = run.join("evaluation");
    if evaluations.is_dir() {
        let entries = std::fs::read_dir(&evaluations).with_context(|| format!("cannot read {}", evaluations.display()))?;
        let names = entries.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect::<Result<Vec<String>>>()?;
        let there = names.into_iter().filter(|n| !n.starts_with('.')).map(|n| format!("evaluation/{n}"));
        let mut others: Vec<String> = there.filter(|name| !all.contains(name)).collect();
        others.sort();
        all.extend(others);
    }
    Ok(all)
}

/// The evaluations of a recipe: its tasks in their order, and for each the models from base to student.
pub fn evaluations_of(recipe: &Recipe) -> Vec<String> {
    let of =
        |task: &str| super::evaluate::names(recipe).into_iter().map(|(model, _)| format!("evaluation/{model}-{task}")).collect::<Vec<_>>();
    recipe.evaluate.tasks.iter().flat_map(|task| of(&task.name)).collect()
}

fn show_run(run: &Path, look: &Look) -> Result<String> {
    let recipe = recipe_of(run)?;
    let rows = stages_of_run(run, &recipe)?.into_iter().map(|stage| {
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
    let title = format!("run {} (recipe {}, seed {})", run.display(), recipe.name, recipe.seed);
    let mut out = format!("{}\n\n", text::wrap(&title, look.columns, 2).join("\n"));
    let names = rows.iter().filter_map(|row| row["stage"].as_str()).map(text::width).max().unwrap_or(0);
    let names = names.min((look.columns / 2).max(16));
    for row in &rows {
        let seconds = row["seconds"].as_f64().map_or(String::new(), text::duration);
        let detail = if row["counts"].is_null() { cursor_text(&row["cursor"]) } else { text::plain_json(&row["counts"]) };
        let name = text::column(row["stage"].as_str().unwrap_or_default(), names);
        let head = format!("  {name}  {:<5}  {seconds:>11}  ", row["state"].as_str().unwrap_or_default());
        text::beside(&head, &detail, look.columns).iter().for_each(|line| out += &format!("{line}\n"));
    }
    if rows.iter().all(|r| r["state"] == "done") && run.join("report.json").exists() {
        write!(out, "\n{}", report::terminal(&report::Report::of(run)?, run, look.columns))?;
    }
    Ok(out)
}

fn cursor_text(cursor: &Value) -> String {
    cursor["step"].as_u64().map_or(String::new(), |step| format!("goes on at step {step}"))
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
        out += &manifest_text(&path, manifest, look.columns);
    }
    first.iter().for_each(|trace| out += &trace_text(trace, look.columns));
    Ok(out)
}

fn manifest_text(path: &Path, manifest: &Manifest, columns: usize) -> String {
    let bytes: u64 = manifest.shards.iter().map(|s| s.bytes).sum();
    let mut lines = vec![format!(
        "{}: {} of {} rows in {} shards, {} tokens, {}",
        path.display(),
        manifest.kind,
        thousands(manifest.rows as usize),
        thousands(manifest.shards.len()),
        thousands(manifest.tokens() as usize),
        text::size(bytes as usize)
    )];
    for (i, source) in manifest.sources.iter().enumerate() {
        let sampling = match source.sampling.as_object() {
            Some(_) => format!(" with {}", text::plain_json(&source.sampling)),
            None => String::new(),
        };
        let version = if source.distill_version.is_empty() { String::new() } else { format!(" by distill {}", source.distill_version) };
        let model = if source.model.is_empty() { "somewhere else" } else { &source.model };
        lines.push(format!("source {i}: {}, sampled{version}{sampling}", text::harmless(model)));
    }
    let wrapped: Vec<String> = lines.iter().flat_map(|line| text::wrap(line, columns, 2)).collect();
    wrapped.join("\n") + "\n\n"
}

/// A trace as a person reads it.
pub(super) fn trace_text(trace: &Trace, columns: usize) -> String {
    let verdict = match &trace.verdict {
        Some(v) if v.is_correct() => "correct".to_owned(),
        Some(v) => v.reason().map_or_else(|| "wrong".to_owned(), |r| format!("not correct: {}", text::reason(r))),
        None => "not judged".to_owned(),
    };
    let reference = if trace.gold.is_empty() { String::new() } else { format!("; reference {}", trace.gold) };
    let finish = json!(trace.finish);
    let finish = finish.as_str().unwrap_or_default();
    // General data is neither counted nor paid.
    let counted = match (&trace.verdict, trace.completion_tokens) {
        (None, 0) => String::new(),
        (_, tokens) => format!("; {} tokens, {finish}; reward {:.2}", thousands(tokens), trace.reward()),
    };
    let mut lines = vec![format!("── {}  {verdict}{reference}{counted}", trace.id)];
    if let Some(reason) = trace.other.get("dropped").and_then(|v| serde_json::from_value::<Reason>(v.clone()).ok()) {
        lines.push(format!("   dropped: {}", text::reason(&reason)));
    }
    let one_line = |line: &String| text::wrap(&text::harmless(line).replace('\n', " "), columns, 3);
    let said = [&trace.question, &trace.response].map(|text| text::harmless(text));
    let body = said.iter().flat_map(|text| text.lines()).flat_map(|line| text::wrap(line, columns, 0));
    let all: Vec<String> = lines.iter().flat_map(one_line).chain(body).collect();
    all.join("\n") + "\n\n"
}

fn show_dropped(path: &Path, rule: &str, look: &Look) -> Result<String> {
    let places = [path.join("corpus/dropped"), path.join("dropped"), path.to_path_buf()];
    let place = places.into_iter().find(|p| p.is_file() || p.join("manifest.json").exists());
    let place = place.with_context(|| format!("{} holds no dropped traces: no filter has run there", path.display()))?;
    let mut rules = std::collections::BTreeMap::<String, usize>::new();
    let mut found = Vec::new();
    for trace in traces(&place)? {
        let trace = trace?;
        let Some(name) = trace.other.get("dropped").and_then(|d| d["rule"].as_str()).map(str::to_owned) else { continue };
        let matches = name == rule || name.strip_prefix(rule).is_some_and(|rest| rest.starts_with('.'));
        *rules.entry(name).or_default() += 1;
        if matches && found.len() < look.n {
            found.push(trace);
        }
    }
    ensure!(
        !rules.is_empty(),
        "{}: no trace here was dropped; what a filter drops lies in corpus/dropped of its run: `distill show RUN --dropped {rule}`",
        place.display()
    );
    if !rules.keys().any(|name| name == rule || name.strip_prefix(rule).is_some_and(|rest| rest.starts_with('.'))) {
        let list: Vec<String> = rules.iter().map(|(rule, n)| format!("{rule} ({})", thousands(*n))).collect();
        bail!("no trace was dropped by {rule:?}; there are: {}", list.join(", "));
    }
    if look.json {
        return Ok(serde_json::to_string_pretty(&found)? + "\n");
    }
    Ok(found.iter().map(|trace| trace_text(trace, look.columns)).collect())
}

/// All attempts at a problem, wherever in the run they are, and its probes at several training steps.
fn show_problem(path: &Path, problem: &str, look: &Look) -> Result<String> {
    let mut places: Vec<PathBuf> = Vec::new();
    if path.is_file() {
        places.push(path.to_owned());
    } else {
        collect_manifests(path, &mut places)?;
    }
    places.sort();
    let mut sections: Vec<(String, Vec<Trace>)> = Vec::new();
    for place in places {
        let of_problem = traces(&place)?.filter(|t| t.as_ref().map_or(true, |t| t.problem.0 == problem));
        let found = of_problem.collect::<Result<Vec<Trace>>>()?;
        if !found.is_empty() {
            let inside = place.strip_prefix(path).ok().filter(|inside| !inside.as_os_str().is_empty());
            let name = inside.unwrap_or(&place).display().to_string();
            sections.push((name, found));
        }
    }
    let probes = probes_of(path, problem)?;
    ensure!(
        !sections.is_empty() || !probes.is_empty(),
        "no attempt at problem {problem:?} in {}; ids are what `distill show {}` prints before the #",
        path.display(),
        path.display()
    );
    if look.json {
        let sections: Vec<Value> = sections.iter().map(|(name, traces)| json!({"folder": name, "traces": traces})).collect();
        let probes: Vec<Value> = probes.iter().map(|(name, step, trace)| json!({"phase": name, "step": step, "trace": trace})).collect();
        return Ok(serde_json::to_string_pretty(&json!({"problem": problem, "attempts": sections, "probes": probes}))? + "\n");
    }
    let mut out = String::new();
    for (name, traces) in &sections {
        writeln!(out, "{name}")?;
        for trace in traces {
            out += &trace_text(trace, look.columns);
        }
    }
    for (phase, step, trace) in &probes {
        writeln!(out, "{phase}, greedy after step {step}")?;
        out += &trace_text(trace, look.columns);
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
pub fn funnel(corpus: &Path, json: bool, columns: usize) -> Result<String> {
    let done = publish::done(corpus)?.with_context(|| format!("{} is not finished", corpus.display()))?;
    if json {
        return Ok(serde_json::to_string_pretty(&done)? + "\n");
    }
    let steps: Vec<Step> =
        serde_json::from_value(done["funnel"].clone()).with_context(|| format!("{} is damaged", corpus.join("DONE").display()))?;
    let out = funnel_table(&steps, columns);
    let places = format!("kept in {}, dropped with reasons in {}", corpus.display(), corpus.join("dropped").display());
    Ok(out + &text::wrap(&places, columns, 2).join("\n") + "\n")
}

/// Traces left after each step, in all and by the pass rate of their problems.
fn funnel_table(steps: &[Step], columns: usize) -> String {
    let names = steps.iter().map(|step| text::width(&step.step)).max().unwrap_or(0).max(11);
    let cell = (columns.saturating_sub(names + 9) / text::PASS_RATES.len()).clamp(5, 9);
    let mut out = String::new();
    if steps.iter().any(|step| !step.by_pass_rate.is_empty()) {
        let heads: String = text::PASS_RATES.iter().map(|head| format!("{head:>cell$}")).collect();
        out += &format!("{}  by the pass rate of the problem\n", " ".repeat(names + 9));
        out += &format!("{}  {:>7}{heads}\n", text::column("traces left", names), "all");
    }
    for step in steps {
        let buckets: String = step.by_pass_rate.iter().map(|n| format!("{:>cell$}", thousands(*n))).collect();
        out += &format!("{}  {:>7}{buckets}\n", text::column(&step.step, names), thousands(step.count));
    }
    out
}

/// Two funnels beside each other, and what they keep by the pass rate of the problems. Nothing was written.
pub fn what_if(pairs: &[String], [now, then]: &[Vec<Step>; 2], json: bool, columns: usize) -> Result<String> {
    if json {
        return Ok(serde_json::to_string_pretty(&json!({"what_if": pairs, "now": {"funnel": now}, "then": {"funnel": then}}))? + "\n");
    }
    let mut steps: Vec<&str> =
        RULES.into_iter().filter(|rule| [now, then].iter().any(|f| f.iter().any(|step| step.step == *rule))).collect();
    steps.insert(0, "input");
    let names = steps.iter().map(|step| text::width(step)).max().unwrap_or(0);
    let title = format!("what if {}: nothing is written", pairs.join(", "));
    let mut out = format!("{}\n", text::wrap(&text::harmless(&title), columns, 2).join("\n"));
    writeln!(out, "{}  {:>9} {:>9}   {:>9}", " ".repeat(names), "now", "", "what if")?;
    for step in steps {
        let cells = [now, then].map(|funnel| {
            let at = funnel.iter().position(|other| other.step == step);
            let Some(at) = at else { return format!("{:>9} {:>9}", "-", "") };
            let before = at.checked_sub(1).map_or(funnel[at].count, |before| funnel[before].count);
            let gone = before.saturating_sub(funnel[at].count);
            let gone = if gone == 0 { String::new() } else { format!("-{}", thousands(gone)) };
            format!("{:>9} {gone:>9}", thousands(funnel[at].count))
        });
        writeln!(out, "{}", format!("{}  {}", text::column(step, names), cells.join("   ")).trim_end())?;
    }
    let ends = |name: &str, funnel: &[Step]| funnel.last().map(|step| Step { step: name.to_owned(), ..step.clone() });
    let input = now.first().map(|step| Step { step: "input".to_owned(), ..step.clone() });
    let rows: Vec<Step> = [input, ends("kept now", now), ends("kept then", then)].into_iter().flatten().collect();
    write!(out, "\n{}", funnel_table(&rows, columns))?;
    Ok(out)
}

/// What a census found.
pub fn census(census: &Census, path: &Path, json: bool, columns: usize) -> Result<String> {
    if json {
        return Ok(serde_json::to_string_pretty(census)? + "\n");
    }
    let rows = census.rows();
    let names = rows.iter().map(|[what, _]| text::width(what)).max().unwrap_or(0).min((columns / 2).max(16));
    let mut out = text::wrap(&format!("{}: nothing is written", path.display()), columns, 2).join("\n") + "\n";
    for [what, value] in &rows {
        let head = format!("  {}  ", text::column(&text::harmless(what), names));
        text::beside(&head, &text::harmless(value), columns).iter().for_each(|line| out += &format!("{line}\n"));
    }
    Ok(out)
}

/// Where a finished stage left its result.
pub fn finished(run: &Run, stage: &str, json: bool, columns: usize) -> Result<String> {
    let folders: Vec<String> = stages(&run.recipe).into_iter().filter(|s| s == stage || s.starts_with(&format!("{stage}/"))).collect();
    let mut out = String::new();
    for name in folders {
        let folder = run.folder(&name);
        let Some(done) = publish::done(&folder)? else { continue };
        if json {
            writeln!(out, "{}", serde_json::to_string(&done)?)?;
        } else {
            let line = format!("{}: {}", folder.display(), text::plain_json(&done["counts"]));
            text::wrap(&line, columns, 2).iter().for_each(|line| out += &format!("{line}\n"));
        }
    }
    Ok(out)
}
