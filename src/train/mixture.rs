//! In which order an SFT phase goes through its examples: epoch after epoch, of one corpus or of several with weights.
//!
//! Knows numbers of rows only, and needs no state: what is taken at a place follows from the place.

use crate::key::Key;

/// The rows of one corpus of a phase.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    pub rows: usize,
    /// How often an epoch of the phase goes through them: 1 takes each once, 0.25 a quarter of them, another one each time until all were there.
    pub weight: f64,
}

impl Part {
    /// Rows that an epoch takes.
    pub fn taken(self) -> usize {
        if self.rows == 0 { 0 } else { ((self.weight * self.rows as f64).round() as usize).max(1) }
    }
}

/// Rows that an epoch takes of all parts.
pub fn epoch_rows(parts: &[Part]) -> usize {
    parts.iter().map(|part| part.taken()).sum()
}

/// Epoch after epoch, each in an order of its own, by random access.
pub(super) struct Order<'a> {
    key: Key,
    /// Their rows are numbered on from part to part.
    parts: &'a [Part],
    epoch: Option<u64>,
    indices: Vec<usize>,
}

impl<'a> Order<'a> {
    pub(super) fn new(key: Key, parts: &'a [Part]) -> Self {
        Self { key, parts, epoch: None, indices: Vec::new() }
    }

    /// Which row is the `i`-th of the phase; there must be one.
    pub(super) fn at(&mut self, i: usize) -> usize {
        let len = epoch_rows(self.parts);
        let epoch = (i / len) as u64;
        if self.epoch != Some(epoch) {
            self.indices = self.rows_of(epoch);
            self.key.name("epoch").number(epoch).stream().shuffle(&mut self.indices);
            self.epoch = Some(epoch);
        }
        self.indices[i % len]
    }

    /// What an epoch takes: of each part the next rows of its own endless order.
    fn rows_of(&self, epoch: u64) -> Vec<usize> {
        let (mut all, mut first) = (Vec::with_capacity(epoch_rows(self.parts)), 0);
        for (number, part) in (0u64..).zip(self.parts) {
            let taken = part.taken();
            let from = epoch as usize * taken;
            let mut pass: Option<(usize, Vec<usize>)> = None;
            for place in from..from + taken {
                let wanted = place / part.rows;
                if pass.as_ref().is_none_or(|(there, _)| *there != wanted) {
                    let mut rows: Vec<usize> = (0..part.rows).collect();
                    // Where every epoch takes all rows, the epoch's own order is enough.
                    if !taken.is_multiple_of(part.rows) {
                        self.key.name("part").number(number).number(wanted as u64).stream().shuffle(&mut rows);
                    }
                    pass = Some((wanted, rows));
                }
                all.extend(pass.as_ref().map(|(_, rows)| first + rows[place % part.rows]));
            }
            first += part.rows;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn epochs(parts: &[Part], n: usize) -> Vec<Vec<usize>> {
        let mut order = Order::new(Key::new(5, "order"), parts);
        let len = epoch_rows(parts);
        (0..n).map(|epoch| (0..len).map(|i| order.at(epoch * len + i)).collect()).collect()
    }

    fn counts(rows: impl IntoIterator<Item = usize>) -> BTreeMap<usize, usize> {
        let mut counts = BTreeMap::new();
        rows.into_iter().for_each(|row| *counts.entry(row).or_default() += 1);
        counts
    }

    #[test]
    fn an_epoch_takes_each_part_as_often_as_its_weight_says() {
        let parts = [Part { rows: 10, weight: 1.0 }, Part { rows: 8, weight: 0.25 }, Part { rows: 3, weight: 2.0 }];
        let epochs = epochs(&parts, 8);
        for epoch in &epochs {
            let of = |range: std::ops::Range<usize>| counts(epoch.iter().copied().filter(move |row| range.contains(row)));
            assert_eq!(of(0..10).into_values().collect::<Vec<_>>(), [1; 10]);
            assert_eq!(of(10..18).len(), 2);
            assert_eq!(of(18..21).into_values().collect::<Vec<_>>(), [2; 3]);
        }
        let quarter = |epochs: &[Vec<usize>]| counts(epochs.iter().flatten().copied().filter(|row| (10..18).contains(row)));
        assert_eq!(quarter(&epochs[..4]).into_values().collect::<Vec<_>>(), [1; 8], "four quarters are all of them");
        assert_eq!(quarter(&epochs).into_values().collect::<Vec<_>>(), [2; 8]);
        assert_ne!(epochs[0], epochs[1]);
    }

    #[test]
    fn a_place_has_its_row_whatever_was_asked_before() {
        let parts = [Part { rows: 7, weight: 1.5 }, Part { rows: 5, weight: 0.4 }];
        let (mut forward, mut lone) = (Order::new(Key::new(1, "o"), &parts), Order::new(Key::new(1, "o"), &parts));
        let all: Vec<usize> = (0..60).map(|i| forward.at(i)).collect();
        assert_eq!(lone.at(59), all[59]);
        assert_eq!(lone.at(3), all[3]);
    }

    #[test]
    fn no_part_with_rows_is_left_out() {
        assert_eq!(Part { rows: 3, weight: 0.01 }.taken(), 1);
        assert_eq!(Part { rows: 0, weight: 1.0 }.taken(), 0);
    }
}
