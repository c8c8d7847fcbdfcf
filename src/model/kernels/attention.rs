//! Causal grouped-query attention over packed segments, and one decode step over a cache.
//!
//! Rows of `qkv` hold H query heads, then K key heads, then K value heads, each of `head_dim`, keys and queries already rotated. Segments
//! are given by their bounds in rows; no row sees another segment. Probabilities are recomputed in the backward pass, never stored.

use super::{Mat, Shared, Threads, matmul, softmax_in_place, zip_sum};
use rayon::prelude::*;

/// Query rows per block: bounds the scores held at once and skips the keys after a block.
const BLOCK: usize = 64;

#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl AttentionShape {
    /// Width of a row of `qkv`.
    pub fn width(self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    fn group(self) -> usize {
        self.heads / self.kv_heads
    }

    fn scale(self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// Column of key head `kv`.
    pub fn key(self, kv: usize) -> usize {
        (self.heads + kv) * self.head_dim
    }

    /// Column of value head `kv`.
    pub fn value(self, kv: usize) -> usize {
        (self.heads + self.kv_heads + kv) * self.head_dim
    }
}

/// One piece of the work: the rows of a segment and one key/value head with its group of query heads.
fn tasks(bounds: &[usize], kv_heads: usize) -> Vec<(usize, usize, usize)> {
    bounds.windows(2).flat_map(|w| (0..kv_heads).map(move |kv| (w[0], w[1], kv))).collect()
}

/// Scores of query rows `from..to` of a segment against its keys `0..to`, softmaxed under the causal mask: (to - from, to) in `p`.
fn probabilities(p: &mut [f32], q: Mat, k: Mat, from: usize, to: usize, scale: f32) {
    let block = Mat { data: &q.data[from * q.rs..], rows: to - from, ..q };
    let keys = Mat { rows: to, ..k };
    matmul(p, to, block, keys.t(), scale, 0.0, Threads::One);
    for (i, row) in p.chunks_exact_mut(to).enumerate().take(to - from) {
        let visible = from + i + 1;
        softmax_in_place(&mut row[..visible]);
        row[visible..].fill(0.0);
    }
}

/// `qkv` (N, width), `bounds` the starts of the segments and then N; the result is (N, H * head_dim).
pub fn attention(qkv: &[f32], bounds: &[usize], shape: AttentionShape) -> Vec<f32> {
    let (w, d, out_w) = (shape.width(), shape.head_dim, shape.heads * shape.head_dim);
    let mut out = vec![0f32; qkv.len() / w * out_w];
    let shared = Shared::new(&mut out);
    tasks(bounds, shape.kv_heads).into_par_iter().for_each(|(start, end, kv)| {
        let t = end - start;
        let rows = &qkv[start * w..end * w];
        let k = Mat::strided(&rows[shape.key(kv)..], t, d, w);
        let v = Mat::strided(&rows[shape.value(kv)..], t, d, w);
        let mut p = vec![0f32; t.min(BLOCK) * t];
        for head in kv * shape.group()..(kv + 1) * shape.group() {
            let q = Mat::strided(&rows[head * d..], t, d, w);
            for from in (0..t).step_by(BLOCK) {
                let to = (from + BLOCK).min(t);
                let p = &mut p[..(to - from) * to];
                probabilities(p, q, k, from, to, shape.scale());
                let p = Mat::new(p, to - from, to);
                let mut o = vec![0f32; (to - from) * d];
                matmul(&mut o, d, p, Mat { rows: to, ..v }, 1.0, 0.0, Threads::One);
                for (i, row) in o.chunks_exact(d).enumerate() {
                    // SAFETY: (row, head) belongs to this task alone.
                    unsafe { shared.slice((start + from + i) * out_w + head * d, d) }.copy_from_slice(row);
                }
            }
        }
    });
    out
}

/// Gradient of `attention` for `qkv`, given `out` and its gradient `dout`, both (N, H * head_dim).
///
/// With P the probabilities: dV = P^T dO, dP = dO V^T, dS = P * (dP - sum(dO * O)), dQ = scale dS K, dK = scale dS^T Q.
pub fn attention_backward(qkv: &[f32], out: &[f32], dout: &[f32], bounds: &[usize], shape: AttentionShape) -> Vec<f32> {
    let (w, d, out_w) = (shape.width(), shape.head_dim, shape.heads * shape.head_dim);
    let scale = shape.scale();
    let mut dqkv = vec![0f32; qkv.len()];
    let shared = Shared::new(&mut dqkv);
    tasks(bounds, shape.kv_heads).into_par_iter().for_each(|(start, end, kv)| {
        let t = end - start;
        let rows = &qkv[start * w..end * w];
        let k = Mat::strided(&rows[shape.key(kv)..], t, d, w);
        let v = Mat::strided(&rows[shape.value(kv)..], t, d, w);
        let block = t.min(BLOCK);
        let (mut p, mut ds) = (vec![0f32; block * t], vec![0f32; block * t]);
        let (mut dq, mut dk, mut dv) = (vec![0f32; block * d], vec![0f32; t * d], vec![0f32; t * d]);
        for head in kv * shape.group()..(kv + 1) * shape.group() {
            let q = Mat::strided(&rows[head * d..], t, d, w);
            for from in (0..t).step_by(BLOCK) {
                let to = (from + BLOCK).min(t);
                let n = to - from;
                let (p, ds) = (&mut p[..n * to], &mut ds[..n * to]);
                probabilities(p, q, k, from, to, scale);
                let at = (start + from) * out_w + head * d;
                let d_o = Mat::strided(&dout[at..], n, d, out_w);
                matmul(&mut dv, d, Mat::new(p, n, to).t(), d_o, 1.0, 1.0, Threads::One);
                matmul(ds, to, d_o, Mat { rows: to, ..v }.t(), 1.0, 0.0, Threads::One);
                for (i, (ds, p)) in ds.chunks_exact_mut(to).zip(p.chunks_exact(to)).enumerate() {
                    let delta = zip_sum(&dout[at + i * out_w..][..d], &out[at + i * out_w..][..d], |a, b| a * b);
                    for (ds, p) in ds.iter_mut().zip(p) {
                        *ds = p * (*ds - delta);
                    }
                }
                let ds = Mat::new(ds, n, to);
                matmul(&mut dq[..n * d], d, ds, Mat { rows: to, ..k }, scale, 0.0, Threads::One);
                matmul(&mut dk, d, ds.t(), Mat { data: &q.data[from * w..], rows: n, ..q }, scale, 1.0, Threads::One);
                for (i, row) in dq[..n * d].chunks_exact(d).enumerate() {
                    // SAFETY: (row, query head) belongs to this task alone.
                    unsafe { shared.slice((start + from + i) * w + head * d, d) }.copy_from_slice(row);
                }
            }
        }
        for i in 0..t {
            let row = (start + i) * w;
            // SAFETY: (row, key head) and (row, value head) belong to this task alone.
            unsafe { shared.slice(row + shape.key(kv), d) }.copy_from_slice(&dk[i * d..][..d]);
            // SAFETY: as above.
            unsafe { shared.slice(row + shape.value(kv), d) }.copy_from_slice(&dv[i * d..][..d]);
        }
    });
    dqkv
}

/// Positions of a block of the key cache.
const LANES: usize = 16;

/// Where rows of a step live in a cache of `slots` x K heads x `capacity` positions, `capacity` a multiple of `CACHE_BLOCK`.
///
/// Values lie as (slots, K, capacity, head_dim). Keys lie as (slots, K, capacity / 16, head_dim, 16), so that one query meets 16 keys in one vector and no
/// score needs a sum across a vector.
pub struct Places<'a> {
    /// Slot of each row.
    pub slots: &'a [usize],
    /// Position of each row's token in its slot.
    pub positions: &'a [usize],
    pub capacity: usize,
}

/// The capacity of a cache is a multiple of this.
pub const CACHE_BLOCK: usize = LANES;

impl Places<'_> {
    /// Offset of (row, kv head) at position 0.
    fn start(&self, row: usize, kv: usize, shape: AttentionShape) -> usize {
        (self.slots[row] * shape.kv_heads + kv) * self.capacity * shape.head_dim
    }
}

/// Writes the keys of `rows` (N, width) to their places.
pub fn write_keys(cache: &mut [f32], rows: &[f32], places: &Places, shape: AttentionShape) {
    let d = shape.head_dim;
    for (row, data) in rows.chunks_exact(shape.width()).enumerate() {
        let position = places.positions[row];
        for kv in 0..shape.kv_heads {
            let block = places.start(row, kv, shape) + position / LANES * LANES * d;
            let block = &mut cache[block..block + LANES * d];
            for (lanes, x) in block.chunks_exact_mut(LANES).zip(&data[shape.key(kv)..]) {
                lanes[position % LANES] = *x;
            }
        }
    }
}

/// Writes the values of `rows` (N, width) to their places.
pub fn write_values(cache: &mut [f32], rows: &[f32], places: &Places, shape: AttentionShape) {
    let d = shape.head_dim;
    for (row, data) in rows.chunks_exact(shape.width()).enumerate() {
        for kv in 0..shape.kv_heads {
            let at = places.start(row, kv, shape) + places.positions[row] * d;
            cache[at..at + d].copy_from_slice(&data[shape.value(kv)..][..d]);
        }
    }
}

/// One new token per row against a cache that already holds it: row i attends to positions `0..=positions[i]` of its slot.
///
/// `qkv` (B, width); `keys` and `values` as `Places` says. The result is (B, H * head_dim).
pub fn attention_step(qkv: &[f32], keys: &[f32], values: &[f32], places: &Places, shape: AttentionShape) -> Vec<f32> {
    let (w, d, group) = (shape.width(), shape.head_dim, shape.group());
    let mut out = vec![0f32; places.slots.len() * shape.heads * d];
    let by_kv_head = out.par_chunks_exact_mut(group * d);
    by_kv_head.enumerate().with_min_len(4).for_each_init(Vec::new, |p: &mut Vec<f32>, (task, out)| {
        let (row, kv) = (task / shape.kv_heads, task % shape.kv_heads);
        let n = places.positions[row] + 1;
        let padded = n.next_multiple_of(LANES);
        let start = places.start(row, kv, shape);
        let (keys, values) = (&keys[start..start + padded * d], &values[start..start + n * d]);
        let q = &qkv[row * w + kv * group * d..][..group * d];
        p.clear();
        p.resize(group * padded, 0.0);
        // As many query heads together as there are, four at most: each key and each value is then read once for them.
        let mut head = 0;
        while head < group {
            let (q, p, out) = (&q[head * d..], &mut p[head * padded..], &mut out[head * d..]);
            head += match group - head {
                1 => attend::<1>(q, keys, values, p, out, n, shape),
                2 | 3 => attend::<2>(q, keys, values, p, out, n, shape),
                _ => attend::<4>(q, keys, values, p, out, n, shape),
            };
        }
    });
    out
}

/// `G` query heads over the same keys and values, `n` positions; `p` has room for their scores. Gives `G`.
fn attend<const G: usize>(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    p: &mut [f32],
    out: &mut [f32],
    n: usize,
    shape: AttentionShape,
) -> usize {
    let d = shape.head_dim;
    let padded = keys.len() / d;
    for (block, keys) in keys.chunks_exact(LANES * d).enumerate() {
        let mut scores = [[0f32; LANES]; G];
        for (c, keys) in keys.chunks_exact(LANES).enumerate() {
            for (g, scores) in scores.iter_mut().enumerate() {
                let q = q[g * d + c];
                for i in 0..LANES {
                    scores[i] = q.mul_add(keys[i], scores[i]);
                }
            }
        }
        for (g, scores) in scores.iter().enumerate() {
            for (p, score) in p[g * padded + block * LANES..][..LANES].iter_mut().zip(scores) {
                *p = score * shape.scale();
            }
        }
    }
    for p in p.chunks_exact_mut(padded).take(G) {
        softmax_in_place(&mut p[..n]);
    }
    let mut column = 0;
    while column < d {
        column += match d - column {
            16.. => mix::<G, 16>(p, padded, &values[column..], &mut out[column..], n, d),
            8.. => mix::<G, 8>(p, padded, &values[column..], &mut out[column..], n, d),
            _ => mix::<G, 1>(p, padded, &values[column..], &mut out[column..], n, d),
        };
    }
    G
}

/// `C` columns of `G` heads: sums of the values (n, `d` apart) under the probabilities (G, `padded` apart). Gives `C`.
fn mix<const G: usize, const C: usize>(p: &[f32], padded: usize, values: &[f32], out: &mut [f32], n: usize, d: usize) -> usize {
    let mut sums = [[0f32; C]; G];
    for t in 0..n {
        let value = &values[t * d..][..C];
        for (g, sums) in sums.iter_mut().enumerate() {
            let p = p[g * padded + t];
            for c in 0..C {
                sums[c] = p.mul_add(value[c], sums[c]);
            }
        }
    }
    for (g, sums) in sums.iter().enumerate() {
        out[g * d..][..C].copy_from_slice(sums);
    }
    C
}
