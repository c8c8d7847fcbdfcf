//! Attention over a cache of pages: rows of several sequences append their keys and values, then attend to all positions before them.
//!
//! A row's result is one chain of operations over its own sequence, whatever other rows share the step and wherever a prompt was cut: a token has the same
//! bits computed with its prompt, alone behind it, or again after its pages were given away.

use super::{AttentionShape, Shared, softmax_in_place};
use crate::memory::Buffer;
use rayon::prelude::*;
use std::ops::Range;

/// Positions of a page.
pub const PAGE: usize = 16;
/// Query rows times heads that share a walk over the keys of a head, at most about.
const QUERIES: usize = 32;
/// Pages whose values go through all queries while they are in the nearest cache.
const NEAR: usize = 8;
/// Multiplications that are not split over threads.
const WORK: usize = 1 << 16;

/// Keys and values of one layer, in pages of 16 positions that several threads may use at once.
///
/// A page holds for each key/value head its keys (head_dim, 16), so that one query meets 16 keys in one vector and no score needs a sum across a vector, and behind
/// them its values (16, head_dim).
#[derive(Debug)]
pub struct Pages {
    start: *mut f32,
    count: usize,
    kv_heads: usize,
    head_dim: usize,
    /// Owns what `start` points to.
    _memory: Buffer,
}

// SAFETY: the memory belongs to this value alone; who may touch which page is the promise of `block` and `block_mut`.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// `count` pages of zeros.
    pub fn new(count: usize, shape: AttentionShape) -> Self {
        let mut memory = Buffer::zeros(count * Self::numbers(shape));
        Self { start: memory.as_mut_ptr(), count, kv_heads: shape.kv_heads, head_dim: shape.head_dim, _memory: memory }
    }

    /// Numbers in a page.
    pub fn numbers(shape: AttentionShape) -> usize {
        2 * shape.kv_heads * PAGE * shape.head_dim
    }

    /// Where the block of a page and a head begins: keys, then values.
    fn block_start(&self, page: u32, kv: usize) -> usize {
        assert!((page as usize) < self.count && kv < self.kv_heads, "page {page} of {}", self.count);
        (page as usize * self.kv_heads + kv) * 2 * PAGE * self.head_dim
    }

    /// Keys and values of a head in a page.
    ///
    /// # Safety
    /// Nobody writes to the page while the slices live.
    unsafe fn block(&self, page: u32, kv: usize) -> (&[f32], &[f32]) {
        let (start, n) = (self.block_start(page, kv), PAGE * self.head_dim);
        // SAFETY: `block_start` has found the page inside the memory; that nobody writes is the caller's promise.
        unsafe { (std::slice::from_raw_parts(self.start.add(start), n), std::slice::from_raw_parts(self.start.add(start + n), n)) }
    }

    /// As `block`, to be written.
    ///
    /// # Safety
    /// Nobody else touches the page while the slices live.
    #[expect(clippy::mut_from_ref, reason = "pages are shared between threads, each of which has pages of its own to write to")]
    unsafe fn block_mut(&self, page: u32, kv: usize) -> (&mut [f32], &mut [f32]) {
        let (start, n) = (self.block_start(page, kv), PAGE * self.head_dim);
        // SAFETY: as in `block`, and the two parts are disjoint.
        unsafe { (std::slice::from_raw_parts_mut(self.start.add(start), n), std::slice::from_raw_parts_mut(self.start.add(start + n), n)) }
    }

    /// Copies a whole page.
    pub fn copy(&mut self, from: u32, to: u32) {
        let n = 2 * self.kv_heads * PAGE * self.head_dim;
        let (from, to) = (self.block_start(from, 0), self.block_start(to, 0));
        // SAFETY: both pages lie inside the memory, and `self` is borrowed mutably. They may be the same one.
        unsafe { std::ptr::copy(self.start.add(from), self.start.add(to), n) };
    }
}

/// Rows of one sequence in a step.
#[derive(Clone, Debug)]
pub struct Span<'a> {
    /// Which rows of the step.
    pub rows: Range<usize>,
    /// Position of the first of them.
    pub start: usize,
    /// Pages of the sequence from position 0 on, to the last row's at least.
    pub pages: &'a [u32],
}

/// Writes keys and values of rows `qkv` (N, width) to their places.
///
/// # Safety
/// Nobody else touches the pages that rows are written to.
unsafe fn append(pages: &Pages, qkv: &[f32], spans: &[Span], shape: AttentionShape) {
    let (w, d) = (shape.width(), shape.head_dim);
    for span in spans {
        for (i, row) in span.rows.clone().enumerate() {
            let (position, data) = (span.start + i, &qkv[row * w..][..w]);
            for kv in 0..shape.kv_heads {
                // SAFETY: as promised to this function.
                let (keys, values) = unsafe { pages.block_mut(span.pages[position / PAGE], kv) };
                let lane = position % PAGE;
                for (keys, x) in keys.chunks_exact_mut(PAGE).zip(&data[shape.key(kv)..]) {
                    keys[lane] = *x;
                }
                values[lane * d..][..d].copy_from_slice(&data[shape.value(kv)..][..d]);
            }
        }
    }
}

/// A piece of the work: some rows of a span against one key/value head.
struct Task<'a> {
    first_row: usize,
    rows: usize,
    /// Position of the first row.
    start: usize,
    kv: usize,
    pages: &'a [u32],
}

/// Appends rows `qkv` (N, width) to their sequences and attends: the row at position p to positions `0..=p`. The result is (N, H * head_dim).
///
/// # Safety
/// A page that rows are written to belongs to their span alone, and nobody writes to any other page of the spans meanwhile.
pub unsafe fn attention_over_pages(qkv: &[f32], pages: &Pages, spans: &[Span], shape: AttentionShape) -> Vec<f32> {
    // SAFETY: as promised to this function.
    unsafe { append(pages, qkv, spans, shape) };
    let mut out = vec![0f32; qkv.len() / shape.width() * shape.heads * shape.head_dim];
    let shared = Shared::new(&mut out);
    let at_once = (QUERIES / shape.group()).max(1);
    let mut tasks = Vec::with_capacity(spans.len() * shape.kv_heads);
    let mut work = 0;
    for span in spans {
        for from in (0..span.rows.len()).step_by(at_once) {
            let (start, rows) = (span.start + from, at_once.min(span.rows.len() - from));
            work += 2 * (start + rows) * rows * shape.heads * shape.head_dim;
            let task = |kv| Task { first_row: span.rows.start + from, rows, start, kv, pages: span.pages };
            tasks.extend((0..shape.kv_heads).map(task));
        }
    }
    let least = (WORK * tasks.len() / work.max(1)).max(1);
    tasks.par_iter().with_min_len(least).for_each_init(Vec::new, |p, task| {
        // SAFETY: nobody writes to the pages any more, and (row, head) of the result belongs to this task alone.
        unsafe { attend(qkv, pages, task, p, shared, shape) };
    });
    out
}

/// # Safety
/// Nobody writes to the task's pages, nor touches its part of `out` (N, H * head_dim).
unsafe fn attend(qkv: &[f32], pages: &Pages, task: &Task, p: &mut Vec<f32>, out: Shared, shape: AttentionShape) {
    let (w, d, group) = (shape.width(), shape.head_dim, shape.group());
    let queries = task.rows * group;
    // Query i is head i % group of row i / group, and sees so many positions.
    let seen = |i: usize| task.start + i / group + 1;
    let all = seen(queries - 1);
    let padded = all.next_multiple_of(PAGE);
    let row_and_head = |i: usize| (task.first_row + i / group, task.kv * group + i % group);
    let query = |i: usize| {
        let (row, head) = row_and_head(i);
        &qkv[row * w + head * d..][..d]
    };
    p.clear();
    p.resize(queries * padded, 0.0);
    for (n, two) in task.pages[..padded / PAGE].chunks(2).enumerate() {
        // SAFETY: as promised to this function.
        let keys = |i: usize| unsafe { pages.block(two[i], task.kv) }.0;
        let mut i = 0;
        while i < queries {
            let p = &mut p[i * padded + 2 * n * PAGE..];
            // Few queries meet two pages at once, since a sum waits for its last addition.
            i += match (queries - i, two.len()) {
                (1, 2) => score::<1, 2>(|g| query(i + g), keys, p, padded, shape),
                (1, _) => score::<1, 1>(|g| query(i + g), keys, p, padded, shape),
                (2 | 3, 2) => score::<2, 2>(|g| query(i + g), keys, p, padded, shape),
                (2 | 3, _) => score::<2, 1>(|g| query(i + g), keys, p, padded, shape),
                (_, 2) => {
                    score::<4, 1>(|g| query(i + g), |_| keys(1), &mut p[PAGE..], padded, shape);
                    score::<4, 1>(|g| query(i + g), keys, p, padded, shape)
                }
                (_, _) => score::<4, 1>(|g| query(i + g), keys, p, padded, shape),
            };
        }
    }
    for (i, p) in p.chunks_exact_mut(padded).enumerate() {
        softmax_in_place(&mut p[..seen(i)]);
    }
    let result = |i: usize| {
        let (row, head) = row_and_head(i);
        // SAFETY: as promised to this function; each query's part is asked for by one call at a time.
        unsafe { out.slice((row * shape.heads + head) * d, d) }
    };
    for (n, near) in task.pages[..padded / PAGE].chunks(NEAR).enumerate() {
        let from = n * NEAR * PAGE;
        let mut i = 0;
        while i < queries {
            let p = &p[i * padded + from..];
            // Those of the first of some queries are seen by all of them.
            let (count, both) = (seen(i).saturating_sub(from), |g: usize| seen(i + g).saturating_sub(from));
            // SAFETY: as promised to this function.
            let value = |page: usize| unsafe { pages.block(near[page], task.kv) }.1;
            let together = match queries - i {
                1 => mix_columns::<1>(|g| result(i + g), p, padded, value, 0..count.min(near.len() * PAGE), d),
                2 | 3 => mix_columns::<2>(|g| result(i + g), p, padded, value, 0..count.min(near.len() * PAGE), d),
                _ => mix_columns::<4>(|g| result(i + g), p, padded, value, 0..count.min(near.len() * PAGE), d),
            };
            for g in 1..together {
                let rest = count.min(near.len() * PAGE)..both(g).min(near.len() * PAGE);
                mix_columns::<1>(|_| result(i + g), &p[g * padded..], padded, value, rest, d);
            }
            i += together;
        }
    }
}

/// Scores of `G` queries against the 16 keys (head_dim, 16) of each of `P` pages, into rows of `p`, `padded` apart. Gives `G`.
fn score<'a, 'k, const G: usize, const P: usize>(
    query: impl Fn(usize) -> &'a [f32],
    keys: impl Fn(usize) -> &'k [f32],
    p: &mut [f32],
    padded: usize,
    shape: AttentionShape,
) -> usize {
    let d = shape.head_dim;
    let q: [&[f32]; G] = std::array::from_fn(|g| &query(g)[..d]);
    // Two arrays by name: the compiler keeps these in registers, and not an array of them.
    let (mut first, mut second) = ([[0f32; PAGE]; G], [[0f32; PAGE]; G]);
    let (a, b) = (keys(0), keys(P - 1));
    for (c, (a, b)) in a.chunks_exact(PAGE).zip(b.chunks_exact(PAGE)).enumerate() {
        for g in 0..G {
            let q = q[g][c];
            for i in 0..PAGE {
                first[g][i] = q.mul_add(a[i], first[g][i]);
            }
            if P == 2 {
                for i in 0..PAGE {
                    second[g][i] = q.mul_add(b[i], second[g][i]);
                }
            }
        }
    }
    for g in 0..G {
        let p = &mut p[g * padded..][..P * PAGE];
        p[..PAGE].iter_mut().zip(first[g]).for_each(|(p, score)| *p = score * shape.scale());
        p[PAGE..].iter_mut().zip(second[g]).for_each(|(p, score)| *p = score * shape.scale());
    }
    G
}

/// Adds the values of `positions` (from the first of some pages on) under the probabilities in rows of `p`, `padded` apart, to `G` results. Gives `G`.
fn mix_columns<'a, 'v, const G: usize>(
    result: impl Fn(usize) -> &'a mut [f32],
    p: &[f32],
    padded: usize,
    values: impl Fn(usize) -> &'v [f32],
    positions: Range<usize>,
    d: usize,
) -> usize {
    if positions.is_empty() {
        return G;
    }
    let mut results: [&mut [f32]; G] = std::array::from_fn(result);
    let mut column = 0;
    while column < d {
        column += match d - column {
            // As many sums as there are registers for.
            32.. if G <= 2 => mix::<G, 32>(&mut results, p, padded, &values, positions.clone(), (column, d)),
            24.. if G <= 2 => mix::<G, 24>(&mut results, p, padded, &values, positions.clone(), (column, d)),
            16.. => mix::<G, 16>(&mut results, p, padded, &values, positions.clone(), (column, d)),
            8.. => mix::<G, 8>(&mut results, p, padded, &values, positions.clone(), (column, d)),
            _ => mix::<G, 1>(&mut results, p, padded, &values, positions.clone(), (column, d)),
        };
    }
    G
}

/// `C` columns of `mix_columns`, from `column` of `d` on. Gives `C`.
fn mix<'v, const G: usize, const C: usize>(
    results: &mut [&mut [f32]; G],
    p: &[f32],
    padded: usize,
    values: impl Fn(usize) -> &'v [f32],
    positions: Range<usize>,
    (column, d): (usize, usize),
) -> usize {
    let mut sums = [[0f32; C]; G];
    for (sums, result) in sums.iter_mut().zip(results.iter()) {
        sums.copy_from_slice(&result[column..][..C]);
    }
    let mut t = positions.start;
    while t < positions.end {
        let page = values(t / PAGE);
        let until = positions.end.min((t / PAGE + 1) * PAGE);
        for t in t..until {
            let value = &page[t % PAGE * d + column..][..C];
            for (g, sums) in sums.iter_mut().enumerate() {
                let p = p[g * padded + t];
                for c in 0..C {
                    sums[c] = p.mul_add(value[c], sums[c]);
                }
            }
        }
        t = until;
    }
    for (sums, result) in sums.iter().zip(results) {
        result[column..][..C].copy_from_slice(sums);
    }
    C
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    const SHAPES: [AttentionShape; 4] = [
        AttentionShape { heads: 4, kv_heads: 2, head_dim: 24 },
        AttentionShape { heads: 7, kv_heads: 1, head_dim: 64 },
        AttentionShape { heads: 3, kv_heads: 3, head_dim: 5 },
        AttentionShape { heads: 8, kv_heads: 2, head_dim: 16 },
    ];

    fn random(n: usize, name: &str) -> Vec<f32> {
        let mut stream = Key::new(4, name).stream();
        (0..n).map(|_| stream.normal() as f32).collect()
    }

    /// A cache whose pages hold what earlier sequences left there, and tables of pages in no order.
    fn cache(shape: AttentionShape, lengths: &[usize]) -> (Pages, Vec<Vec<u32>>) {
        let count: usize = lengths.iter().map(|n| n.div_ceil(PAGE)).sum();
        let mut pages = Pages::new(count, shape);
        let left = random(count * Pages::numbers(shape), "left");
        // SAFETY: `pages` is borrowed by nobody else, and is as long.
        unsafe { std::ptr::copy_nonoverlapping(left.as_ptr(), pages.start, left.len()) };
        pages.copy(0, count as u32 - 1);
        let mut order: Vec<u32> = (0..count as u32).collect();
        order.sort_by_key(|page| page.wrapping_mul(2_654_435_761));
        let tables = lengths.iter().map(|n| order.drain(..n.div_ceil(PAGE)).collect()).collect();
        (pages, tables)
    }

    #[test]
    fn rows_over_pages_are_those_of_whole_sequences() {
        for shape in SHAPES {
            let lengths = [1, 40, 16, 170];
            let bounds = [0, 1, 41, 57, 227];
            let qkv = random(227 * shape.width(), "qkv");
            let expected = super::super::attention(&qkv, &bounds, shape);
            let (pages, tables) = cache(shape, &lengths);
            let spans: Vec<Span> =
                tables.iter().zip(bounds.windows(2)).map(|(pages, w)| Span { rows: w[0]..w[1], start: 0, pages }).collect();
            // SAFETY: the tables have no page in common.
            let found = unsafe { attention_over_pages(&qkv, &pages, &spans, shape) };
            for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
                assert!((a - b).abs() < 1e-5, "{shape:?}, number {i}: {a} and {b}");
            }
        }
    }

    #[test]
    fn where_a_sequence_is_cut_and_what_runs_beside_it_changes_no_bit() {
        for shape in SHAPES {
            let (w, out_w, n) = (shape.width(), shape.heads * shape.head_dim, 201);
            let qkv = random(n * w, "qkv");
            let (pages, tables) = cache(shape, &[n]);
            // SAFETY: one sequence alone.
            let whole = unsafe { attention_over_pages(&qkv, &pages, &[Span { rows: 0..n, start: 0, pages: &tables[0] }], shape) };
            let mut draw = Key::new(9, "cuts").stream();
            for round in 0..4 {
                let (pages, tables) = cache(shape, &[n, 60]);
                let beside = random(60 * w, "beside");
                let (mut at, mut other) = (0, 0);
                while at < n {
                    let taken = if round == 0 { 1 } else { 1 + draw.below(40) as usize }.min(n - at);
                    let others = (draw.below(3) as usize).min(60 - other);
                    let rows = [&beside[other * w..(other + others) * w], &qkv[at * w..(at + taken) * w]].concat();
                    let spans = [
                        Span { rows: 0..others, start: other, pages: &tables[1] },
                        Span { rows: others..others + taken, start: at, pages: &tables[0] },
                    ];
                    let spans = if others > 0 { &spans[..] } else { &spans[1..] };
                    // SAFETY: the tables have no page in common.
                    let found = unsafe { attention_over_pages(&rows, &pages, spans, shape) };
                    assert!(found[others * out_w..] == whole[at * out_w..(at + taken) * out_w], "{shape:?}: {taken} rows from {at} on");
                    (at, other) = (at + taken, other + others);
                }
            }
        }
    }
}
