//! The language-model head without its logits: per row the target's log-probability, the entropy, and the divergence from a reference.
//!
//! With z the logits over temperature and p = softmax(z): lp = z_target - logsumexp(z), H = -sum(p log p); gradients dlp/dz = onehot - p, dH/dz = -p (log p + H).
//! What is measured against a reference is in `divergence.rs`.
//! Rows go through in chunks, so memory is a chunk's logits and not (N, V). The log-probabilities of the first chunks are kept for the backward pass, up
//! to a limit; those of the others it computes again, at a third of the head's cost.

use super::divergence::Divergence;
use super::{Mat, Sum, Threads, exp, matmul, max, rows_by_rows, zip_sum};
use rayon::prelude::*;

/// Logits held at once, in elements, where a chunk has more rows than `CHUNK_ROWS`.
const CHUNK: usize = 1 << 21;
/// Rows of a chunk at least: each chunk reads and writes the whole gradient of the weights.
const CHUNK_ROWS: usize = 256;

fn chunk_rows(v: usize, n: usize) -> usize {
    (CHUNK / v).max(CHUNK_ROWS).min(n.max(1))
}

/// Numbers that are kept for the backward pass, at most: 256 MB.
const KEEP: usize = 1 << 26;

/// Numbers of the size of logits that the head holds at most over a vocabulary of `v` for `n` targets: chunks that are kept, and one that is not.
pub fn logits_held(v: usize, n: usize) -> usize {
    let rows = chunk_rows(v, n);
    let kept = (KEEP / (rows * v) * rows).min(n);
    (kept + if kept < n { rows } else { 0 }) * v
}

/// Numbers of the size of logits of one chunk.
pub fn logits_of_a_chunk(v: usize, n: usize) -> usize {
    chunk_rows(v, n) * v
}

/// Log-probabilities of the first chunks, in order, from the forward pass to the backward pass.
#[derive(Debug, Default)]
pub struct Kept(Vec<Vec<f32>>);

/// Columns of the statistics.
pub const COLUMNS: usize = 3;

/// What one evaluation of the head needs beside hidden states and weights.
#[derive(Clone, Copy)]
pub struct Stats<'a> {
    /// Rows of the weights, V.
    pub vocabulary: usize,
    /// Target id of each row.
    pub targets: &'a [u32],
    pub temperature: f32,
    pub reference: Option<Reference<'a>>,
}

/// Another model's distributions for the same rows, taken at the same temperature.
#[derive(Clone, Copy)]
pub struct Reference<'a> {
    /// Hidden states (N, D').
    pub hidden: &'a [f32],
    /// Head (V', D'). Where V' is not V, both distributions are over the ids that both have: what lies behind them stands for no token.
    pub head: &'a [f32],
    pub vocabulary: usize,
    pub divergence: Divergence,
}

impl Stats<'_> {
    fn logits(&self, h: &[f32], w: &[f32], v: usize) -> Vec<f32> {
        rows_by_rows(h, w, w.len() / v, v, 1.0 / self.temperature)
    }

    /// Log-probabilities of the reference over the ids that both have, for rows `from..from + rows`.
    fn reference_logprobs(&self, from: usize, rows: usize) -> Option<Vec<f32>> {
        let Reference { hidden, head, vocabulary, .. } = self.reference?;
        let d = head.len() / vocabulary;
        let mut q = self.logits(&hidden[from * d..(from + rows) * d], &head[..self.shared() * d], self.shared());
        q.par_chunks_exact_mut(self.shared()).for_each(log_softmax);
        Some(q)
    }

    /// How many ids the distributions are over.
    fn shared(&self) -> usize {
        self.reference.map_or(self.vocabulary, |reference| reference.vocabulary.min(self.vocabulary))
    }
}

/// `h` (N, D), `w` (V, D); the result is (N, 3): log-probability, entropy, divergence (0 without a reference). With a backward pass to come it keeps what that needs.
pub fn token_stats(h: &[f32], w: &[f32], stats: Stats, mut kept: Option<&mut Kept>) -> Vec<f32> {
    let (n, v, shared) = (stats.targets.len(), stats.vocabulary, stats.shared());
    let d = w.len() / v;
    let rows = chunk_rows(v, n);
    let mut out = vec![0f32; n * COLUMNS];
    for from in (0..n).step_by(rows) {
        let to = (from + rows).min(n);
        let mut z = stats.logits(&h[from * d..to * d], w, v);
        let q = stats.reference_logprobs(from, to - from).unwrap_or_default();
        z.par_chunks_exact_mut(v)
            .zip(rows_or_empty(&q, shared, to - from))
            .zip(out[from * COLUMNS..to * COLUMNS].par_chunks_exact_mut(COLUMNS))
            .zip(&stats.targets[from..to])
            .for_each(|(((z, q), out), target)| {
                let z = &mut z[..shared];
                log_softmax(z);
                out[0] = z[*target as usize];
                out[1] = -zip_sum(z, z, |lp, _| exp(lp) * lp);
                if let Some(reference) = stats.reference {
                    out[2] = reference.divergence.of(z, q);
                }
            });
        if let Some(kept) = &mut kept
            && to * v <= KEEP
        {
            kept.0.push(z);
        }
    }
    out
}

/// Gradient for `h` (N, D), given `out` and its gradient `dout`, both (N, 3); that for `w` (V, D) is added to `dw`, if it is wanted.
pub fn token_stats_backward(
    h: &[f32],
    w: &[f32],
    stats: Stats,
    out: &[f32],
    dout: &[f32],
    kept: Kept,
    mut dw: Option<&mut Sum>,
) -> Vec<f32> {
    let (n, v, shared) = (stats.targets.len(), stats.vocabulary, stats.shared());
    let d = w.len() / v;
    let rows = chunk_rows(v, n);
    let mut dh = vec![0f32; h.len()];
    let scale = 1.0 / stats.temperature;
    let mut kept = kept.0.into_iter();
    for from in (0..n).step_by(rows) {
        let to = (from + rows).min(n);
        let (mut z, is_normal) = match kept.next() {
            Some(z) => (z, true),
            None => (stats.logits(&h[from * d..to * d], w, v), false),
        };
        let q = stats.reference_logprobs(from, to - from).unwrap_or_default();
        z.par_chunks_exact_mut(v)
            .zip(rows_or_empty(&q, shared, to - from))
            .zip(out[from * COLUMNS..to * COLUMNS].par_chunks_exact(COLUMNS))
            .zip(dout[from * COLUMNS..to * COLUMNS].par_chunks_exact(COLUMNS))
            .zip(&stats.targets[from..to])
            .for_each(|((((z, q), out), dout), target)| {
                let (z, behind) = z.split_at_mut(shared);
                behind.fill(0.0);
                if !is_normal {
                    log_softmax(z);
                }
                let (dlp, dh, ddiv) = (dout[0], dout[1], dout[2]);
                let entropy = out[1];
                let of_own = |lp: f32| -exp(lp) * (dlp + dh * (lp + entropy));
                match stats.reference.filter(|_| ddiv != 0.0) {
                    None => z.iter_mut().for_each(|z| *z = of_own(*z)),
                    Some(reference) => reference.divergence.backward(z, q, out[2], |lp, slope| of_own(lp) + ddiv * slope),
                }
                z[*target as usize] += dlp;
            });
        let dz = Mat::new(&z, to - from, v);
        matmul(&mut dh[from * d..to * d], d, dz, Mat::new(w, v, d), scale, 0.0, Threads::All);
        if let Some(dw) = &mut dw {
            dw.add_product(dz.t(), Mat::new(&h[from * d..to * d], to - from, d), scale);
        }
    }
    dh
}

/// The rows of `q`, or as many empty ones.
fn rows_or_empty(q: &[f32], v: usize, rows: usize) -> Vec<&[f32]> {
    if q.is_empty() { vec![Default::default(); rows] } else { q.chunks_exact(v).collect() }
}

fn log_softmax(z: &mut [f32]) {
    let top = max(z);
    let log_sum = zip_sum(z, z, |x, _| exp(x - top)).ln() + top;
    for z in z.iter_mut() {
        *z -= log_sum;
    }
}
