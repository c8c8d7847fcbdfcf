//! The fused forms: candle custom operations around `kernels/`, each with its backward pass.
//!
//! A gradient is computed only for arguments that lead to a variable, so frozen weights cost nothing in the backward pass.

mod adamw;
mod added;
mod rounded;

pub(crate) use adamw::{AdamWStep, Moments8, adamw, adamw_8bit};
pub(super) use added::Added;
pub(super) use rounded::Rounded;

use super::{Reference, RopeTable, kernels};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor};
use kernels::{AttentionShape, COLUMNS, Mat, Pages, Span};
use std::sync::{Arc, Mutex, PoisonError};

/// The elements of a contiguous f32 operand.
fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let (from, to) = layout.contiguous_offsets().ok_or_else(|| candle_core::Error::RequiresContiguous { op: "distill fused op" }.bt())?;
    Ok(&storage.as_slice::<f32>()?[from..to])
}

/// Runs `f` on the elements of a CPU tensor, made contiguous first where it is not.
pub(super) fn with<R>(t: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let t = t.contiguous()?;
    let (storage, layout) = t.storage_and_layout();
    match &*storage {
        Storage::Cpu(cpu) => Ok(f(slice(cpu, layout)?)),
        _ => candle_core::bail!("a fused operation was given a tensor that is not on the cpu"),
    }
}

fn tensor(data: Vec<f32>, like: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(data, like.shape(), like.device())
}

fn output(data: Vec<f32>, shape: impl Into<Shape>) -> Result<(CpuStorage, Shape)> {
    Ok((CpuStorage::F32(data), shape.into()))
}

/// Where the gradient of a weight is added up outside the graph, over all its uses and all calls of the backward pass.
///
/// candle adds each gradient to zeros that it makes for the purpose: for weights that is more memory traffic than the optimiser's step.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sink(Arc<Mutex<kernels::Sum>>);

impl Sink {
    fn with<R>(&self, f: impl FnOnce(&mut kernels::Sum) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The gradient so far, and nothing again; `None` if there was none.
    pub fn take(&self) -> Option<Vec<f32>> {
        self.with(kernels::Sum::take)
    }

    /// Whether something was added since this was last asked.
    pub fn was_touched(&self) -> bool {
        self.with(kernels::Sum::was_touched)
    }
}

/// Gives the gradient of `w` that `add` adds up: to `into` and not to the graph, or to the graph where there is no sink.
fn collect(w: &Tensor, into: Option<&Sink>, add: impl FnOnce(&mut kernels::Sum) -> Result<()>) -> Result<Option<Tensor>> {
    if !w.track_op() {
        return Ok(None);
    }
    match into {
        Some(sink) => sink.with(add).map(|()| None),
        None => {
            let mut sum = kernels::Sum::default();
            add(&mut sum)?;
            sum.take().map(|dw| tensor(dw, w)).transpose()
        }
    }
}

pub(super) struct Linear {
    pub into: Option<Sink>,
}

impl Linear {
    fn forward(x: &[f32], w: &[f32], bias: Option<&[f32]>, d: usize, o: usize) -> Vec<f32> {
        let mut y = kernels::rows_by_rows(x, w, d, o, 1.0);
        if let Some(bias) = bias {
            kernels::add_rows(&mut y, bias);
        }
        y
    }

    fn dims(l1: &Layout, l2: &Layout) -> Result<(usize, usize, usize)> {
        let ((n, d), (o, d2)) = (l1.shape().dims2()?, l2.shape().dims2()?);
        if d != d2 {
            candle_core::bail!("linear: input has width {d}, weight {:?}", l2.shape());
        }
        Ok((n, d, o))
    }

    fn backward(&self, x: &Tensor, w: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let ((n, d), o) = (x.dims2()?, w.dim(0)?);
        let dx = x.track_op().then(|| {
            let dx = with(dy, |dy| with(w, |w| kernels::product(Mat::new(dy, n, o), Mat::new(w, o, d), 1.0)))??;
            tensor(dx, x)
        });
        let dw = collect(w, self.into.as_ref(), |sum| {
            with(dy, |dy| with(x, |x| sum.add_product(Mat::new(dy, n, o).t(), Mat::new(x, n, d), 1.0)))?
        })?;
        Ok((dx.transpose()?, dw))
    }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, d, o) = Self::dims(l1, l2)?;
        output(Self::forward(slice(s1, l1)?, slice(s2, l2)?, None, d, o), (n, o))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.backward(x, w, dy)
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear with bias"
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
        let (n, d, o) = Self::dims(l1, l2)?;
        output(Self::forward(slice(s1, l1)?, slice(s2, l2)?, Some(slice(s3, l3)?), d, o), (n, o))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, dw) = self.backward(x, w, dy)?;
        let db = if bias.track_op() {
            let mut db = vec![0f32; bias.elem_count()];
            with(dy, |dy| dy.chunks_exact(db.len()).for_each(|row| kernels::axpy(&mut db, 1.0, row)))?;
            Some(tensor(db, bias)?)
        } else {
            None
        };
        Ok((dx, dw, db))
    }
}

/// `Linear` over weights that were laid out before, without a gradient.
pub(super) struct ByPanels {
    pub panels: Arc<kernels::Panels>,
}

impl ByPanels {
    fn forward(&self, s: &CpuStorage, l: &Layout) -> Result<(Vec<f32>, (usize, usize))> {
        let ((n, d), (o, d2)) = (l.shape().dims2()?, self.panels.dims());
        if d != d2 {
            candle_core::bail!("linear: input has width {d}, weight [{o}, {d2}]");
        }
        Ok((self.panels.product(slice(s, l)?), (n, o)))
    }
}

impl CustomOp1 for ByPanels {
    fn name(&self) -> &'static str {
        "linear by panels"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let (y, shape) = self.forward(s, l)?;
        output(y, shape)
    }
}

impl CustomOp2 for ByPanels {
    fn name(&self) -> &'static str {
        "linear by panels with bias"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (mut y, shape) = self.forward(s1, l1)?;
        kernels::add_rows(&mut y, slice(s2, l2)?);
        output(y, shape)
    }
}

/// Gather of rows; its gradient adds rows up in the order of `ids`.
pub(super) struct Rows {
    pub ids: Arc<Vec<u32>>,
    pub into: Option<Sink>,
}

impl CustomOp1 for Rows {
    fn name(&self) -> &'static str {
        "rows"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, d) = l.shape().dims2()?;
        if let Some(id) = self.ids.iter().find(|id| **id as usize >= rows) {
            candle_core::bail!("row {id} of a table with {rows} rows");
        }
        output(kernels::gather_rows(slice(s, l)?, d, &self.ids), (self.ids.len(), d))
    }

    fn bwd(&self, table: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let (rows, d) = table.dims2()?;
        collect(table, self.into.as_ref(), |sum| with(dy, |dy| sum.add_rows(dy, d, &self.ids, rows)))
    }
}

pub(super) struct RmsNorm {
    pub eps: f32,
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((_, d), d2) = (l1.shape().dims2()?, l2.shape().dims1()?);
        if d != d2 {
            candle_core::bail!("rms_norm: input has width {d}, weight {d2}");
        }
        output(kernels::rms_norm(slice(s1, l1)?, slice(s2, l2)?, self.eps), l1.shape())
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dw) = with(x, |x| with(w, |w| with(dy, |dy| kernels::rms_norm_backward(x, w, dy, self.eps))))???;
        Ok((Some(tensor(dx, x)?), Some(tensor(dw, w)?)))
    }
}

pub(super) struct HeadNorm {
    pub shape: AttentionShape,
    pub eps: f32,
}

impl HeadNorm {
    /// Heads of each row in `qkv`, gathered as (rows * heads, head_dim): query heads, then key heads.
    fn split(&self, qkv: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (q_width, k_width) = (self.shape.heads * self.shape.head_dim, self.shape.kv_heads * self.shape.head_dim);
        let rows = qkv.chunks_exact(self.shape.width());
        (
            rows.clone().flat_map(|row| &row[..q_width]).copied().collect(),
            rows.flat_map(|row| &row[q_width..q_width + k_width]).copied().collect(),
        )
    }

    /// Puts query and key heads back over a copy of `qkv`.
    fn join(&self, qkv: &[f32], q: &[f32], k: &[f32]) -> Vec<f32> {
        let (q_width, k_width) = (self.shape.heads * self.shape.head_dim, self.shape.kv_heads * self.shape.head_dim);
        let mut y = qkv.to_vec();
        for ((row, q), k) in y.chunks_exact_mut(self.shape.width()).zip(q.chunks_exact(q_width)).zip(k.chunks_exact(k_width)) {
            row[..q_width].copy_from_slice(q);
            row[q_width..q_width + k_width].copy_from_slice(k);
        }
        y
    }
}

impl CustomOp3 for HeadNorm {
    fn name(&self) -> &'static str {
        "head_norm"
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
        let qkv = slice(s1, l1)?;
        let (q, k) = self.split(qkv);
        let q = kernels::rms_norm(&q, slice(s2, l2)?, self.eps);
        let k = kernels::rms_norm(&k, slice(s3, l3)?, self.eps);
        output(self.join(qkv, &q, &k), l1.shape())
    }

    fn bwd(
        &self,
        qkv: &Tensor,
        q_weight: &Tensor,
        k_weight: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (q, k) = with(qkv, |x| self.split(x))?;
        let (dq, dk) = with(dy, |dy| self.split(dy))?;
        let (dq, dq_weight) = with(q_weight, |w| kernels::rms_norm_backward(&q, w, &dq, self.eps))?;
        let (dk, dk_weight) = with(k_weight, |w| kernels::rms_norm_backward(&k, w, &dk, self.eps))?;
        let dx = with(dy, |dy| self.join(dy, &dq, &dk))?;
        Ok((Some(tensor(dx, qkv)?), Some(tensor(dq_weight, q_weight)?), Some(tensor(dk_weight, k_weight)?)))
    }
}

pub(super) struct Rope {
    pub positions: Arc<Vec<u32>>,
    pub table: Arc<RopeTable>,
    pub shape: AttentionShape,
}

impl Rope {
    fn rotate(&self, x: &[f32], back: bool) -> Vec<f32> {
        kernels::rope(x, self.shape, &self.positions, &self.table.cos, &self.table.sin, back)
    }
}

impl CustomOp1 for Rope {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        output(self.rotate(slice(s, l)?, false), l.shape())
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(tensor(with(dy, |dy| self.rotate(dy, true))?, x)?))
    }
}

pub(super) struct Attention {
    pub bounds: Arc<Vec<usize>>,
    pub shape: AttentionShape,
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, width) = l.shape().dims2()?;
        if width != self.shape.width() || self.bounds.last() != Some(&n) {
            candle_core::bail!(
                "attention: qkv is {:?}, the shape wants width {}, the bounds {:?}",
                l.shape(),
                self.shape.width(),
                self.bounds
            );
        }
        let out = kernels::attention(slice(s, l)?, &self.bounds, self.shape);
        output(out, (n, self.shape.heads * self.shape.head_dim))
    }

    fn bwd(&self, qkv: &Tensor, out: &Tensor, dout: &Tensor) -> Result<Option<Tensor>> {
        let dqkv =
            with(qkv, |qkv| with(out, |out| with(dout, |dout| kernels::attention_backward(qkv, out, dout, &self.bounds, self.shape))))???;
        Ok(Some(tensor(dqkv, qkv)?))
    }
}

/// An operation whose result nobody needs: a number, 0, with the gradients that the operation would have for a result with gradient `dy`.
pub(super) struct Backwards<Op> {
    pub op: Op,
    pub dy: Tensor,
}

impl CustomOp2 for Backwards<Linear> {
    fn name(&self) -> &'static str {
        "linear, backwards"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        output(vec![0.0], ())
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, _: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.op.backward(x, w, &self.dy)
    }
}

/// A number, 0, whose gradient for `y` is `dy`: where a backward pass begins.
pub(super) struct From {
    pub dy: Tensor,
}

impl CustomOp1 for From {
    fn name(&self) -> &'static str {
        "backward from"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        output(vec![0.0], ())
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.dy.clone()))
    }
}

pub(super) struct SwiGlu;

impl CustomOp1 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, width) = l.shape().dims2()?;
        output(kernels::swiglu(slice(s, l)?, width / 2), (n, width / 2))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let f = x.dim(1)? / 2;
        Ok(Some(tensor(with(x, |x| with(dy, |dy| kernels::swiglu_backward(x, dy, f)))??, x)?))
    }
}

pub(super) struct TokenStats {
    pub vocabulary: usize,
    pub targets: Vec<u32>,
    pub temperature: f32,
    pub reference: Option<Reference>,
    pub into: Option<Sink>,
    /// What the forward pass keeps for the backward pass, if there will be one.
    pub kept: Option<Mutex<kernels::Kept>>,
}

impl TokenStats {
    fn with_stats<R>(&self, f: impl FnOnce(kernels::Stats) -> R) -> Result<R> {
        let alone = kernels::Stats { vocabulary: self.vocabulary, targets: &self.targets, temperature: self.temperature, reference: None };
        match &self.reference {
            None => Ok(f(alone)),
            Some(Reference { hidden, head, divergence }) => {
                let (vocabulary, divergence) = (head.dim(0)?, *divergence);
                with(hidden, |hidden| {
                    with(head, |head| {
                        let reference = kernels::Reference { hidden, head, vocabulary, divergence };
                        f(kernels::Stats { reference: Some(reference), ..alone })
                    })
                })?
            }
        }
    }
}

impl CustomOp2 for TokenStats {
    fn name(&self) -> &'static str {
        "token_stats"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (h, w) = (slice(s1, l1)?, slice(s2, l2)?);
        let mut kept = self.kept.as_ref().map(|_| kernels::Kept::default());
        let out = self.with_stats(|stats| kernels::token_stats(h, w, stats, kept.as_mut()))?;
        if let (Some(place), Some(kept)) = (&self.kept, kept) {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = kept;
        }
        output(out, (self.targets.len(), COLUMNS))
    }

    fn bwd(&self, h: &Tensor, w: &Tensor, out: &Tensor, dout: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let kept = self.kept.as_ref().map(|kept| std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner)));
        let backward = |sum: Option<&mut kernels::Sum>| {
            let gradient = |h: &[f32], w: &[f32], out: &[f32], dout: &[f32]| {
                self.with_stats(|stats| kernels::token_stats_backward(h, w, stats, out, dout, kept.unwrap_or_default(), sum))
            };
            tensor(with(h, |h| with(w, |w| with(out, |out| with(dout, |dout| gradient(h, w, out, dout)))))?????, h)
        };
        if !w.track_op() {
            return Ok((Some(backward(None)?), None));
        }
        let mut dh = None;
        let dw = collect(w, self.into.as_ref(), |sum| {
            dh = Some(backward(Some(sum))?);
            Ok(())
        })?;
        Ok((dh, dw))
    }
}

/// To be made only where the promises of `attention_over_pages` are kept.
pub(super) struct OverPages<'a> {
    pub pages: &'a Pages,
    pub spans: &'a [Span<'a>],
    pub shape: AttentionShape,
}

impl CustomOp1 for OverPages<'_> {
    fn name(&self) -> &'static str {
        "attention_over_pages"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let qkv = slice(s, l)?;
        // SAFETY: `ops::attention_over_pages`, which alone makes this, has the same promises from its caller.
        let out = unsafe { kernels::attention_over_pages(qkv, self.pages, self.spans, self.shape) };
        output(out, (qkv.len() / self.shape.width(), self.shape.heads * self.shape.head_dim))
    }
}

fn slice_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    let (from, to) =
        layout.contiguous_offsets().ok_or_else(|| candle_core::Error::RequiresContiguous { op: "distill in-place op" }.bt())?;
    match storage {
        CpuStorage::F32(data) => Ok(&mut data[from..to]),
        _ => candle_core::bail!("an in-place operation was given a tensor that is not f32"),
    }
}
