//! `show TRACE_ID`: what every rule of the filter said about one trace, and the place in its text that a rule points at. Changes nothing.

use super::decontaminate;
use super::filter::FOLDER;
use super::run::read_json;
use super::sample;
use super::show::{Look, recipe_of, trace_text};
use crate::filter::{Filter, FilterSettings, RULES};
use crate::publish;
use crate::report::text;
use crate::shard::traces;
use crate::trace::{Reason, Trace};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Bytes of text around a place that are shown on each side.
const AROUND: usize = 240;

/// One rule's word on the trace.
struct Link {
    rule: &'static str,
    state: &'static str,
    says: String,
}

/// The chain of decisions on the trace `id` of a run, as text or JSON.
///
/// # Errors
/// Where the run has no such trace.
pub fn chain(run: &Path, id: &str, look: &Look) -> Result<String> {
    let corpus = if run.join(FOLDER).is_dir() { run.join(FOLDER) } else { run.to_owned() };
    let places = [(corpus.clone(), "kept"), (corpus.join("dropped"), "dropped"), (run.join(sample::FOLDER), "not filtered yet")];
    let mut found = None;
    for (place, state) in places.into_iter().filter(|(place, _)| place.join("manifest.json").exists()) {
        if let Some(trace) = find(&place, id)? {
            found = Some((trace, state));
            break;
        }
    }
    let Some((trace, state)) = found else {
        bail!(
            "no trace {id:?} in {}: neither kept, nor dropped, nor sampled; ids are what `distill show {}` prints",
            run.display(),
            run.display()
        )
    };
    let dropped: Option<Reason> = trace.other.get("dropped").and_then(|reason| serde_json::from_value(reason.clone()).ok());
    let (links, remark) = links(run, &corpus, &trace, dropped.as_ref(), state)?;
    let place = dropped.as_ref().and_then(|reason| reason.span).and_then(|span| Place::of(&trace.response, span));
    if look.json {
        let links: Vec<Value> = links.iter().map(|link| json!({"rule": link.rule, "state": link.state, "says": link.says})).collect();
        let place = place.map(|place| json!({"before": place.before, "text": place.text, "after": place.after}));
        let all =
            json!({"id": id, "state": state, "decisions": links, "dropped": dropped, "place": place, "remark": remark, "trace": trace});
        return Ok(serde_json::to_string_pretty(&all)? + "\n");
    }
    let mut out = trace_text(&trace, look.columns);
    let mut line = |text: &str, indent| text::wrap(text, look.columns, indent).iter().for_each(|line| out += &format!("{line}\n"));
    line(&format!("{state}; what each rule said, in the order in which they run"), 2);
    for Link { rule, state, says } in &links {
        let head = format!("  {}  {}  ", text::column(rule, 15), text::column(state, 7));
        text::beside(&head, &text::harmless(says).replace('\n', " "), look.columns).iter().for_each(|l| line(l, 28));
    }
    if !remark.is_empty() {
        line(&remark, 2);
    }
    if let Some(place) = place {
        line("the place in the response:", 2);
        let shown = format!("{}⟦{}⟧{}", place.before, place.text, place.after);
        text::harmless(&shown).lines().for_each(|l| line(&format!("  │ {l}"), 4));
    }
    Ok(out)
}

/// The run among those in `runs/` that has this trace.
pub fn run_with(id: &str) -> Result<PathBuf> {
    let runs = Path::new("runs");
    let mut folders: Vec<PathBuf> = Vec::new();
    if runs.is_dir() {
        let entries = std::fs::read_dir(runs).with_context(|| format!("cannot read {}", runs.display()))?;
        folders = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    }
    folders.sort();
    let has = |run: &&PathBuf| {
        let places = [run.join(FOLDER), run.join(FOLDER).join("dropped"), run.join(sample::FOLDER)];
        places.iter().filter(|place| place.join("manifest.json").exists()).any(|place| matches!(find(place, id), Ok(Some(_))))
    };
    let found = folders.iter().find(has).cloned();
    found.with_context(|| format!("no run in runs/ has a trace {id:?}; name the run: distill show RUN --trace '{id}'"))
}

fn find(place: &Path, id: &str) -> Result<Option<Trace>> {
    for trace in traces(place)? {
        let trace = trace?;
        if trace.id == id {
            return Ok(Some(trace));
        }
    }
    Ok(None)
}

/// What each rule that is on said. The stored reason is the word of the rule that dropped the trace; the rules before it are asked again.
fn links(run: &Path, corpus: &Path, trace: &Trace, dropped: Option<&Reason>, state: &str) -> Result<(Vec<Link>, String)> {
    if state == "not filtered yet" {
        return Ok((Vec::new(), String::new()));
    }
    let done = publish::done(corpus)?.or(read_json(&corpus.join("DONE"))?);
    let settings = done.as_ref().map(|done| done["inputs"]["filter"].clone()).unwrap_or_default();
    let Ok(settings) = serde_json::from_value::<FilterSettings>(settings) else {
        return Ok((Vec::new(), "with which settings it was filtered is not known here".into()));
    };
    let mut filter = Filter::new(&settings)?;
    let mut remark = String::new();
    if !settings.decontaminate.is_empty() {
        match recipe_of(run).and_then(|recipe| decontaminate::evaluations(&recipe, &settings.decontaminate)) {
            Ok(Some((evaluations, _))) => filter = filter.against(evaluations),
            Ok(None) => {}
            Err(error) => remark = format!("the evaluation problems cannot be looked at again: {error:#}"),
        }
    }
    let findings = filter.explain(trace);
    let stopped_at = dropped.map(|reason| reason.rule.split('.').next().unwrap_or_default());
    let mut links = Vec::new();
    let mut reached = true;
    for rule in RULES.into_iter().filter(|rule| settings.has(rule)) {
        let says = |text: &Reason| text::reason(text);
        let (state, said) = match dropped.filter(|_| stopped_at == Some(rule)) {
            _ if !reached => ("", "not asked any more".to_owned()),
            Some(reason) => {
                reached = false;
                ("dropped", says(reason))
            }
            None => (
                "passed",
                findings.iter().find(|finding| finding.rule == rule).map_or_else(
                    || of_all(rule, trace),
                    |f| match &f.says {
                        Ok(value) => value.clone(),
                        Err(reason) => format!("today it would be dropped: {}", says(reason)),
                    },
                ),
            ),
        };
        links.push(Link { rule, state, says: said });
    }
    Ok((links, remark))
}

/// What is known of a rule over all traces that kept this one.
fn of_all(rule: &str, trace: &Trace) -> String {
    match (rule, trace.passes, trace.attempts) {
        ("pass_rate", Some(passes), Some(attempts)) => format!("{passes} of {attempts} attempts at its problem are correct"),
        ("exact_duplicate" | "near_duplicate", ..) => "the first of its kind".into(),
        ("per_problem", ..) => "among those taken of its problem".into(),
        _ => String::new(),
    }
}

/// A place in a text, with what stands around it.
struct Place<'a> {
    before: &'a str,
    text: &'a str,
    after: &'a str,
}

impl<'a> Place<'a> {
    fn of(text: &'a str, (start, end): (usize, usize)) -> Option<Self> {
        let inside = text.get(start..end)?;
        let before = |text: &str, at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let (from, to) = (before(text, start.saturating_sub(AROUND)), before(text, end + AROUND).max(end));
        let cut = before(inside, 4 * AROUND);
        let (shown, after) = if cut < inside.len() { (&inside[..cut], "…") } else { (inside, &text[end..to]) };
        Some(Self { before: &text[from..start], text: shown, after })
    }
}
