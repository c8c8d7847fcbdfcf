//! `filter`: keeps the traces worth learning from in `corpus/`, and every other one with its reason in `corpus/dropped/`.

use super::collect::SealedEntries;
use super::run::{Run, Status, config, shards};
use super::sample;
use crate::filter::{Filter, FilterSettings, Outcome};
use crate::key::Key;
use crate::publish;
use crate::shard::{Entry, Manifest, SealOptions, Source, seal, traces};
use crate::trace::{Group, Reason, Trace};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// Folder of this stage in the run directory.
pub const FOLDER: &str = "corpus";

/// Filters the run's traces, or those at `input`.
pub fn stage(run: &Run, input: Option<&Path>) -> Result<()> {
    let begin = Instant::now();
    let input = match input {
        Some(path) => config(shards(path, [sample::FOLDER, FOLDER]))?,
        None => run.folder(sample::FOLDER),
    };
    let settings = &run.recipe.filter;
    let manifest = if input.is_dir() { Manifest::load(&input)?.hash()? } else { publish::sha256_file(&input)? };
    let inputs = json!({"traces": manifest, "filter": settings, "seed": run.seed()});
    if run.status(FOLDER, &inputs, &Value::Null)? == Status::Done {
        return Ok(());
    }
    write(&input, &run.folder(FOLDER), settings, run.seed(), |counts, funnel| {
        let mut record = Run::done_record(FOLDER, &inputs, &Value::Null, counts, begin);
        record["funnel"] = funnel;
        record
    })?;
    Ok(())
}

/// Filters the shards or the JSONL file at `input` into the folder `output`; `record` makes its `DONE` from counts and funnel.
pub fn write(
    input: &Path,
    output: &Path,
    settings: &FilterSettings,
    seed: u64,
    record: impl FnOnce(Value, Value) -> Value,
) -> Result<Outcome> {
    let outcome = apply(input, settings, seed)?;
    let (mut sources, hash) = match Manifest::load(input) {
        Ok(manifest) => (manifest.sources.clone(), Some(manifest.hash()?)),
        Err(_) if input.is_file() => (vec![Source::default()], Some(publish::sha256_file(input)?)),
        Err(error) => return Err(error),
    };
    for source in &mut sources {
        source.filter = serde_json::to_value(settings)?;
        source.input_manifest = hash.clone();
    }
    publish::folder(output, |new| {
        let mut tokens = input.is_dir().then(|| SealedEntries::open(input)).transpose()?;
        let mut store = |folder: &Path, kind: &str, rows: Vec<Trace>| -> Result<Manifest> {
            let entries = rows.into_iter().map(|trace| match &mut tokens {
                Some(tokens) => tokens.with_tokens(trace),
                None => Ok(Entry { trace, tokens: None }),
            });
            let mut n = 0u64;
            let count = |_: &Trace| {
                n += 1;
                n
            };
            seal(folder, entries, count, &SealOptions::new(kind, sources.clone()))
        };
        let kept = store(new, "corpus", outcome.kept.clone())?;
        let dropped_folder = new.join("dropped");
        std::fs::create_dir_all(&dropped_folder).with_context(|| format!("cannot make {}", dropped_folder.display()))?;
        let dropped = store(&dropped_folder, "dropped", outcome.dropped.iter().map(|(t, r)| with_reason(t, r)).collect())?;
        let counts = json!({"kept": kept.rows, "dropped": dropped.rows, "tokens": kept.tokens()});
        Run::mark_done(new, record(counts, serde_json::to_value(&outcome.funnel)?))
    })?;
    Ok(outcome)
}

/// Runs the filter without writing.
pub fn apply(input: &Path, settings: &FilterSettings, seed: u64) -> Result<Outcome> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for trace in traces(input)? {
        let trace = trace?;
        let group = groups.entry(trace.problem.0.clone()).or_insert_with(|| Group { problem: trace.problem.clone(), traces: Vec::new() });
        group.traces.push(trace);
    }
    Ok(Filter::new(settings)?.run(groups.into_values().collect(), Key::new(seed, "filter")))
}

/// A dropped trace as it is kept.
fn with_reason(trace: &Trace, reason: &Reason) -> Trace {
    let mut trace = trace.clone();
    trace.other.insert("dropped".to_owned(), json!(reason));
    trace
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::shard::TokenRecord;
    use crate::shard::samples::{entry, order};

    /// One attempt at each problem, of about 200 tokens.
    fn long_entries(rows: u32) -> impl Iterator<Item = Result<Entry>> {
        (0..rows).map(|p| {
            let mut entry = entry(p, 0);
            let mut draw = Key::new(u64::from(p), "long").stream();
            let tokens: Vec<u32> = (0..150 + draw.below(100)).map(|_| draw.below(150_000)).collect();
            let logprobs: Vec<f32> = tokens.iter().map(|_| -draw.unit() as f32).collect();
            entry.trace.response = tokens.iter().map(|t| format!("word{} ", t % 1000)).collect();
            entry.tokens = Some(TokenRecord::new(entry.trace.id.clone(), vec![1; 40], tokens, &logprobs));
            Ok(entry)
        })
    }

    /// Prints how long filtering takes: `cargo test --release --lib -- --ignored --nocapture filtering_80_000_rows`.
    #[test]
    #[ignore = "a measurement of a minute"]
    fn filtering_80_000_rows() {
        let dir = tempfile::tempdir().unwrap();
        seal(dir.path(), long_entries(80_000), order, &SealOptions::new("traces", vec![Source::default()])).unwrap();
        let settings = FilterSettings { exact_duplicate: true, ..FilterSettings::default() };
        let begin = Instant::now();
        apply(dir.path(), &settings, 0).unwrap();
        let alone = begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        let outcome = write(dir.path(), &dir.path().join("corpus"), &settings, 0, |counts, _| counts).unwrap();
        println!(
            "{} of 80,000 rows kept: {:.1} s, of which {alone:.1} s are the filter alone",
            outcome.kept.len(),
            begin.elapsed().as_secs_f64()
        );
    }
}
