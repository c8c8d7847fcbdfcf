//! AdamW's steps in place, on moments in f32 and in 8 bits.

use super::super::kernels;
use super::{slice, slice_mut, with};
use crate::key::Key;
use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout, Result, Tensor};
use std::cell::RefCell;

/// AdamW's step in place on a weight and its moments.
struct Update<'a> {
    m: &'a Tensor,
    v: &'a Tensor,
    numbers: kernels::AdamW,
}

impl InplaceOp2 for Update<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, dst: &mut CpuStorage, dst_l: &Layout, grad: &CpuStorage, grad_l: &Layout) -> Result<()> {
        let (w, g) = (slice_mut(dst, dst_l)?, slice(grad, grad_l)?);
        // Of an in-place operation only the first operand can be written: the moments are opened by operations of their own.
        with_mut(self.m, |m| with_mut(self.v, |v| self.numbers.step(w, m, v, g)))?
    }
}

/// Runs `f` on the storage of a tensor, to change it in place.
fn with_storage<R>(t: &Tensor, f: impl FnOnce(&mut CpuStorage, &Layout) -> Result<R>) -> Result<R> {
    struct Open<F, R>(RefCell<(Option<F>, Option<R>)>);
    impl<R, F: FnOnce(&mut CpuStorage, &Layout) -> Result<R>> InplaceOp1 for Open<F, R> {
        fn name(&self) -> &'static str {
            "in place"
        }

        fn cpu_fwd(&self, data: &mut CpuStorage, layout: &Layout) -> Result<()> {
            let mut state = self.0.borrow_mut();
            let f = state.0.take();
            state.1 = f.map(|f| f(data, layout)).transpose()?;
            Ok(())
        }
    }
    let open = Open(RefCell::new((Some(f), None)));
    t.inplace_op1(&open)?;
    open.0.into_inner().1.ok_or_else(|| candle_core::Error::Msg("an in-place operation did not run".into()))
}

/// Runs `f` on the numbers of a tensor, to change them in place.
fn with_mut<R>(t: &Tensor, f: impl FnOnce(&mut [f32]) -> R) -> Result<R> {
    with_storage(t, |data, layout| Ok(f(slice_mut(data, layout)?)))
}

/// Runs `f` on the bytes of a tensor of bytes, to change them in place.
fn with_bytes<R>(t: &Tensor, f: impl FnOnce(&mut [u8]) -> R) -> Result<R> {
    with_storage(t, |data, layout| match (data, layout.contiguous_offsets()) {
        (CpuStorage::U8(data), Some((from, to))) => Ok(f(&mut data[from..to])),
        _ => candle_core::bail!("an in-place operation was given a tensor that is not of bytes in a row"),
    })
}

/// The numbers of one AdamW step.
pub(crate) struct AdamWStep {
    /// From 1.
    pub t: i32,
    pub rate: f64,
    pub betas: (f64, f64),
    pub eps: f64,
    pub weight_decay: f64,
    /// Factor of the gradient: what clipping leaves.
    pub scale: f64,
}

impl AdamWStep {
    fn numbers(&self) -> kernels::AdamW {
        kernels::AdamW {
            betas: (self.betas.0 as f32, self.betas.1 as f32),
            scale: self.scale as f32,
            decay: (1.0 - self.rate * self.weight_decay) as f32,
            rate: (self.rate / (1.0 - self.betas.0.powi(self.t))) as f32,
            root: (1.0 - self.betas.1.powi(self.t)).sqrt() as f32,
            eps: self.eps as f32,
        }
    }
}

/// AdamW's update of `weight` and its moments `m` and `v` from `gradient`, all in place and of one shape.
pub(crate) fn adamw(weight: &Tensor, m: &Tensor, v: &Tensor, gradient: &Tensor, step: &AdamWStep) -> Result<()> {
    weight.inplace_op2(gradient, &Update { m, v, numbers: step.numbers() })
}

/// Moments in 8 bits: codes in the shape of the weight, and the scale of each block of `kernels::MOMENT_BLOCK`.
#[derive(Clone, Debug)]
pub(crate) struct Moments8 {
    pub m: Tensor,
    /// Of the square root of the second moment.
    pub r: Tensor,
    pub m_scale: Tensor,
    pub r_scale: Tensor,
}

impl Moments8 {
    pub fn zeros(like: &Tensor) -> Result<Self> {
        let codes = || Tensor::zeros(like.shape(), candle_core::DType::U8, like.device());
        let blocks = like.elem_count().div_ceil(kernels::MOMENT_BLOCK);
        let scales = || Tensor::zeros(blocks, candle_core::DType::F32, like.device());
        Ok(Self { m: codes()?, r: codes()?, m_scale: scales()?, r_scale: scales()? })
    }
}

/// `adamw` with moments in 8 bits, whose rounding is drawn under `key`.
pub(crate) fn adamw_8bit(weight: &Tensor, moments: &Moments8, gradient: &Tensor, step: &AdamWStep, key: Key) -> Result<()> {
    let numbers = step.numbers();
    let all = |w: &mut [f32], m: &mut [u8], r: &mut [u8], m_scale: &mut [f32], r_scale: &mut [f32], g: &[f32]| {
        numbers.step_8bit(w, kernels::Moments { m, r, m_scale, r_scale }, g, key);
    };
    with(gradient, |g| {
        with_mut(weight, |w| {
            with_bytes(&moments.m, |m| {
                with_bytes(&moments.r, |r| {
                    with_mut(&moments.m_scale, |m_scale| with_mut(&moments.r_scale, |r_scale| all(w, m, r, m_scale, r_scale, g)))
                })
            })
        })
    })?????
}
