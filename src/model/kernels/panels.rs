//! Products with weights that are used many times: laid out once in panels, then read from front to back by every product.
//!
//! `gemm` lays its operands out anew for each product, which at 64 rows costs as much as the product. Here the weights (O, D) stand in panels of 32 outputs,
//! each (D, 32), so that a tile of the result reads them in order while the next panel is on its way from memory. Every element of a result is one chain of
//! fused multiply-adds over D from front to back, whatever the rows that share the product, the threads, and the width of the machine's vectors.

use crate::memory::Buffer;
use rayon::prelude::*;

/// Outputs of a panel.
const WIDTH: usize = 32;
/// Rows of a tile: with two vectors of 16 each, 28 of AVX-512's 32 registers are sums.
const ROWS: usize = 14;
/// Inputs that a pass over the rows goes through: a slice of a panel, and of some rows, stay in the core's cache.
const DEPTH: usize = 1024;
/// Rows that go through all panels together, so that their slices stay in the core's cache.
const BLOCK: usize = 12 * ROWS;
/// Multiplications that are not split over threads.
const WORK: usize = 1 << 18;
/// Inputs between two requests for memory ahead.
const STRIDE: usize = 16;

/// Weights (O, D), the last panel filled up with zeros.
#[derive(Debug)]
pub(crate) struct Panels {
    data: Buffer,
    outputs: usize,
    inputs: usize,
}

impl Panels {
    /// Lays out `w` (`outputs`, `inputs`).
    pub fn new(w: &[f32], outputs: usize, inputs: usize) -> Self {
        assert_eq!(w.len(), outputs * inputs, "weights of {outputs} x {inputs}");
        let mut data = Buffer::zeros(outputs.div_ceil(WIDTH) * WIDTH * inputs);
        data.par_chunks_exact_mut(WIDTH * inputs.max(1)).zip(w.par_chunks(WIDTH * inputs.max(1))).for_each(|(panel, rows)| {
            // Square tiles, so that what is read by rows and written by columns stays in the nearest cache.
            for (i, tile) in panel.chunks_mut(16 * WIDTH).enumerate() {
                for (o, row) in rows.chunks_exact(inputs).enumerate() {
                    for (lane, x) in tile.chunks_exact_mut(WIDTH).zip(&row[16 * i..]) {
                        lane[o] = *x;
                    }
                }
            }
        });
        Self { data, outputs, inputs }
    }

    /// (O, D).
    pub fn dims(&self) -> (usize, usize) {
        (self.outputs, self.inputs)
    }

    /// `x` (N, D) times the transposed weights: (N, O).
    pub fn product(&self, x: &[f32]) -> Vec<f32> {
        assert_eq!(x.len() % self.inputs, 0, "rows of {} inputs", self.inputs);
        let n = x.len() / self.inputs;
        let mut y = Vec::with_capacity(n * self.outputs);
        let out = Out(y.as_mut_ptr());
        let panels = self.outputs.div_ceil(WIDTH);
        // Neighbouring panels go to one thread: it reads on where it stopped. Waking another one pays from some microseconds of work on.
        let least = WORK / (WIDTH * self.inputs * n.clamp(1, BLOCK));
        let share = panels.div_ceil(4 * rayon::current_num_threads()).max(least).max(1);
        for from in (0..n).step_by(BLOCK) {
            let rows = &x[from * self.inputs..(from + BLOCK).min(n) * self.inputs];
            let sums = || vec![0f32; rows.len() / self.inputs * WIDTH];
            (0..panels).into_par_iter().with_min_len(share).for_each_init(sums, |sums, panel| {
                self.columns(rows, panel, sums);
                let columns = (self.outputs - panel * WIDTH).min(WIDTH);
                for (row, sums) in sums.chunks_exact(WIDTH).enumerate() {
                    let start = (from + row) * self.outputs + panel * WIDTH;
                    // A copy of a known length needs no call.
                    let sums = if columns == WIDTH { &sums[..WIDTH] } else { &sums[..columns] };
                    // SAFETY: row and columns lie inside `y`'s memory, and this panel's columns belong to this call alone.
                    unsafe { out.write(start, sums) };
                }
            });
        }
        // SAFETY: all columns of all rows were written.
        unsafe { y.set_len(n * self.outputs) };
        y
    }

    /// `rows` times the weights of one panel: `sums` (N, WIDTH).
    fn columns(&self, rows: &[f32], panel: usize, sums: &mut [f32]) {
        let tiles = (sums.len() / WIDTH).div_ceil(ROWS);
        for from in (0..self.inputs).step_by(DEPTH) {
            let depth = DEPTH.min(self.inputs - from);
            let start = (panel * self.inputs + from) * WIDTH;
            let weights = &self.data[start..start + depth * WIDTH];
            // Each tile asks for its part of what is read next.
            let ahead = (depth * WIDTH).div_ceil(tiles);
            for (tile, sums) in sums.chunks_mut(ROWS * WIDTH).enumerate() {
                let x = Tile { data: &rows[tile * ROWS * self.inputs + from..], stride: self.inputs, depth };
                let next = (start + depth * WIDTH + tile * ahead).min(self.data.len());
                let next = &self.data[next..(next + ahead).min(self.data.len())];
                add_tile(sums, x, weights, next, from == 0);
            }
        }
    }
}

/// Memory of a result that several threads fill, each its own part.
#[derive(Clone, Copy)]
struct Out(*mut f32);

impl Out {
    /// # Safety
    /// The range from `start` on must lie inside the result, and no other thread may touch it.
    #[inline(always)]
    unsafe fn write(self, start: usize, data: &[f32]) {
        // SAFETY: as promised to this function.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), self.0.add(start), data.len()) }
    }
}

// SAFETY: `write` fills disjoint parts only (its contract).
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

/// Rows of a left operand: row r is `data[r * stride..][..depth]`.
#[derive(Clone, Copy)]
struct Tile<'a> {
    data: &'a [f32],
    stride: usize,
    depth: usize,
}

/// Whether tiles are computed in AVX-512's registers; else in plain loops, in vectors as wide as the compiler was let to make them.
#[inline]
pub(super) fn in_avx512() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx512f")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Adds `x` (R, depth) times `weights` (depth, WIDTH) to `sums` (R, WIDTH), to zeros if `first`; R is at most `ROWS`. Asks for the memory of `next`.
fn add_tile(sums: &mut [f32], x: Tile, weights: &[f32], next: &[f32], first: bool) {
    let rows = sums.len() / WIDTH;
    assert!(
        rows > 0 && x.data.len() >= (rows - 1) * x.stride + x.depth && weights.len() == x.depth * WIDTH,
        "a tile reaches past its operands"
    );
    #[cfg(target_arch = "x86_64")]
    if in_avx512() {
        // SAFETY: the processor has AVX-512, and the assert bounds every address that is read or written.
        unsafe { avx512::add_tile(sums, x, weights, next, first) };
        return;
    }
    let _ = next;
    if first {
        sums.fill(0.0);
    }
    portable::add_tile(sums, x, weights);
}

/// The tile in plain loops that the compiler turns into vectors of any width.
mod portable {
    use super::{Tile, WIDTH};

    /// Columns at a time: six rows of 16 columns fit the registers of AVX2 and of NEON.
    const COLUMNS: usize = 16;
    const ROWS: usize = 6;

    pub(super) fn add_tile(sums: &mut [f32], x: Tile, weights: &[f32]) {
        for (i, sums) in sums.chunks_mut(ROWS * WIDTH).enumerate() {
            let x = Tile { data: &x.data[i * ROWS * x.stride..], ..x };
            for column in (0..WIDTH).step_by(COLUMNS) {
                match sums.len() / WIDTH {
                    6 => add::<6>(sums, x, weights, column),
                    5 => add::<5>(sums, x, weights, column),
                    4 => add::<4>(sums, x, weights, column),
                    3 => add::<3>(sums, x, weights, column),
                    2 => add::<2>(sums, x, weights, column),
                    _ => add::<1>(sums, x, weights, column),
                }
            }
        }
    }

    fn add<const R: usize>(sums: &mut [f32], x: Tile, weights: &[f32], column: usize) {
        let mut acc = [[0f32; COLUMNS]; R];
        for (acc, sums) in acc.iter_mut().zip(sums.chunks_exact(WIDTH)) {
            acc.copy_from_slice(&sums[column..column + COLUMNS]);
        }
        let rows: [&[f32]; R] = std::array::from_fn(|r| &x.data[r * x.stride..][..x.depth]);
        for (k, w) in weights.chunks_exact(WIDTH).enumerate() {
            let w = &w[column..column + COLUMNS];
            for r in 0..R {
                let x = rows[r][k];
                for c in 0..COLUMNS {
                    acc[r][c] = x.mul_add(w[c], acc[r][c]);
                }
            }
        }
        for (acc, sums) in acc.iter().zip(sums.chunks_exact_mut(WIDTH)) {
            sums[column..column + COLUMNS].copy_from_slice(acc);
        }
    }
}

/// The tile in registers of 16 numbers; left to itself the compiler takes registers of 8, at half the speed.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{STRIDE, Tile, WIDTH};
    use std::arch::x86_64::{
        __m512, _MM_HINT_T1, _mm_prefetch, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    };

    /// # Safety
    /// AVX-512F must be there; `x` must hold as many rows as `sums`, and `weights` (x.depth, WIDTH).
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn add_tile(sums: &mut [f32], x: Tile, weights: &[f32], next: &[f32], first: bool) {
        macro_rules! of_rows {
            ($($rows:literal)*) => {
                match sums.len() / WIDTH {
                    // SAFETY: as promised to this function, for just as many rows.
                    $($rows => unsafe { add::<$rows>(sums, x, weights, next, first) },)*
                    rows => unreachable!("a tile of {rows} rows"),
                }
            };
        }
        of_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn add<const R: usize>(sums: &mut [f32], x: Tile, weights: &[f32], next: &[f32], first: bool) {
        let lines = next.len().div_ceil(WIDTH / 2).div_ceil(x.depth.div_ceil(STRIDE));
        let (x_start, w_start, sums) = (x.data.as_ptr(), weights.as_ptr(), sums.as_mut_ptr());
        let mut next = next.as_ptr();
        let mut acc = [[_mm512_setzero_ps(); 2]; R];
        for (r, acc) in acc.iter_mut().enumerate().take(if first { 0 } else { R }) {
            // SAFETY: row r of `sums` is there.
            *acc = unsafe { [_mm512_loadu_ps(sums.add(r * WIDTH)), _mm512_loadu_ps(sums.add(r * WIDTH + 16))] };
        }
        let step = |acc: &mut [[__m512; 2]; R], k: usize| {
            // SAFETY: k is below the depth of `x` and of `weights`.
            let w = unsafe { [_mm512_loadu_ps(w_start.add(k * WIDTH)), _mm512_loadu_ps(w_start.add(k * WIDTH + 16))] };
            for (r, acc) in acc.iter_mut().enumerate() {
                // SAFETY: row r of `x` is there, and k is below its depth.
                let x = _mm512_set1_ps(unsafe { *x_start.add(r * x.stride + k) });
                acc[0] = _mm512_fmadd_ps(x, w[0], acc[0]);
                acc[1] = _mm512_fmadd_ps(x, w[1], acc[1]);
            }
        };
        for from in (0..x.depth).step_by(STRIDE) {
            for _ in 0..lines {
                // A request for an address that is not there does nothing.
                _mm_prefetch::<_MM_HINT_T1>(next.cast());
                next = next.wrapping_add(WIDTH / 2);
            }
            if from + STRIDE <= x.depth {
                for k in 0..STRIDE {
                    step(&mut acc, from + k);
                }
            } else {
                for k in from..x.depth {
                    step(&mut acc, k);
                }
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            // SAFETY: row r of `sums` is there.
            unsafe {
                _mm512_storeu_ps(sums.add(r * WIDTH), acc[0]);
                _mm512_storeu_ps(sums.add(r * WIDTH + 16), acc[1]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    const SHAPES: [(usize, usize); 7] = [(48, 24), (96, 192), (64, 352), (176, 64), (1, 123), (300, 7), (2100, 33)];

    fn random(n: usize, name: &str) -> Vec<f32> {
        let mut stream = Key::new(2, name).stream();
        (0..n).map(|_| stream.normal() as f32).collect()
    }

    #[test]
    fn each_element_is_one_chain_of_multiply_adds_and_so_the_same_in_a_batch_of_any_size() {
        for (d, o) in SHAPES {
            let n = BLOCK + ROWS + 3;
            let (x, w) = (random(n * d, "x"), random(o * d, "w"));
            let panels = Panels::new(&w, o, d);
            let all = panels.product(&x);
            for (row, y) in all.chunks_exact(o).enumerate() {
                for (out, y) in y.iter().enumerate() {
                    let chain = (0..d).fold(0f32, |sum, k| x[row * d + k].mul_add(w[out * d + k], sum));
                    assert!(*y == chain, "row {row}, output {out} of {d} x {o}: {y} instead of {chain}");
                }
            }
            for rows in (0..40).chain([BLOCK - 1, BLOCK, BLOCK + 1]) {
                assert!(panels.product(&x[..rows * d]) == all[..rows * o], "{rows} rows of {d} against {o}");
            }
        }
    }

    #[test]
    fn plain_loops_give_the_bits_of_the_vector_form() {
        for rows in 1..=ROWS {
            let (depth, stride) = (37, 50);
            let (x, w, start) = (random(rows * stride, "x"), random(depth * WIDTH, "w"), random(rows * WIDTH, "sums"));
            let x = Tile { data: &x, stride, depth };
            let (mut a, mut b) = (start.clone(), start);
            add_tile(&mut a, x, &w, &w, false);
            portable::add_tile(&mut b, x, &w);
            assert!(a == b, "{rows} rows");
            add_tile(&mut a, x, &w, &w, true);
            b.fill(0.0);
            portable::add_tile(&mut b, x, &w);
            assert!(a == b, "{rows} rows, from zero");
        }
    }
}
