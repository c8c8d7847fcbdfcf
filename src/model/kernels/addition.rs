//! Low-rank additions to the rows of a product: y += s (x A^T) B^T, for several parts that share the product with A.

use super::{Mat, Threads, matmul, product, rows_by_rows};
use crate::key::Key;
use rayon::prelude::*;
use std::ops::Range;

/// Both factors of all P parts, and which columns of y each part adds to.
#[derive(Clone, Copy)]
pub struct Addition<'a> {
    /// (P r, D)
    pub a: &'a [f32],
    /// (columns of all parts, r)
    pub b: &'a [f32],
    pub rank: usize,
    pub scale: f32,
    pub parts: &'a [Range<usize>],
}

impl Addition<'_> {
    /// Of each part: its number, the place of its rows in `b`, and its columns.
    fn places(&self) -> impl Iterator<Item = (usize, usize, Range<usize>)> {
        self.parts.iter().enumerate().scan(0, |row, (i, columns)| {
            let at = *row;
            *row += columns.len();
            Some((i, at, columns.clone()))
        })
    }

    fn second(&self, row: usize, columns: usize) -> Mat<'_> {
        Mat::new(&self.b[row * self.rank..], columns, self.rank)
    }
}

/// Adds to `y` (N, O) for inputs `x` (N, D).
pub fn add(y: &mut [f32], x: &[f32], addition: Addition) {
    let (width, r) = (addition.parts.len() * addition.rank, addition.rank);
    let d = addition.a.len() / width;
    let n = x.len() / d;
    let o = y.len() / n.max(1);
    let h = rows_by_rows(x, addition.a, d, width, 1.0); // (N, P r)
    for (i, row, columns) in addition.places() {
        let h = Mat::strided(&h[i * r..], n, r, width);
        matmul(&mut y[columns.start..], o, h, addition.second(row, columns.len()).t(), addition.scale, 1.0, Threads::All);
    }
}

/// Gradients for the inputs, A and B, given `dy` (N, O).
pub fn add_backward(x: &[f32], dy: &[f32], addition: Addition) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let (width, r, scale) = (addition.parts.len() * addition.rank, addition.rank, addition.scale);
    let d = addition.a.len() / width;
    let n = x.len() / d;
    let o = dy.len() / n.max(1);
    let h = rows_by_rows(x, addition.a, d, width, 1.0);
    let (mut dh, mut db) = (vec![0f32; n * width], vec![0f32; addition.b.len()]);
    for (i, row, columns) in addition.places() {
        let dy = Mat::strided(&dy[columns.start..], n, columns.len(), o);
        matmul(&mut dh[i * r..], width, dy, addition.second(row, columns.len()), scale, 0.0, Threads::All);
        let h = Mat::strided(&h[i * r..], n, r, width);
        matmul(&mut db[row * r..], r, dy.t(), h, scale, 0.0, Threads::All);
    }
    let dh = Mat::new(&dh, n, width);
    (product(dh, Mat::new(addition.a, width, d), 1.0), product(dh.t(), Mat::new(x, n, d), 1.0), db)
}

/// `x` (N, D) with a share `rate` of its numbers 0 and the others scaled up by 1 / (1 - rate): which, is drawn under `key` by place.
pub fn dropout(x: &[f32], d: usize, rate: f32, key: Key) -> Vec<f32> {
    const WORDS: usize = 64;
    let limit = (f64::from(rate) * 2f64.powi(32)) as u32;
    let scale = 1.0 / (1.0 - rate);
    let mut out = x.to_vec();
    out.par_chunks_mut(d).enumerate().for_each(|(row, numbers)| {
        for (i, numbers) in numbers.chunks_mut(WORDS).enumerate() {
            let words = key.blocks(row as u32, (i * WORDS / 4) as u32);
            for (x, word) in numbers.iter_mut().zip(words) {
                *x = if word < limit { 0.0 } else { *x * scale };
            }
        }
    });
    out
}
