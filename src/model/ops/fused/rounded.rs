//! Numbers as bf16 holds them, in f32: what a product in bf16 is given.

use super::{output, slice, tensor, with};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use half::bf16;
use rayon::prelude::*;

/// Numbers that a thread rounds at a time.
const CHUNK: usize = 1 << 16;

/// Rounds to the nearest number that bf16 has, ties to even.
pub(crate) struct Rounded {
    /// Whether the gradient goes back as it is: a master weight adds up what products give it in f32.
    pub keeps_gradient: bool,
}

pub(super) fn round(x: &[f32]) -> Vec<f32> {
    let mut out = vec![0f32; x.len()];
    out.par_chunks_mut(CHUNK)
        .zip(x.par_chunks(CHUNK))
        .for_each(|(out, x)| out.iter_mut().zip(x).for_each(|(out, x)| *out = bf16::from_f32(*x).to_f32()));
    out
}

impl CustomOp1 for Rounded {
    fn name(&self) -> &'static str {
        "rounded to bf16"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        output(round(slice(s, l)?), l.shape())
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        if self.keeps_gradient { Ok(Some(dy.clone())) } else { Ok(Some(tensor(with(dy, round)?, dy)?)) }
    }
}
