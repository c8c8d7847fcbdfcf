//! Selection among what the rules keep: at most k traces of a problem, and shares of sources.

use super::Traces;
use super::cards::{Card, Cards, Detail};
use super::near::gather;
use super::settings::{Order, PER_PROBLEM, PerProblemRule, SOURCE};
use super::shingles::{Hasher, jaccard};
use crate::key::Key;
use anyhow::Result;
use std::collections::HashMap;

/// Words of the shingles by which traces are diverse.
pub(super) const DIVERSE_WORDS: usize = 5;

/// Leaves `rule.max` kept traces of each problem.
pub(super) fn per_problem(cards: &mut Cards, rule: PerProblemRule, key: Key, hasher: &Hasher, traces: &mut impl Traces) -> Result<()> {
    let order = cards.in_order();
    let groups: Vec<Vec<u32>> = order
        .chunk_by(|a, b| cards.rows[*a as usize].problem == cards.rows[*b as usize].problem)
        .filter(|group| group.len() > rule.max)
        .map(<[u32]>::to_vec)
        .collect();
    let mut ordered: Vec<Vec<u32>> = Vec::with_capacity(groups.len());
    if rule.order == Order::Diverse {
        gather(cards, &groups, DIVERSE_WORDS, hasher, traces, |rows, shingles| ordered.push(diverse(cards, rows, shingles, rule.max)))?;
    } else {
        let names = cards.names();
        for mut group in groups {
            group.sort_by_cached_key(|row| place(rule.order, &cards.rows[*row as usize], key, &names));
            ordered.push(group);
        }
    }
    for group in ordered {
        for (place, row) in group.iter().enumerate().skip(rule.max) {
            cards.drop(*row, PER_PROBLEM, Some(Detail::Place(place as u32 + 1, group.len() as u32)));
        }
    }
    Ok(())
}

fn place(order: Order, card: &Card, key: Key, names: &[&str]) -> (u64, u64) {
    match order {
        Order::Shortest | Order::Diverse => (u64::from(card.tokens), 0),
        Order::Longest => (u64::MAX - u64::from(card.tokens), 0),
        Order::Random => {
            let [a, b, c, d] = key.name("per_problem").name(names[card.problem as usize]).number(u64::from(card.attempt)).block(0, 0);
            (u64::from(a) << 32 | u64::from(b), u64::from(c) << 32 | u64::from(d))
        }
    }
}

/// Farthest first: the shortest, then `max - 1` times the one that is least similar to the nearest of those taken, ties by attempt; behind them the rest.
fn diverse(cards: &Cards, rows: &[u32], shingles: &HashMap<u32, Vec<u64>>, max: usize) -> Vec<u32> {
    let mut left: Vec<(u32, f64)> = rows.iter().map(|row| (*row, 0.0)).collect();
    let mut taken = Vec::with_capacity(rows.len());
    let first = (0..left.len()).min_by_key(|i| cards.rows[left[*i].0 as usize].tokens).unwrap_or(0);
    let mut next = first;
    while taken.len() < max && !left.is_empty() {
        let (row, _) = left.remove(next);
        taken.push(row);
        for (other, nearest) in &mut left {
            *nearest = nearest.max(jaccard(&shingles[other], &shingles[&row]));
        }
        next = (0..left.len()).min_by(|a, b| left[*a].1.total_cmp(&left[*b].1)).unwrap_or(0);
    }
    taken.extend(left.into_iter().map(|(row, _)| row));
    taken
}

/// How much of each source is wanted: as many in all as the weights allow.
///
/// `there` are the traces of each source, `weights` its weight and how often a trace may be repeated.
pub(super) fn shares(there: &[usize], weights: &[(f64, u32)]) -> Vec<usize> {
    let most = there.iter().zip(weights).filter(|(n, _)| **n > 0).map(|(n, (weight, repeat))| *n as f64 * f64::from(*repeat) / weight);
    let scale = most.fold(f64::INFINITY, f64::min);
    let wanted = |(n, (weight, repeat)): (&usize, &(f64, u32))| {
        if *n == 0 { 0 } else { ((scale * weight).round() as usize).min(n * *repeat as usize) }
    };
    there.iter().zip(weights).map(wanted).collect()
}

/// Leaves as much of each source as its weight allows; which, is random.
pub(super) fn mixture(cards: &mut Cards, weights: &[(f64, u32)], key: Key) {
    let mut by_source: Vec<Vec<u32>> = vec![Vec::new(); weights.len()];
    for row in cards.in_order() {
        if let Some(rows) = by_source.get_mut(cards.rows[row as usize].source as usize) {
            rows.push(row);
        }
    }
    let there: Vec<usize> = by_source.iter().map(Vec::len).collect();
    let names: Vec<String> = cards.names().into_iter().map(str::to_owned).collect();
    for ((source, mut rows), wanted) in by_source.into_iter().enumerate().zip(shares(&there, weights)) {
        let key = key.name("source").number(source as u64);
        rows.sort_by_cached_key(|row| {
            let card = &cards.rows[*row as usize];
            let [a, b, c, d] = key.name(&names[card.problem as usize]).number(u64::from(card.attempt)).block(0, 0);
            (u64::from(a) << 32 | u64::from(b), u64::from(c) << 32 | u64::from(d), *row)
        });
        let all = rows.len();
        for (place, row) in rows.into_iter().enumerate() {
            // Every trace once, then the first ones once more, and so on.
            let copies = (wanted + all - 1 - place) / all.max(1);
            match copies {
                0 => cards.drop(row, SOURCE, Some(Detail::Share(wanted as u32, all as u32))),
                1 => {}
                copies => cards.copies.push((row, copies as u32)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scarcest_source_decides_and_nothing_is_repeated_unless_asked() {
        let rows = [
            ([600, 200], [(3.0, 1), (1.0, 1)], [600, 200]),
            ([600, 100], [(3.0, 1), (1.0, 1)], [300, 100]),
            ([600, 100], [(3.0, 1), (1.0, 2)], [600, 200]),
            ([600, 100], [(3.0, 1), (1.0, 9)], [600, 200]),
            ([10, 0], [(1.0, 1), (1.0, 1)], [10, 0]),
        ];
        for (there, weights, expected) in rows {
            assert_eq!(shares(&there, &weights), expected, "{there:?} {weights:?}");
        }
    }
}
