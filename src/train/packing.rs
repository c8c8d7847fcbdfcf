//! Which sequences share a micro-batch: best fit, longest first, so that a batch takes few micro-batches and each of them is full.
//!
//! Sequences lie end to end in a micro-batch, each with its own positions and attending to itself alone; room that is left over is not computed. Knows lengths only.

use std::collections::BTreeSet;

/// The indices of `lengths` in bins of at most `room` each; a longer one has a bin of its own.
///
/// Best-fit-decreasing: each goes, the longest first, where the least room is left that holds it. Bins are in the order of their first index and each is ascending, so
/// that what fits together stays as it came, and a batch of one micro-batch keeps its order.
pub(crate) fn pack(lengths: &[usize], room: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|i| (std::cmp::Reverse(lengths[*i]), *i));
    let mut bins: Vec<Vec<usize>> = Vec::new();
    // (what is left, bin)
    let mut open: BTreeSet<(usize, usize)> = BTreeSet::new();
    for i in order {
        let best = open.range((lengths[i], 0)..).next().copied();
        let (left, bin) = best.unwrap_or_else(|| {
            bins.push(Vec::new());
            (room.max(lengths[i]), bins.len() - 1)
        });
        open.remove(&(left, bin));
        open.insert((left - lengths[i], bin));
        bins[bin].push(i);
    }
    bins.iter_mut().for_each(|bin| bin.sort_unstable());
    bins.sort_by_key(|bin| bin[0]);
    bins
}

/// The share of the room of `bins` micro-batches that `tokens` take; 1 where a lone sequence is longer than its room.
pub(crate) fn filled(tokens: usize, bins: usize, room: usize) -> f64 {
    (tokens as f64 / (bins * room).max(1) as f64).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    #[test]
    fn each_sequence_is_in_one_bin_that_holds_it() {
        let mut stream = Key::new(1, "lengths").stream();
        for n in [0, 1, 7, 300] {
            let lengths: Vec<usize> = (0..n).map(|_| 1 + stream.below(2500) as usize).collect();
            let bins = pack(&lengths, 2048);
            let mut all: Vec<usize> = bins.concat();
            all.sort_unstable();
            assert_eq!(all, (0..n).collect::<Vec<_>>());
            for bin in &bins {
                let sum: usize = bin.iter().map(|i| lengths[*i]).sum();
                assert!(sum <= 2048 || bin.len() == 1, "{bin:?}: {sum}");
                assert!(bin.is_sorted());
            }
            assert!(bins.is_sorted_by_key(|bin| bin[0]));
        }
    }

    #[test]
    fn what_fits_into_one_stays_in_its_order() {
        assert_eq!(pack(&[5, 9, 1, 9], 24), [[0, 1, 2, 3]]);
        assert_eq!(pack(&[30, 1], 24), [[0], [1]], "nothing is put beside what is too long");
    }

    /// Best-fit-decreasing needs at most 11/9 of the fewest bins and one more; on lengths like those of traces it is near the bound that the sum sets.
    #[test]
    fn bins_are_nearly_full() {
        assert_eq!(pack(&[6, 4, 7, 3, 5, 5], 10), [[0, 1], [2, 3], [4, 5]]);
        let mut stream = Key::new(2, "lengths").stream();
        let lengths: Vec<usize> = (0..512).map(|_| (300.0 * (0.6 * stream.normal()).exp()) as usize + 20).collect();
        let tokens: usize = lengths.iter().sum();
        let (packed, in_order) = (pack(&lengths, 4096).len(), next_fit(&lengths, 4096));
        assert!(filled(tokens, packed, 4096) > 0.98, "{}", filled(tokens, packed, 4096));
        assert!(packed < in_order, "{packed} against {in_order} in the order of the batch");
    }

    fn next_fit(lengths: &[usize], room: usize) -> usize {
        let mut sum = 0;
        1 + lengths
            .iter()
            .filter(|n| {
                let next = sum > 0 && sum + **n > room;
                sum = if next { **n } else { sum + **n };
                next
            })
            .count()
    }
}
