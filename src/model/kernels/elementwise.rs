//! Row-wise and element-wise kernels: exp, SwiGLU, rotary embedding, bias, gather and scatter-add of rows.

use super::AttentionShape;
use rayon::prelude::*;

/// Elements per task of the parallel loops.
const BLOCK: usize = 16 * 1024;

/// e^x with a relative error below 2e-7 in plain arithmetic, so that loops over it become vector code; NaN stays NaN.
///
/// Range reduction to x = n ln 2 + r, |r| <= ln 2 / 2, then the Taylor polynomial of degree 6; arguments are held to [-87.3, 88.3], the range of normal numbers.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer in the low bits
    let clamped = x.clamp(-87.3, 88.3);
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = n.mul_add(-0.693_359_4, clamped);
    let r = n.mul_add(2.121_944_4e-4, r);
    let p = 1.388_889e-3f32;
    let p = p.mul_add(r, 8.333_334e-3);
    let p = p.mul_add(r, 4.166_667e-2);
    let p = p.mul_add(r, 1.666_666_7e-1);
    let p = p.mul_add(r, 0.5);
    let p = p.mul_add(r, 1.0);
    let p = p.mul_add(r, 1.0);
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x.is_nan() { x } else { p * scale }
}

/// silu(gate) * up, with `x` (N, 2F) holding gate then up in each row; the result is (N, F).
pub fn swiglu(x: &[f32], f: usize) -> Vec<f32> {
    let mut y = vec![0f32; x.len() / 2];
    let rows = (BLOCK / f).max(1);
    y.par_chunks_mut(rows * f).zip(x.par_chunks(rows * 2 * f)).for_each(|(y, x)| {
        for (y, x) in y.chunks_exact_mut(f).zip(x.chunks_exact(2 * f)) {
            let (gate, up) = x.split_at(f);
            for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
                *y = g / (1.0 + exp(-g)) * u;
            }
        }
    });
    y
}

/// Gradient of `swiglu` for `x`: d silu(g)/dg = s (1 + g (1 - s)) with s = sigmoid(g).
pub fn swiglu_backward(x: &[f32], dy: &[f32], f: usize) -> Vec<f32> {
    let mut dx = vec![0f32; x.len()];
    let rows = (BLOCK / f).max(1);
    dx.par_chunks_mut(rows * 2 * f).zip(x.par_chunks(rows * 2 * f)).zip(dy.par_chunks(rows * f)).for_each(|((dx, x), dy)| {
        for ((dx, x), dy) in dx.chunks_exact_mut(2 * f).zip(x.chunks_exact(2 * f)).zip(dy.chunks_exact(f)) {
            let (gate, up) = x.split_at(f);
            let (dgate, dup) = dx.split_at_mut(f);
            for i in 0..f {
                let s = 1.0 / (1.0 + exp(-gate[i]));
                dgate[i] = dy[i] * up[i] * s * (1.0 + gate[i] * (1.0 - s));
                dup[i] = dy[i] * gate[i] * s;
            }
        }
    });
    dx
}

/// Rotates the query and key heads of each row of `x` (N, (H + 2K) head_dim) by the angles of its position, halves convention of the Llama family.
///
/// `cos` and `sin` are tables (positions, head_dim / 2). With `back` the rotation is undone, which is also its gradient.
pub fn rope(x: &[f32], shape: AttentionShape, positions: &[u32], cos: &[f32], sin: &[f32], back: bool) -> Vec<f32> {
    let mut y = x.to_vec();
    let (width, heads, head_dim) = (shape.width(), shape.heads + shape.kv_heads, shape.head_dim);
    let half = head_dim / 2;
    let rows = (BLOCK / width).max(1);
    y.par_chunks_mut(rows * width).zip(positions.par_chunks(rows)).for_each(|(y, positions)| {
        for (row, position) in y.chunks_exact_mut(width).zip(positions) {
            let at = *position as usize * half;
            let (c, s) = (&cos[at..at + half], &sin[at..at + half]);
            for head in row[..heads * head_dim].chunks_exact_mut(head_dim) {
                let (first, second) = head.split_at_mut(half);
                for i in 0..half {
                    let (a, b) = (first[i], second[i]);
                    let s = if back { -s[i] } else { s[i] };
                    first[i] = a * c[i] - b * s;
                    second[i] = b * c[i] + a * s;
                }
            }
        }
    });
    y
}

/// Adds `bias` (D,) to each row of `y` (N, D).
pub fn add_rows(y: &mut [f32], bias: &[f32]) {
    let d = bias.len();
    y.par_chunks_mut((BLOCK / d).max(1) * d).for_each(|y| {
        for row in y.chunks_exact_mut(d) {
            for (y, b) in row.iter_mut().zip(bias) {
                *y += b;
            }
        }
    });
}

/// Rows `ids` of `table` (rows, D), in that order.
pub fn gather_rows(table: &[f32], d: usize, ids: &[u32]) -> Vec<f32> {
    let mut y = vec![0f32; ids.len() * d];
    let rows = (BLOCK / d).max(1);
    y.par_chunks_mut(rows * d).zip(ids.par_chunks(rows)).for_each(|(y, ids)| {
        for (row, id) in y.chunks_exact_mut(d).zip(ids) {
            row.copy_from_slice(&table[*id as usize * d..][..d]);
        }
    });
    y
}

/// Adds rows `dy` (N, D) to rows `ids` of `table` (V, D), in the order of `ids`.
pub fn scatter_add_rows(table: &mut [f32], dy: &[f32], d: usize, ids: &[u32]) {
    for (row, id) in dy.chunks_exact(d).zip(ids) {
        super::axpy(&mut table[*id as usize * d..][..d], 1.0, row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_over_its_whole_range_and_keeps_nan() {
        for i in -87_000..88_300 {
            let x = i as f32 * 1e-3;
            let (ours, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((ours / exact - 1.0).abs() < 3e-7, "exp({x}) = {ours}, exact {exact}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
        assert_eq!(exp(0.0), 1.0);
    }
}
