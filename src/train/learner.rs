//! `Learner`: a decoder with its optimiser; log-probabilities of completions, and gradients accumulated over micro-batches.
//!
//! A loss is given as its derivatives by each token's log-probability, entropy and KL: the loops compute formulas on plain numbers, and
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
use crate::model::{Checkpoints, Decoder, Packed, Parameter, TokenStats};
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
    pub fn rehearse(&mut self, examples: &[Example]) -> Result<usize> {
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
            let mut seeds =
                |_: &[usize], values: Values| Ok(Seeds { logprobs: vec![-1.0; values.logprobs.len()], entropy: None, kl: None });
            learner.accumulate(&examples, 1.0, None, &mut seeds)?;
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
    /// targets in the order of the indices. A `reference` makes `Values::kl`. A log-probability or a derivative that is not finite is an error
    /// ([`finite::NotFinite`]).
    pub fn accumulate(
        &mut self,
        examples: &[Example],
        temperature: f32,
        reference: Option<&Decoder>,
        seeds: &mut dyn FnMut(&[usize], Values) -> Result<Seeds>,
    ) -> Result<()> {
        let reference = reference.map(Decoder::frozen).transpose()?;
        for bin in self.micro_batches(examples) {
            let model = self.collector.as_ref().unwrap_or(&self.decoder);
            let here = |key: Key| key.number(self.optimizer.steps() as u64).number(bin[0] as u64);
            let perturbed = self.perturbed.map(|p| Perturbed { key: here(p.key), ..p });
            let pass = Pass { temperature, reference: reference.as_ref(), recompute: self.recompute, perturbed };
            let shares = self.forward(model, &chosen(examples, &bin), &pass)?;
            let (mut values, mut ends) = (Values::default(), Vec::with_capacity(shares.len()));
            for share in &shares {
                values.extend(share.values()?);
                ends.push(values.logprobs.len());
            }
            let targets = values.logprobs.len();
            finite::check("the log-probability of a token", &values.logprobs)?;
            let seeds = seeds(&bin, values)?;
            for seed in [Some(&seeds.logprobs), seeds.entropy.as_ref(), seeds.kl.as_ref()].into_iter().flatten() {
                ensure!(seed.len() == targets, "{} derivatives for {targets} targets", seed.len());
                finite::check("the derivative of the loss by a token's log-probability, entropy or KL", seed)?;
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
    /// What makes `Values::kl`.
    reference: Option<&'a Decoder>,
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
                let reference_hidden = reference.select(&reference.hidden(&packed)?, rows)?;
                model.token_stats(&hidden, &targets, pass.temperature, Some((&reference_hidden, reference)))?
            }
            None => model.token_stats(&hidden, &targets, pass.temperature, None)?,
        };
        Ok(Self { model, stats, checkpoints })
    }

    fn values(&self) -> Result<Values> {
        let column = |t: &Tensor| Ok::<_, anyhow::Error>(t.to_vec1::<f32>()?);
        Ok(Values { logprobs: column(&self.stats.logprobs)?, entropy: column(&self.stats.entropy)?, kl: column(&self.stats.kl)? })
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
        if let Some(seed) = &seeds.kl {
            loss = (loss + weigh(&self.stats.kl, seed)?)?;
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
        self.kl.extend(more.kl);
    }

    /// Takes the first `n` entries off.
    fn take(&mut self, n: usize) -> Self {
        let off = |from: &mut Vec<f32>| from.drain(..n.min(from.len())).collect();
        Self { logprobs: off(&mut self.logprobs), entropy: off(&mut self.entropy), kl: off(&mut self.kl) }
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
mod tests {
    use super::*;
    use crate::model::{Config, LoraSettings, Target};
    use crate::train::Optim;
    use candle_core::Device;
    use serde_json::json;

    /// Gradients of a loss with all three kinds of seeds, by parameter, and its values.
    fn gradients(decoder: &Decoder, reference: &Decoder, micro_batch_tokens: usize, recompute: bool) -> (Vec<Tensor>, Values) {
        let optimizer = AdamWSettings { betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.0, max_grad_norm: 1.0, optim: Optim::Adamw };
        let mut learner = Learner::new(decoder, optimizer, Batching { micro_batch_tokens, recompute: Some(recompute) }).unwrap();
        let mut stream = Key::new(3, "tokens").stream();
        // More rows than a feed-forward part takes at once.
        let examples: Vec<Example> =
            [700, 1, 90, 500, 33].map(|n| Example { tokens: (0..n + 5).map(|_| stream.below(60)).collect(), completion: 3 }).to_vec();
        let mut of = vec![Values::default(); examples.len()];
        let mut seeds = |indices: &[usize], mut values: Values| {
            let slope = |by: f32, x: &[f32]| x.iter().map(|x| by * x.sin()).collect::<Vec<f32>>();
            let seeds = Seeds {
                logprobs: slope(1.0, &values.logprobs),
                entropy: Some(slope(0.3, &values.entropy)),
                kl: Some(slope(-0.2, &values.logprobs)),
            };
            indices.iter().for_each(|i| of[*i] = values.take(examples[*i].targets()));
            Ok(seeds)
        };
        learner.accumulate(&examples, 0.9, Some(reference), &mut seeds).unwrap();
        let mut all = Values::default();
        of.into_iter().for_each(|values| all.extend(values));
        let mut collected = learner.collector.as_ref().map(Decoder::take_gradients).unwrap_or_default();
        let parameters = learner.optimizer.parameters().iter().zip(learner.gradients);
        (parameters.map(|(p, g)| whole(p, collected.remove(&p.name), g).unwrap()).collect(), all)
    }

    fn config(model: &str, tied: bool, width: usize) -> Config {
        let json = json!({
            "model_type": model, "vocab_size": 64, "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": width / 4, "max_position_embeddings": 1024, "rms_norm_eps": 1e-6,
            "tie_word_embeddings": tied
        });
        let config = Config::from_json(json.as_object().unwrap().clone()).unwrap();
        // The wide ones are beyond the size that keeps its graph and is cut into shares.
        assert_eq!(config.is_small(), width < 600);
        config
    }

    fn random(config: &Config, name: &str) -> Decoder {
        Decoder::random(config.clone(), Key::new(1, name), &Device::Cpu).unwrap()
    }

    /// With an adapter whose second factors are not the zeros that they begin as.
    fn adapted(decoder: &Decoder, targets: &[Target]) -> Decoder {
        let settings = LoraSettings { r: 3, alpha: 5.0, targets: targets.to_vec(), dropout: 0.0, rslora: true };
        let (decoder, parameters) = decoder.with_adapter(&settings, Key::new(2, "adapter")).unwrap().trainable().unwrap();
        let mut stream = Key::new(4, "factors").stream();
        for p in parameters {
            let numbers: Vec<f32> = (0..p.var.elem_count()).map(|_| stream.normal() as f32 * 0.1).collect();
            p.var.set(&Tensor::from_vec(numbers, p.var.shape(), &Device::Cpu).unwrap()).unwrap();
        }
        decoder
    }

    fn norm(x: &Tensor) -> f64 {
        crate::model::ops::sum_of_squares(x).unwrap().sqrt()
    }

    #[test]
    fn recomputed_layers_give_the_values_and_gradients_of_the_whole_graph() {
        let (all, some) = (&Target::ALL[..], &[Target::KProj, Target::VProj, Target::UpProj, Target::DownProj][..]);
        for (model, tied, width, lora) in [
            ("qwen2", true, 24, None),
            ("qwen3", false, 24, None),
            ("llama", false, 24, None),
            ("qwen2", true, 600, None),
            ("qwen3", true, 24, Some(all)),
            ("qwen2", true, 600, Some(some)),
        ] {
            let config = config(model, tied, width);
            let (decoder, reference) = (random(&config, "policy"), random(&config, "reference"));
            let decoder = lora.map_or(decoder.clone(), |targets| adapted(&decoder, targets));
            let (expected, values) = gradients(&decoder, &reference, 10_000, false);
            for micro_batch_tokens in [10_000, 600] {
                let (found, again) = gradients(&decoder, &reference, micro_batch_tokens, true);
                let close =
                    |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5 * (1.0 + a.abs()));
                assert!(close(&values.logprobs, &again.logprobs) && close(&values.entropy, &again.entropy) && close(&values.kl, &again.kl));
                for (i, (a, b)) in expected.iter().zip(&found).enumerate() {
                    let difference = norm(&(a - b).unwrap()) / norm(a);
                    assert!(difference < 1e-5, "parameter {i} of {model}, {width} wide, {lora:?}: {difference}");
                }
            }
        }
    }

    /// A device that has no memory for more than 300 targets at once, and says so in the middle of a step.
    #[test]
    fn where_memory_runs_out_micro_batches_are_halved_and_the_step_stays_what_it_is() {
        for width in [24, 600] {
            let decoder = random(&config("qwen2", true, width), "policy");
            let mut stream = Key::new(3, "tokens").stream();
            let examples: Vec<Example> = [250, 30, 700, 90, 200, 33]
                .map(|n| Example { tokens: (0..n).map(|_| stream.below(60)).collect(), completion: n / 2 })
                .to_vec();
            let after = |most: usize| {
                let optimizer = AdamWSettings { betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.0, max_grad_norm: 1.0, optim: Optim::Adamw };
                let mut learner = Learner::new(&decoder, optimizer, Batching { micro_batch_tokens: 1200, recompute: None }).unwrap();
                let targets = learner
                    .fitting(|learner| {
                        let mut targets = 0;
                        let mut seeds = |_: &[usize], v: Values| {
                            targets += v.logprobs.len();
                            ensure!(v.logprobs.len() <= most, "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")");
                            Ok(Seeds { logprobs: vec![-1e-3; v.logprobs.len()], entropy: None, kl: None })
                        };
                        learner.accumulate(&examples, 1.0, None, &mut seeds)?;
                        Ok(targets)
                    })
                    .unwrap();
                assert_eq!(targets, examples.iter().map(Example::targets).sum::<usize>());
                (learner.micro_batch_tokens(), learner.step(1e-3).unwrap())
            };
            let ((whole, norm), (halved, again)) = (after(10_000), after(350));
            assert_eq!((whole, halved), (1200, 600));
            assert!((norm - again).abs() < 1e-5 * norm, "{norm} and {again}");
        }
    }

    #[test]
    fn the_longest_micro_batch_is_rehearsed_and_leaves_no_trace() {
        let decoder = random(&config("qwen2", true, 600), "policy");
        let examples: Vec<Example> = [20, 90, 10, 70, 60].map(|n| Example { tokens: vec![3; n], completion: 1 }).to_vec();
        let optimizer = AdamWSettings { betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.0, max_grad_norm: 1.0, optim: Optim::Adamw };
        let mut learner = Learner::new(&decoder, optimizer, Batching { micro_batch_tokens: 180, recompute: None }).unwrap();
        assert_eq!(learner.rehearse(&examples).unwrap(), 160, "90 and 70, and 60 has no room");
        assert_eq!(learner.step(1.0).unwrap(), 0.0);
        assert_eq!(numbers(learner.decoder()), numbers(&decoder));
    }

    #[test]
    fn an_adapter_changes_no_weight_of_its_base_and_counts_in_sampling_as_in_training() {
        let config = config("qwen2", true, 24);
        let base = random(&config, "policy");
        let before: Vec<Vec<f32>> = numbers(&base);
        let settings = LoraSettings { r: 2, alpha: 4.0, targets: Target::ALL.to_vec(), dropout: 0.5, rslora: false };
        let start = base.with_adapter(&settings, Key::new(2, "adapter")).unwrap();
        let optimizer = AdamWSettings { betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.0, max_grad_norm: 1.0, optim: Optim::Adamw };
        let mut learner = Learner::new(&start, optimizer, Batching { micro_batch_tokens: 100, recompute: Some(true) }).unwrap();
        assert_eq!(learner.optimizer().parameters().len(), 3 * 4 * 2, "two factors for each of four matrices of three layers");
        let examples = [Example { tokens: (0..40).collect(), completion: 2 }];
        let lp = |model: &Decoder| learner.values(model, &examples, 1.0).unwrap().logprobs;
        let untrained = lp(&base);
        assert_eq!(lp(learner.decoder()), untrained, "a new adapter adds nothing");
        for _ in 0..2 {
            let mut seeds = |_: &[usize], v: Values| Ok(Seeds { logprobs: vec![-0.1; v.logprobs.len()], entropy: None, kl: None });
            learner.accumulate(&examples, 1.0, None, &mut seeds).unwrap();
            learner.step(0.01).unwrap();
        }
        let lp = |model: &Decoder| learner.values(model, &examples, 1.0).unwrap().logprobs;
        assert_eq!(numbers(&base), before);
        assert_eq!(lp(&learner.decoder().without_adapter()), untrained);
        let trained = lp(learner.decoder());
        let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
        assert!(!close(&trained, &untrained));
        let merged = learner.decoder().merged().unwrap();
        assert!(merged.lora().is_none() && close(&lp(&merged), &trained));
        let packed = Packed::new([&examples[0].tokens[..]]).unwrap();
        let logits =
            |model: &Decoder| model.logits(&model.hidden(&packed).unwrap()).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(close(&logits(&learner.decoder().clone().for_sampling().unwrap()), &logits(learner.decoder())));
    }

    fn numbers(model: &Decoder) -> Vec<Vec<f32>> {
        model.tensors().iter().map(|(_, t)| t.flatten_all().unwrap().to_vec1().unwrap()).collect()
    }
}
