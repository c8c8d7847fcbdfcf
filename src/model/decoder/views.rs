//! One model seen in several ways: to be trained, frozen, copied, laid out for sampling, with and without an adapter.
//!
//! A view shares the memory of what it is a view of, save where its text says that it copies.

use super::super::lora::{self, Addition, Factors, Joined, LoraSettings};
use super::super::ops::{self, AdditionShape, Dropout};
use super::{Decoder, Layer, Noise, Parameter};
use crate::key::Key;
use anyhow::{Context, Result, ensure};
use candle_core::{Tensor, Var};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

impl Decoder {
    /// A copy whose parameters are variables of its own, to be trained; where there is an adapter, only its factors are, and all else is shared.
    pub fn trainable(&self) -> Result<(Self, Vec<Parameter>)> {
        let mut parameters = Vec::new();
        let decoder = self.map(|name, tensor| {
            if self.lora.is_some() && !is_factor(name) {
                return Ok(tensor.detach());
            }
            let var = Var::from_tensor(&tensor.copy()?)?;
            parameters.push(Parameter { name: name.to_owned(), var: var.clone() });
            Ok(var.into_inner())
        })?;
        Ok((decoder, parameters))
    }

    /// With a new adapter, which adds nothing yet; an old one goes.
    pub fn with_adapter(&self, settings: &LoraSettings, key: Key) -> Result<Self> {
        self.with_factors(settings, lora::fresh(&self.config, settings, key, &self.device)?)
    }

    pub(crate) fn with_factors(&self, settings: &LoraSettings, factors: Factors) -> Result<Self> {
        let mut decoder = self.without_adapter();
        for ((layer, m), (a, b)) in factors {
            let (_, parts) = Joined::ALL[m].parts(&self.config, &settings.targets);
            let parts = parts.into_iter().map(|(_, rows)| rows).collect();
            let shape = Arc::new(AdditionShape { rank: settings.r, scale: settings.scale() as f32, parts });
            decoder.layers[layer].matrices_mut()[m].addition = Some(Addition { a, b, shape, dropout: None });
        }
        decoder.lora = Some(Arc::new(settings.clone()));
        Ok(decoder)
    }

    /// The model that an adapter adds to, on the same memory.
    pub fn without_adapter(&self) -> Self {
        let mut decoder = self.clone();
        decoder.layers.iter_mut().flat_map(Layer::matrices_mut).for_each(|matrix| matrix.addition = None);
        decoder.lora = None;
        decoder
    }

    /// A model that computes the same without an adapter, its additions worked into the weights.
    pub fn merged(&self) -> Result<Self> {
        let mut decoder = self.without_adapter();
        for (from, to) in self.layers.iter().zip(&mut decoder.layers) {
            for (from, to) in from.matrices().into_iter().zip(to.matrices_mut()) {
                to.weight = Some(from.merged()?);
            }
        }
        Ok(decoder)
    }

    /// The settings of the adapter, if it has one.
    pub fn lora(&self) -> Option<&LoraSettings> {
        self.lora.as_deref()
    }

    pub(crate) fn factors(&self) -> Factors {
        let mut all = Factors::new();
        for (i, layer) in self.layers.iter().enumerate() {
            let additions = layer.matrices().into_iter().enumerate().filter_map(|(m, matrix)| Some((m, matrix.addition.as_ref()?)));
            all.extend(additions.map(|(m, addition)| ((i, m), (addition.a.clone(), addition.b.clone()))));
        }
        all
    }

    /// Its adapter, if it has one, drops inputs at this rate where the model is trained.
    pub fn with_dropout(mut self, rate: f64) -> Self {
        if let Some(lora) = &mut self.lora {
            Arc::make_mut(lora).dropout = rate;
        }
        self
    }

    /// The same decoder as it is trained: with noise on its embeddings (0 is none), and dropping inputs of its adapter's additions at the adapter's rate, both
    /// drawn under `key`.
    pub(crate) fn perturbed(&self, noise: f32, key: Key) -> Self {
        let mut decoder = self.clone();
        decoder.noise = (noise > 0.0).then(|| Noise { alpha: noise, key: key.name("noise") });
        let rate = self.lora().map_or(0.0, |lora| lora.dropout as f32);
        if rate > 0.0 {
            for (i, layer) in decoder.layers.iter_mut().enumerate() {
                for (matrix, joined) in layer.matrices_mut().into_iter().zip(Joined::ALL) {
                    if let Some(addition) = &mut matrix.addition {
                        addition.dropout = Some(Dropout { rate, key: key.number(i as u64).name(joined.name()) });
                    }
                }
            }
        }
        decoder
    }

    /// A view on the same memory without gradients: it follows the optimiser's steps.
    pub fn frozen(&self) -> Result<Self> {
        self.map(|_, tensor| Ok(tensor.detach()))
    }

    /// The decoder that sampling runs on: without gradients, its matrices laid out for many products.
    ///
    /// Later optimiser steps do not reach it, and it can do nothing else than `prefill`, `decode`, `hidden` and `logits`: it is not to be trained, copied or saved.
    /// A matrix that nobody else has goes as soon as it is laid out, so that no more than one is there twice; tied embeddings become two.
    pub fn for_sampling(self) -> Result<Self> {
        let mut decoder = self.frozen()?;
        drop(self);
        let in_bf16 = decoder.in_bf16;
        for matrix in decoder.layers.iter_mut().flat_map(Layer::matrices_mut) {
            matrix.lay_out(in_bf16)?;
        }
        decoder.head.lay_out(false)?;
        Ok(decoder)
    }

    /// The same decoder, with sinks of its own that take the gradients of its matrices in place of the graph.
    pub(crate) fn collecting(&self) -> Self {
        let mut decoder = self.clone();
        decoder.layers.iter_mut().flat_map(Layer::matrices_mut).for_each(|matrix| matrix.sink = Some(ops::Sink::default()));
        decoder.embed.sink = Some(ops::Sink::default());
        decoder.head.sink = if self.config.tie_embeddings { decoder.embed.sink.clone() } else { Some(ops::Sink::default()) };
        decoder
    }

    /// What the sinks of a decoder from `collecting` took, by the names of `tensors`; they are empty again.
    pub(crate) fn take_gradients(&self) -> HashMap<String, Vec<f32>> {
        self.sinks().filter_map(|(name, sink)| Some((name, sink.take()?))).collect()
    }

    /// Whose sinks took something since this was last asked, by the names of `tensors`.
    pub(crate) fn touched_sinks(&self) -> HashSet<String> {
        self.sinks().filter(|(_, sink)| sink.was_touched()).map(|(name, _)| name).collect()
    }

    /// Sinks of a decoder from `collecting`, each once.
    fn sinks(&self) -> impl Iterator<Item = (String, &ops::Sink)> {
        let layers = self.layers.iter().enumerate().flat_map(|(i, layer)| {
            let named = Joined::ALL.into_iter().zip(layer.matrices());
            named.map(move |(joined, matrix)| (format!("model.layers.{i}.{}.weight", joined.name()), matrix))
        });
        let head = (!self.config.tie_embeddings).then(|| ("lm_head.weight".to_owned(), &self.head));
        let all = std::iter::once(("model.embed_tokens.weight".to_owned(), &self.embed)).chain(head).chain(layers);
        all.filter_map(|(name, matrix)| Some((name, matrix.sink.as_ref()?)))
    }

    /// A copy that later optimiser steps do not reach, without gradients.
    pub fn snapshot(&self) -> Result<Self> {
        self.map(|_, tensor| Ok(tensor.detach().copy()?))
    }

    /// A decoder of the same configuration whose tensors `get(name)` gives; all must be there, in the right shape.
    pub fn with_tensors(&self, get: &dyn Fn(&str) -> Option<Tensor>) -> Result<Self> {
        self.map(|name, tensor| {
            let new = get(name).with_context(|| format!("tensor {name} is missing"))?;
            ensure!(new.dims() == tensor.dims(), "tensor {name} has shape {:?}, expected {:?}", new.dims(), tensor.dims());
            Ok(new)
        })
    }

    /// A copy without gradients, every parameter times `factor`.
    pub fn snapshot_scaled(&self, factor: f64) -> Result<Self> {
        self.map(|_, tensor| Ok((tensor.detach() * factor)?))
    }
}

pub(super) fn factor_name(layer: usize, joined: Joined, factor: &str) -> String {
    format!("model.layers.{layer}.{}.{factor}.weight", joined.name())
}

/// Whether a parameter's name is that of an adapter's factor.
fn is_factor(name: &str) -> bool {
    name.ends_with(".lora_A.weight") || name.ends_with(".lora_B.weight")
}
