//! Mixed precision: the layers' products on numbers rounded to bf16, everything else in f32.
//!
//! As `torch.autocast` has it for products: operands and result are rounded, sums are f32, and so are embeddings, norms, rotary angles, softmax and the residual
//! stream. Two things are more exact here: the gradient of a weight is added up in f32, and the head, whose rounding moves every log-probability, stays in f32.
//! Weights and moments are f32 in any case. A CPU computes the rounded numbers in f32, which costs time and saves nothing: it shows what bf16 makes of a training.

use super::{Decoder, Matrix};
use crate::model::lora::Addition;
use crate::model::ops;
use anyhow::Result;
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

impl Decoder {
    /// The same model, computing in bf16 or not.
    pub fn in_bf16(&self, in_bf16: bool) -> Self {
        Self { in_bf16, ..self.clone() }
    }

    /// `x` (N, D) times a layer's matrix: (N, O).
    pub(super) fn product(&self, matrix: &Matrix, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        if !self.in_bf16 {
            return matrix.apply(x, bias);
        }
        Ok(ops::rounded(&matrix.rounded()?.apply(&ops::rounded(x)?, bias)?)?)
    }

    /// Goes back from the gradient `dy` of `product` without a bias.
    pub(super) fn product_back(&self, matrix: &Matrix, x: &Tensor, dy: &Tensor) -> Result<GradStore> {
        if !self.in_bf16 {
            return matrix.backward_from(x, dy);
        }
        matrix.rounded()?.backward_from(&ops::rounded(x)?, &ops::rounded(dy)?)
    }
}

impl Matrix {
    /// Weights and an adapter's factors rounded; what was laid out for sampling is so already.
    fn rounded(&self) -> Result<Self> {
        let addition = match &self.addition {
            Some(add) => Some(Addition { a: ops::rounded_weight(&add.a)?, b: ops::rounded_weight(&add.b)?, ..add.clone() }),
            None => None,
        };
        let weight = match (&self.weight, &self.sink) {
            // Its gradient goes into the sink and not into the graph, which must then end here.
            (Some(weight), Some(_)) if weight.track_op() => Some(Var::from_tensor(&ops::rounded_weight(&weight.detach())?)?.into_inner()),
            (weight, _) => weight.as_ref().map(ops::rounded_weight).transpose()?,
        };
        Ok(Self { weight, addition, panels: self.panels.clone(), sink: self.sink.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::model::{Config, LoraSettings, Packed, Target};
    use candle_core::Device;
    use half::bf16;
    use serde_json::json;

    fn decoder() -> Decoder {
        let json = json!({
            "model_type": "qwen2", "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "tie_word_embeddings": true
        });
        let config = Config::from_json(json.as_object().unwrap().clone()).unwrap();
        Decoder::random(config, Key::new(1, "mixed"), &Device::Cpu).unwrap()
    }

    /// Each token follows from the one before it.
    fn tokens() -> Vec<u32> {
        (0..24)
            .scan(1, |t, _| {
                *t = (*t * 7 + 3) % 40;
                Some(*t)
            })
            .collect()
    }

    fn numbers(t: &Tensor) -> Vec<f32> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn products_see_and_give_numbers_of_bf16_alone() {
        let decoder = decoder().in_bf16(true);
        let matrix = &decoder.layers[0].down;
        let x = Tensor::from_vec((0..48 * 3).map(|i| (i as f32).sin()).collect::<Vec<f32>>(), (3, 48), &Device::Cpu).unwrap();
        let y = numbers(&decoder.product(matrix, &x, None).unwrap());
        let round = |x: &[f32]| x.iter().map(|x| bf16::from_f32(*x).to_f32()).collect::<Vec<f32>>();
        assert_eq!(y, round(&y));
        // In f64, so that only the roundings are left.
        let (x, w) = (round(&numbers(&x)), round(&numbers(matrix.weight())));
        for (i, y) in y.iter().enumerate() {
            let (row, column) = (i / 32, i % 32);
            let sum: f64 = (0..48).map(|k| f64::from(x[row * 48 + k]) * f64::from(w[column * 48 + k])).sum();
            assert!((sum - f64::from(*y)).abs() <= sum.abs() / 256.0 + 1e-6, "{sum} {y}");
        }
        assert_ne!(
            y,
            numbers(&decoder.in_bf16(false).product(matrix, &Tensor::from_vec(x, (3, 48), &Device::Cpu).unwrap(), None).unwrap())
        );
    }

    #[test]
    fn sampling_sees_what_training_sees() {
        let lora = LoraSettings { r: 2, alpha: 4.0, targets: Target::ALL.to_vec(), dropout: 0.0, rslora: false };
        for model in [decoder(), decoder().with_adapter(&lora, Key::new(2, "a")).unwrap()] {
            let model = model.in_bf16(true);
            let packed = Packed::new([&tokens()[..]]).unwrap();
            let logits = |model: &Decoder| numbers(&model.logits(&model.hidden(&packed).unwrap()).unwrap());
            let (trained, sampled) = (logits(&model), logits(&model.clone().for_sampling().unwrap()));
            let mean = trained.iter().zip(&sampled).map(|(a, b)| f64::from(a - b).abs()).sum::<f64>() / trained.len() as f64;
            assert!(mean < 2e-2, "{mean}");
        }
    }
}
