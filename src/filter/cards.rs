//! What is kept in memory of each trace while all of them are judged.
//!
//! A [`Card`] has 32 bytes; beside it lie 16 bytes of fingerprint where exact duplicates are looked for, and 128 bytes of band hashes of each trace that the
//! rules over single traces keep, where near ones are. Texts are never kept: what needs one again reads it again.

use super::minhash::BANDS;
use super::settings::{PASS_RATE, RULES};
use crate::problem::ProblemId;
use std::collections::HashMap;

/// A rule's place in [`RULES`] of a trace that none has dropped.
pub(super) const KEPT: u8 = u8::MAX;
/// A trace without a signature.
pub(super) const NO_SLOT: u32 = u32::MAX;

/// One trace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Card {
    /// Number of its problem.
    pub problem: u32,
    pub attempt: u32,
    /// Completion tokens.
    pub tokens: u32,
    pub source: u32,
    /// Shingles of question and response, repetitions included; 0 where nothing needs them.
    pub shingles: u32,
    /// Place of its signature, or `NO_SLOT`.
    pub slot: u32,
    /// The rule that dropped it, or `KEPT`.
    pub rule: u8,
}

/// What the first pass found out about one trace.
pub(super) struct Seen {
    pub problem: ProblemId,
    pub attempt: u32,
    pub tokens: u32,
    pub source: u32,
    pub correct: bool,
    /// Attempts and passes of its problem where it was filtered before.
    pub before: Option<(u32, u32)>,
    pub rule: u8,
    pub fingerprint: Option<u128>,
    pub shingles: u32,
    pub bands: Option<[u64; BANDS]>,
}

/// One problem.
#[derive(Clone, Debug, Default)]
pub(super) struct ProblemCard {
    pub attempts: u32,
    pub passes: u32,
    before: Option<(u32, u32)>,
}

impl ProblemCard {
    /// Attempts and passes. Traces that were filtered before say how many attempts there were; here are only those that were kept.
    pub fn counts(&self) -> (u32, u32) {
        self.before.filter(|(before, _)| *before > self.attempts).unwrap_or((self.attempts, self.passes))
    }

    pub fn pass_rate(&self) -> f64 {
        let (attempts, passes) = self.counts();
        f64::from(passes) / f64::from(attempts.max(1))
    }
}

/// Why a rule over all traces dropped one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Detail {
    /// The trace that it repeats, and their similarity.
    Twin(u32, f32),
    /// Its place among so many of its problem.
    Place(u32, u32),
    /// So many of its source were wanted of so many.
    Share(u32, u32),
}

/// All traces.
#[derive(Debug, Default)]
pub(super) struct Cards {
    pub rows: Vec<Card>,
    pub problems: Vec<ProblemCard>,
    numbers: HashMap<Box<str>, u32>,
    pub fingerprints: Vec<u128>,
    pub bands: Vec<[u64; BANDS]>,
    /// Of the traces that rules over all dropped, by row.
    pub details: Vec<(u32, Detail)>,
    /// How often each kept row stands in the corpus, where that is not once; by row.
    pub copies: Vec<(u32, u32)>,
}

impl Cards {
    /// Adds the next trace.
    pub fn push(&mut self, seen: Seen) {
        let next = self.problems.len() as u32;
        let problem = *self.numbers.entry(seen.problem.0.into_boxed_str()).or_insert(next);
        if problem == next {
            self.problems.push(ProblemCard::default());
        }
        let of = &mut self.problems[problem as usize];
        of.attempts += 1;
        of.passes += u32::from(seen.correct);
        of.before = of.before.max(seen.before);
        self.fingerprints.extend(seen.fingerprint);
        let slot = seen.bands.map_or(NO_SLOT, |bands| {
            self.bands.push(bands);
            self.bands.len() as u32 - 1
        });
        let Seen { attempt, tokens, source, shingles, rule, .. } = seen;
        self.rows.push(Card { problem, attempt, tokens, source, shingles, slot, rule });
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_kept(&self, row: u32) -> bool {
        self.rows[row as usize].rule == KEPT
    }

    pub fn drop(&mut self, row: u32, rule: u8, detail: Option<Detail>) {
        self.rows[row as usize].rule = rule;
        self.details.extend(detail.map(|detail| (row, detail)));
    }

    /// The kept rows by (problem, attempt), whatever order they came in.
    pub fn in_order(&self) -> Vec<u32> {
        let rank = self.ranks();
        let mut rows: Vec<u32> = (0..self.len() as u32).filter(|row| self.is_kept(*row)).collect();
        rows.sort_unstable_by_key(|row| {
            let card = &self.rows[*row as usize];
            (rank[card.problem as usize], card.attempt, *row)
        });
        rows
    }

    /// Place of each problem among all by name.
    fn ranks(&self) -> Vec<u32> {
        let mut names: Vec<(&str, u32)> = self.numbers.iter().map(|(name, number)| (&**name, *number)).collect();
        names.sort_unstable();
        let mut ranks = vec![0; names.len()];
        for (rank, (_, number)) in names.into_iter().enumerate() {
            ranks[number as usize] = rank as u32;
        }
        ranks
    }

    /// Names of all problems by number.
    pub fn names(&self) -> Vec<&str> {
        let mut names = vec![""; self.numbers.len()];
        self.numbers.iter().for_each(|(name, number)| names[*number as usize] = name);
        names
    }

    /// Drops what lies outside the band of pass rates.
    pub fn pass_rates(&mut self, min: f64, max: f64) {
        for card in self.rows.iter_mut().filter(|card| card.rule == KEPT) {
            let rate = self.problems[card.problem as usize].pass_rate();
            if !(min..=max).contains(&rate) {
                card.rule = PASS_RATE;
            }
        }
    }

    /// Traces dropped by each rule and kept, by the bucket of their problem's pass rate.
    pub fn counts(&self) -> ([[usize; BUCKETS.len()]; RULES.len()], [usize; BUCKETS.len()]) {
        let (mut dropped, mut kept) = ([[0; BUCKETS.len()]; RULES.len()], [0; BUCKETS.len()]);
        for card in &self.rows {
            let bucket = bucket(self.problems[card.problem as usize].pass_rate());
            match dropped.get_mut(usize::from(card.rule)) {
                Some(rule) => rule[bucket] += 1,
                None => kept[bucket] += 1,
            }
        }
        (dropped, kept)
    }
}

/// Buckets of pass rates: never solved, four quarters without their ends, always solved.
pub const BUCKETS: [&str; 6] = ["0", "(0, 0.25]", "(0.25, 0.5]", "(0.5, 0.75]", "(0.75, 1)", "1"];

fn bucket(rate: f64) -> usize {
    match rate {
        r if r <= 0.0 => 0,
        r if r >= 1.0 => 5,
        r => ((r * 4.0).ceil() as usize).clamp(1, 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_closed_above() {
        let rows = [(0.0, 0), (0.01, 1), (0.25, 1), (0.26, 2), (0.5, 2), (0.75, 3), (0.76, 4), (0.999, 4), (1.0, 5)];
        for (rate, expected) in rows {
            assert_eq!(bucket(rate), expected, "{rate}");
        }
    }

    #[test]
    fn a_card_is_as_small_as_the_documentation_says() {
        assert!(size_of::<Card>() <= 32 && BANDS * size_of::<u64>() == 128);
    }
}
