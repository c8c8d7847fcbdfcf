//! Causal grouped-query attention over packed segments, forward and backward.
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

    pub(super) fn group(self) -> usize {
        self.heads / self.kv_heads
    }

    pub(super) fn scale(self) -> f32 {
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
