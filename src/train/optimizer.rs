//! AdamW with moments in f32, decoupled weight decay on matrices only, and clipping by the global norm.
//!
//! Source: Loshchilov and Hutter, "Decoupled weight decay regularization" (ICLR 2019); the arithmetic is that of `torch.optim.AdamW` with
//! `torch.nn.utils.clip_grad_norm_`. Weights change in place, so a sampler that shares their memory uses the new ones at once.

use crate::model::Parameter;
use crate::model::ops::{AdamWStep, adamw, sum_of_squares};
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Tensor};

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWSettings {
    pub betas: (f64, f64),
    pub eps: f64,
    /// On parameters with two dimensions; norms and biases do not decay.
    pub weight_decay: f64,
    /// Largest global norm of the gradient; larger ones are scaled down to it.
    pub max_grad_norm: f64,
}

/// The optimiser and its state.
pub struct AdamW {
    settings: AdamWSettings,
    parameters: Vec<Parameter>,
    /// First and second moment of each parameter.
    moments: Vec<(Tensor, Tensor)>,
    step: usize,
}

impl AdamW {
    pub fn new(parameters: Vec<Parameter>, settings: AdamWSettings) -> Result<Self> {
        let zeros = |p: &Parameter| Tensor::zeros(p.var.shape(), DType::F32, p.var.device());
        let moments = parameters.iter().map(|p| Ok((zeros(p)?, zeros(p)?))).collect::<Result<_>>()?;
        Ok(Self { settings, parameters, moments, step: 0 })
    }

    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Updates every parameter from its gradient, given in the order of the parameters, and returns the gradient's norm before clipping.
    ///
    /// A gradient that is not finite is an error and changes nothing.
    pub fn step(&mut self, gradients: &[Tensor], rate: f64) -> Result<f64> {
        ensure!(gradients.len() == self.parameters.len(), "{} gradients for {} parameters", gradients.len(), self.parameters.len());
        let mut squares = 0.0;
        for (gradient, parameter) in gradients.iter().zip(&self.parameters) {
            let square = sum_of_squares(gradient)?;
            ensure!(square.is_finite(), "the gradient of {} is not finite at optimiser step {}", parameter.name, self.step + 1);
            squares += square;
        }
        let norm = squares.sqrt();
        let scale = (self.settings.max_grad_norm / (norm + 1e-6)).min(1.0);
        self.step += 1;
        let t = i32::try_from(self.step).context("more than 2^31 optimiser steps")?;
        let AdamWSettings { betas, eps, .. } = self.settings;
        for ((gradient, parameter), (m, v)) in gradients.iter().zip(&self.parameters).zip(&self.moments) {
            let weight_decay = if parameter.var.rank() == 2 { self.settings.weight_decay } else { 0.0 };
            adamw(&parameter.var, m, v, &gradient.contiguous()?, &AdamWStep { t, rate, betas, eps, weight_decay, scale })?;
        }
        Ok(norm)
    }

    /// Named tensors of the state: weights and both moments.
    pub fn tensors(&self) -> impl Iterator<Item = (String, &Tensor)> {
        self.parameters.iter().zip(&self.moments).flat_map(|(p, (m, v))| {
            [(format!("weight.{}", p.name), p.var.as_tensor()), (format!("m.{}", p.name), m), (format!("v.{}", p.name), v)]
        })
    }

    pub fn steps(&self) -> usize {
        self.step
    }

    /// Puts a saved state back: `get(name)` gives the tensors that `tensors` named.
    pub fn restore(&mut self, step: usize, mut get: impl FnMut(&str, &Tensor) -> Result<Tensor>) -> Result<()> {
        for (parameter, moments) in self.parameters.iter().zip(&mut self.moments) {
            parameter.var.set(&get(&format!("weight.{}", parameter.name), parameter.var.as_tensor())?)?;
            moments.0 = get(&format!("m.{}", parameter.name), &moments.0)?;
            moments.1 = get(&format!("v.{}", parameter.name), &moments.1)?;
        }
        self.step = step;
        Ok(())
    }
}
