//! `Learner`: a decoder with its optimiser; log-probabilities of completions, and gradients accumulated over micro-batches.
//!
//! A loss is given as its derivatives by each token's log-probability, entropy and KL: the loops compute formulas on plain numbers, and
//! only this file turns them into gradients. Sequences are packed without padding; a micro-batch is bounded by its tokens.

use super::optimizer::{AdamW, AdamWSettings};
use crate::model::{Decoder, Packed};
use anyhow::{Context, Result, ensure};
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
            let (stats, _) = stats(&model, &examples[range], temperature, None)?;
            let values = read(&stats)?;
            all.logprobs.extend(values.logprobs);
            all.entropy.extend(values.entropy);
            all.kl.extend(values.kl);
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
        for range in self.micro_batches(examples) {
            let (stats, targets) = stats(&self.decoder, &examples[range.clone()], temperature, reference)?;
            let seeds = seeds(range, read(&stats)?)?;
            let weigh = |column: &Tensor, seed: &[f32]| -> Result<Tensor> {
                ensure!(seed.len() == targets, "{} derivatives for {targets} targets", seed.len());
                Ok((column * Tensor::from_slice(seed, targets, column.device())?)?.sum_all()?)
            };
            let mut loss = weigh(&stats.logprobs, &seeds.logprobs)?;
            if let Some(seed) = &seeds.entropy {
                loss = (loss + weigh(&stats.entropy, seed)?)?;
            }
            if let Some(seed) = &seeds.kl {
                loss = (loss + weigh(&stats.kl, seed)?)?;
            }
            let mut store = loss.backward()?;
            let fresh =
                self.optimizer.parameters().iter().map(|p| {
                    store.remove(&p.var).with_context(|| format!("parameter {} has no gradient: the graph is cut before it", p.name))
                });
            let fresh = fresh.collect::<Result<Vec<_>>>()?;
            self.gradients = Some(match self.gradients.take() {
                None => fresh,
                Some(sum) => sum.iter().zip(&fresh).map(|(a, b)| a + b).collect::<candle_core::Result<_>>()?,
            });
        }
        Ok(())
    }

    /// One optimiser step with the accumulated gradient; returns its norm before clipping. Without any gradient nothing happens: 0.
    pub fn step(&mut self, rate: f64) -> Result<f64> {
        match self.gradients.take() {
            Some(gradients) => self.optimizer.step(&gradients, rate),
            None => Ok(0.0),
        }
    }
}

/// Statistics of all targets of `examples`, and their number.
fn stats(
    model: &Decoder,
    examples: &[Example],
    temperature: f32,
    reference: Option<&Decoder>,
) -> Result<(crate::model::TokenStats, usize)> {
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
    let hidden = model.select(&model.hidden(&packed)?, rows.clone())?; // (targets, D)
    let stats = match reference {
        Some(reference) => {
            let reference = reference.frozen()?;
            let reference_hidden = reference.select(&reference.hidden(&packed)?, rows)?;
            model.token_stats(&hidden, &targets, temperature, Some((&reference_hidden, &reference)))?
        }
        None => model.token_stats(&hidden, &targets, temperature, None)?,
    };
    Ok((stats, targets.len()))
}

fn read(stats: &crate::model::TokenStats) -> Result<Values> {
    let column = |t: &Tensor| Ok::<_, anyhow::Error>(t.to_vec1::<f32>()?);
    Ok(Values { logprobs: column(&stats.logprobs)?, entropy: column(&stats.entropy)?, kl: column(&stats.kl)? })
}
