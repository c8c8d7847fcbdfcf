//! `filter`: keeps the traces worth learning from in `corpus/`, and every other one with its reason in `corpus/dropped/`.
//!
//! Traces are read in passes and written in the order in which they came; none of this needs them all in memory. `what_if` and `census` write nothing.

use super::decontaminate;
use super::run::{Run, Status, config, shards};
use super::sample;
use crate::filter::{Decision, Filter, FilterSettings, Parts, Step, Stored, Traces};
use crate::key::Key;
use crate::measure::census::{Census, Sample};
use crate::publish;
use crate::recipe::Recipe;
use crate::shard::{Entry, Manifest, SealOptions, Sealer, Source, TokenRecord, TokensInOrder};
use crate::trace::Trace;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Folder of this stage in the run directory.
pub const FOLDER: &str = "corpus";
/// Which evaluation problems were found in traces, in a corpus that was decontaminated.
const CONTAMINATION: &str = "contamination.json";

/// Filters the run's traces, or those at `input`.
pub fn stage(run: &Run, input: Option<&Path>) -> Result<()> {
    let begin = Instant::now();
    let input = input_of(&run.dir, input)?;
    let settings = &run.recipe.filter;
    let (filter, evaluations) = prepare(&run.recipe, settings, &input)?;
    let manifest = if input.is_dir() { Manifest::load(&input)?.hash()? } else { publish::sha256_file(&input)? };
    let mut inputs = json!({"traces": manifest, "filter": settings, "seed": run.seed()});
    if let Some(hash) = evaluations {
        inputs["evaluations"] = hash.into();
    }
    if run.status(FOLDER, &inputs, &Value::Null)? == Status::Done {
        return Ok(());
    }
    write(&input, &run.folder(FOLDER), &filter, run.seed(), |counts, funnel| {
        let mut record = Run::done_record(FOLDER, &inputs, &Value::Null, counts, begin);
        record["funnel"] = funnel;
        record
    })
}

/// Where the traces are: those of the run, or what a person named.
fn input_of(run: &Path, input: Option<&Path>) -> Result<PathBuf> {
    match input {
        Some(path) => config(shards(path, [sample::FOLDER, FOLDER])),
        None => Ok(run.join(sample::FOLDER)),
    }
}

/// The filter over the traces at `input`, and a hash of the evaluation problems that it holds them against.
pub(super) fn prepare(recipe: &Recipe, settings: &FilterSettings, input: &Path) -> Result<(Filter, Option<String>)> {
    let mut filter = config(Filter::new(settings))?;
    if !settings.source.is_empty() {
        let sources = if input.is_dir() { Manifest::load(input)?.sources } else { vec![Source::default()] };
        let models: Vec<&str> = sources.iter().map(|source| source.model.as_str()).collect();
        filter = config(filter.with_sources(&models))?;
    }
    match decontaminate::evaluations(recipe, &settings.decontaminate)? {
        Some((evaluations, hash)) => Ok((filter.against(evaluations), Some(hash))),
        None => Ok((filter, None)),
    }
}

/// Filters the shards or the JSONL file at `input` into the folder `output`; `record` makes its `DONE` from counts and funnel.
pub fn write(input: &Path, output: &Path, filter: &Filter, seed: u64, record: impl FnOnce(Value, Value) -> Value) -> Result<()> {
    let (mut sources, hash) = match Manifest::load(input) {
        Ok(manifest) => (manifest.sources.clone(), Some(manifest.hash()?)),
        Err(_) if input.is_file() => (vec![Source::default()], Some(publish::sha256_file(input)?)),
        Err(error) => return Err(error),
    };
    for source in &mut sources {
        source.filter = serde_json::to_value(filter.settings())?;
        source.input_manifest = hash.clone();
    }
    let mut traces = Stored::new(input);
    let judged = filter.judge(&mut traces, Key::new(seed, "filter"))?;
    publish::folder(output, |new| {
        let dropped_folder = new.join("dropped");
        std::fs::create_dir_all(&dropped_folder).with_context(|| format!("cannot make {}", dropped_folder.display()))?;
        let options = ["corpus", "dropped"].map(|kind| SealOptions::new(kind, sources.clone()));
        let (mut kept, mut dropped) = (Sealer::new(new, &options[0])?, Sealer::new(&dropped_folder, &options[1])?);
        let mut tokens = Tokens { rows: input.is_dir().then(|| TokensInOrder::open(input)).transpose()?, last: None };
        let mut contamination = BTreeMap::<String, usize>::new();
        judged.hand_out(&mut traces, |mut trace, decision| match decision {
            Decision::Keep => kept.push(tokens.with(trace)?),
            Decision::Drop(reason) => {
                if let Some(item) = reason.value.as_deref().filter(|_| reason.rule == "decontaminate") {
                    *contamination.entry(item.split(" in the ").next().unwrap_or(item).to_owned()).or_default() += 1;
                }
                trace.other.insert("dropped".to_owned(), json!(reason));
                dropped.push(tokens.with(trace)?)
            }
        })?;
        tokens.rows.map_or(Ok(()), TokensInOrder::finish)?;
        if !filter.settings().decontaminate.is_empty() {
            publish::json(new.join(CONTAMINATION), &json!({"traces_by_evaluation_problem": contamination}))?;
        }
        let (kept, dropped) = (kept.finish()?, dropped.finish()?);
        let counts = json!({"kept": kept.rows, "dropped": dropped.rows, "tokens": kept.tokens()});
        Run::mark_done(new, record(counts, serde_json::to_value(judged.funnel())?))
    })
}

/// Token ids beside traces that come in the order of the shards, repeated ones after their first.
struct Tokens {
    rows: Option<TokensInOrder>,
    /// Of the trace that came last.
    last: Option<TokenRecord>,
}

impl Tokens {
    fn with(&mut self, trace: Trace) -> Result<Entry> {
        let Some(rows) = &mut self.rows else { return Ok(Entry { trace, tokens: None }) };
        let is_copy_of = |id: &str| trace.id.strip_prefix(id).is_some_and(|rest| rest.starts_with('+'));
        let found = rows.of(&trace.id)?;
        let tokens = match &self.last {
            Some(last) if found.is_none() && is_copy_of(&last.id) => Some(TokenRecord { id: trace.id.clone(), ..last.clone() }),
            _ => {
                self.last.clone_from(&found);
                found
            }
        };
        Ok(Entry { trace, tokens })
    }
}

/// The funnels of a run's traces, or of those at `input`, under its recipe and under another one. Writes nothing.
pub fn what_if(run: &Path, input: Option<&Path>, now: &Recipe, changed: &Recipe) -> Result<[Vec<Step>; 2]> {
    let input = config(shards(&input_of(run, input)?, [sample::FOLDER, FOLDER]))?;
    let funnel = |recipe: &Recipe| -> Result<Vec<Step>> {
        let (filter, _) = prepare(recipe, &recipe.filter, &input)?;
        let judged = filter.judge(&mut Stored::new(&input), Key::new(recipe.seed, "filter"))?;
        Ok(judged.funnel())
    };
    Ok([funnel(now)?, funnel(changed)?])
}

/// What the traces at `input` are like. Writes nothing.
pub fn census(input: &Path) -> Result<Census> {
    let input = config(shards(input, [sample::FOLDER, FOLDER]))?;
    let mut all = Census::default();
    Stored::new(&input).each(
        Parts::Judged,
        |_| true,
        |_, trace| {
            let mut one = Census::default();
            let correct = trace.verdict.as_ref().map(crate::trace::Verdict::is_correct);
            let (target, tokens, finish) = (trace.language.target, trace.completion_tokens, trace.finish);
            one.add(&Sample { text: &trace.response, target, tokens, finish, correct }, &mut |_| None);
            one
        },
        |one| {
            all.merge(&one);
            Ok(())
        },
    )?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::samples::{entry, order};
    use crate::shard::{Tokens as ById, seal, traces};

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

    fn filter(toml: &str) -> Filter {
        Filter::new(&toml::from_str(toml).unwrap()).unwrap()
    }

    #[test]
    fn every_trace_is_written_once_with_its_tokens_and_repeated_ones_as_often_as_asked() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("traces");
        let sources = ["a", "b"].map(|model| Source { model: model.into(), ..Source::default() });
        let entries = long_entries(90).map(|entry| {
            let mut entry = entry.unwrap();
            entry.trace.source = usize::from(entry.trace.problem.0.ends_with('7'));
            Ok(entry)
        });
        std::fs::create_dir_all(&input).unwrap();
        seal(&input, entries, order, &SealOptions::new("traces", sources.to_vec())).unwrap();
        let mix = "length = { min = 8 }\n[[source]]\nname = \"a\"\nweight = 1\n[[source]]\nname = \"1\"\nweight = 1\nrepeat = 3";
        let filter = filter(mix).with_sources(&["a", "b"]).unwrap();
        let corpus = dir.path().join("corpus");
        write(&input, &corpus, &filter, 0, |counts, _| counts).unwrap();
        let read = |place: &Path| traces(place).unwrap().collect::<Result<Vec<Trace>>>().unwrap();
        let (all, kept, dropped) = (read(&input), read(&corpus), read(&corpus.join("dropped")));
        let repeated = kept.iter().filter(|trace| trace.id.contains('+')).count();
        assert_eq!(all.len(), kept.len() - repeated + dropped.len());
        let of = |source: usize| kept.iter().filter(|trace| trace.source == source).count();
        assert!(of(0) == of(1) && repeated > 0, "{} of a, {} of b", of(0), of(1));
        let (before, mut after) = (ById::open(&input).unwrap(), ById::open(&corpus).unwrap());
        let mut before = before;
        for trace in &kept {
            let id = trace.id.split('+').next().unwrap();
            let (was, is) = (before.get(id).unwrap().unwrap(), after.get(&trace.id).unwrap().unwrap());
            assert_eq!((was.completion, was.logprobs), (is.completion, is.logprobs), "{}", trace.id);
        }
        // What was repeated is a corpus like any other.
        let again = dir.path().join("again");
        write(&corpus, &again, &Filter::new(&FilterSettings::default()).unwrap(), 0, |counts, _| counts).unwrap();
        assert_eq!(ById::open(&again).unwrap().len(), kept.len());
    }

    /// Prints how long filtering takes: `cargo test --release --lib -- --ignored --nocapture filtering_80_000_rows`.
    #[test]
    #[ignore = "a measurement of a minute"]
    fn filtering_80_000_rows() {
        let dir = tempfile::tempdir().unwrap();
        seal(dir.path(), long_entries(80_000), order, &SealOptions::new("traces", vec![Source::default()])).unwrap();
        let filter = filter("exact_duplicate = true");
        let begin = Instant::now();
        let left = filter.judge(&mut Stored::new(dir.path()), Key::new(0, "filter")).unwrap().funnel().pop().unwrap().count;
        let alone = begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        write(dir.path(), &dir.path().join("corpus"), &filter, 0, |counts, _| counts).unwrap();
        println!("{left} of 80,000 rows kept: {:.1} s, of which {alone:.1} s are the filter alone", begin.elapsed().as_secs_f64());
    }
}
