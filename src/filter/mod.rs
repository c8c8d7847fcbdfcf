//! Which traces enter the corpus: thresholds over verdicts and measures, duplicates, selection per problem.
//!
//! The rules run in fixed order, cheapest first, and the first one that fails gives the reason. Nothing is lost: a trace is kept, or dropped with
//! rule, value and threshold, and counted in the funnel. This module reads and writes no files and computes no verdicts.

mod rules;
mod settings;

pub use settings::{FilterSettings, FormatRule, LanguageRule, LengthRule, LinesRule, Order, PassRateRule, PerProblemRule, ReadableRule};

use crate::key::Key;
use crate::trace::{Group, Reason, Trace};
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
}

impl Filter {
    /// Checks the settings; the error lists every one that is wrong, a line each.
    pub fn new(settings: &FilterSettings) -> anyhow::Result<Self> {
        let faults = settings.faults();
        anyhow::ensure!(faults.is_empty(), faults.join("\n"));
        let lines = match &settings.readable {
            Some(ReadableRule::Lines(rule)) => Some(regex::Regex::new(&rule.lines)?),
            _ => None,
        };
        Ok(Self { settings: settings.clone(), lines })
    }

    /// Filters all attempts at all problems. A group holds all attempts at its problem: pass rates count each of them, kept or not.
    ///
    /// The result does not depend on the order of the groups or of the traces in them; `key` serves the random selection per problem.
    pub fn run(&self, mut groups: Vec<Group>, key: Key) -> Outcome {
        groups.sort_by(|a, b| a.problem.cmp(&b.problem));
        let (mut kept, mut dropped, mut seen) = (Vec::new(), Vec::new(), HashMap::new());
        for group in groups {
            for (trace, decision) in self.judge_group(group, key, &mut seen) {
                match decision {
                    Decision::Keep => kept.push(trace),
                    Decision::Drop(reason) => dropped.push((trace, reason)),
                }
            }
        }
        let funnel = self.funnel(kept.len(), &dropped);
        Outcome { kept, dropped, funnel }
    }

    fn judge_group(&self, mut group: Group, key: Key, seen: &mut HashMap<[u8; 16], String>) -> Vec<(Trace, Decision)> {
        group.traces.sort_by_key(|trace| trace.attempt);
        let mut attempts = group.traces.len() as u32;
        let mut passes = group.traces.iter().filter(|trace| trace.is_correct()).count() as u32;
        // Traces that were filtered before say how many attempts there were; here are only those that were kept.
        if let Some((before, passed)) = group.traces.iter().filter_map(|t| t.attempts.zip(t.passes)).max()
            && before > attempts
        {
            (attempts, passes) = (before, passed);
        }
        let mut judged: Vec<(Trace, Decision)> = Vec::with_capacity(group.traces.len());
        for mut trace in group.traces {
            trace.attempts = Some(attempts);
            trace.passes = Some(passes);
            let mut decision = rules::decide(&self.settings, self.lines.as_ref(), &trace);
            if self.settings.exact_duplicate && decision == Decision::Keep {
                match seen.entry(fingerprint(&trace)) {
                    Entry::Occupied(first) => {
                        let value = format!("the same text as {}", first.get());
                        decision = Decision::Drop(Reason::measured("exact_duplicate", value, "a text of its own"));
                    }
                    Entry::Vacant(place) => {
                        place.insert(trace.id.clone());
                    }
                }
            }
            judged.push((trace, decision));
        }
        if let Some(rule) = &self.settings.per_problem {
            rules::select(rule, key, &mut judged);
        }
        judged
    }

    /// Counts from the reasons themselves, so that the funnel cannot disagree with what was dropped.
    fn funnel(&self, kept: usize, dropped: &[(Trace, Reason)]) -> Vec<Step> {
        let mut left = kept + dropped.len();
        let mut funnel = vec![Step { step: "input".into(), count: left }];
        for rule in self.settings.rules() {
            left -= dropped.iter().filter(|(_, reason)| rules::name(reason) == rule).count();
            funnel.push(Step { step: rule.into(), count: left });
        }
        funnel
    }
}

/// 128 bits of SHA-256 over question and response, the first one's length before them: exact for any corpus that fits on a disk.
fn fingerprint(trace: &Trace) -> [u8; 16] {
    let hash =
        Sha256::new().chain_update((trace.question.len() as u64).to_le_bytes()).chain_update(&trace.question).chain_update(&trace.response);
    let digest: [u8; 32] = hash.finalize().into();
    *digest.first_chunk().expect("32 bytes hold 16")
}

#[cfg(test)]
mod tests;
