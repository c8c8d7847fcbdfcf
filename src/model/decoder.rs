//! The decoder: token and position in, hidden state out, for packed rows (training) and for pieces of sequences over a cache (sampling, `paged.rs`).
//!
//! One function walks the layers; what differs between the uses is only how a row attends. q, k, v are one matrix in memory, and so are
//! gate and up; `weights.rs` cuts them to the checkpoint's names. Nothing here knows text, problems or losses.

mod mixed;
mod paged;
mod prepared;
mod views;

pub use paged::{PagedCache, Piece};
pub use prepared::NewToken;

use super::config::Config;
use super::lora::{Addition, Joined, LoraSettings};
use super::ops::{self, AttentionShape, Divergence, Layout, RopeTable};
use crate::key::Key;
use anyhow::{Context, Result, ensure};
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use std::sync::Arc;

/// Sequences laid end to end: N tokens in all, without padding.
#[derive(Clone, Debug)]
pub struct Packed {
    ids: Arc<Vec<u32>>,
    layout: Layout,
}

impl Packed {
    /// Lays sequences end to end, each with positions from 0. An empty sequence is an error.
    pub fn new<'a>(sequences: impl IntoIterator<Item = &'a [u32]>) -> Result<Self> {
        let (mut ids, mut positions, mut bounds) = (Vec::new(), Vec::new(), vec![0]);
        for sequence in sequences {
            ensure!(!sequence.is_empty(), "sequence {} of a packed batch is empty", bounds.len() - 1);
            ids.extend_from_slice(sequence);
            positions.extend(0..sequence.len() as u32);
            bounds.push(ids.len());
        }
        ensure!(!ids.is_empty(), "a packed batch needs at least one sequence");
        Ok(Self { ids: Arc::new(ids), layout: Layout { positions: Arc::new(positions), bounds: Arc::new(bounds) } })
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Starts of the sequences, then N.
    pub fn bounds(&self) -> &[usize] {
        &self.layout.bounds
    }
}

/// A named parameter as the decoder holds it.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Name in the checkpoint's schema; `qkv_proj` and `gate_up_proj` stand for the parts they hold.
    pub name: String,
    pub var: Var,
}

/// What the backward pass needs of a batch whose graph was not kept: the input of each layer, (N, D).
pub(crate) struct Checkpoints {
    batch: Packed,
    inputs: Vec<Tensor>,
}

/// Rows that go through a feed-forward part at once where there is no graph to hold them all: bounds what is F wide.
pub(crate) const MLP_ROWS: usize = 1024;

/// Ranges of `MLP_ROWS` rows, as start and length.
fn pieces(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).step_by(MLP_ROWS).map(move |from| (from, MLP_ROWS.min(rows - from)))
}

/// Per token: log-probability of the target, entropy, divergence from a reference (0 without one); each (N,), with gradients.
pub struct TokenStats {
    pub logprobs: Tensor,
    pub entropy: Tensor,
    pub divergence: Tensor,
}

/// Another model that one's own is measured against: a reference, or a teacher.
///
/// Both give ids the same meaning. Where one has more rows than the other, as Qwen2.5's sizes have, distributions are over the ids that both have.
#[derive(Clone, Copy, Debug)]
pub struct Against<'a> {
    pub model: &'a Decoder,
    pub divergence: Divergence,
}

/// Weights (O, D) of a product; for sampling in panels, for training with where their gradient goes.
#[derive(Clone, Debug)]
struct Matrix {
    /// `None` where the panels stand in its place.
    weight: Option<Tensor>,
    panels: Option<Arc<ops::Panels>>,
    sink: Option<ops::Sink>,
    /// An adapter's; the panels have it worked in.
    addition: Option<Addition>,
}

impl Matrix {
    fn new(weight: Tensor) -> Self {
        Self { weight: Some(weight), panels: None, sink: None, addition: None }
    }

    fn weight(&self) -> &Tensor {
        self.weight.as_ref().expect("a decoder for sampling is not trained, copied or saved")
    }

    /// Puts panels in the place of the weights, whose memory is free then if nobody else has it.
    fn lay_out(&mut self, in_bf16: bool) -> Result<()> {
        let whole = if in_bf16 { ops::rounded(&self.merged()?)? } else { self.merged()? };
        if let Some(panels) = ops::panels(&whole)? {
            (self.panels, self.weight, self.addition) = (Some(Arc::new(panels)), None, None);
        }
        Ok(())
    }

    /// The weights with an adapter's addition.
    fn merged(&self) -> Result<Tensor> {
        match &self.addition {
            Some(addition) => Ok(ops::merged(self.weight(), &addition.a, &addition.b, &addition.shape)?),
            None => Ok(self.weight().clone()),
        }
    }

    /// `x` (N, D) times the transposed weights, plus `bias` (O,): (N, O).
    fn apply(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        Ok(match (&self.panels, &self.addition) {
            (Some(panels), _) => ops::linear_by_panels(x, panels, bias)?,
            (None, None) => ops::linear(x, self.weight(), bias, self.sink.as_ref())?,
            (None, Some(add)) => ops::linear_with(x, (self.weight(), bias), (&add.a, &add.b), &add.shape, add.dropout)?,
        })
    }

    /// Goes back from the gradient `dy` of `apply` without a bias.
    fn backward_from(&self, x: &Tensor, dy: &Tensor) -> Result<GradStore> {
        Ok(match &self.addition {
            None => ops::linear_backward_from(x, self.weight(), dy, self.sink.as_ref())?,
            Some(add) => ops::linear_with_backward_from(x, self.weight(), (&add.a, &add.b), &add.shape, add.dropout, dy)?,
        })
    }
}

#[derive(Clone, Debug)]
struct Layer {
    input_norm: Tensor,
    qkv: Matrix,
    qkv_bias: Option<Tensor>,
    head_norms: Option<(Tensor, Tensor)>,
    o_proj: Matrix,
    post_norm: Tensor,
    gate_up: Matrix,
    down: Matrix,
}

impl Layer {
    /// In the order of `Joined::ALL`.
    fn matrices(&self) -> [&Matrix; 4] {
        [&self.qkv, &self.o_proj, &self.gate_up, &self.down]
    }

    fn matrices_mut(&mut self) -> [&mut Matrix; 4] {
        [&mut self.qkv, &mut self.o_proj, &mut self.gate_up, &mut self.down]
    }
}

/// A causal language model of the Qwen2, Qwen3 or Llama family.
#[derive(Clone, Debug)]
pub struct Decoder {
    config: Arc<Config>,
    embed: Matrix,
    layers: Vec<Layer>,
    norm: Tensor,
    /// Equal to `embed` where the embeddings are tied.
    head: Matrix,
    rope: Arc<RopeTable>,
    device: Device,
    /// Of the adapter, if it has one: its matrices' additions.
    lora: Option<Arc<LoraSettings>>,
    noise: Option<Noise>,
    /// Whether the layers' products are computed on numbers rounded to bf16.
    in_bf16: bool,
}

/// Noise on embeddings in training (NEFTune; Jain et al., 2023): uniform in +-alpha / sqrt(L D) for a sequence of L tokens.
#[derive(Clone, Copy, Debug)]
struct Noise {
    alpha: f32,
    key: Key,
}

impl Decoder {
    /// Builds a decoder by asking `get(name, shape)` for each parameter, in the order of the checkpoint.
    pub(super) fn build(config: Config, device: &Device, get: impl FnMut(&str, &[usize]) -> Result<Tensor>) -> Result<Self> {
        let rope = Arc::new(rope_table(&config));
        Self::with_rope(Arc::new(config), rope, device, get)
    }

    fn with_rope(
        config: Arc<Config>,
        rope: Arc<RopeTable>,
        device: &Device,
        mut get: impl FnMut(&str, &[usize]) -> Result<Tensor>,
    ) -> Result<Self> {
        let (d, hd) = (config.hidden_size, config.head_dim);
        let qkv = (config.heads + 2 * config.kv_heads) * hd;
        let embed = Matrix::new(get("model.embed_tokens.weight", &[config.vocab_size, d])?);
        let layers = (0..config.layers)
            .map(|i| {
                let mut get = |name: &str, shape: &[usize]| get(&format!("model.layers.{i}.{name}"), shape);
                Ok(Layer {
                    input_norm: get("input_layernorm.weight", &[d])?,
                    qkv: Matrix::new(get("self_attn.qkv_proj.weight", &[qkv, d])?),
                    qkv_bias: config.qkv_bias.then(|| get("self_attn.qkv_proj.bias", &[qkv])).transpose()?,
                    head_norms: config
                        .qk_norm
                        .then(|| Ok::<_, anyhow::Error>((get("self_attn.q_norm.weight", &[hd])?, get("self_attn.k_norm.weight", &[hd])?)))
                        .transpose()?,
                    o_proj: Matrix::new(get("self_attn.o_proj.weight", &[d, config.heads * hd])?),
                    post_norm: get("post_attention_layernorm.weight", &[d])?,
                    gate_up: Matrix::new(get("mlp.gate_up_proj.weight", &[2 * config.intermediate_size, d])?),
                    down: Matrix::new(get("mlp.down_proj.weight", &[d, config.intermediate_size])?),
                })
            })
            .collect::<Result<_>>()?;
        let norm = get("model.norm.weight", &[d])?;
        let head = if config.tie_embeddings { embed.clone() } else { Matrix::new(get("lm_head.weight", &[config.vocab_size, d])?) };
        Ok(Self { config, embed, layers, norm, head, rope, device: device.clone(), lora: None, noise: None, in_bf16: false })
    }

    /// Calls `f(name, tensor)` for each parameter, tied embeddings once, those of an adapter last, and builds the decoder of what it returns.
    fn map(&self, mut f: impl FnMut(&str, &Tensor) -> Result<Tensor>) -> Result<Self> {
        let mut parameters = self.tensors().into_iter();
        let mut decoder = Self::with_rope(self.config.clone(), self.rope.clone(), &self.device, |name, _| {
            let (_, tensor) = parameters.next().context("a decoder has as many parameters as its configuration asks for")?;
            f(name, &tensor)
        })?;
        (decoder.lora, decoder.noise, decoder.in_bf16) = (self.lora.clone(), self.noise, self.in_bf16);
        for (i, (from, to)) in self.layers.iter().zip(&mut decoder.layers).enumerate() {
            for ((from, to), joined) in from.matrices().into_iter().zip(to.matrices_mut()).zip(Joined::ALL) {
                let Some(addition) = &from.addition else { continue };
                let mut factor = |which: &str, t: &Tensor| f(&views::factor_name(i, joined, which), t);
                let (a, b) = (factor("lora_A", &addition.a)?, factor("lora_B", &addition.b)?);
                to.addition = Some(Addition { a, b, ..addition.clone() });
            }
        }
        Ok(decoder)
    }

    /// Parameters as the decoder holds them, with their names, tied embeddings once; an adapter's are not among them.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        let mut all = vec![("model.embed_tokens.weight".to_owned(), self.embed.weight().clone())];
        for (i, layer) in self.layers.iter().enumerate() {
            let mut push = |name: &str, tensor: &Tensor| all.push((format!("model.layers.{i}.{name}"), tensor.clone()));
            push("input_layernorm.weight", &layer.input_norm);
            push("self_attn.qkv_proj.weight", layer.qkv.weight());
            if let Some(bias) = &layer.qkv_bias {
                push("self_attn.qkv_proj.bias", bias);
            }
            if let Some((q, k)) = &layer.head_norms {
                push("self_attn.q_norm.weight", q);
                push("self_attn.k_norm.weight", k);
            }
            push("self_attn.o_proj.weight", layer.o_proj.weight());
            push("post_attention_layernorm.weight", &layer.post_norm);
            push("mlp.gate_up_proj.weight", layer.gate_up.weight());
            push("mlp.down_proj.weight", layer.down.weight());
        }
        all.push(("model.norm.weight".to_owned(), self.norm.clone()));
        if !self.config.tie_embeddings {
            all.push(("lm_head.weight".to_owned(), self.head.weight().clone()));
        }
        all
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    fn shape(&self) -> AttentionShape {
        attention_shape(&self.config)
    }

    /// Hidden states after the last norm, (N, D), tracked where the parameters are variables.
    pub fn hidden(&self, batch: &Packed) -> Result<Tensor> {
        let layout = &batch.layout;
        self.walk(self.noisy(self.embedded(&batch.ids)?, layout)?, &layout.positions, |_, qkv| {
            Ok(ops::attention(qkv, layout, self.shape())?)
        })
    }

    fn embedded(&self, ids: &Arc<Vec<u32>>) -> Result<Tensor> {
        Ok(ops::embed(self.embed.weight(), ids, self.embed.sink.as_ref())?) // (N, D)
    }

    fn noisy(&self, embedded: Tensor, layout: &Layout) -> Result<Tensor> {
        let Some(Noise { alpha, key }) = self.noise else { return Ok(embedded) };
        let d = self.config.hidden_size;
        let mut noise = Vec::with_capacity(embedded.elem_count());
        for bounds in layout.bounds.windows(2) {
            let size = alpha / ((bounds[1] - bounds[0]) as f32 * d as f32).sqrt();
            for row in bounds[0]..bounds[1] {
                let words = (0..d.div_ceil(64)).flat_map(|i| key.blocks(row as u32, 16 * i as u32));
                noise.extend(words.take(d).map(|word| size * (word as f32 * (2.0 / 4_294_967_296.0) - 1.0)));
            }
        }
        let noise = Tensor::from_vec(noise, embedded.shape(), &self.device)?.to_dtype(embedded.dtype())?;
        Ok((embedded + noise)?)
    }

    /// Hidden states before the last norm, (N, D), and what `backward` needs to go back from there; nothing is tracked.
    ///
    /// Of each layer only its input is kept, N x D numbers, whatever the length of the sequences.
    pub(crate) fn forward(&self, batch: &Packed) -> Result<(Tensor, Checkpoints)> {
        let frozen = self.frozen()?;
        let layout = &batch.layout;
        let mut inputs = Vec::with_capacity(self.layers.len());
        let mut x = frozen.noisy(frozen.embedded(&batch.ids)?, layout)?;
        for layer in &frozen.layers {
            inputs.push(x.clone());
            x = frozen.attention_block(layer, &x, &layout.positions, |qkv| Ok(ops::attention(qkv, layout, self.shape())?))?;
            x = frozen.mlp_block(layer, &x)?;
        }
        Ok((x, Checkpoints { batch: batch.clone(), inputs }))
    }

    /// The last norm of what `forward` gave.
    pub(crate) fn last_norm(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::rms_norm(x, &self.norm, self.config.rms_norm_eps)?)
    }

    /// Goes back from the gradient `dy` (N, D) of what `forward` gave, one layer at a time, each computed again from its input: gradients of matrices go into
    /// sinks where there are some, all others are added to `store`.
    ///
    /// The feed-forward part goes by `MLP_ROWS` rows, so what is held at once is one layer's attention and the wide states of so many rows.
    pub(crate) fn backward(&self, checkpoints: Checkpoints, mut dy: Tensor, store: &mut GradStore) -> Result<()> {
        let Checkpoints { batch, mut inputs } = checkpoints;
        let layout = &batch.layout;
        for layer in self.layers.iter().rev() {
            let x = Var::from_tensor(&inputs.pop().context("each layer has an input")?)?;
            let middle = self.attention_block(layer, &x, &layout.positions, |qkv| Ok(ops::attention(qkv, layout, self.shape())?))?;
            let mut back = Vec::new();
            for (from, rows) in pieces(batch.tokens()) {
                let (piece, dy) = (Var::from_tensor(&middle.detach().narrow(0, from, rows)?)?, dy.narrow(0, from, rows)?);
                let wide = self.mlp_wide(layer, &piece)?;
                // The layer's result is not computed again: what is after it needs only its gradient.
                let mut found = self.product_back(&layer.down, &wide, &dy)?;
                let through = found.remove(&piece).context("the graph is cut inside a feed-forward part")?;
                back.push((through + dy)?);
                store.extend(found)?;
            }
            let mut found = ops::backward_from(&middle, &Tensor::cat(&back, 0)?)?;
            dy = found.remove(&x).context("the graph is cut inside an attention part")?;
            store.extend(found)?;
        }
        let embedded = self.embedded(&batch.ids)?;
        if embedded.track_op() {
            store.extend(ops::backward_from(&embedded, &dy)?)?;
        }
        Ok(())
    }

    /// Log-probability of `targets` (N), entropy and, with a reference's hidden states and model, the divergence from it, for rows of `hidden` (N, D).
    ///
    /// A reference with another number of ids counts as in [`Against`]. Logits exist only for a chunk of rows at a time, here and in the backward pass.
    pub fn token_stats(
        &self,
        hidden: &Tensor,
        targets: &[u32],
        temperature: f32,
        reference: Option<(&Tensor, Against)>,
    ) -> Result<TokenStats> {
        let reference = reference.map(|(hidden, Against { model, divergence })| ops::Reference {
            hidden: hidden.clone(),
            head: model.head.weight().clone(),
            divergence,
        });
        let stats = ops::token_stats(hidden, self.head.weight(), targets, temperature, reference, self.head.sink.as_ref())?; // (N, 3)
        let column = |i: usize| stats.narrow(1, i, 1)?.squeeze(1);
        Ok(TokenStats { logprobs: column(0)?, entropy: column(1)?, divergence: column(2)? })
    }

    /// Log-probabilities of `targets`, (N,).
    pub fn logprobs(&self, hidden: &Tensor, targets: &[u32], temperature: f32) -> Result<Tensor> {
        Ok(self.token_stats(hidden, targets, temperature, None)?.logprobs)
    }

    /// Logits of rows of `hidden` (N, D): (N, V).
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.head.apply(hidden, None)
    }

    /// Runs `f` on the numbers of `logits`, row after row, without a copy where they lie on the CPU.
    pub fn with_logits<R>(logits: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
        Ok(ops::with_numbers(logits, f)?)
    }

    /// Rows `ids` of `hidden`, in that order.
    pub fn select(&self, hidden: &Tensor, ids: Vec<u32>) -> Result<Tensor> {
        Ok(ops::select_rows(hidden, &Arc::new(ids))?)
    }

    /// The layers over embedded tokens (N, D): `attend(layer, qkv)` gets the rotated rows (N, (H + 2K) head_dim) and gives (N, H head_dim).
    fn walk(&self, mut x: Tensor, positions: &Arc<Vec<u32>>, mut attend: impl FnMut(usize, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
        for (i, layer) in self.layers.iter().enumerate() {
            x = self.attention_block(layer, &x, positions, |qkv| attend(i, qkv))?;
            x = self.mlp_block(layer, &x)?;
        }
        self.last_norm(&x)
    }

    /// A layer's first half, (N, D) to (N, D): `attend` as in `walk`.
    fn attention_block(
        &self,
        layer: &Layer,
        x: &Tensor,
        positions: &Arc<Vec<u32>>,
        attend: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let eps = self.config.rms_norm_eps;
        let h = ops::rms_norm(x, &layer.input_norm, eps)?;
        let mut qkv = self.product(&layer.qkv, &h, layer.qkv_bias.as_ref())?; // (N, (H + 2K) head_dim)
        if let Some((q_norm, k_norm)) = &layer.head_norms {
            qkv = ops::head_norm(&qkv, q_norm, k_norm, self.shape(), eps)?;
        }
        let qkv = ops::rope(&qkv, positions, &self.rope, self.shape())?;
        let attended = attend(&qkv)?; // (N, H head_dim)
        Ok((x + self.product(&layer.o_proj, &attended, None)?)?)
    }

    /// A layer's second half, (N, D) to (N, D); by pieces where no graph holds what is F wide anyhow.
    fn mlp_block(&self, layer: &Layer, x: &Tensor) -> Result<Tensor> {
        let rows = x.dim(0)?;
        if x.track_op() || rows <= MLP_ROWS {
            return self.mlp_rows(layer, x);
        }
        let pieces = pieces(rows).map(|(from, n)| self.mlp_rows(layer, &x.narrow(0, from, n)?)).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&pieces, 0)?)
    }

    fn mlp_rows(&self, layer: &Layer, x: &Tensor) -> Result<Tensor> {
        Ok((x + self.product(&layer.down, &self.mlp_wide(layer, x)?, None)?)?)
    }

    /// What the last matrix of a layer is applied to, (N, F).
    fn mlp_wide(&self, layer: &Layer, x: &Tensor) -> Result<Tensor> {
        let h = ops::rms_norm(x, &layer.post_norm, self.config.rms_norm_eps)?;
        Ok(ops::swiglu(&self.product(&layer.gate_up, &h, None)?)?)
    }
}

fn attention_shape(config: &Config) -> AttentionShape {
    AttentionShape { heads: config.heads, kv_heads: config.kv_heads, head_dim: config.head_dim }
}

fn rope_table(config: &Config) -> RopeTable {
    let (cos, sin) = config.rotary_table();
    RopeTable { cos, sin, positions: config.max_positions }
}
