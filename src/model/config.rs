//! `Config`: what `config.json` says about a decoder, for the Qwen2, Qwen3 and Llama families.
//!
//! Everything that would change the arithmetic and that the decoder does not implement is refused here, by name and value, so that no
//! checkpoint is ever read as something it is not. Fields that do not concern the arithmetic are kept and written back.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// Qwen2 and Qwen2.5: biases on q, k, v.
    Qwen2,
    /// No biases, RMSNorm on each query and key head.
    Qwen3,
    /// Llama 2 and 3.
    Llama,
}

impl Architecture {
    fn class(self) -> &'static str {
        match self {
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::Llama => "LlamaForCausalLM",
        }
    }
}

/// Llama 3's stretching of the rotary frequencies ("The Llama 3 Herd of Models"; `rope_type: "llama3"` of transformers).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RopeScaling {
    pub factor: f64,
    pub low_freq_factor: f64,
    pub high_freq_factor: f64,
    pub original_max_position_embeddings: f64,
}

/// Shape of a model made from nothing; the rest of its configuration is that of a small Qwen2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    pub hidden_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub intermediate_size: usize,
    #[serde(default = "default_positions")]
    pub positions: usize,
}

fn default_positions() -> usize {
    512
}

/// The hyper-parameters that the decoder's arithmetic needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub architecture: Architecture,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    pub rope_scaling: Option<RopeScaling>,
    pub max_positions: usize,
    pub tie_embeddings: bool,
    /// Biases on the query, key and value projections.
    pub qkv_bias: bool,
    /// RMSNorm on each query and key head.
    pub qk_norm: bool,
    /// `config.json` as it was read, written back on saving.
    json: Map<String, Value>,
}

impl Config {
    /// Whether the weights fit into a core's cache: work on several sequences is then cut by sequence, for larger models inside each operation.
    pub fn is_small(&self) -> bool {
        self.parameters() <= 4 << 20
    }

    /// Everything that the arithmetic depends on, as text.
    pub fn identity(&self) -> String {
        format!("{:?}", Self { json: Map::new(), ..self.clone() })
    }

    /// Reads and checks `config.json` of a model folder.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}: a model folder needs config.json, a tokenizer and safetensors", path.display()))?;
        let json: Map<String, Value> = serde_json::from_str(&text).with_context(|| format!("{} is not a JSON object", path.display()))?;
        Self::from_json(json).with_context(|| format!("in {}", path.display()))
    }

    /// Checks a parsed `config.json`.
    pub fn from_json(json: Map<String, Value>) -> Result<Self> {
        let kind = json.get("model_type").and_then(Value::as_str).unwrap_or_default();
        let architecture = match kind {
            "qwen2" => Architecture::Qwen2,
            "qwen3" => Architecture::Qwen3,
            "llama" => Architecture::Llama,
            other => bail!("model_type {other:?} is not supported: qwen2, qwen3 and llama are"),
        };
        let size = |key: &str| -> Result<usize> {
            let value = json.get(key).with_context(|| format!("{key} is missing"))?;
            let n = value
                .as_u64()
                .filter(|n| *n > 0 && *n < 1 << 32)
                .with_context(|| format!("{key} must be a positive integer, got {value}"))?;
            Ok(n as usize)
        };
        let (hidden_size, heads) = (size("hidden_size")?, size("num_attention_heads")?);
        let present = |key: &str| json.get(key).is_some_and(|v| !v.is_null());
        let head_dim = if present("head_dim") { size("head_dim")? } else { hidden_size / heads };
        let kv_heads = if present("num_key_value_heads") { size("num_key_value_heads")? } else { heads };
        let flag = |key: &str, default: bool| json.get(key).and_then(Value::as_bool).unwrap_or(default);
        let attention_bias = flag("attention_bias", false);
        let config = Self {
            architecture,
            vocab_size: size("vocab_size")?,
            hidden_size,
            intermediate_size: size("intermediate_size")?,
            layers: size("num_hidden_layers")?,
            heads,
            kv_heads,
            head_dim,
            rms_norm_eps: json.get("rms_norm_eps").and_then(Value::as_f64).context("rms_norm_eps is missing")?,
            rope_theta: rope_theta(&json)?,
            rope_scaling: rope_scaling(&json)?,
            max_positions: size("max_position_embeddings")?,
            tie_embeddings: flag("tie_word_embeddings", false),
            qkv_bias: architecture == Architecture::Qwen2,
            qk_norm: architecture == Architecture::Qwen3,
            json: json.clone(),
        };
        ensure!(!attention_bias, "attention_bias is true: biases on the attention of {kind} models are not supported");
        ensure!(!flag("mlp_bias", false), "mlp_bias is true: biases in the feed-forward layers are not supported");
        ensure!(!flag("use_sliding_window", false), "use_sliding_window is true: sliding-window attention is not supported");
        let windowed = json.get("layer_types").and_then(Value::as_array).and_then(|l| l.iter().find(|t| *t != "full_attention"));
        ensure!(windowed.is_none(), "layer_types holds {}: only full_attention is supported", windowed.unwrap_or(&Value::Null));
        let activation = json.get("hidden_act").and_then(Value::as_str).unwrap_or("silu");
        ensure!(activation == "silu", "hidden_act {activation:?} is not supported: silu is");
        ensure!(heads % kv_heads == 0, "num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}");
        ensure!(head_dim % 2 == 0, "head_dim {head_dim} is odd: rotary embedding needs pairs");
        Ok(config)
    }

    /// The configuration of a model made from nothing: Qwen2 with tied embeddings and rotary base 10,000.
    pub fn fresh(shape: &Shape, vocab_size: usize, eos: u32, pad: u32) -> Result<Self> {
        let json = json!({
            "architectures": [Architecture::Qwen2.class()],
            "model_type": "qwen2",
            "vocab_size": vocab_size,
            "hidden_size": shape.hidden_size,
            "intermediate_size": shape.intermediate_size,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "max_position_embeddings": shape.positions,
            "max_window_layers": shape.layers,
            "use_sliding_window": false,
            "tie_word_embeddings": true,
            "attention_dropout": 0.0,
            "eos_token_id": eos,
            "pad_token_id": pad,
            "torch_dtype": "float32",
        });
        let Value::Object(json) = json else { bail!("a configuration is an object") };
        ensure!(
            shape.hidden_size.is_multiple_of(shape.heads),
            "hidden_size {} is not a multiple of heads {}",
            shape.hidden_size,
            shape.heads
        );
        Self::from_json(json)
    }

    /// `config.json` to write beside weights in f32.
    pub fn to_json(&self) -> Value {
        let mut json = self.json.clone();
        json.insert("architectures".into(), json!([self.architecture.class()]));
        let dtype = if json.contains_key("dtype") { "dtype" } else { "torch_dtype" };
        json.insert(dtype.into(), "float32".into());
        Value::Object(json)
    }

    /// Number of parameters, tied embeddings counted once.
    pub fn parameters(&self) -> usize {
        let (d, hd) = (self.hidden_size, self.head_dim);
        let qkv = (self.heads + 2 * self.kv_heads) * hd;
        let norms = 2 * d + if self.qk_norm { 2 * hd } else { 0 };
        let layer = qkv * d + if self.qkv_bias { qkv } else { 0 } + self.heads * hd * d + 3 * d * self.intermediate_size + norms;
        let tables = if self.tie_embeddings { 1 } else { 2 };
        tables * self.vocab_size * d + self.layers * layer + d
    }

    /// Inverse frequencies of the rotary embedding, (head_dim / 2,).
    pub fn inverse_frequencies(&self) -> Vec<f64> {
        let half = self.head_dim / 2;
        let plain = (0..half).map(|i| self.rope_theta.powf(-(i as f64) / half as f64));
        match self.rope_scaling {
            None => plain.collect(),
            Some(s) => plain.map(|f| s.scale(f)).collect(),
        }
    }
}

impl RopeScaling {
    /// Long wavelengths are divided by `factor`, short ones kept, those between blended.
    fn scale(&self, frequency: f64) -> f64 {
        let wavelength = std::f64::consts::TAU / frequency;
        let turns = self.original_max_position_embeddings / wavelength;
        if turns < self.low_freq_factor {
            frequency / self.factor
        } else if turns > self.high_freq_factor {
            frequency
        } else {
            let smooth = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor);
            (1.0 - smooth) * frequency / self.factor + smooth * frequency
        }
    }
}

/// `rope_theta`, at the top level or, as transformers 5 writes it, inside `rope_parameters`.
fn rope_theta(json: &Map<String, Value>) -> Result<f64> {
    let nested = json.get("rope_parameters").and_then(|p| p.get("rope_theta"));
    let theta = nested.or(json.get("rope_theta")).and_then(Value::as_f64).unwrap_or(10_000.0);
    ensure!(theta > 0.0, "rope_theta must be positive, got {theta}");
    Ok(theta)
}

/// The scaling of the rotary frequencies; only `default` and `llama3` are implemented.
fn rope_scaling(json: &Map<String, Value>) -> Result<Option<RopeScaling>> {
    let value = ["rope_scaling", "rope_parameters"].iter().filter_map(|k| json.get(*k)).find(|v| !v.is_null());
    let Some(value) = value else { return Ok(None) };
    let kind = value.get("rope_type").or(value.get("type")).and_then(Value::as_str).unwrap_or("default");
    match kind {
        "default" => Ok(None),
        "llama3" => Ok(Some(serde_json::from_value(value.clone()).context("rope_scaling of type llama3")?)),
        other => bail!("rope scaling of type {other:?} is not supported: default and llama3 are"),
    }
}
