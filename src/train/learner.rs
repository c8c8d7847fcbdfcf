//! `Learner`: a decoder with its optimiser; log-probabilities of completions, and gradients accumulated over micro-batches.
//!
//! A loss is given as its derivatives by each token's log-probability, entropy and KL: the loops compute formulas on plain numbers, and
//! only this file turns them into gradients. Sequences are packed without padding; a micro-batch is bounded by its tokens.
//!
//! A small model's operations are too short to be worth splitting over threads one by one: a thread that waits for the next has to be woken each
//! time. So a micro-batch of a small model is cut into shares, each thread takes whole shares, and their gradients are added in order.

use super::optimizer::{AdamW, AdamWSettings};
use crate::lanes;
use crate::model::{Decoder, Packed, Parameter, TokenStats};
use anyhow::{Context, Result, bail, ensure};
use candle_core::Tensor;

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
    /// KL to the reference over the whole vocabulary; 0 without a reference.
    pub kl: Vec<f32>,
}

/// Derivatives of the loss by the entries of `Values`.
#[derive(Clone, Debug)]
pub struct Seeds {
    pub logprobs: Vec<f32>,
    /// `None` where the loss does not depend on it.
    pub entropy: Option<Vec<f32>>,
    pub kl: Option<Vec<f32>>,
}

/// A model in training.
pub struct Learner {
    decoder: Decoder,
    optimizer: AdamW,
    gradients: Option<Vec<Tensor>>,
    /// Tokens of a micro-batch at most; one longer sequence goes alone.
    micro_batch_tokens: usize,
}

impl Learner {
    /// Trains a copy of `decoder`.
    pub fn new(decoder: &Decoder, settings: AdamWSettings, micro_batch_tokens: usize) -> Result<Self> {
        let (decoder, parameters) = decoder.trainable()?;
        Ok(Self { decoder, optimizer: AdamW::new(parameters, settings)?, gradients: None, micro_batch_tokens })
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

    /// Ranges of `examples` that make a micro-batch each.
    fn micro_batches(&self, examples: &[Example]) -> Vec<std::ops::Range<usize>> {
        let (mut ranges, mut from, mut tokens) = (Vec::new(), 0, 0);
        for (i, example) in examples.iter().enumerate() {
            if i > from && tokens + example.tokens.len() > self.micro_batch_tokens {
                ranges.push(from..i);
                (from, tokens) = (i, 0);
            }
            tokens += example.tokens.len();
        }
        if from < examples.len() {
            ranges.push(from..examples.len());
        }
        ranges
    }

    /// Into how many micro-batches `accumulate` would cut these examples.
    pub fn micro_batch_count(&self, examples: &[Example]) -> usize {
        self.micro_batches(examples).len()
    }

    /// Values of the examples' targets under `model`, without gradients.
    pub fn values(&self, model: &Decoder, examples: &[Example], temperature: f32) -> Result<Values> {
        let mut all = Values::default();
        let model = model.frozen()?;
        for range in self.micro_batches(examples) {
            for share in self.forward(&model, &examples[range], temperature, None)? {
                all.extend(share.values()?);
            }
        }
        Ok(all)
    }

    /// Adds the gradient of a loss to what is accumulated.
    ///
    /// `seeds(range, values)` is called for each micro-batch, with the range of its examples, and gives the derivatives of the loss. A
    /// `reference` makes `Values::kl`.
    pub fn accumulate(
        &mut self,
        examples: &[Example],
        temperature: f32,
        reference: Option<&Decoder>,
        seeds: &mut dyn FnMut(std::ops::Range<usize>, Values) -> Result<Seeds>,
    ) -> Result<()> {
        let reference = reference.map(Decoder::frozen).transpose()?;
        for range in self.micro_batches(examples) {
            let shares = self.forward(&self.decoder, &examples[range.clone()], temperature, reference.as_ref())?;
            let (mut values, mut ends) = (Values::default(), Vec::with_capacity(shares.len()));
            for share in &shares {
                values.extend(share.values()?);
                ends.push(values.logprobs.len());
            }
            let targets = values.logprobs.len();
            let seeds = seeds(range, values)?;
            for seed in [Some(&seeds.logprobs), seeds.entropy.as_ref(), seeds.kl.as_ref()].into_iter().flatten() {
                ensure!(seed.len() == targets, "{} derivatives for {targets} targets", seed.len());
            }
            let parameters = self.optimizer.parameters();
            let shares = shares.into_iter().zip(ends).collect();
            let gradients = lanes::map(shares, |(share, end): (Share, usize)| share.backward(&seeds, end, parameters));
            let fresh = gradients.into_iter().reduce(|sum, next| add(&sum?, &next?)).context("a micro-batch has a share")??;
            self.gradients = Some(match self.gradients.take() {
                None => fresh,
                Some(sum) => add(&sum, &fresh)?,
            });
        }
        Ok(())
    }

    /// The shares of a micro-batch, each with its part of the graph. How it is cut depends on model and examples alone, never on threads.
    fn forward(&self, model: &Decoder, examples: &[Example], temperature: f32, reference: Option<&Decoder>) -> Result<Vec<Share>> {
        let small = model.config().is_small();
        let wanted = examples.iter().map(|e| e.tokens.len()).sum::<usize>().div_ceil(if small { SHARE_TOKENS } else { usize::MAX });
        lanes::map(cut(examples, wanted), |range| Share::new(model, &examples[range], temperature, reference)).into_iter().collect()
    }

    /// One optimiser step with the accumulated gradient; returns its norm before clipping. Without any gradient nothing happens: 0.
    pub fn step(&mut self, rate: f64) -> Result<f64> {
        match self.gradients.take() {
            Some(gradients) => self.optimizer.step(&gradients, rate),
            None => Ok(0.0),
        }
    }
}

/// Tokens of a share, about. Each share has a gradient of every parameter.
const SHARE_TOKENS: usize = 320;

/// Cuts examples into `wanted` ranges of about as many tokens each; fewer where there are fewer examples.
fn cut(examples: &[Example], wanted: usize) -> Vec<std::ops::Range<usize>> {
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

/// A part of a micro-batch after its forward pass.
struct Share {
    /// With sinks of its own: shares run side by side, and their gradients are added in order.
    model: Decoder,
    stats: TokenStats,
}

impl Share {
    /// Statistics of all targets of `examples`.
    fn new(model: &Decoder, examples: &[Example], temperature: f32, reference: Option<&Decoder>) -> Result<Self> {
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
        let model = model.collecting();
        let hidden = model.select(&model.hidden(&packed)?, rows.clone())?; // (targets, D)
        let stats = match reference {
            Some(reference) => {
                let reference_hidden = reference.select(&reference.hidden(&packed)?, rows)?;
                model.token_stats(&hidden, &targets, temperature, Some((&reference_hidden, reference)))?
            }
            None => model.token_stats(&hidden, &targets, temperature, None)?,
        };
        Ok(Self { model, stats })
    }

    fn values(&self) -> Result<Values> {
        let column = |t: &Tensor| Ok::<_, anyhow::Error>(t.to_vec1::<f32>()?);
        Ok(Values { logprobs: column(&self.stats.logprobs)?, entropy: column(&self.stats.entropy)?, kl: column(&self.stats.kl)? })
    }

    /// Gradient of each parameter, given the derivatives by this share's targets, which end at `end` of the micro-batch's.
    fn backward(self, seeds: &Seeds, end: usize, parameters: &[Parameter]) -> Result<Vec<Tensor>> {
        let targets = self.stats.logprobs.dim(0)?;
        let weigh = |column: &Tensor, seed: &[f32]| -> Result<Tensor> {
            Ok((column * Tensor::from_slice(&seed[end - targets..end], targets, column.device())?)?.sum_all()?)
        };
        let mut loss = weigh(&self.stats.logprobs, &seeds.logprobs)?;
        if let Some(seed) = &seeds.entropy {
            loss = (loss + weigh(&self.stats.entropy, seed)?)?;
        }
        if let Some(seed) = &seeds.kl {
            loss = (loss + weigh(&self.stats.kl, seed)?)?;
        }
        let mut store = loss.backward()?;
        let mut collected = self.model.take_gradients();
        let gradient = |p: &Parameter| match (collected.remove(&p.name), store.remove(&p.var)) {
            (Some(sum), None) => Ok(Tensor::from_vec(sum, p.var.shape(), p.var.device())?),
            (None, Some(gradient)) => Ok(gradient),
            (Some(sum), Some(gradient)) => Ok((Tensor::from_vec(sum, p.var.shape(), p.var.device())? + gradient)?),
            (None, None) => bail!("parameter {} has no gradient: the graph is cut before it", p.name),
        };
        parameters.iter().map(gradient).collect()
    }
}

impl Values {
    fn extend(&mut self, more: Self) {
        self.logprobs.extend(more.logprobs);
        self.entropy.extend(more.entropy);
        self.kl.extend(more.kl);
    }
}

fn add(a: &[Tensor], b: &[Tensor]) -> Result<Vec<Tensor>> {
    Ok(a.iter().zip(b).map(|(a, b)| a + b).collect::<candle_core::Result<_>>()?)
}
