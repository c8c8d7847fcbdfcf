//! The same operations composed of candle's differentiable ones: the oracle of the fused forms, and the form for other devices and types.

use super::{AdditionShape, AttentionShape, Divergence, Dropout, Layout, Reference, RopeTable, kernels};
use candle_core::{D, DType, Result, Tensor};
use std::sync::Arc;

/// Gradients go back through both casts, so that they are rounded too.
pub(crate) fn rounded(x: &Tensor) -> Result<Tensor> {
    x.to_dtype(DType::BF16)?.to_dtype(x.dtype())
}

pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let y = x.matmul(&weight.t()?)?; // (N, O)
    bias.map_or(Ok(y.clone()), |b| y.broadcast_add(b))
}

pub(crate) fn linear_with(
    x: &Tensor,
    (weight, bias): (&Tensor, Option<&Tensor>),
    (a, b): (&Tensor, &Tensor),
    shape: &AdditionShape,
    dropout: Option<Dropout>,
) -> Result<Tensor> {
    let y = linear(x, &weight.detach(), bias)?;
    let (n, d) = x.dims2()?;
    let x = match dropout {
        Some(dropout) => {
            let mask = kernels::dropout(&vec![1.0; n * d], d, dropout.rate, dropout.key);
            (x * Tensor::from_vec(mask, (n, d), x.device())?.to_dtype(x.dtype())?)?
        }
        None => x.clone(),
    };
    let zeros = |columns: usize| Tensor::zeros((n, columns), y.dtype(), y.device());
    let (mut row, mut end, mut pieces) = (0, 0, Vec::new());
    for (i, part) in shape.parts.iter().enumerate() {
        if part.start > end {
            pieces.push(zeros(part.start - end)?);
        }
        let h = x.matmul(&a.narrow(0, i * shape.rank, shape.rank)?.t()?)?;
        pieces.push((h.matmul(&b.narrow(0, row, part.len())?.t()?)? * f64::from(shape.scale))?);
        (row, end) = (row + part.len(), part.end);
    }
    let o = y.dim(1)?;
    if end < o {
        pieces.push(zeros(o - end)?);
    }
    y + Tensor::cat(&pieces, 1)?
}

pub(crate) fn rows(table: &Tensor, ids: &Arc<Vec<u32>>) -> Result<Tensor> {
    table.index_select(&Tensor::from_slice(ids, ids.len(), table.device())?, 0)
}

pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let x32 = x.to_dtype(DType::F32)?;
    let r = (x32.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    x32.broadcast_div(&r)?.to_dtype(x.dtype())?.broadcast_mul(weight)
}

/// `qkv` cut into queries (N, H, D), keys (N, K, D) and values (N, K, D).
fn heads(qkv: &Tensor, shape: AttentionShape) -> Result<(Tensor, Tensor, Tensor)> {
    let (n, d) = (qkv.dim(0)?, shape.head_dim);
    let part = |from: usize, heads: usize| qkv.narrow(1, from * d, heads * d)?.reshape((n, heads, d));
    Ok((part(0, shape.heads)?, part(shape.heads, shape.kv_heads)?, part(shape.heads + shape.kv_heads, shape.kv_heads)?))
}

fn join(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    Tensor::cat(&[q.flatten_from(1)?, k.flatten_from(1)?, v.flatten_from(1)?], 1)
}

pub(crate) fn head_norm(qkv: &Tensor, q_weight: &Tensor, k_weight: &Tensor, shape: AttentionShape, eps: f64) -> Result<Tensor> {
    let (q, k, v) = heads(qkv, shape)?;
    join(&rms_norm(&q, q_weight, eps)?, &rms_norm(&k, k_weight, eps)?, &v)
}

pub(crate) fn rope(qkv: &Tensor, positions: &Arc<Vec<u32>>, table: &Arc<RopeTable>, shape: AttentionShape) -> Result<Tensor> {
    let (n, half) = (positions.len(), shape.head_dim / 2);
    let pick = |t: &[f32]| {
        let rows: Vec<f32> = positions.iter().flat_map(|p| t[*p as usize * half..][..half].iter().copied()).collect();
        Tensor::from_vec(rows, (n, 1, half), qkv.device())?.to_dtype(qkv.dtype())
    };
    let (cos, sin) = (pick(&table.cos)?, pick(&table.sin)?); // (N, 1, D/2)
    let rotate = |x: &Tensor| {
        let (a, b) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
        let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
        Tensor::cat(&[first, second], 2)
    };
    let (q, k, v) = heads(qkv, shape)?;
    join(&rotate(&q)?, &rotate(&k)?, &v)
}

/// Softmax of the last dimension from differentiable operations, in f32.
fn softmax(x: &Tensor) -> Result<Tensor> {
    let x = x.to_dtype(DType::F32)?;
    let e = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    e.broadcast_div(&e.sum_keepdim(D::Minus1)?)
}

pub(crate) fn attention(qkv: &Tensor, layout: &Layout, shape: AttentionShape) -> Result<Tensor> {
    let group = shape.heads / shape.kv_heads;
    let scale = 1.0 / (shape.head_dim as f64).sqrt();
    let (q, k, v) = heads(qkv, shape)?;
    let mut rows = Vec::new();
    for bounds in layout.bounds.windows(2) {
        let (start, t) = (bounds[0], bounds[1] - bounds[0]);
        let part = |x: &Tensor| x.narrow(0, start, t)?.transpose(0, 1)?.contiguous(); // (heads, T, D)
        let repeat = |x: &Tensor| {
            let (kv, t, d) = x.dims3()?;
            x.unsqueeze(1)?.broadcast_as((kv, group, t, d))?.contiguous()?.reshape((kv * group, t, d))
        };
        let (q, k, v) = (part(&q)?, repeat(&part(&k)?)?, repeat(&part(&v)?)?);
        let scores = (q.matmul(&k.transpose(1, 2)?.contiguous()?)? * scale)?; // (H, T, T)
        let mask: Vec<f32> = (0..t * t).map(|i| if i % t > i / t { f32::NEG_INFINITY } else { 0.0 }).collect();
        let mask = Tensor::from_vec(mask, (1, t, t), qkv.device())?.to_dtype(scores.dtype())?;
        let p = softmax(&scores.broadcast_add(&mask)?)?.to_dtype(v.dtype())?;
        rows.push(p.matmul(&v)?.transpose(0, 1)?.flatten_from(1)?); // (T, H D)
    }
    Tensor::cat(&rows, 0)
}

pub(crate) fn swiglu(x: &Tensor) -> Result<Tensor> {
    let f = x.dim(1)? / 2;
    x.narrow(1, 0, f)?.silu()? * x.narrow(1, f, f)?
}

pub(crate) fn token_stats(
    hidden: &Tensor,
    weight: &Tensor,
    targets: &[u32],
    temperature: f32,
    reference: Option<Reference>,
) -> Result<Tensor> {
    let vocabulary = weight.dim(0)?;
    let shared =
        reference.as_ref().map_or(Ok(vocabulary), |reference| Ok::<_, candle_core::Error>(reference.head.dim(0)?.min(vocabulary)))?;
    let log_softmax = |h: &Tensor, w: &Tensor| {
        let z = (h.matmul(&w.narrow(0, 0, shared)?.t()?)?.to_dtype(DType::F32)? / f64::from(temperature))?; // (N, V)
        let z = z.broadcast_sub(&z.max_keepdim(1)?.detach())?;
        let log_sum = z.exp()?.sum_keepdim(1)?.log()?;
        z.broadcast_sub(&log_sum)
    };
    let lp = log_softmax(hidden, weight)?;
    let p = lp.exp()?;
    let ids = Tensor::from_slice(targets, (targets.len(), 1), hidden.device())?;
    let chosen = lp.gather(&ids, 1)?;
    let entropy = (&p * &lp)?.sum_keepdim(1)?.neg()?;
    let divergence = match reference {
        Some(Reference { hidden, head, divergence }) => {
            let lq = log_softmax(&hidden.detach(), &head.detach())?;
            let kl = |p: &Tensor, q: &Tensor| (p.exp()? * (p - q)?)?.sum_keepdim(1);
            match divergence {
                Divergence::Forward => kl(&lq, &lp)?,
                Divergence::Reverse => kl(&lp, &lq)?,
                Divergence::JensenShannon(b) => {
                    let b = f64::from(b);
                    let mixture = ((lq.exp()? * b)? + (lp.exp()? * (1.0 - b))?)?.log()?;
                    ((kl(&lq, &mixture)? * b)? + (kl(&lp, &mixture)? * (1.0 - b))?)?
                }
            }
        }
        None => chosen.zeros_like()?,
    };
    Tensor::cat(&[chosen, entropy, divergence], 1) // (N, 3)
}
