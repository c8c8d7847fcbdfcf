//! Near duplicates: candidates that share a band, compared exactly by their shingles, which are read again.
//!
//! Traces that share a band are joined into families (union and find over sorted bands, one band at a time). A family is judged in (problem, attempt) order: a
//! trace goes where one that stays, and shares a band with it, is as similar as the threshold. So the result does not depend on the order of the input, and what is
//! dropped is similar for certain. A pair at the threshold is missed with the probability that `minhash` states.

use super::cards::{Cards, Detail, NO_SLOT};
use super::minhash::BANDS;
use super::settings::{NEAR_DUPLICATE, NearDuplicateRule};
use super::shingles::{Hasher, jaccard};
use super::{Parts, Traces};
use anyhow::Result;
use std::collections::HashMap;

/// Bytes of shingles that are in memory at once; one larger family is alone.
const SHINGLE_BYTES: usize = 512 << 20;
/// Comparisons of one trace: bounds the work where very many texts share a band and none is alike.
const MOST_COMPARED: usize = 1000;

/// Drops near duplicates.
pub(super) fn drop_duplicates(cards: &mut Cards, rule: NearDuplicateRule, hasher: &Hasher, traces: &mut impl Traces) -> Result<()> {
    let families = families(cards);
    let mut found = Vec::new();
    gather(cards, &families, rule.words, hasher, traces, |rows, shingles| found.extend(judge(cards, rows, shingles, rule.jaccard)))?;
    for (row, twin, similarity) in found {
        cards.drop(row, NEAR_DUPLICATE, Some(Detail::Twin(twin, similarity as f32)));
    }
    Ok(())
}

/// Kept rows that are joined by shared bands, at least two in each, in order.
fn families(cards: &Cards) -> Vec<Vec<u32>> {
    let order: Vec<u32> = cards.in_order().into_iter().filter(|row| cards.rows[*row as usize].slot != NO_SLOT).collect();
    let mut parent: Vec<u32> = (0..order.len() as u32).collect();
    let mut pairs: Vec<(u64, u32)> = Vec::with_capacity(order.len());
    for band in 0..BANDS {
        pairs.clear();
        let slot = |row: u32| cards.rows[row as usize].slot as usize;
        pairs.extend(order.iter().enumerate().map(|(place, row)| (cards.bands[slot(*row)][band], place as u32)));
        rayon::slice::ParallelSliceMut::par_sort_unstable(&mut pairs[..]);
        for pair in pairs.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            let (a, b) = (root(&mut parent, pair[0].1), root(&mut parent, pair[1].1));
            parent[a.max(b) as usize] = a.min(b);
        }
    }
    let mut members: Vec<(u32, u32)> = (0..order.len() as u32).map(|place| (root(&mut parent, place), place)).collect();
    members.sort_unstable();
    let groups = members.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1);
    groups.map(|group| group.iter().map(|(_, place)| order[*place as usize]).collect()).collect()
}

fn root(parent: &mut [u32], mut of: u32) -> u32 {
    while parent[of as usize] != of {
        parent[of as usize] = parent[parent[of as usize] as usize];
        of = parent[of as usize];
    }
    of
}

/// The rows of a family that go: each with the one that it repeats and their similarity.
fn judge(cards: &Cards, rows: &[u32], shingles: &HashMap<u32, Vec<u64>>, threshold: f64) -> Vec<(u32, u32, f64)> {
    // Those that stay, by the bands that they are found under, as places in the family.
    let mut staying: HashMap<(usize, u64), Vec<u32>> = HashMap::new();
    let mut going = Vec::new();
    for (place, row) in rows.iter().enumerate() {
        let bands = cards.bands[cards.rows[*row as usize].slot as usize];
        let mut rivals: Vec<u32> = bands.into_iter().enumerate().filter_map(|band| staying.get(&band)).flatten().copied().collect();
        rivals.sort_unstable();
        rivals.dedup();
        let compare = |rival: u32| (rows[rival as usize], jaccard(&shingles[row], &shingles[&rows[rival as usize]]));
        let twin = rivals.into_iter().take(MOST_COMPARED).map(compare).find(|(_, similarity)| *similarity >= threshold);
        match twin {
            Some((twin, similarity)) => going.push((*row, twin, similarity)),
            None => bands.into_iter().enumerate().for_each(|band| staying.entry(band).or_default().push(place as u32)),
        }
    }
    going
}

/// Reads the shingles of groups of rows, and hands each group over as soon as its last row has been read.
///
/// Goes through the traces once for as many groups as fit into memory together, and again for those that are left.
pub(super) fn gather(
    cards: &Cards,
    groups: &[Vec<u32>],
    words: usize,
    hasher: &Hasher,
    traces: &mut impl Traces,
    mut work: impl FnMut(&[u32], &HashMap<u32, Vec<u64>>) + Send,
) -> Result<()> {
    let mut waiting: Vec<usize> = (0..groups.len()).collect();
    while !waiting.is_empty() {
        let (now, later) = round(cards, groups, &waiting);
        let mut group_of: HashMap<u32, usize> = HashMap::new();
        let mut missing: HashMap<usize, usize> = HashMap::new();
        for group in now {
            missing.insert(group, groups[group].len());
            group_of.extend(groups[group].iter().map(|row| (*row, group)));
        }
        let mut held: HashMap<usize, HashMap<u32, Vec<u64>>> = HashMap::new();
        traces.each(
            Parts::Judged,
            |row| group_of.contains_key(&(row as u32)),
            |row, trace| (row as u32, hasher.shingles(&trace.question, &trace.response, words)),
            |(row, shingles)| {
                let group = group_of[&row];
                held.entry(group).or_default().insert(row, shingles);
                let left = missing.entry(group).or_default();
                *left -= 1;
                if *left == 0 {
                    work(&groups[group], &held.remove(&group).unwrap_or_default());
                }
                Ok(())
            },
        )?;
        anyhow::ensure!(held.is_empty(), "the traces have changed while they were read");
        waiting = later;
    }
    Ok(())
}

/// Splits groups into those whose shingles fit into memory in one pass and the others: a group takes room from its first row to its last.
fn round(cards: &Cards, groups: &[Vec<u32>], waiting: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let bytes = |group: usize| groups[group].iter().map(|row| 8 * cards.rows[*row as usize].shingles as usize + 64).sum::<usize>();
    let bounds = |group: usize| groups[group].iter().fold((u32::MAX, 0), |(low, high), row| (low.min(*row), high.max(*row)));
    let mut starts: Vec<(u32, usize)> = waiting.iter().map(|group| (bounds(*group).0, *group)).collect();
    starts.sort_unstable();
    let mut open = std::collections::BTreeMap::<u32, usize>::new();
    let (mut live, mut now, mut later) = (0, Vec::new(), Vec::new());
    for (start, group) in starts {
        while let Some(first) = open.first_entry().filter(|first| *first.key() < start) {
            live -= first.remove();
        }
        if now.is_empty() || live + bytes(group) <= SHINGLE_BYTES {
            live += bytes(group);
            *open.entry(bounds(group).1).or_default() += bytes(group);
            now.push(group);
        } else {
            later.push(group);
        }
    }
    (now, later)
}
