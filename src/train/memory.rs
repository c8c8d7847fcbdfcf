//! What training takes in memory, from shapes alone: the sums that `--plan` prints, and that a measurement holds to 10 %.
//!
//! Parts are what is held at the moment of the peak. Memory that was freed stays with the program for a minute (`memory.rs`), so what is needed one after the
//! other in a step mostly adds up.

use super::optimizer::Optim;
use crate::model::{Config, LoraSettings};

/// What is trained, and how.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    pub config: &'a Config,
    pub lora: Option<&'a LoraSettings>,
    pub optim: Optim,
    /// Tokens of the longest micro-batch.
    pub tokens: usize,
    /// Of these, rows that the head is computed for.
    pub targets: usize,
    pub recompute: bool,
    /// Of a model that stands beside it, which it is measured against: a reference that is not its own base, or a teacher.
    pub beside: Option<&'a Config>,
}

/// Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Memory {
    /// Those trained, those frozen, and those of the model beside it.
    pub weights: usize,
    pub gradients: usize,
    /// Moments.
    pub optimizer: usize,
    /// Inputs of layers, and what a layer (all layers, where none is computed again) holds between its passes.
    pub activations: usize,
    /// Rows of logits, and those that are kept for the backward pass.
    pub logits: usize,
}

impl Memory {
    pub fn total(&self) -> usize {
        self.weights + self.gradients + self.optimizer + self.activations + self.logits
    }
}

const F32: usize = size_of::<f32>();

impl Setup<'_> {
    /// Tokens of a micro-batch with which training needs no more than `available` bytes beside the weights, which are there already: those asked for, or half as many again
    /// and again, `least` (the longest sequence) at the lowest.
    pub fn fitted(&self, available: usize, least: usize) -> usize {
        let needs = |tokens: usize| Self { tokens, targets: tokens, ..*self }.beside_weights();
        let mut tokens = self.tokens.max(least);
        while tokens > least && needs(tokens) > available {
            tokens = (tokens / 2).max(least);
        }
        tokens
    }

    /// Bytes beside the weights of what is trained itself; those of a model beside it are among them.
    pub fn beside_weights(&self) -> usize {
        self.memory().total() - F32 * self.config.parameters()
    }

    pub fn memory(&self) -> Memory {
        let whole = self.config.parameters();
        let trained = self.lora.map_or(whole, |lora| lora.parameters(self.config));
        let beside = if self.lora.is_some() { trained } else { 0 };
        let other = self.beside.map_or(0, Config::parameters);
        // Of the other model's logits a chunk is there at a time.
        let other_logits = self.beside.map_or(0, |config| crate::model::logits_of_a_chunk(config.vocab_size, self.targets));
        Memory {
            weights: F32 * (whole + beside + other),
            gradients: F32 * trained,
            optimizer: match self.optim {
                Optim::Adamw => 2 * F32 * trained,
                Optim::Adamw8bit => 2 * trained + 2 * F32 * trained.div_ceil(256),
            },
            activations: self.activations(),
            logits: F32 * (crate::model::logits_held(self.config.vocab_size, self.targets) + other_logits),
        }
    }

    fn activations(&self) -> usize {
        let c = self.config;
        let (d, f, queries) = (c.hidden_size, c.intermediate_size, c.heads * c.head_dim);
        let qkv = queries + 2 * c.kv_heads * c.head_dim;
        let normed = if c.qk_norm { qkv } else { 0 };
        // A layer's two halves by token: what the graph holds, and gradients on their way (candle has each three times: as it comes, zeros, their sum).
        let (attention, mlp) = (3 * d + 2 * qkv + normed + queries, 3 * d + 3 * f);
        let (attention_back, mlp_back) = (3 * (qkv + d), 9 * f);
        // Hidden states around the head and between layers.
        let around = 8 * d * self.tokens;
        let numbers = if self.recompute {
            let rows = self.tokens.min(crate::model::MLP_ROWS);
            c.layers * d * self.tokens + (attention + attention_back) * self.tokens + (mlp + mlp_back) * rows + around
        } else {
            (c.layers * (attention + mlp + d) + attention_back + mlp_back) * self.tokens + around
        };
        F32 * numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Target;
    use serde_json::json;

    /// The shape of Qwen2.5-0.5B.
    fn half() -> Config {
        let json = json!({
            "model_type": "qwen2", "vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
            "num_key_value_heads": 2, "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6, "tie_word_embeddings": true
        });
        Config::from_json(json.as_object().unwrap().clone()).unwrap()
    }

    fn setup(config: &Config) -> Setup<'_> {
        Setup { config, lora: None, optim: Optim::Adamw, tokens: 2048, targets: 2048, recompute: true, beside: None }
    }

    #[test]
    fn parts_are_those_of_the_shape() {
        let config = half();
        let p = 494_032_768;
        let full = setup(&config).memory();
        assert_eq!((full.weights, full.gradients, full.optimizer), (4 * p, 4 * p, 8 * p));
        let eight = Setup { optim: Optim::Adamw8bit, ..setup(&config) }.memory();
        assert_eq!(eight.optimizer, 2 * p + 8 * p.div_ceil(256));
        let lora = LoraSettings { r: 16, alpha: 32.0, targets: Target::ALL.to_vec(), dropout: 0.0, rslora: false };
        let adapter = Setup { lora: Some(&lora), ..setup(&config) }.memory();
        assert_eq!(lora.parameters(&config), 8_798_208, "as peft counts them");
        assert_eq!((adapter.weights, adapter.gradients), (4 * (p + 8_798_208), 4 * 8_798_208));
        let taught = Setup { beside: Some(&config), ..setup(&config) }.memory();
        assert_eq!((taught.weights, taught.optimizer, taught.logits - full.logits), (8 * p, 8 * p, 4 * 256 * 151_936));
        let with_teacher = Setup { beside: Some(&config), ..setup(&config) }.beside_weights();
        assert_eq!(with_teacher - setup(&config).beside_weights(), 4 * p + 4 * 256 * 151_936, "a teacher and a chunk of its logits");
        // One hidden state per token and layer, and one layer's attention, grow with length; the wide states do not.
        let at = |tokens: usize| Setup { tokens, targets: tokens, ..setup(&config) }.memory();
        let per_token = (at(8192).activations - at(2048).activations) / 6144;
        assert!((100_000..200_000).contains(&per_token), "{per_token} bytes a token");
        assert_eq!(at(8192).logits, at(2048).logits);
        let whole = Setup { recompute: false, ..setup(&config) }.memory();
        assert!(whole.activations > 6 * full.activations);
    }

    /// The author of Reinforce-Lite ran out of 48 GB above 1,024 tokens with a model of this size.
    #[test]
    fn three_billion_parameters_are_trained_at_2048_tokens_in_40_gb() {
        let json = json!({
            "model_type": "qwen2", "vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 11_008, "num_hidden_layers": 36, "num_attention_heads": 16,
            "num_key_value_heads": 2, "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6, "tie_word_embeddings": true
        });
        let config = Config::from_json(json.as_object().unwrap().clone()).unwrap();
        assert!((3_000_000_000..3_200_000_000).contains(&config.parameters()));
        let total = Setup { optim: Optim::Adamw8bit, ..setup(&config) }.memory().total();
        assert!((30_000_000_000..40_000_000_000).contains(&total), "{total}");
    }

    #[test]
    fn micro_batches_are_halved_until_they_fit() {
        let config = half();
        let wanted = Setup { tokens: 16_384, targets: 16_384, ..setup(&config) };
        let needs = |tokens: usize| Setup { tokens, targets: tokens, ..wanted }.memory().total() - 4 * config.parameters();
        assert_eq!(wanted.fitted(needs(16_384), 1), 16_384);
        assert_eq!(wanted.fitted(needs(16_384) - 1, 1), 8192);
        assert_eq!(wanted.fitted(needs(2048), 1), 2048);
        assert_eq!(wanted.fitted(0, 3000), 3000, "a sequence is not cut");
    }
}
