//! AdamW with moments in f32 or in 8 bits, decoupled weight decay on matrices only, and clipping by the global norm.
//!
//! Source: Loshchilov and Hutter, "Decoupled weight decay regularization" (ICLR 2019); the arithmetic is that of `torch.optim.AdamW` with
//! `torch.nn.utils.clip_grad_norm_`. Weights change in place, so a sampler that shares their memory uses the new ones at once.

use super::finite::NotFinite;
use crate::key::Key;
use crate::model::Parameter;
use crate::model::ops::{AdamWStep, Moments8, adamw, adamw_8bit, sum_of_squares};
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// How the moments are held; names as in transformers' `optim`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Optim {
    /// 8 bytes a parameter.
    #[default]
    Adamw,
    /// 2 bytes a parameter and 2 more for each 64.
    #[serde(rename = "adamw_8bit")]
    Adamw8bit,
}

impl Optim {
    /// For serde: what was the only way says nothing.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWSettings {
    pub betas: (f64, f64),
    pub eps: f64,
    /// On parameters with two dimensions; norms and biases do not decay.
    pub weight_decay: f64,
    /// Largest global norm of the gradient; larger ones are scaled down to it.
    pub max_grad_norm: f64,
    pub optim: Optim,
}

/// Fewest numbers of a parameter whose moments are held in 8 bits; norms and biases keep theirs in f32.
const SMALLEST_8BIT: usize = 4096;

/// Both moments of a parameter.
enum Moments {
    Full(Tensor, Tensor),
    Eight(Moments8),
}

impl Moments {
    fn zeros(like: &Tensor, optim: Optim) -> Result<Self> {
        let zeros = || Tensor::zeros(like.shape(), DType::F32, like.device());
        Ok(match optim {
            Optim::Adamw8bit if like.elem_count() >= SMALLEST_8BIT => Self::Eight(Moments8::zeros(like)?),
            _ => Self::Full(zeros()?, zeros()?),
        })
    }

    /// By the names that states have.
    fn tensors_mut(&mut self) -> Vec<(&'static str, &mut Tensor)> {
        match self {
            Self::Full(m, v) => vec![("m", m), ("v", v)],
            Self::Eight(x) => vec![("m8", &mut x.m), ("r8", &mut x.r), ("m8_scale", &mut x.m_scale), ("r8_scale", &mut x.r_scale)],
        }
    }

    fn tensors(&self) -> Vec<(&'static str, &Tensor)> {
        match self {
            Self::Full(m, v) => vec![("m", m), ("v", v)],
            Self::Eight(x) => vec![("m8", &x.m), ("r8", &x.r), ("m8_scale", &x.m_scale), ("r8_scale", &x.r_scale)],
        }
    }
}

/// The optimiser and its state.
pub struct AdamW {
    settings: AdamWSettings,
    parameters: Vec<Parameter>,
    /// Of each parameter.
    moments: Vec<Moments>,
    step: usize,
}

impl AdamW {
    pub fn new(parameters: Vec<Parameter>, settings: AdamWSettings) -> Result<Self> {
        let moments = parameters.iter().map(|p| Moments::zeros(&p.var, settings.optim)).collect::<Result<_>>()?;
        Ok(Self { settings, parameters, moments, step: 0 })
    }

    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Updates every parameter from its gradient, given in the order of the parameters, and returns the gradient's norm before clipping.
    ///
    /// A gradient that is not finite is an error ([`NotFinite`]) and changes nothing.
    pub fn step(&mut self, gradients: &[Tensor], rate: f64) -> Result<f64> {
        ensure!(gradients.len() == self.parameters.len(), "{} gradients for {} parameters", gradients.len(), self.parameters.len());
        let mut squares = 0.0;
        for (gradient, parameter) in gradients.iter().zip(&self.parameters) {
            let square = sum_of_squares(gradient)?;
            let broken = || NotFinite(format!("the gradient of {} is not finite at optimiser step {}", parameter.name, self.step + 1));
            ensure!(square.is_finite(), broken());
            squares += square;
        }
        let norm = squares.sqrt();
        let scale = (self.settings.max_grad_norm / (norm + 1e-6)).min(1.0);
        self.step += 1;
        let t = i32::try_from(self.step).context("more than 2^31 optimiser steps")?;
        let AdamWSettings { betas, eps, .. } = self.settings;
        let rounding = Key::new(t as u64, "moments in 8 bits");
        for ((gradient, parameter), moments) in gradients.iter().zip(&self.parameters).zip(&self.moments) {
            let weight_decay = if parameter.var.rank() == 2 { self.settings.weight_decay } else { 0.0 };
            let (gradient, step) = (gradient.contiguous()?, AdamWStep { t, rate, betas, eps, weight_decay, scale });
            match moments {
                Moments::Full(m, v) => adamw(&parameter.var, m, v, &gradient, &step)?,
                Moments::Eight(moments) => adamw_8bit(&parameter.var, moments, &gradient, &step, rounding.name(&parameter.name))?,
            }
        }
        Ok(norm)
    }

    /// Named tensors of the state: weights and both moments.
    pub fn tensors(&self) -> impl Iterator<Item = (String, &Tensor)> {
        self.parameters.iter().zip(&self.moments).flat_map(|(p, moments)| {
            let all = std::iter::once(("weight", p.var.as_tensor())).chain(moments.tensors());
            all.map(|(kind, tensor)| (format!("{kind}.{}", p.name), tensor)).collect::<Vec<_>>()
        })
    }

    pub fn steps(&self) -> usize {
        self.step
    }

    /// Puts a saved state back: `get(name)` gives the tensors that `tensors` named.
    pub fn restore(&mut self, step: usize, mut get: impl FnMut(&str, &Tensor) -> Result<Tensor>) -> Result<()> {
        for (parameter, moments) in self.parameters.iter().zip(&mut self.moments) {
            parameter.var.set(&get(&format!("weight.{}", parameter.name), parameter.var.as_tensor())?)?;
            for (kind, tensor) in moments.tensors_mut() {
                *tensor = get(&format!("{kind}.{}", parameter.name), tensor)?;
            }
        }
        self.step = step;
        Ok(())
    }
}
