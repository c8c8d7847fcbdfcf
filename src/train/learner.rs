//! `Learner`: a decoder with its optimiser; log-probabilities of completions, and gradients accumulated over micro-batches.
//!
//! A loss is given as its derivatives by each token's log-probability, entropy and divergence from a reference: the loops compute formulas on plain numbers, and
//! only this file turns them into gradients. Sequences are packed without padding; a micro-batch is bounded by its tokens, and made smaller where memory runs out.
//!
//! A small model keeps the graph of a micro-batch from the forward to the backward pass. A large one keeps the input of each layer and computes the layer again
//! on its way back, so that memory grows by one hidden state per token and layer; its gradients are added up in one place over all micro-batches.
//!
//! A small model's operations are too short to be worth splitting over threads one by one: a thread that waits for the next has to be woken each
//! time. So a micro-batch of a small model is cut into shares, each thread takes whole shares, and their gradients are added in order.

use super::finite;
use super::optimizer::{AdamW, AdamWSettings};
use super::packing::{filled, pack};
use crate::key::Key;
use crate::lanes;
use crate::model::{Against, Checkpoints, Decoder, Packed, Parameter, TokenStats};
use anyhow::{Context, Result, bail, ensure};
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

/// A sequence of which the tokens from `completion` on are targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Prompt and completion.
    pub tokens: Vec<u32>,
    /// Where the completion starts; at least 1.
    pub completion: usize,
}

impl Example {
    /// Number of targets.
    pub fn targets(&self) -> usize {
        self.tokens.len() - self.completion
    }
}

/// What the model says of the targets of some examples, one entry per target, examples end to end.
#[derive(Clone, Debug, Default)]
pub struct Values {
    pub logprobs: Vec<f32>,
    pub entropy: Vec<f32>,
    /// From the reference, over the whole vocabulary; 0 without one.
    pub divergence: Vec<f32>,
}

/// Derivatives of the loss by the entries of `Values`.
#[derive(Clone, Debug)]
pub struct Seeds {
    pub logprobs: Vec<f32>,
    /// `None` where the loss does not depend on it.
    pub entropy: Option<Vec<f32>>,
    pub divergence: Option<Vec<f32>>,
}

/// How a batch is gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Tokens of a micro-batch at most; one longer sequence goes alone.
    pub micro_batch_tokens: usize,
    /// Whether layers are computed again in the backward pass; `None` leaves it to the model's size.
    pub recompute: Option<bool>,
}

/// A model in training.
pub struct Learner {
    decoder: Decoder,
    optimizer: AdamW,
    /// The decoder whose sinks add up a step's gradients of matrices, where micro-batches are not cut into shares.
    collector: Option<Decoder>,
    /// What is not in those sinks, by parameter; empty before the first micro-batch of a step.
    gradients: Vec<Option<Tensor>>,
    micro_batch_tokens: usize,
    recompute: bool,
    perturbed: Option<Perturbed>,
}

/// What is random in a training forward pass.
#[derive(Clone, Copy)]
struct Perturbed {
    /// NEFTune's alpha; 0 is none.
    noise: f32,
    key: Key,
}

impl Learner {
    /// Trains a copy of `decoder`.
    pub fn new(decoder: &Decoder, settings: AdamWSettings, batching: Batching) -> Result<Self> {
        let (decoder, parameters) = decoder.trainable()?;
        let is_small = decoder.config().is_small();
        Ok(Self {
            collector: (!is_small).then(|| decoder.collecting()),
            decoder,
            optimizer: AdamW::new(parameters, settings)?,
            gradients: Vec::new(),
            micro_batch_tokens: batching.micro_batch_tokens,
            recompute: batching.recompute.unwrap_or(!is_small),
            perturbed: None,
        })
    }

    /// From now on gradients are those of a model with noise on its embeddings (NEFTune's alpha; 0 is none), whose adapter, if it has one, drops inputs at its rate:
    /// both drawn under `key` for each optimiser step and micro-batch.
    ///
    /// Not for GRPO: its update must see the policy that sampled.
    pub fn perturb(&mut self, noise: f64, key: Key) {
        self.perturbed = Some(Perturbed { noise: noise as f32, key });
    }

    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    pub fn optimizer(&self) -> &AdamW {
        &self.optimizer
    }

    pub fn optimizer_mut(&mut self) -> &mut AdamW {
        &mut self.optimizer
    }

    /// Indices of `examples` that make a micro-batch each.
    fn micro_batches(&self, examples: &[Example]) -> Vec<Vec<usize>> {
        pack(&examples.iter().map(|example| example.tokens.len()).collect::<Vec<_>>(), self.micro_batch_tokens)
    }

    /// Into how many micro-batches `accumulate` would cut these examples, and which share of their room tokens would take.
    pub fn packing(&self, examples: &[Example]) -> (usize, f64) {
        let bins = self.micro_batches(examples).len();
        (bins, filled(examples.iter().map(|example| example.tokens.len()).sum(), bins, self.micro_batch_tokens))
    }

    /// Tokens of a micro-batch at most, now.
    pub fn micro_batch_tokens(&self) -> usize {
        self.micro_batch_tokens
    }

    /// Values of the examples' targets under `model`, without gradients.
    pub fn values(&self, model: &Decoder, examples: &[Example], temperature: f32) -> Result<Values> {
        let model = model.frozen()?;
        let pass = Pass { temperature, reference: None, recompute: false, perturbed: None };
        let mut of: Vec<Values> = vec![Values::default(); examples.len()];
        for bin in self.micro_batches(examples) {
            let mut values = Values::default();
            for share in self.forward(&model, &chosen(examples, &bin), &pass)? {
                values.extend(share.values()?);
            }
            for i in bin {
                of[i] = values.take(examples[i].targets());
            }
        }
        let mut all = Values::default();
        of.into_iter().for_each(|values| all.extend(values));
        Ok(all)
    }

    /// Computes the gradient of the longest micro-batch that these examples make, and forgets it: what memory does not hold is known now and not after hours.
    ///
    /// Returns the tokens of that micro-batch; it was halved where memory ran out.
    pub fn rehearse(&mut self, examples: &[Example], reference: Option<Against>) -> Result<usize> {
        let mut longest: Vec<&Example> = examples.iter().collect();
        longest.sort_by_key(|example| std::cmp::Reverse(example.tokens.len()));
        let tokens = self.fitting(|learner| {
            let mut tokens = 0;
            let fits = |example: &&&Example| {
                let first = tokens == 0;
                tokens += example.tokens.len();
                first || tokens <= learner.micro_batch_tokens
            };
            let examples: Vec<Example> = longest.iter().take_while(fits).map(|example| (*example).clone()).collect();
            let mut seeds = |_: &[usize], values: Values| {
                let ones = vec![1.0; values.logprobs.len()];
                Ok(Seeds { logprobs: ones.clone(), entropy: None, divergence: reference.map(|_| ones) })
            };
            learner.accumulate(&examples, 1.0, reference, &mut seeds)?;
            Ok(examples.iter().map(|example| example.tokens.len()).sum())
        })?;
        self.forget();
        Ok(tokens)
    }

    /// Drops the gradient that was accumulated.
    fn forget(&mut self) {
        self.gradients.clear();
        self.collector.as_ref().map(Decoder::take_gradients);
    }

    /// Does what accumulates a whole step's gradient; again from its beginning, with micro-batches of half as many tokens, where memory ran out.
    ///
    /// The step stays what it is. On a CPU there is no such error, so there a plan is kept instead (`memory.rs`).
    pub fn fitting<T>(&mut self, mut accumulate: impl FnMut(&mut Self) -> Result<T>) -> Result<T> {
        loop {
            match accumulate(self) {
                Err(error) if is_out_of_memory(&error) && self.micro_batch_tokens > LEAST_TOKENS => {
                    self.forget();
                    self.micro_batch_tokens = (self.micro_batch_tokens / 2).max(LEAST_TOKENS);
                }
                other => return other,
            }
        }
    }

    /// Adds the gradient of a loss to what is accumulated.
    ///
    /// `seeds(indices, values)` is called for each micro-batch, with the indices of its examples, and gives the derivatives of the loss by `values`, which has their
    /// targets in the order of the indices. A reference makes `Values::divergence`. A log-probability or a derivative that is not finite is an error
    /// ([`finite::NotFinite`]).
    pub fn accumulate(
        &mut self,
        examples: &[Example],
        temperature: f32,
        reference: Option<Against>,
        seeds: &mut dyn FnMut(&[usize], Values) -> Result<Seeds>,
    ) -> Result<()> {
        let frozen = reference.map(|reference| reference.model.frozen()).transpose()?;
        let reference = reference.zip(frozen.as_ref()).map(|(reference, model)| Against { model, ..reference });
        for bin in self.micro_batches(examples) {
            let model = self.collector.as_ref().unwrap_or(&self.decoder);
            let here = |key: Key| key.number(self.optimizer.steps() as u64).number(bin[0] as u64);
            let perturbed = self.perturbed.map(|p| Perturbed { key: here(p.key), ..p });
            let pass = Pass { temperature, reference, recompute: self.recompute, perturbed };
            let shares = self.forward(model, &chosen(examples, &bin), &pass)?;
            let (mut values, mut ends) = (Values::default(), Vec::with_capacity(shares.len()));
            for share in &shares {
                values.extend(share.values()?);
                ends.push(values.logprobs.len());
            }
            let targets = values.logprobs.len();
            finite::check("the log-probability of a token", &values.logprobs)?;
            let seeds = seeds(&bin, values)?;
            for seed in [Some(&seeds.logprobs), seeds.entropy.as_ref(), seeds.divergence.as_ref()].into_iter().flatten() {
                ensure!(seed.len() == targets, "{} derivatives for {targets} targets", seed.len());
                finite::check("the derivative of the loss by a token's log-probability, entropy or divergence", seed)?;
            }
            let (parameters, is_shared) = (self.optimizer.parameters(), self.collector.is_some());
            let shares = shares.into_iter().zip(ends).collect();
            let gradients = lanes::map(shares, |(share, end): (Share, usize)| share.backward(&seeds, end, parameters, is_shared));
            for fresh in gradients {
                let fresh = fresh?;
                self.gradients = if self.gradients.is_empty() { fresh } else { add(&self.gradients, &fresh)? };
            }
        }
        Ok(())
    }

    /// The shares of a micro-batch, each with its part of the graph. How it is cut depends on model and examples alone, never on threads.
    fn forward(&self, model: &Decoder, examples: &[&Example], pass: &Pass) -> Result<Vec<Share>> {
        let small = model.config().is_small();
        let wanted = examples.iter().map(|e| e.tokens.len()).sum::<usize>().div_ceil(if small { SHARE_TOKENS } else { usize::MAX });
        let share = |range: std::ops::Range<usize>| {
            let model = if small { model.collecting() } else { model.clone() };
            let model = match pass.perturbed {
                Some(Perturbed { noise, key }) => model.perturbed(noise, key.number(range.start as u64)),
                None => model,
            };
            Share::new(model, &examples[range], pass)
        };
        lanes::map(cut(examples, wanted), share).into_iter().collect()
    }

    /// Takes the accumulated gradient away and gives the norm of each parameter's part, by name.
    pub fn gradient_norms(&mut self) -> Result<Vec<(String, f64)>> {
        let mut collected = self.collector.as_ref().map(Decoder::take_gradients).unwrap_or_default();
        let all = self.optimizer.parameters().iter().zip(std::mem::take(&mut self.gradients));
        all.map(|(p, gradient)| {
            let gradient = whole(p, collected.remove(&p.name), gradient)?;
            Ok((p.name.clone(), crate::model::ops::sum_of_squares(&gradient)?.sqrt()))
        })
        .collect()
    }

    /// One optimiser step with the accumulated gradient; returns its norm before clipping. Without any gradient nothing happens: 0.
    pub fn step(&mut self, rate: f64) -> Result<f64> {
        if self.gradients.is_empty() {
            return Ok(0.0);
        }
        let mut collected = self.collector.as_ref().map(Decoder::take_gradients).unwrap_or_default();
        let all = self.optimizer.parameters().iter().zip(std::mem::take(&mut self.gradients));
        let all = all.map(|(p, gradient)| whole(p, collected.remove(&p.name), gradient)).collect::<Result<Vec<_>>>()?;
        self.optimizer.step(&all, rate)
    }
}

/// Tokens of a micro-batch below which it is not halved: what is left by then is not its share.
pub const LEAST_TOKENS: usize = 256;

/// Whether a device says that it has no more memory, whichever library says it.
fn is_out_of_memory(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}").to_lowercase();
    text.contains("out of memory") || text.contains("out_of_memory")
}

fn chosen<'a>(examples: &'a [Example], indices: &[usize]) -> Vec<&'a Example> {
    indices.iter().map(|i| &examples[*i]).collect()
}

/// Tokens of a share, about. Each share has a gradient of every parameter.
const SHARE_TOKENS: usize = 320;

/// Cuts examples into `wanted` ranges of about as many tokens each; fewer where there are fewer examples.
fn cut(examples: &[&Example], wanted: usize) -> Vec<std::ops::Range<usize>> {
    let total: usize = examples.iter().map(|e| e.tokens.len()).sum();
    let (mut ranges, mut from, mut tokens) = (Vec::with_capacity(wanted), 0, 0);
    for (i, example) in examples.iter().enumerate() {
        tokens += example.tokens.len();
        if tokens * wanted >= total * (ranges.len() + 1) {
            ranges.push(from..i + 1);
            from = i + 1;
        }
    }
    ranges
}

/// How a forward pass goes.
struct Pass<'a> {
    temperature: f32,
    /// What makes `Values::divergence`.
    reference: Option<Against<'a>>,
    recompute: bool,
    perturbed: Option<Perturbed>,
}

/// A part of a micro-batch after its forward pass.
struct Share {
    /// Where several shares run side by side, with sinks of its own: their gradients are added in order.
    model: Decoder,
    stats: TokenStats,
    /// Where the graph of `stats` begins, if not at the parameters, and what leads on from there.
    checkpoints: Option<(Var, Checkpoints)>,
}

impl Share {
    /// Statistics of all targets of `examples`.
    fn new(model: Decoder, examples: &[&Example], pass: &Pass) -> Result<Self> {
        let (mut rows, mut targets, mut from) = (Vec::new(), Vec::new(), 0u32);
        for example in examples {
            let n = example.tokens.len();
            ensure!(example.completion > 0 && example.completion <= n, "a completion starts at {} of {n} tokens", example.completion);
            rows.extend((example.completion..n).map(|t| from + t as u32 - 1));
            targets.extend_from_slice(&example.tokens[example.completion..]);
            from += n as u32;
        }
        ensure!(!targets.is_empty(), "a micro-batch has no target token: every completion in it is empty");
        let packed = Packed::new(examples.iter().map(|e| &e.tokens[..]))?;
        let (hidden, checkpoints) = if pass.recompute {
            let (top, checkpoints) = model.forward(&packed)?;
            let top = Var::from_tensor(&top)?;
            (model.last_norm(&top)?, Some((top, checkpoints)))
        } else {
            (model.hidden(&packed)?, None)
        };
        let hidden = model.select(&hidden, rows.clone())?; // (targets, D)
        let stats = match pass.reference {
            Some(reference) => {
                let reference_hidden = reference.model.select(&reference.model.hidden(&packed)?, rows)?;
                model.token_stats(&hidden, &targets, pass.temperature, Some((&reference_hidden, reference)))?
            }
            None => model.token_stats(&hidden, &targets, pass.temperature, None)?,
        };
        Ok(Self { model, stats, checkpoints })
    }

    fn values(&self) -> Result<Values> {
        let column = |t: &Tensor| Ok::<_, anyhow::Error>(t.to_vec1::<f32>()?);
        let TokenStats { logprobs, entropy, divergence } = &self.stats;
        Ok(Values { logprobs: column(logprobs)?, entropy: column(entropy)?, divergence: column(divergence)? })
    }

    /// Gradient of each parameter, given the derivatives by this share's targets, which end at `end` of the micro-batch's.
    ///
    /// What went into the model's sinks is left there, and `None` here, where they are `shared` with other micro-batches.
    fn backward(self, seeds: &Seeds, end: usize, parameters: &[Parameter], shared: bool) -> Result<Vec<Option<Tensor>>> {
        let targets = self.stats.logprobs.dim(0)?;
        let weigh = |column: &Tensor, seed: &[f32]| -> Result<Tensor> {
            Ok((column * Tensor::from_slice(&seed[end - targets..end], targets, column.device())?)?.sum_all()?)
        };
        let mut loss = weigh(&self.stats.logprobs, &seeds.logprobs)?;
        if let Some(seed) = &seeds.entropy {
            loss = (loss + weigh(&self.stats.entropy, seed)?)?;
        }
        if let Some(seed) = &seeds.divergence {
            loss = (loss + weigh(&self.stats.divergence, seed)?)?;
        }
        let mut store = loss.backward()?;
        drop((loss, self.stats));
        if let Some((top, checkpoints)) = self.checkpoints {
            let dy = store.remove(&top).context("the graph is cut between the last norm and the loss")?;
            self.model.backward(checkpoints, dy, &mut store)?;
        }
        if shared {
            let touched = self.model.touched_sinks();
            return parameters.iter().map(|p| present(p, touched.contains(&p.name), &mut store)).collect();
        }
        let mut collected = self.model.take_gradients();
        parameters.iter().map(|p| whole(p, collected.remove(&p.name), store.remove(&p.var)).map(Some)).collect()
    }
}

/// A parameter's gradient in the graph; it must have one there or in a sink.
fn present(p: &Parameter, is_in_sink: bool, store: &mut GradStore) -> Result<Option<Tensor>> {
    let gradient = store.remove(&p.var);
    ensure!(is_in_sink || gradient.is_some(), "parameter {} has no gradient: the graph is cut before it", p.name);
    Ok(gradient)
}

/// A parameter's whole gradient: what a sink has, and what came through the graph.
fn whole(p: &Parameter, collected: Option<Vec<f32>>, gradient: Option<Tensor>) -> Result<Tensor> {
    let collected = collected.map(|sum| Tensor::from_vec(sum, p.var.shape(), p.var.device())).transpose()?;
    match (collected, gradient) {
        (Some(a), Some(b)) => Ok((a + b)?),
        (Some(one), None) | (None, Some(one)) => Ok(one),
        (None, None) => bail!("parameter {} has no gradient: the graph is cut before it", p.name),
    }
}

impl Values {
    fn extend(&mut self, more: Self) {
        self.logprobs.extend(more.logprobs);
        self.entropy.extend(more.entropy);
        self.divergence.extend(more.divergence);
    }

    /// Takes the first `n` entries off.
    fn take(&mut self, n: usize) -> Self {
        let off = |from: &mut Vec<f32>| from.drain(..n.min(from.len())).collect();
        Self { logprobs: off(&mut self.logprobs), entropy: off(&mut self.entropy), divergence: off(&mut self.divergence) }
    }
}

fn add(a: &[Option<Tensor>], b: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
    let sum = |(a, b): (&Option<Tensor>, &Option<Tensor>)| match (a, b) {
        (Some(a), Some(b)) => Ok(Some((a + b)?)),
        (one, None) | (None, one) => Ok(one.clone()),
    };
    a.iter().zip(b).map(sum).collect()
}

#[cfg(test)]
mod tests;
