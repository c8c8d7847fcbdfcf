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

/// Angles that a model holds at most (512 MiB as cosines and sines): a million positions of heads of 128.
const LARGEST_ROTARY_TABLE: usize = 1 << 26;
/// No model has that many parameters.
const TOO_MANY_PARAMETERS: f64 = 1e13;

/// Llama 3's stretching of the rotary frequencies ("The Llama 3 Herd of Models"; `rope_type: "llama3"` of transformers).
#[derive(Clone, Copy, Debug, PartialEq)]
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
    /// `max_position_embeddings`, or fewer where a table of that many rotary angles would not fit into memory.
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
        let fields = Fields { json: &json, within: "" };
        let (hidden_size, heads) = (fields.size("hidden_size")?, fields.size("num_attention_heads")?);
        let head_dim = match (fields.optional_size("head_dim")?, architecture) {
            (Some(given), _) => given,
            // Its configuration class has a default of its own.
            (None, Architecture::Qwen3) => 128,
            (None, _) => hidden_size / heads,
        };
        ensure!(head_dim > 0, "hidden_size {hidden_size} is less than num_attention_heads {heads}");
        ensure!(head_dim % 2 == 0, "head_dim {head_dim} is odd: rotary embedding needs pairs");
        let kv_heads = fields.optional_size("num_key_value_heads")?.unwrap_or(heads);
        ensure!(heads % kv_heads == 0, "num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}");
        let positions = fields.size("max_position_embeddings")?;
        let (rope_theta, rope_scaling) = rope(&fields, positions)?;
        let rms_norm_eps = fields.number("rms_norm_eps")?.context("rms_norm_eps is missing")?;
        ensure!(rms_norm_eps > 0.0 && rms_norm_eps < 1.0, "rms_norm_eps must be in (0, 1), got {rms_norm_eps}");
        let config = Self {
            architecture,
            vocab_size: fields.size("vocab_size")?,
            hidden_size,
            intermediate_size: fields.size("intermediate_size")?,
            layers: fields.size("num_hidden_layers")?,
            heads,
            kv_heads,
            head_dim,
            rms_norm_eps,
            rope_theta,
            rope_scaling,
            max_positions: positions.min(LARGEST_ROTARY_TABLE / (head_dim / 2)).max(1),
            tie_embeddings: fields.flag("tie_word_embeddings")?,
            qkv_bias: architecture == Architecture::Qwen2,
            qk_norm: architecture == Architecture::Qwen3,
            json: json.clone(),
        };
        refuse_other_arithmetic(&fields, architecture, kind)?;
        let count = config.rough_parameters();
        ensure!(count < TOO_MANY_PARAMETERS, "its sizes make {count:.1e} parameters: one of them is wrong");
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

    /// The same for another number of rows.
    pub(super) fn with_vocab_size(&self, rows: usize) -> Self {
        let mut config = Self { vocab_size: rows, ..self.clone() };
        config.json.insert("vocab_size".into(), rows.into());
        config
    }

    /// The same with its first layers alone; at least one.
    pub(super) fn with_layers(&self, layers: usize) -> Self {
        let layers = layers.clamp(1, self.layers);
        let mut config = Self { layers, ..self.clone() };
        config.json.insert("num_hidden_layers".into(), layers.into());
        config
    }

    /// The same with another base of the rotary frequencies, for at least so many positions.
    pub(super) fn with_rope_theta(&self, theta: f64, positions: usize) -> Self {
        let positions = positions.max(self.max_positions);
        let mut config = Self { rope_theta: theta, max_positions: positions, ..self.clone() };
        config.json.insert("max_position_embeddings".into(), positions.into());
        // Under the name that the reader looks at first.
        match ["rope_parameters", "rope_scaling"]
            .into_iter()
            .find(|key| self.json.get(*key).is_some_and(|rope| !rope["rope_theta"].is_null()))
        {
            Some(key) => config.json[key]["rope_theta"] = theta.into(),
            None => _ = config.json.insert("rope_theta".into(), theta.into()),
        }
        config
    }

    /// `config.json` to write beside weights in f32.
    pub fn to_json(&self) -> Value {
        self.to_json_beside("float32")
    }

    /// `config.json` to write beside weights of a type, as torch names it.
    pub(super) fn to_json_beside(&self, torch_dtype: &str) -> Value {
        let mut json = self.json.clone();
        json.insert("architectures".into(), json!([self.architecture.class()]));
        let dtype = if json.contains_key("dtype") { "dtype" } else { "torch_dtype" };
        json.insert(dtype.into(), torch_dtype.into());
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

    /// The same without norms and biases, for sizes of any kind.
    fn rough_parameters(&self) -> f64 {
        let [v, d, f, l, h, k, hd] =
            [self.vocab_size, self.hidden_size, self.intermediate_size, self.layers, self.heads, self.kv_heads, self.head_dim]
                .map(|n| n as f64);
        2.0 * v * d + l * d * (2.0 * (h + k) * hd + 3.0 * f)
    }

    /// Inverse frequencies of the rotary embedding, (head_dim / 2,): theta^(-2i / head_dim), each step rounded to f32 as transformers has it.
    pub fn inverse_frequencies(&self) -> Vec<f32> {
        let half = self.head_dim / 2;
        let exponents = (0..half).map(|i| (2 * i) as f32 / self.head_dim as f32);
        // The power in f64 and then rounded: torch's own is within the last bit of this.
        let plain = exponents.map(|e| 1.0 / f64::from(self.rope_theta as f32).powf(f64::from(e)) as f32);
        match self.rope_scaling {
            None => plain.collect(),
            Some(s) => plain.map(|f| s.scale(f)).collect(),
        }
    }

    /// Cosines and sines of the rotary angles, each (max_positions, head_dim / 2).
    ///
    /// An angle is position times frequency in f32, as in transformers: at position 8,000 its rounding moves it by up to 2.4e-4.
    pub fn rotary_table(&self) -> (Vec<f32>, Vec<f32>) {
        let frequencies = self.inverse_frequencies();
        let angles = |f: fn(f64) -> f64| {
            let row = |p: usize| frequencies.iter().map(move |w| f(f64::from(p as f32 * w)) as f32);
            (0..self.max_positions).flat_map(row).collect()
        };
        (angles(f64::cos), angles(f64::sin))
    }
}

impl RopeScaling {
    /// Long wavelengths are divided by `factor`, short ones kept, those between blended; in f32, operation by operation as transformers.
    fn scale(&self, frequency: f32) -> f32 {
        let [factor, low, high, original] =
            [self.factor, self.low_freq_factor, self.high_freq_factor, self.original_max_position_embeddings];
        let wavelength = (1.0 / frequency) * std::f64::consts::TAU as f32;
        let (longest, shortest) = ((original / low) as f32, (original / high) as f32);
        if wavelength > longest {
            frequency / factor as f32
        } else if wavelength < shortest {
            frequency
        } else {
            let smooth = ((1.0 / wavelength) * original as f32 - low as f32) / (high - low) as f32;
            (1.0 - smooth) * frequency / factor as f32 + smooth * frequency
        }
    }
}

/// Fields of `config.json`, or of an object `within` it, by their types: `null` is no value, and any other type an error that names the field.
struct Fields<'a> {
    json: &'a Map<String, Value>,
    /// Prefix of names in errors.
    within: &'a str,
}

impl<'a> Fields<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.json.get(key).filter(|value| !value.is_null())
    }

    fn typed<T>(&self, key: &str, what: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let value = self.get(key);
        value.map(|value| read(value).with_context(|| format!("{}{key} must be {what}, got {value}", self.within))).transpose()
    }

    fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        let read = |value: &Value| value.as_u64().filter(|n| *n > 0 && *n < 1 << 32).map(|n| n as usize);
        self.typed(key, "a positive integer", read)
    }

    fn size(&self, key: &str) -> Result<usize> {
        self.optional_size(key)?.with_context(|| format!("{}{key} is missing", self.within))
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    fn positive(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a positive number", |value| value.as_f64().filter(|x| *x > 0.0))
    }

    fn flag(&self, key: &str) -> Result<bool> {
        Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(false))
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a text", Value::as_str)
    }
}

/// What the decoder does not compute.
fn refuse_other_arithmetic(fields: &Fields, architecture: Architecture, kind: &str) -> Result<()> {
    // transformers' Qwen2 has its biases whatever the field says, and of these only Llama's has biases to choose in the feed-forward layers.
    let is_biased = fields.flag("attention_bias")? && architecture != Architecture::Qwen2;
    ensure!(!is_biased, "attention_bias is true: biases on the attention of {kind} models are not supported");
    let is_biased = fields.flag("mlp_bias")? && architecture == Architecture::Llama;
    ensure!(!is_biased, "mlp_bias is true: biases in the feed-forward layers are not supported");
    ensure!(!fields.flag("use_sliding_window")?, "use_sliding_window is true: sliding-window attention is not supported");
    let layers = fields.typed("layer_types", "a list", Value::as_array)?;
    let windowed = layers.and_then(|layers| layers.iter().find(|layer| *layer != "full_attention"));
    ensure!(windowed.is_none(), "layer_types holds {}: only full_attention is supported", windowed.unwrap_or(&Value::Null));
    let activation = fields.text("hidden_act")?.unwrap_or("silu");
    ensure!(activation == "silu", "hidden_act {activation:?} is not supported: silu is");
    if let Some(value) = fields.get("quantization_config") {
        let method = value.get("quant_method").and_then(Value::as_str).unwrap_or("of an unknown method");
        bail!("quantization_config: quantized weights ({method}) are not read; take the model as it was before, in bf16, f16 or f32");
    }
    Ok(())
}

/// The base of the rotary frequencies and their scaling, under the names of transformers 4 or 5; only `default` and `llama3` are implemented.
fn rope(fields: &Fields, positions: usize) -> Result<(f64, Option<RopeScaling>)> {
    const DEFAULT_THETA: f64 = 10_000.0;
    let nothing = Map::new();
    let mut rope = Fields { json: &nothing, within: "" };
    for (key, within) in [("rope_parameters", "rope_parameters."), ("rope_scaling", "rope_scaling.")] {
        let found = fields.typed(key, "an object", Value::as_object)?;
        rope = found.filter(|found| !found.is_empty()).map_or(rope, |json| Fields { json, within });
    }
    if let Some((key, _)) = rope.json.iter().find(|(_, value)| value.is_object()) {
        bail!("{}{key}: rotary embeddings that differ between layers are not supported", rope.within);
    }
    for fields in [fields, &rope] {
        let share = fields.number("partial_rotary_factor")?.unwrap_or(1.0);
        ensure!(share == 1.0, "{}partial_rotary_factor {share} is not supported: 1 is", fields.within);
    }
    let theta = rope.positive("rope_theta")?.or(fields.positive("rope_theta")?).unwrap_or(DEFAULT_THETA);
    let kind = rope.text("rope_type")?.or(rope.text("type")?);
    match kind {
        None if rope.get("factor").is_some() => bail!("{}factor stands without a rope_type: default and llama3 are supported", rope.within),
        None | Some("default") => Ok((theta, None)),
        Some("llama3") => {
            let needed = |key: &str| rope.positive(key)?.with_context(|| format!("{}{key} is missing", rope.within));
            let scaling = RopeScaling {
                factor: needed("factor")?,
                low_freq_factor: needed("low_freq_factor")?,
                high_freq_factor: needed("high_freq_factor")?,
                original_max_position_embeddings: rope.positive("original_max_position_embeddings")?.unwrap_or(positions as f64),
            };
            let (low, high) = (scaling.low_freq_factor, scaling.high_freq_factor);
            ensure!(high > low, "{}high_freq_factor {high} must be above low_freq_factor {low}", rope.within);
            Ok((theta, Some(scaling)))
        }
        Some(other) => bail!("{}rope_type {other:?} is not supported: default and llama3 are", rope.within),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, change: Value) -> Result<Config> {
        let Value::Object(mut json) = json!({
            "model_type": kind, "vocab_size": 8, "hidden_size": 64, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 4,
            "max_position_embeddings": 512, "rms_norm_eps": 1e-6
        }) else {
            unreachable!()
        };
        json.extend(change.as_object().unwrap().clone());
        Config::from_json(json)
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0});
        let without = |key: &str| {
            let mut scaling = llama3.clone();
            scaling.as_object_mut().unwrap().remove(key);
            json!({"rope_scaling": scaling})
        };
        let rows = [
            (json!({"rope_scaling": "linear"}), "rope_scaling must be an object, got \"linear\""),
            (json!({"rope_parameters": [1]}), "rope_parameters must be an object, got [1]"),
            (json!({"rope_scaling": {"factor": 2.0}}), "rope_scaling.factor stands without a rope_type"),
            (json!({"rope_scaling": {"rope_type": 3}}), "rope_scaling.rope_type must be a text, got 3"),
            (json!({"rope_scaling": {"type": "yarn", "factor": 4.0}}), "rope_scaling.rope_type \"yarn\" is not supported"),
            (without("factor"), "rope_scaling.factor is missing"),
            (without("high_freq_factor"), "rope_scaling.high_freq_factor is missing"),
            (
                json!({"rope_parameters": {"rope_type": "llama3", "factor": "8"}}),
                "rope_parameters.factor must be a positive number, got \"8\"",
            ),
            (
                json!({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}),
                "rope_parameters.full_attention: rotary embeddings that differ",
            ),
            (json!({"rope_theta": "10000"}), "rope_theta must be a positive number, got \"10000\""),
            (json!({"rope_parameters": {"rope_theta": "1e6"}}), "rope_parameters.rope_theta must be a positive number, got \"1e6\""),
            (json!({"rope_theta": 0}), "rope_theta must be a positive number, got 0"),
            (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor 0.5 is not supported"),
            (json!({"rope_parameters": {"partial_rotary_factor": 0.25}}), "rope_parameters.partial_rotary_factor 0.25 is not supported"),
            (json!({"tie_word_embeddings": "true"}), "tie_word_embeddings must be true or false, got \"true\""),
            (json!({"use_sliding_window": 1}), "use_sliding_window must be true or false, got 1"),
            (json!({"attention_bias": "no"}), "attention_bias must be true or false"),
            (json!({"attention_bias": true}), "biases on the attention of llama models"),
            (json!({"mlp_bias": true}), "biases in the feed-forward layers"),
            (json!({"layer_types": "full_attention"}), "layer_types must be a list"),
            (json!({"layer_types": ["full_attention", "sliding_attention"]}), "layer_types holds \"sliding_attention\""),
            (json!({"hidden_act": ["silu"]}), "hidden_act must be a text"),
            (json!({"hidden_act": "gelu"}), "hidden_act \"gelu\" is not supported"),
            (
                json!({"quantization_config": {"quant_method": "gptq", "bits": 4}}),
                "quantization_config: quantized weights (gptq) are not read",
            ),
            (json!({"quantization_config": []}), "quantization_config: quantized weights (of an unknown method)"),
            (json!({"head_dim": 0}), "head_dim must be a positive integer, got 0"),
            (json!({"hidden_size": 2}), "hidden_size 2 is less than num_attention_heads 4"),
            (json!({"head_dim": 15}), "head_dim 15 is odd"),
            (json!({"num_key_value_heads": 3}), "num_attention_heads 4 is not a multiple of num_key_value_heads 3"),
            (json!({"vocab_size": 1.5}), "vocab_size must be a positive integer, got 1.5"),
            (json!({"vocab_size": null}), "vocab_size is missing"),
            (json!({"max_position_embeddings": -1}), "max_position_embeddings must be a positive integer, got -1"),
            (json!({"rms_norm_eps": "1e-6"}), "rms_norm_eps must be a number"),
            (json!({"rms_norm_eps": 0}), "rms_norm_eps must be in (0, 1), got 0"),
            (json!({"hidden_size": u32::MAX - 3, "num_hidden_layers": u32::MAX, "head_dim": 64}), "parameters: one of them is wrong"),
        ];
        for (change, expected) in rows {
            let message = format!("{:#}", read("llama", change.clone()).err().unwrap_or_else(|| panic!("{change} was taken")));
            assert!(message.contains(expected), "{change}: {message}");
        }
    }

    #[test]
    fn fields_mean_what_transformers_takes_them_for() {
        let biased = read("qwen2", json!({"attention_bias": true, "mlp_bias": true})).unwrap();
        assert!(biased.qkv_bias && biased.head_dim == 16);
        assert_eq!(read("qwen3", json!({})).unwrap().head_dim, 128);
        assert_eq!(read("qwen3", json!({"head_dim": 32})).unwrap().head_dim, 32);
        assert!(read("qwen3", json!({"attention_bias": true})).is_err());
        let plain = read("llama", json!({"rope_scaling": null, "tie_word_embeddings": null, "quantization_config": null})).unwrap();
        assert_eq!((plain.rope_theta, plain.rope_scaling, plain.tie_embeddings), (10_000.0, None, false));
        let scaling = json!({"type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "rope_theta": 7.0});
        let both = read("llama", json!({"rope_theta": 5.0, "rope_scaling": scaling, "rope_parameters": {"rope_theta": 6.0}})).unwrap();
        assert_eq!((both.rope_theta, both.rope_scaling.unwrap().original_max_position_embeddings), (7.0, 512.0));
    }

    #[test]
    fn a_context_without_end_takes_no_memory_without_end() {
        let config = read("llama", json!({"max_position_embeddings": 1u32 << 31, "head_dim": 128})).unwrap();
        assert_eq!(config.max_positions, 1 << 20);
        assert_eq!(config.to_json()["max_position_embeddings"], 1u32 << 31);
        assert_eq!(read("llama", json!({"head_dim": 1u32 << 31, "max_position_embeddings": 9})).unwrap().max_positions, 1);
    }
}
