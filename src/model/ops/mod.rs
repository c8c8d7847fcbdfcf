//! The decoder's operations, each in two forms that a test holds against each other: fused with its own backward pass on the CPU in f32,
//! and composed of candle's differentiable operations (`reference.rs`) everywhere else.
//!
//! None of candle's fused operations is used: `softmax_last_dim`, `rms_norm`, `layer_norm`, `rope` and `sdpa` of candle-nn have no backward
//! pass and cut the graph without an error. candle-nn is not a dependency, and clippy.toml disallows `apply_op*_no_bwd` outside this folder.

mod fused;
pub(crate) mod reference;
#[cfg(test)]
mod tests;

use super::kernels;
use crate::key::Key;
use candle_core::backprop::GradStore;
use candle_core::{DType, Result, Tensor};
use std::ops::Range;
use std::sync::Arc;

pub(crate) use fused::{AdamWStep, Moments8, Sink, adamw, adamw_8bit};
pub(crate) use kernels::AttentionShape;
pub use kernels::Divergence;

/// Angles of the rotary embedding, precomputed in f32.
#[derive(Debug)]
pub(crate) struct RopeTable {
    /// (positions, head_dim / 2)
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
    pub positions: usize,
}

/// Rows of several sequences laid end to end, without padding.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Position of each row in its sequence.
    pub positions: Arc<Vec<u32>>,
    /// Starts of the sequences, then the number of rows.
    pub bounds: Arc<Vec<usize>>,
}

/// Whether the fused form covers this tensor.
fn is_fused(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}

/// `x` (N, D) times the transposed `weight` (O, D), plus `bias` (O,): (N, O).
///
/// Here and below the gradient of a weight goes `into` a sink, where one is given and the fused form covers the operation, and else into the graph.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, into: Option<&Sink>) -> Result<Tensor> {
    let op = fused::Linear { into: into.cloned() };
    match (is_fused(x), bias) {
        (true, None) => x.apply_op2(weight, op),
        (true, Some(bias)) => x.apply_op3(weight, bias, op),
        (false, bias) => reference::linear(x, weight, bias),
    }
}

/// `x` as bf16 holds it, in f32; its gradient is rounded in the same way.
pub(crate) fn rounded(x: &Tensor) -> Result<Tensor> {
    if is_fused(x) { x.contiguous()?.apply_op1(fused::Rounded { keeps_gradient: false }) } else { reference::rounded(x) }
}

/// A weight as bf16 holds it, in f32; its gradient stays what it is.
pub(crate) fn rounded_weight(weight: &Tensor) -> Result<Tensor> {
    if is_fused(weight) { weight.apply_op1(fused::Rounded { keeps_gradient: true }) } else { reference::rounded(weight) }
}

/// Which columns of a product's result the parts of a low-rank addition add to, and with which factor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AdditionShape {
    pub rank: usize,
    pub scale: f32,
    pub parts: Vec<Range<usize>>,
}

/// A mask over inputs that is a function of its key: the same where a layer is computed again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dropout {
    pub rate: f32,
    pub key: Key,
}

/// `linear` with a frozen weight and a low-rank addition: `a` (P r, D) and `b` (columns of all parts, r) hold the factors of its P parts.
pub(crate) fn linear_with(
    x: &Tensor,
    (weight, bias): (&Tensor, Option<&Tensor>),
    (a, b): (&Tensor, &Tensor),
    shape: &Arc<AdditionShape>,
    dropout: Option<Dropout>,
) -> Result<Tensor> {
    if is_fused(x) {
        x.apply_op3(a, b, fused::Added { weight: weight.detach(), bias: bias.map(Tensor::detach), shape: shape.clone(), dropout })
    } else {
        reference::linear_with(x, (weight, bias), (a, b), shape, dropout)
    }
}

/// `weight` (O, D) with the addition worked in: what `linear_with` multiplies with where nothing is dropped.
pub(crate) fn merged(weight: &Tensor, a: &Tensor, b: &Tensor, shape: &AdditionShape) -> Result<Tensor> {
    let (mut row, mut end, mut pieces) = (0, 0, Vec::new());
    for (i, part) in shape.parts.iter().enumerate() {
        if part.start > end {
            pieces.push(weight.narrow(0, end, part.start - end)?);
        }
        let (a, b) = (a.narrow(0, i * shape.rank, shape.rank)?, b.narrow(0, row, part.len())?);
        let delta = (b.contiguous()?.matmul(&a.contiguous()?)? * f64::from(shape.scale))?.to_dtype(weight.dtype())?;
        pieces.push((weight.narrow(0, part.start, part.len())? + delta)?);
        (row, end) = (row + part.len(), part.end);
    }
    let rows = weight.dim(0)?;
    if end < rows {
        pieces.push(weight.narrow(0, end, rows - end)?);
    }
    Tensor::cat(&pieces, 0)
}

/// A weight matrix (O, D) laid out for many products without a gradient: a copy, which later changes of the weight do not reach.
pub(crate) use kernels::Panels;

/// Lays out `weight` (O, D) for `linear_by_panels`; `None` where the fused form does not cover it.
pub(crate) fn panels(weight: &Tensor) -> Result<Option<Panels>> {
    let (outputs, inputs) = weight.dims2()?;
    if is_fused(weight) { Ok(Some(fused::with(weight, |w| Panels::new(w, outputs, inputs))?)) } else { Ok(None) }
}

/// Sum of the squares of all numbers, in an order that depends on their number alone.
pub(crate) fn sum_of_squares(t: &Tensor) -> Result<f64> {
    with_numbers(t, kernels::sum_of_squares)
}

/// Runs `f` on the numbers of `t`, where they lie if they lie in order on the CPU in f32.
pub(crate) fn with_numbers<R>(t: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    if is_fused(t) { fused::with(t, f) } else { Ok(f(&t.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)) }
}

/// `linear` with weights laid out before, without a gradient. A row of the result has the same bits whatever other rows `x` has.
#[expect(clippy::disallowed_methods, reason = "sampling has no gradient; what is trained goes through `linear`")]
pub(crate) fn linear_by_panels(x: &Tensor, panels: &Arc<Panels>, bias: Option<&Tensor>) -> Result<Tensor> {
    let op = fused::ByPanels { panels: panels.clone() };
    match bias {
        None => x.apply_op1_no_bwd(&op),
        Some(bias) => x.apply_op2_no_bwd(bias, &op),
    }
}

/// Rows `ids` of `table` (V, D): (N, D).
pub(crate) fn embed(table: &Tensor, ids: &Arc<Vec<u32>>, into: Option<&Sink>) -> Result<Tensor> {
    if is_fused(table) { table.apply_op1(fused::Rows { ids: ids.clone(), into: into.cloned() }) } else { reference::rows(table, ids) }
}

/// Rows `ids` of `x` (N, D), in that order: (M, D).
pub(crate) fn select_rows(x: &Tensor, ids: &Arc<Vec<u32>>) -> Result<Tensor> {
    embed(x, ids, None)
}

/// RMSNorm of the last dimension of `x` (N, D) with `weight` (D,).
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    if is_fused(x) { x.apply_op2(weight, fused::RmsNorm { eps: eps as f32 }) } else { reference::rms_norm(x, weight, eps) }
}

/// Qwen3's RMSNorm of each query head with `q_weight` and each key head with `k_weight`, both (head_dim,), in rows of `qkv`.
pub(crate) fn head_norm(qkv: &Tensor, q_weight: &Tensor, k_weight: &Tensor, shape: AttentionShape, eps: f64) -> Result<Tensor> {
    if is_fused(qkv) {
        qkv.apply_op3(q_weight, k_weight, fused::HeadNorm { shape, eps: eps as f32 })
    } else {
        reference::head_norm(qkv, q_weight, k_weight, shape, eps)
    }
}

/// Rotates the query and key heads in rows of `qkv` by the angles of their positions.
pub(crate) fn rope(qkv: &Tensor, positions: &Arc<Vec<u32>>, table: &Arc<RopeTable>, shape: AttentionShape) -> Result<Tensor> {
    if let Some(far) = positions.iter().find(|p| **p as usize >= table.positions) {
        candle_core::bail!("position {far} is beyond the model's {} positions", table.positions);
    }
    if is_fused(qkv) {
        qkv.apply_op1(fused::Rope { positions: positions.clone(), table: table.clone(), shape })
    } else {
        reference::rope(qkv, positions, table, shape)
    }
}

/// Causal attention inside each sequence; `qkv` (N, (H + 2K) head_dim) to (N, H head_dim).
pub(crate) fn attention(qkv: &Tensor, layout: &Layout, shape: AttentionShape) -> Result<Tensor> {
    if is_fused(qkv) {
        qkv.apply_op1(fused::Attention { bounds: layout.bounds.clone(), shape })
    } else {
        reference::attention(qkv, layout, shape)
    }
}

/// silu(gate) * up over rows that hold gate, then up: (N, 2F) to (N, F).
pub(crate) fn swiglu(x: &Tensor) -> Result<Tensor> {
    if is_fused(x) { x.apply_op1(fused::SwiGlu) } else { reference::swiglu(x) }
}

/// Another model's distributions, at the same temperature, that one's own are measured against.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    /// Hidden states (N, D'), a constant.
    pub hidden: Tensor,
    /// Head (V', D'), a constant.
    pub head: Tensor,
    pub divergence: Divergence,
}

/// Per row of `hidden` (N, D): log-probability of its target, entropy, and divergence from `reference`, under the head `weight` (V, D): (N, 3).
///
/// Where the reference has a head of another height, all three are those of distributions over the ids that both have. Without one the third column is 0. All three
/// have gradients.
pub(crate) fn token_stats(
    hidden: &Tensor,
    weight: &Tensor,
    targets: &[u32],
    temperature: f32,
    reference: Option<Reference>,
    into: Option<&Sink>,
) -> Result<Tensor> {
    let vocabulary = weight.dim(0)?;
    let shared =
        reference.as_ref().map_or(Ok(vocabulary), |reference| Ok::<_, candle_core::Error>(reference.head.dim(0)?.min(vocabulary)))?;
    if hidden.dim(0)? != targets.len() {
        candle_core::bail!("{} targets for {} rows", targets.len(), hidden.dim(0)?);
    }
    if let Some(id) = targets.iter().find(|id| **id as usize >= shared) {
        candle_core::bail!("target id {id} is outside the vocabulary of {shared}");
    }
    if !is_fused(hidden) {
        return reference::token_stats(hidden, weight, targets, temperature, reference);
    }
    let kept = (hidden.track_op() || weight.track_op()).then(Default::default);
    let reference = reference.map(|r| Reference { hidden: r.hidden.detach(), head: r.head.detach(), ..r });
    let op = fused::TokenStats { vocabulary, targets: targets.to_vec(), temperature, reference, into: into.cloned(), kept };
    hidden.apply_op2(weight, op)
}

/// Goes back from `y` with `dy`, of the same shape, as its gradient.
///
/// candle starts from ones only. The sum of `y * dy` has this gradient, and the fused form has it without the product.
pub(crate) fn backward_from(y: &Tensor, dy: &Tensor) -> Result<GradStore> {
    if y.shape() != dy.shape() {
        candle_core::bail!("a gradient {:?} for {:?}", dy.shape(), y.shape());
    }
    if is_fused(y) { y.apply_op1(fused::From { dy: dy.detach() })?.backward() } else { (y * dy.detach())?.sum_all()?.backward() }
}

/// `backward_from` for the result of `linear` without a bias, which is not computed where that can be helped.
pub(crate) fn linear_backward_from(x: &Tensor, weight: &Tensor, dy: &Tensor, into: Option<&Sink>) -> Result<GradStore> {
    if !is_fused(x) {
        return backward_from(&linear(x, weight, None, into)?, dy);
    }
    let op = fused::Linear { into: into.cloned() };
    x.apply_op2(weight, fused::Backwards { op, dy: dy.detach() })?.backward()
}

/// `backward_from` for the result of `linear_with` without a bias, which is not computed where that can be helped.
pub(crate) fn linear_with_backward_from(
    x: &Tensor,
    weight: &Tensor,
    (a, b): (&Tensor, &Tensor),
    shape: &Arc<AdditionShape>,
    dropout: Option<Dropout>,
    dy: &Tensor,
) -> Result<GradStore> {
    if !is_fused(x) {
        return backward_from(&linear_with(x, (weight, None), (a, b), shape, dropout)?, dy);
    }
    let op = fused::Added { weight: weight.detach(), bias: None, shape: shape.clone(), dropout };
    x.apply_op3(a, b, fused::Backwards { op, dy: dy.detach() })?.backward()
}

pub(crate) use kernels::{PAGE, Pages, Span};

/// Appends rows `qkv` (N, (H + 2K) head_dim) to their sequences' pages and attends to all that is there; no gradient. (N, H head_dim)
///
/// # Safety
/// A page that rows are written to belongs to their span alone, and nobody writes to any other page of the spans meanwhile.
#[expect(clippy::disallowed_methods, reason = "decoding has no gradient; what is trained goes through `attention`")]
pub(crate) unsafe fn attention_over_pages(qkv: &Tensor, pages: &Pages, spans: &[Span], shape: AttentionShape) -> Result<Tensor> {
    qkv.apply_op1_no_bwd(&fused::OverPages { pages, spans, shape })
}
