//! The CPU kernels on plain `f32` slices, forward and backward: what `ops.rs` wraps for autograd.
//!
//! Layouts are row-major and contiguous. Every sum runs in an order that depends on the shapes alone, never on the number of threads, so results are
//! reproducible bit for bit; in what decoding uses, not even on the number of rows. Nothing here knows tensors, graphs or models.

mod adam8;
mod addition;
mod attention;
mod divergence;
mod elementwise;
mod head;
mod norm;
mod paged;
mod panels;

pub(crate) use adam8::{BLOCK as MOMENT_BLOCK, Moments};
pub(crate) use addition::{Addition, add, add_backward, dropout};
pub(crate) use attention::{AttentionShape, attention, attention_backward};
pub use divergence::Divergence;
use elementwise::scatter_add_rows;
pub(crate) use elementwise::{add_rows, exp, gather_rows, rope, swiglu, swiglu_backward};
pub(crate) use head::{COLUMNS, Kept, Reference, Stats, logits_held, logits_of_a_chunk, token_stats, token_stats_backward};
pub(crate) use norm::{rms_norm, rms_norm_backward};
pub(crate) use paged::{PAGE, Pages, Span, attention_over_pages};
pub(crate) use panels::Panels;

use gemm::Parallelism;
use rayon::prelude::*;

/// The vectors that products are computed in on this machine, which `panels` and `gemm` choose when the program runs. All other loops have those that
/// the program was compiled for.
pub(crate) fn vectors() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    let has_fma = std::arch::is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    let has_fma = false;
    match std::env::consts::ARCH {
        "x86_64" if panels::in_avx512() => "AVX-512",
        "x86_64" if has_fma => "AVX2 with FMA",
        "x86_64" => "SSE2",
        "aarch64" => "NEON",
        _ => "plain loops",
    }
}

/// One operand of a product: a matrix with `rows` x `cols` elements at strides (`rs`, `cs`) from `data[0]`.
#[derive(Clone, Copy)]
pub(crate) struct Mat<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub cols: usize,
    pub rs: usize,
    pub cs: usize,
}

impl<'a> Mat<'a> {
    /// A contiguous row-major matrix.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// Row-major with `rs` elements from row to row.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, rs: usize) -> Self {
        let mat = Self { data, rows, cols, rs, cs: 1 };
        mat.check();
        mat
    }

    /// The transposed view.
    pub fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, rs: self.cs, cs: self.rs, ..self }
    }

    fn check(&self) {
        if self.rows > 0 && self.cols > 0 {
            assert!((self.rows - 1) * self.rs + (self.cols - 1) * self.cs < self.data.len(), "operand reaches past its slice");
        }
    }
}

/// Whether a product may be split over threads. Splitting never changes the result.
#[derive(Clone, Copy)]
pub(crate) enum Threads {
    One,
    All,
}

/// `out = beta * out + alpha * a b`, with `out` row-major, `out_rs` elements from row to row.
pub(crate) fn matmul(out: &mut [f32], out_rs: usize, a: Mat, b: Mat, alpha: f32, beta: f32, threads: Threads) {
    let (m, n) = (a.rows, b.cols);
    assert!(m == 0 || n == 0 || (m - 1) * out_rs + n <= out.len(), "product reaches past its output");
    // SAFETY: the assert bounds what is written; `out` is borrowed mutably, so it aliases neither operand.
    unsafe { multiply(out.as_mut_ptr(), out_rs, a, b, alpha, beta, threads) }
}

/// # Safety
/// `out` must have room for `a.rows` rows of `b.cols`, `out_rs` apart, that nothing else touches; if `beta` is not 0 they must hold numbers.
unsafe fn multiply(out: *mut f32, out_rs: usize, a: Mat, b: Mat, alpha: f32, beta: f32, threads: Threads) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert_eq!(k, b.rows, "inner sizes of a product differ");
    if m == 0 || n == 0 {
        return;
    }
    a.check();
    b.check();
    let parallelism = match threads {
        Threads::All if m * n * k > 64 * 1024 && rayon::current_num_threads() > 1 => Parallelism::Rayon(0),
        _ => Parallelism::None,
    };
    // SAFETY: `check` bounds every address that the operands' strides reach, and the caller those of `out`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
            1,
            out_rs as isize,
            beta != 0.0,
            a.data.as_ptr(),
            a.cs as isize,
            a.rs as isize,
            b.data.as_ptr(),
            b.cs as isize,
            b.rs as isize,
            beta,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// `alpha a b` in memory of its own, which is not cleared first.
pub(crate) fn product(a: Mat, b: Mat, alpha: f32) -> Vec<f32> {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    if k == 0 {
        return vec![0.0; m * n];
    }
    let mut out = Vec::with_capacity(m * n);
    // SAFETY: with `beta` 0 and `k` above 0 the product writes every element and reads none.
    unsafe {
        multiply(out.as_mut_ptr(), n, a, b, alpha, 0.0, Threads::All);
        out.set_len(m * n);
    }
    out
}

/// A gradient that is being added up: nothing before the first addition, so that no memory is cleared only to be added to.
#[derive(Debug, Default)]
pub(crate) struct Sum {
    numbers: Vec<f32>,
    is_touched: bool,
}

impl Sum {
    /// Adds `alpha a b`.
    pub fn add_product(&mut self, a: Mat, b: Mat, alpha: f32) {
        self.is_touched = true;
        if self.numbers.is_empty() {
            self.numbers = product(a, b, alpha);
        } else {
            matmul(&mut self.numbers, b.cols, a, b, alpha, 1.0, Threads::All);
        }
    }

    /// Adds rows `dy` (N, D) to rows `ids` of `rows` rows.
    pub fn add_rows(&mut self, dy: &[f32], d: usize, ids: &[u32], rows: usize) {
        self.is_touched = true;
        if self.numbers.is_empty() {
            self.numbers = vec![0.0; rows * d];
        }
        scatter_add_rows(&mut self.numbers, dy, d, ids);
    }

    /// The sum, and nothing again; `None` if nothing was added.
    pub fn take(&mut self) -> Option<Vec<f32>> {
        Some(std::mem::take(&mut self.numbers)).filter(|sum| !sum.is_empty())
    }

    /// Whether something was added since this was last asked.
    pub fn was_touched(&mut self) -> bool {
        std::mem::take(&mut self.is_touched)
    }
}

/// Sum of squares, in an order that depends on the length alone.
pub(crate) fn sum_of_squares(x: &[f32]) -> f64 {
    const CHUNK: usize = 1 << 14;
    let parts: Vec<f64> = x.par_chunks(CHUNK).map(|x| f64::from(zip_sum(x, x, |a, b| a * b))).collect();
    parts.iter().sum()
}

/// The numbers of one AdamW step (Loshchilov and Hutter, 2019), bias corrections worked in.
#[derive(Clone, Copy)]
pub(crate) struct AdamW {
    pub betas: (f32, f32),
    /// Factor of the gradient: what clipping leaves.
    pub scale: f32,
    /// Factor of the weights.
    pub decay: f32,
    pub rate: f32,
    /// Square root of the second moment's bias correction.
    pub root: f32,
    pub eps: f32,
}

impl AdamW {
    /// m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, w = decay w - rate m / (sqrt(v) / root + eps), each number read and written once.
    pub fn step(&self, w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
        const CHUNK: usize = 1 << 14;
        let (b1, b2) = self.betas;
        let chunks = w.par_chunks_mut(CHUNK).zip(m.par_chunks_mut(CHUNK)).zip(v.par_chunks_mut(CHUNK)).zip(g.par_chunks(CHUNK));
        chunks.for_each(|(((w, m), v), g)| {
            for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(g) {
                let g = g * self.scale;
                *m = b1 * *m + (1.0 - b1) * g;
                *v = b2 * *v + (1.0 - b2) * (g * g);
                *w = *w * self.decay - self.rate * *m / (v.sqrt() / self.root + self.eps);
            }
        });
    }
}

/// `alpha x w^T`: rows `x` (N, D) against rows `w` (O, D), (N, O).
pub(super) fn rows_by_rows(x: &[f32], w: &[f32], d: usize, o: usize, alpha: f32) -> Vec<f32> {
    product(Mat::new(x, x.len() / d, d), Mat::new(w, o, d).t(), alpha)
}

/// Lanes of the accumulators below: fixed, so that sums do not depend on the machine's vector width.
const LANES: usize = 16;

/// Sum of `f(a_i, b_i)`, accumulated in `LANES` partial sums.
#[inline(always)]
pub(crate) fn zip_sum(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut acc = [0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (a_rest, b_rest) = (a_chunks.remainder(), b_chunks.remainder());
    for (x, y) in a_chunks.zip(b_chunks) {
        for i in 0..LANES {
            acc[i] += f(x[i], y[i]);
        }
    }
    for (i, (x, y)) in a_rest.iter().zip(b_rest).enumerate() {
        acc[i] += f(*x, *y);
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            acc[i] += acc[i + half];
        }
    }
    acc[0]
}

#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut acc = [0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (a_rest, b_rest) = (a_chunks.remainder(), b_chunks.remainder());
    for (x, y) in a_chunks.zip(b_chunks) {
        for i in 0..LANES {
            acc[i] = x[i].mul_add(y[i], acc[i]);
        }
    }
    for (i, (x, y)) in a_rest.iter().zip(b_rest).enumerate() {
        acc[i] = x.mul_add(*y, acc[i]);
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            acc[i] += acc[i + half];
        }
    }
    acc[0]
}

/// `y += s * x`.
#[inline(always)]
pub(crate) fn axpy(y: &mut [f32], s: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = s.mul_add(*x, *y);
    }
}

/// The largest element, and NaN if there is one, so that damage does not hide behind a softmax.
#[inline(always)]
pub(crate) fn max(a: &[f32]) -> f32 {
    let mut acc = [f32::NEG_INFINITY; LANES];
    let chunks = a.chunks_exact(LANES);
    let rest = chunks.remainder();
    let pick = |m: f32, x: f32| if x > m || x.is_nan() { x } else { m };
    for x in chunks {
        for i in 0..LANES {
            acc[i] = pick(acc[i], x[i]);
        }
    }
    acc.iter().chain(rest).fold(f32::NEG_INFINITY, |m, x| if m.is_nan() { m } else { pick(m, *x) })
}

/// Turns scores into probabilities in place and returns log(sum(exp(score))).
#[inline(always)]
pub(crate) fn softmax_in_place(row: &mut [f32]) -> f32 {
    let top = max(row);
    for x in row.iter_mut() {
        *x = exp(*x - top);
    }
    let sum = zip_sum(row, row, |x, _| x);
    let scale = 1.0 / sum;
    for x in row.iter_mut() {
        *x *= scale;
    }
    top + sum.ln()
}

/// A raw pointer that several threads may hold, each writing elements that no other touches.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut f32, usize);

impl Shared {
    pub fn new(data: &mut [f32]) -> Self {
        Self(data.as_mut_ptr(), data.len())
    }

    /// The elements from `start` on, `len` of them.
    ///
    /// # Safety
    /// No two live slices from one `Shared` may overlap, and the borrowed data must outlive them.
    pub unsafe fn slice<'a>(self, start: usize, len: usize) -> &'a mut [f32] {
        assert!(start + len <= self.1, "slice past the end of shared data");
        // SAFETY: in bounds by the assert; disjointness is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}

// SAFETY: `slice` hands out disjoint parts only (its contract), so threads never share an element.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}
