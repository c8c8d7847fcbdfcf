//! Which traces enter the corpus: thresholds over verdicts and measures, duplicates, contamination, selection per problem and source.
//!
//! The rules run in fixed order, cheapest first, and the first one that fails gives the reason. Nothing is lost: a trace is kept, or dropped with
//! rule, value and threshold, and counted in the funnel. Traces are read in passes and never all in memory: the first pass leaves a card of each, the rules over all
//! traces work on the cards, and a last pass hands every trace out with its decision. This module writes no files and computes no verdicts.

mod cards;
mod contamination;
mod minhash;
mod near;
mod rules;
mod select;
mod settings;
mod shingles;
mod spaced;
mod stored;

pub use cards::BUCKETS;
pub use contamination::{Evaluations, Hit};
pub use minhash::{BANDS, probability, rows_for};
pub use rules::Finding;
pub use settings::{
    FilterSettings, FormatRule, LanguageRule, LengthRule, LinesRule, NearDuplicateRule, Order, PassRateRule, PerProblemRule, RULES,
    ReadableRule, SourceRule,
};
pub use shingles::{Hasher, jaccard};
pub use stored::Stored;

use crate::key::Key;
use crate::problem::ProblemId;
use crate::trace::{Group, Reason, Trace};
use anyhow::Result;
use cards::{Cards, Detail, KEPT, Seen};
use minhash::MinHash;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// What a filter says about one trace.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    Keep,
    Drop(Reason),
}

/// How many traces are left after a rule. The first step is `input`, the last count is the corpus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub step: String,
    pub count: usize,
    /// The same by the pass rate of their problems, in the buckets of [`BUCKETS`]; empty in funnels of older versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_pass_rate: Vec<usize>,
}

/// How much of a trace is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// What rules look at; messages, rewards, log-probability and unknown fields may be missing.
    Judged,
    Whole,
}

/// Traces that can be read several times, in the same order each time.
pub trait Traces {
    /// Reads the traces whose numbers, from 0, are `wanted`: `map` sees each, on any thread and in any order, `take` what comes of it, in their own order.
    ///
    /// # Errors
    /// Where they cannot be read, or `take` fails.
    fn each<T: Send>(
        &mut self,
        parts: Parts,
        wanted: impl Fn(usize) -> bool + Sync,
        map: impl Fn(usize, Trace) -> T + Sync,
        take: impl FnMut(T) -> Result<()> + Send,
    ) -> Result<()>;
}

/// Every trace that went in, sorted by (problem, attempt) on both sides.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub kept: Vec<Trace>,
    pub dropped: Vec<(Trace, Reason)>,
    pub funnel: Vec<Step>,
}

/// Checked settings, ready to run.
#[derive(Clone, Debug)]
pub struct Filter {
    settings: FilterSettings,
    lines: Option<regex::Regex>,
    evaluations: Evaluations,
    /// By number of the source: weight, and how often a trace may stand in the corpus.
    weights: Vec<(f64, u32)>,
}

impl Filter {
    /// Checks the settings; the error lists every one that is wrong, a line each.
    pub fn new(settings: &FilterSettings) -> Result<Self> {
        let faults = settings.faults();
        anyhow::ensure!(faults.is_empty(), faults.join("\n"));
        let lines = match &settings.readable {
            Some(ReadableRule::Lines(rule)) => Some(regex::Regex::new(&rule.lines)?),
            _ => None,
        };
        let weights = settings.source.iter().map(|source| (source.weight, source.repeat)).collect();
        Ok(Self { settings: settings.clone(), lines, evaluations: Evaluations::new([]), weights })
    }

    /// With the problems that `decontaminate` names.
    pub fn against(self, evaluations: Evaluations) -> Self {
        Self { evaluations, ..self }
    }

    /// With the names of the models behind the sources, in their order; `source` rules name them.
    ///
    /// # Errors
    /// Where a rule names no source, or a source has no rule.
    pub fn with_sources(self, models: &[&str]) -> Result<Self> {
        if self.settings.source.is_empty() {
            return Ok(self);
        }
        let list = || models.iter().enumerate().map(|(i, model)| format!("{i} ({model})")).collect::<Vec<_>>().join(", ");
        let mut weights = vec![None; models.len()];
        for rule in &self.settings.source {
            let is_it = |(i, model): (usize, &&str)| {
                rule.name == i.to_string() || rule.name == **model || model.rsplit('/').next() == Some(&rule.name)
            };
            let found: Vec<usize> = models.iter().enumerate().filter(|source| is_it(*source)).map(|(i, _)| i).collect();
            anyhow::ensure!(found.len() == 1, "filter.source {:?} names {} sources; there are {}", rule.name, found.len(), list());
            anyhow::ensure!(weights[found[0]].is_none(), "filter.source names source {} twice", found[0]);
            weights[found[0]] = Some((rule.weight, rule.repeat));
        }
        let missing = weights.iter().position(Option::is_none);
        anyhow::ensure!(
            missing.is_none(),
            "source {} has no weight: give each source a [[filter.source]]; there are {}",
            missing.unwrap_or(0),
            list()
        );
        Ok(Self { weights: weights.into_iter().flatten().collect(), ..self })
    }

    pub fn settings(&self) -> &FilterSettings {
        &self.settings
    }

    fn rules(&self) -> rules::Rules<'_> {
        rules::Rules { settings: &self.settings, lines: self.lines.as_ref(), evaluations: &self.evaluations }
    }

    /// What each rule over single traces measures on one, down to the first that drops it.
    pub fn explain(&self, trace: &Trace) -> Vec<Finding> {
        self.rules().explain(trace)
    }

    /// Decides on every trace. The traces hold all attempts at each problem: pass rates count each of them, kept or not.
    ///
    /// What is kept depends neither on the order of the traces nor on the number of threads; `key` serves the random selections and the hashes.
    ///
    /// # Errors
    /// Where the traces cannot be read.
    pub fn judge(&self, traces: &mut impl Traces, key: Key) -> Result<Judged<'_>> {
        let hasher = Hasher::new(key.name("words"));
        let mut cards = self.look(traces, key, &hasher)?;
        let settings = &self.settings;
        if let Some(rule) = settings.pass_rate {
            cards.pass_rates(rule.min, rule.max);
        }
        if settings.exact_duplicate {
            drop_exact_duplicates(&mut cards);
        }
        if let Some(rule) = settings.near_duplicate {
            near::drop_duplicates(&mut cards, rule, &hasher, traces)?;
        }
        if let Some(rule) = settings.per_problem {
            select::per_problem(&mut cards, rule, key, &hasher, traces)?;
        }
        if !self.weights.is_empty() {
            select::mixture(&mut cards, &self.weights, key);
        }
        cards.details.sort_unstable_by_key(|(row, _)| *row);
        cards.copies.sort_unstable();
        Ok(Judged { filter: self, cards })
    }

    /// The first pass: the rules over single traces, and what the others need to know of each.
    fn look(&self, traces: &mut impl Traces, key: Key, hasher: &Hasher) -> Result<Cards> {
        let settings = &self.settings;
        let near = settings.near_duplicate.map(|rule| (MinHash::new(key.name("near_duplicate"), rule.jaccard), rule.words));
        let diverse = settings.per_problem.is_some_and(|rule| rule.order == Order::Diverse);
        let rules = self.rules();
        let look = |_: usize, trace: Trace| {
            let rule = rules.decide(&trace).map_or(KEPT, |(rule, _)| rule);
            let (mut shingles, mut bands) = (0, None);
            if rule == KEPT && (near.is_some() || diverse) {
                let words = [&trace.question, &trace.response].map(|text| {
                    let mut hashes = Vec::with_capacity(text.len() / 4);
                    hasher.each_hash(text, |hash| hashes.push(hash));
                    hashes
                });
                shingles = words.iter().map(Vec::len).sum::<usize>();
                bands = near.as_ref().and_then(|(minhash, n)| {
                    let runs = words.map(|words| hasher.runs(&words, *n)).concat();
                    minhash.bands(&runs)
                });
            }
            Seen {
                attempt: trace.attempt,
                tokens: u32::try_from(trace.completion_tokens).unwrap_or(u32::MAX),
                source: u32::try_from(trace.source).unwrap_or(u32::MAX),
                correct: trace.is_correct(),
                before: trace.attempts.zip(trace.passes),
                rule,
                fingerprint: settings.exact_duplicate.then(|| if rule == KEPT { fingerprint(&trace) } else { 0 }),
                shingles: u32::try_from(shingles).unwrap_or(u32::MAX),
                bands,
                problem: trace.problem,
            }
        };
        let mut cards = Cards::default();
        traces.each(
            Parts::Judged,
            |_| true,
            look,
            |seen| {
                anyhow::ensure!(cards.len() < u32::MAX as usize, "there are more than 4,294,967,295 traces: filter them in parts");
                cards.push(seen);
                Ok(())
            },
        )?;
        Ok(cards)
    }

    /// Filters groups that are in memory.
    pub fn run(&self, groups: Vec<Group>, key: Key) -> Outcome {
        let mut all = InMemory(groups.into_iter().flat_map(|group| group.traces).collect());
        let (mut kept, mut dropped) = (Vec::new(), Vec::new());
        let judged = self.judge(&mut all, key).and_then(|judged| {
            judged.hand_out(&mut all, |trace, decision| {
                match decision {
                    Decision::Keep => kept.push(trace),
                    Decision::Drop(reason) => dropped.push((trace, reason)),
                }
                Ok(())
            })?;
            Ok(judged.funnel())
        });
        let funnel = judged.expect("traces in memory can be read");
        let place = |trace: &Trace| (trace.problem.clone(), trace.attempt);
        kept.sort_by_cached_key(place);
        dropped.sort_by_cached_key(|(trace, _)| place(trace));
        Outcome { kept, dropped, funnel }
    }
}

/// The decisions on all traces.
pub struct Judged<'a> {
    filter: &'a Filter,
    cards: Cards,
}

impl Judged<'_> {
    /// Traces left after each rule, counted from the decisions themselves, so that it cannot disagree with what was dropped.
    pub fn funnel(&self) -> Vec<Step> {
        let (dropped, kept) = self.cards.counts();
        let mut left = dropped.iter().fold(kept, |mut sum, rule| {
            sum.iter_mut().zip(rule).for_each(|(sum, n)| *sum += n);
            sum
        });
        let step = |step: &str, left: &[usize]| Step { step: step.into(), count: left.iter().sum(), by_pass_rate: left.to_vec() };
        let mut funnel = vec![step("input", &left)];
        for (rule, dropped) in dropped.iter().enumerate().filter(|(rule, _)| self.filter.settings.is_on(*rule as u8)) {
            left.iter_mut().zip(dropped).for_each(|(left, n)| *left -= n);
            funnel.push(step(RULES[rule], &left));
        }
        funnel
    }

    /// Hands out every trace with its decision, in the order in which they are read; one that a mixture repeats comes several times, the later ones with
    /// `+1`, `+2`, … behind their ids. Each says how many attempts at its problem there were, and how many of them are correct.
    ///
    /// # Errors
    /// Where the traces cannot be read or have changed, or `take` fails.
    pub fn hand_out(&self, traces: &mut impl Traces, mut take: impl FnMut(Trace, Decision) -> Result<()> + Send) -> Result<()> {
        let rules = self.filter.rules();
        let names = self.cards.names();
        let mut n = 0;
        traces.each(
            Parts::Whole,
            |_| true,
            |row, mut trace| {
                let card = self
                    .cards
                    .rows
                    .get(row)
                    .filter(|card| names[card.problem as usize] == trace.problem.0 && card.attempt == trace.attempt)?;
                let (attempts, passes) = self.cards.problems[card.problem as usize].counts();
                (trace.attempts, trace.passes) = (Some(attempts), Some(passes));
                let decision = match card.rule {
                    KEPT => Decision::Keep,
                    rule if rule < settings::LOCAL => Decision::Drop(rules.decide(&trace).filter(|(again, _)| *again == rule)?.1),
                    rule => Decision::Drop(self.reason(row as u32, rule, &names)),
                };
                Some((row as u32, trace, decision))
            },
            |handed: Option<(u32, Trace, Decision)>| {
                let Some((row, trace, decision)) = handed else { anyhow::bail!("the traces have changed while they were read") };
                n += 1;
                let copies = self.cards.copies.binary_search_by_key(&row, |(row, _)| *row).map_or(1, |at| self.cards.copies[at].1);
                if copies == 1 {
                    return take(trace, decision);
                }
                take(trace.clone(), decision.clone())?;
                (1..copies).try_for_each(|copy| take(Trace { id: format!("{}+{copy}", trace.id), ..trace.clone() }, decision.clone()))
            },
        )?;
        anyhow::ensure!(n == self.cards.len(), "the traces have changed while they were read: {n} instead of {}", self.cards.len());
        Ok(())
    }

    /// Why a rule over all traces dropped one.
    fn reason(&self, row: u32, rule: u8, names: &[&str]) -> Reason {
        let name = RULES[usize::from(rule)];
        let settings = &self.filter.settings;
        let detail = self.cards.details.binary_search_by_key(&row, |(row, _)| *row).ok().map(|at| self.cards.details[at].1);
        let id = |row: u32| {
            let card = &self.cards.rows[row as usize];
            Trace::id_of(&ProblemId(names[card.problem as usize].to_owned()), card.attempt)
        };
        match (detail, settings.near_duplicate, settings.per_problem) {
            (Some(Detail::Twin(twin, similarity)), Some(near), _) if rule == settings::NEAR_DUPLICATE => {
                let value = format!("{similarity:.3} like {}", id(twin));
                Reason::measured(name, value, format!("less than {}", near.jaccard))
            }
            (Some(Detail::Twin(twin, _)), ..) => Reason::measured(name, format!("the same text as {}", id(twin)), "a text of its own"),
            (Some(Detail::Place(place, all)), _, Some(per)) => {
                Reason::measured(name, format!("place {place} of {all}"), format!("{} {}", per.max, per.order.name()))
            }
            (Some(Detail::Share(wanted, all)), ..) => {
                Reason::measured(name, format!("one of {all} of its source"), format!("{wanted} of them, chosen at random"))
            }
            _ => {
                let card = &self.cards.rows[row as usize];
                let (rate, rule) = (self.cards.problems[card.problem as usize].pass_rate(), settings.pass_rate.unwrap_or_default());
                let judged = rules::at_least(name, rate, rule.min).and_then(|_| rules::at_most(name, rate, rule.max));
                judged.err().unwrap_or_else(|| Reason::rule(name))
            }
        }
    }
}

/// Of traces with equal fingerprints, only the first in (problem, attempt) order stays.
fn drop_exact_duplicates(cards: &mut Cards) {
    let mut first: HashMap<u128, u32> = HashMap::new();
    for row in cards.in_order() {
        match first.entry(cards.fingerprints[row as usize]) {
            Entry::Occupied(first) => cards.drop(row, settings::EXACT_DUPLICATE, Some(Detail::Twin(*first.get(), 1.0))),
            Entry::Vacant(place) => _ = place.insert(row),
        }
    }
}

/// 128 bits of SHA-256 over question and response, the first one's length before them: exact for any corpus that fits on a disk.
fn fingerprint(trace: &Trace) -> u128 {
    let hash =
        Sha256::new().chain_update((trace.question.len() as u64).to_le_bytes()).chain_update(&trace.question).chain_update(&trace.response);
    let digest: [u8; 32] = hash.finalize().into();
    u128::from_le_bytes(*digest.first_chunk().expect("32 bytes hold 16"))
}

/// Traces that are in memory already.
struct InMemory(Vec<Trace>);

impl Traces for InMemory {
    fn each<T: Send>(
        &mut self,
        _: Parts,
        wanted: impl Fn(usize) -> bool + Sync,
        map: impl Fn(usize, Trace) -> T + Sync,
        take: impl FnMut(T) -> Result<()> + Send,
    ) -> Result<()> {
        self.0.iter().enumerate().filter(|(row, _)| wanted(*row)).map(|(row, trace)| map(row, trace.clone())).try_for_each(take)
    }
}

#[cfg(test)]
mod corpus_tests;
#[cfg(test)]
mod tests;
