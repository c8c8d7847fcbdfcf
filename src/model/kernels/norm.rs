//! RMSNorm over the last dimension, forward and backward.
//!
//! y = x / sqrt(mean(x^2) + eps) * w. With r = 1/sqrt(mean(x^2) + eps) and g = dy * w:
//! dx = r * (g - x * r^2 * mean(g * x)), dw = sum over rows of dy * x * r.

use super::{axpy, dot, zip_sum};
use rayon::prelude::*;

/// Rows per task of the parallel loops; also the fixed partition of the weight gradient's sum.
const BLOCK: usize = 64;

/// `x` and the result: (N, D); `w`: (D,).
pub fn rms_norm(x: &[f32], w: &[f32], eps: f32) -> Vec<f32> {
    let d = w.len();
    let mut y = vec![0f32; x.len()];
    y.par_chunks_mut(BLOCK * d).zip(x.par_chunks(BLOCK * d)).for_each(|(y, x)| {
        for (y, x) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
            let r = inverse_rms(x, eps);
            for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                *y = x * r * w;
            }
        }
    });
    y
}

/// Gradients for `x` (N, D) and `w` (D,).
pub fn rms_norm_backward(x: &[f32], w: &[f32], dy: &[f32], eps: f32) -> (Vec<f32>, Vec<f32>) {
    let d = w.len();
    let mut dx = vec![0f32; x.len()];
    let partial: Vec<Vec<f32>> = dx
        .par_chunks_mut(BLOCK * d)
        .zip(x.par_chunks(BLOCK * d))
        .zip(dy.par_chunks(BLOCK * d))
        .map(|((dx, x), dy)| {
            let mut dw = vec![0f32; d];
            for ((dx, x), dy) in dx.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(dy.chunks_exact(d)) {
                let r = inverse_rms(x, eps);
                for (i, dx) in dx.iter_mut().enumerate() {
                    *dx = dy[i] * w[i];
                    dw[i] += dy[i] * x[i] * r;
                }
                let c = r * r * dot(dx, x) / d as f32;
                for (dx, x) in dx.iter_mut().zip(x) {
                    *dx = r * (*dx - x * c);
                }
            }
            dw
        })
        .collect();
    let mut dw = vec![0f32; d];
    partial.iter().for_each(|part| axpy(&mut dw, 1.0, part));
    (dx, dw)
}

#[inline(always)]
fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (zip_sum(x, x, |a, b| a * b) / x.len() as f32 + eps).sqrt()
}
