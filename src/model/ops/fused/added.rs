//! A product with a frozen weight and a low-rank addition, which alone has gradients beside the input.

use super::super::{AdditionShape, Dropout, kernels};
use super::{Backwards, Linear, output, slice, tensor, with};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use kernels::Mat;
use std::borrow::Cow;
use std::sync::Arc;

/// `Linear` over a frozen weight with a low-rank addition, whose factors are the second and third operand.
pub(crate) struct Added {
    pub weight: Tensor,
    pub bias: Option<Tensor>,
    pub shape: Arc<AdditionShape>,
    pub dropout: Option<Dropout>,
}

impl Added {
    fn addition<'a>(&'a self, a: &'a [f32], b: &'a [f32]) -> kernels::Addition<'a> {
        kernels::Addition { a, b, rank: self.shape.rank, scale: self.shape.scale, parts: &self.shape.parts }
    }

    /// The addition's inputs.
    fn dropped<'a>(&self, x: &'a [f32], d: usize) -> Cow<'a, [f32]> {
        self.dropout.map_or(Cow::Borrowed(x), |dropout| Cow::Owned(kernels::dropout(x, d, dropout.rate, dropout.key)))
    }
}

impl CustomOp3 for Added {
    fn name(&self) -> &'static str {
        "linear with a low-rank addition"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let ((n, d), (o, d2)) = (l1.shape().dims2()?, self.weight.dims2()?);
        let parts = &self.shape.parts;
        let fits = d == d2
            && l2.shape().dims() == [parts.len() * self.shape.rank, d]
            && l3.shape().dims() == [parts.iter().map(|p| p.len()).sum(), self.shape.rank]
            && parts.iter().all(|p| p.end <= o);
        if !fits {
            candle_core::bail!("an addition {:?} of {:?} and {:?} to a weight {o} x {d2}", self.shape, l2.shape(), l3.shape());
        }
        let (x, a, b) = (slice(s1, l1)?, slice(s2, l2)?, slice(s3, l3)?);
        let mut y = match &self.bias {
            Some(bias) => with(&self.weight, |w| with(bias, |bias| Linear::forward(x, w, Some(bias), d, o)))??,
            None => with(&self.weight, |w| Linear::forward(x, w, None, d, o))?,
        };
        kernels::add(&mut y, &self.dropped(x, d), self.addition(a, b));
        output(y, (n, o))
    }

    fn bwd(&self, x: &Tensor, a: &Tensor, b: &Tensor, _: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        self.backward(x, a, b, dy)
    }
}

impl Added {
    fn backward(&self, x: &Tensor, a: &Tensor, b: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let ((n, d), o) = (x.dims2()?, self.weight.dim(0)?);
        let gradients = |x: &[f32], a: &[f32], b: &[f32], dy: &[f32]| kernels::add_backward(&self.dropped(x, d), dy, self.addition(a, b));
        let (dx, da, db) = with(x, |x| with(a, |a| with(b, |b| with(dy, |dy| gradients(x, a, b, dy)))))????;
        let dx = if x.track_op() {
            let mut dx = match self.dropout {
                Some(dropout) => kernels::dropout(&dx, d, dropout.rate, dropout.key),
                None => dx,
            };
            with(dy, |dy| {
                with(&self.weight, |w| kernels::matmul(&mut dx, d, Mat::new(dy, n, o), Mat::new(w, o, d), 1.0, 1.0, kernels::Threads::All))
            })??;
            Some(tensor(dx, x)?)
        } else {
            None
        };
        Ok((dx, Some(tensor(da, a)?), Some(tensor(db, b)?)))
    }
}

impl CustomOp3 for Backwards<Added> {
    fn name(&self) -> &'static str {
        "linear with a low-rank addition, backwards"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        output(vec![0.0], ())
    }

    fn bwd(&self, x: &Tensor, a: &Tensor, b: &Tensor, _: &Tensor, _: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        self.op.backward(x, a, b, &self.dy)
    }
}
