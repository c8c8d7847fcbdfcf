//! Collecting attempts: what is missing of problems x attempts is sampled into a journal, and sealed with what was there before.
//!
//! Sampling and evaluation both collect; they differ in the problems, the settings and the folder.

use super::run::{Interrupted, Run, config};
use super::ui::interrupt_requested;
use crate::key::Key;
use crate::problem::Problem;
use crate::report::text::thousands;
use crate::rollout::{Ask, Judged, Rollout};
use crate::sampler::Sampler;
use crate::shard::{Entry, Journal, Manifest, Place, SealOptions, Source, TokenRecord, Tokens, seal, traces};
use crate::trace::Trace;
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Attempts that reach the device together; a kill loses these at most, and they are sampled again to the same tokens.
const JOURNAL_ROWS: usize = 64;

/// Work to collect.
pub(super) struct Collection<'a> {
    pub run: &'a Run,
    /// Shown beside the progress bar.
    pub label: &'a str,
    pub rollout: &'a Rollout,
    pub key: Key,
    pub problems: &'a [Arc<Problem>],
    /// Attempts at each problem.
    pub attempts: u32,
    /// Shards of an earlier, smaller extent.
    pub sealed: Option<&'a Path>,
    pub journal: &'a Path,
}

/// All attempts, on disk.
pub(super) struct Collected {
    journal: Journal<Entry>,
    /// By (index of the problem, attempt).
    places: BTreeMap<(usize, u32), Place>,
    index: Index,
}

/// Problems by id, each with its place in the order of the stage.
type Index = HashMap<String, (usize, Arc<Problem>)>;

fn index(problems: &[Arc<Problem>]) -> Index {
    problems.iter().enumerate().map(|(i, p)| (p.id.0.clone(), (i, p.clone()))).collect()
}

/// Whether what was sealed is a part of what is wanted: attempts at these very problems, in this order, none beyond `attempts`.
pub(super) fn extends(sealed: &Path, problems: &[Arc<Problem>], attempts: u32) -> Result<bool> {
    let index = index(problems);
    let mut last = None;
    for trace in traces(sealed)? {
        let place = place_of(&index, &trace?).filter(|(_, attempt)| *attempt < attempts);
        if place.is_none() || place <= last {
            return Ok(false);
        }
        last = place;
    }
    Ok(true)
}

impl Collection<'_> {
    /// Samples what is neither sealed nor journaled.
    pub fn collect(&self, sampler: &mut dyn Sampler) -> Result<Collected> {
        let index = index(self.problems);
        ensure!(index.len() == self.problems.len(), "two problems have the same id; ids name attempts and must be unique");
        let mut have = BTreeMap::new();
        let mut places = BTreeMap::new();
        if let Some(sealed) = self.sealed {
            for trace in traces(sealed)? {
                let trace = trace?;
                if let Some(key) = place_of(&index, &trace) {
                    have.insert(key, ());
                }
            }
        }
        let (mut journal, recovered) = Journal::<Entry>::open(self.journal, |entry, place| {
            // A journal may hold more than is wanted now, from before the recipe asked for fewer.
            if let Some(key) = place_of(&index, &entry.trace).filter(|(_, attempt)| *attempt < self.attempts) {
                places.insert(key, place);
            }
            Ok(())
        })?;
        if recovered.torn_bytes > 0 || !recovered.damaged.is_empty() {
            self.run.ui.say(&format!(
                "{}: {} rows are good; {} torn bytes and {} damaged ranges are sampled again",
                self.journal.display(),
                recovered.rows,
                recovered.torn_bytes,
                recovered.damaged.len()
            ));
        }
        let total = self.problems.len() as u64 * u64::from(self.attempts);
        let bar = self.run.ui.bar(self.label, total);
        bar.set_position((have.len() + places.len()) as u64);
        bar.reset_eta();
        let all = (0..self.problems.len()).flat_map(|p| (0..self.attempts).map(move |a| (p, a)));
        let mut missing = all.filter(|key| !have.contains_key(key) && !places.contains_key(key)).collect::<Vec<_>>().into_iter();
        let (begin, before) = (Instant::now(), sampler.usage());
        let mut pending: Vec<Entry> = Vec::new();
        let mut tokens = 0;
        let mut flush = |pending: &mut Vec<Entry>, places: &mut BTreeMap<(usize, u32), Place>| -> Result<()> {
            if pending.is_empty() {
                return Ok(());
            }
            let new = journal.append(pending)?;
            for (entry, place) in pending.drain(..).zip(new) {
                places.insert(place_of(&index, &entry.trace).context("what was asked has a place")?, place);
            }
            Ok(())
        };
        sampler.stop_when(interrupt_requested);
        // An answer of a server was paid for, and may not come a second time.
        let rows = if self.rollout.text.is_some() { JOURNAL_ROWS } else { 1 };
        let sampled = self.rollout.run(
            sampler,
            self.key,
            &mut || Ok(missing.next().map_or(Ask::End, |(p, attempt)| Ask::Attempt { problem: self.problems[p].clone(), attempt })),
            &mut |judged| {
                tokens += judged.trace.completion_tokens;
                pending.push(entry(judged));
                bar.inc(1);
                if pending.len() >= rows {
                    bar.set_message(format!("{:.0} tokens/s", tokens as f64 / begin.elapsed().as_secs_f64()));
                    flush(&mut pending, &mut places)?;
                }
                Ok(())
            },
        );
        // What had ended before something failed is kept; the first failure is the one to tell.
        let flushed = flush(&mut pending, &mut places);
        bar.finish_and_clear();
        sampler.remarks().into_iter().for_each(|remark| self.run.ui.say(remark));
        sampled.and(flushed)?;
        let usage = sampler.usage();
        let sampled = usage.sampled - before.sampled;
        let again = usage.preempted - before.preempted;
        if again > 0 {
            let attempts = if again == 1 { "an attempt".to_owned() } else { format!("attempts {} times", thousands(again)) };
            self.run.ui.say(&format!(
                "{}: the cache was full, and {attempts} gave room to others; {} tokens were computed a second time, which more execution.cache_tokens or fewer slots would save",
                self.label,
                thousands(usage.recomputed - before.recomputed)
            ));
        }
        let new = places.keys().filter(|key| !have.contains_key(*key)).count();
        if ((have.len() + new) as u64) < total {
            bail!(Interrupted);
        }
        let rate = sampled as f64 / begin.elapsed().as_secs_f64();
        self.run.ui.detail(&format!("{}: {sampled} tokens at {rate:.0} tokens/s", self.label));
        Ok(Collected { journal, places, index })
    }
}

impl Collected {
    /// Writes all attempts as shards into `folder`, in the order of problems and attempts.
    pub fn seal(mut self, folder: &Path, sealed: Option<&Path>, kind: &str, source: Source) -> Result<Manifest> {
        let mut old = sealed.map(SealedEntries::open).transpose()?;
        let mut keys: BTreeMap<(usize, u32), Option<Place>> = self.places.iter().map(|(k, p)| (*k, Some(*p))).collect();
        let index = &self.index;
        if let Some(sealed) = sealed {
            for trace in traces(sealed)? {
                if let Some(key) = place_of(index, &trace?) {
                    keys.entry(key).or_insert(None);
                }
            }
        }
        let journal = &mut self.journal;
        let entries = keys.into_values().map(|place| match place {
            Some(place) => journal.read(place),
            None => old.as_mut().context("an attempt that is not in the journal was sealed before")?.next(),
        });
        seal(folder, entries, |trace| place_of(index, trace), &SealOptions::new(kind, vec![source]))
    }
}

/// Traces of a folder together with their tokens, in order.
pub(super) struct SealedEntries {
    rows: crate::shard::Rows<Trace>,
    tokens: Option<Tokens>,
}

impl SealedEntries {
    pub fn open(folder: &Path) -> Result<Self> {
        let with_tokens = Manifest::load(folder)?.shards.iter().any(|s| s.ids.is_some());
        Ok(Self { rows: traces(folder)?, tokens: with_tokens.then(|| Tokens::open(folder)).transpose()? })
    }

    fn next(&mut self) -> Result<Entry> {
        let trace = self.rows.next().context("fewer sealed rows than their manifest says")??;
        self.with_tokens(trace)
    }

    /// A trace of this folder with its tokens, if it has any.
    pub fn with_tokens(&mut self, trace: Trace) -> Result<Entry> {
        let tokens = match &mut self.tokens {
            Some(tokens) => tokens.get(&trace.id)?,
            None => None,
        };
        Ok(Entry { trace, tokens })
    }
}

/// Where an attempt belongs; `None` where its problem is not asked any more, or asked otherwise under the same id.
fn place_of(index: &Index, trace: &Trace) -> Option<(usize, u32)> {
    let (i, problem) = index.get(&trace.problem.0)?;
    (problem.question == trace.question && problem.answer.gold() == trace.gold).then_some((*i, trace.attempt))
}

/// A judged attempt as it is stored.
pub(super) fn entry(judged: Judged) -> Entry {
    let Judged { trace, prompt, completion } = judged;
    // What a server has written has no token ids here.
    let tokens = (!prompt.is_empty()).then(|| TokenRecord::new(trace.id.clone(), prompt, completion.tokens, &completion.logprobs));
    Entry { trace, tokens }
}

/// Room that attempts at these problems need: the longest prompt and `max_tokens`, within the model's positions.
///
/// `max_tokens` that leave no room for a prompt are a mistake in the recipe. Problems that cannot be judged here end the stage before it samples any.
pub(super) fn capacity(rollout: &Rollout, problems: &[Arc<Problem>], positions: usize) -> Result<usize> {
    rollout.verifier.ready(problems.iter().map(|problem| &**problem))?;
    let max_tokens = rollout.params.max_tokens;
    config(if max_tokens < positions {
        Ok(())
    } else {
        Err(anyhow!("max_tokens {max_tokens} leaves no room for a prompt in the model's {positions} positions (max_position_embeddings)"))
    })?;
    let mut longest = 0;
    for problem in problems {
        let rendered = config(rollout.render(&problem.question).with_context(|| format!("problem {}", problem.id)))?;
        longest = longest.max(rendered.tokens.len());
    }
    Ok((longest + rollout.params.max_tokens).min(positions))
}

#[cfg(test)]
mod tests {
    use super::super::ui::Ui;
    use super::*;
    use crate::model::Decoder;
    use crate::model::Shape;
    use crate::model::text::Text;
    use crate::recipe::Recipe;
    use crate::reward::RewardPreset;
    use crate::rollout::PromptStyle;
    use crate::sampler::{LocalSampler, SamplingParams};
    use crate::tasks::arithmetic;
    use crate::verify::{Extraction, Rules};

    /// A template that does not take the sixth question stands for whatever fails in the middle.
    #[test]
    fn what_had_ended_before_a_failure_is_in_the_journal() {
        let dir = tempfile::tempdir().unwrap();
        Text::tiny().save_into(dir.path()).unwrap();
        let config = dir.path().join("tokenizer_config.json");
        let mut edited: serde_json::Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
        let template = "{% if 'poem' in messages[0].content %}{{ raise_exception('no poems') }}{% endif %}<user>{{ messages[0].content }}";
        edited["chat_template"] = template.into();
        std::fs::write(config, edited.to_string()).unwrap();
        let text = Arc::new(Text::from_folder(dir.path()).unwrap());
        let key = Key::new(1, "collect");
        let shape = Shape { hidden_size: 16, layers: 1, heads: 2, kv_heads: 1, intermediate_size: 32, positions: 64 };
        let decoder = Decoder::fresh(&shape, text.vocab_size(), text.end_id(), text.pad_id(), key, &candle_core::Device::Cpu).unwrap();
        let mut problems: Vec<_> = (0..8).map(|n| arithmetic::problem(key, "collect", n)).collect();
        problems[5].question = "a poem".into();
        let problems: Vec<_> = problems.into_iter().map(Arc::new).collect();
        let recipe = Recipe::parse(include_str!("../../tests/support/tiny-tiny.toml"), &[]).unwrap();
        let run = Run::open(dir.path().join("run"), recipe, false, Ui::default()).unwrap();
        let rollout = Rollout {
            text: Some(text.clone()),
            prompt: PromptStyle::Plain,
            params: SamplingParams::at(1.0, 4),
            verifier: Rules::new(Extraction::Flexible),
            reward: RewardPreset::Tiny,
        };
        let mut sampler = LocalSampler::new(&decoder, text, 1, 40).unwrap();
        let journal = dir.path().join("journal");
        let mut collect = |problems: &[Arc<Problem>]| {
            let work = Collection { run: &run, label: "", rollout: &rollout, key, problems, attempts: 2, sealed: None, journal: &journal };
            let before = sampler.usage().prefilled;
            work.collect(&mut sampler).map(|collected| (collected.places.len(), sampler.usage().prefilled - before))
        };
        let error = format!("{:#}", collect(&problems).unwrap_err());
        assert!(error.contains("no poems"), "{error}");
        assert_eq!(collect(&problems[..5]).unwrap(), (10, 0), "nothing of the five before is sampled again");
        assert_eq!(crate::shard::journal::scan::<Entry>(&journal, |_, _| Ok(())).unwrap().rows, 10);
    }
}
