//! LoRA (Hu et al., 2021): low-rank additions to frozen matrices. Settings, their place in the decoder's matrices, and folders as `peft` writes and reads them.
//!
//! W stands for W + s B A with A (r, D) and B (O, r); s = alpha / r, or alpha / sqrt(r) where the rank is to change no gradient's size (rsLoRA, Kalajdzievski, 2023).
//! q, k and v are one matrix here, and so are gate and up: their additions share one product with A and one dropout mask, where peft has one for each.

use super::config::Config;
use super::ops::{AdditionShape, Dropout};
use crate::key::Key;
use crate::publish;
use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A projection that gets an addition, by its name in checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    QProj,
    KProj,
    VProj,
    OProj,
    GateProj,
    UpProj,
    DownProj,
}

impl Target {
    /// `all-linear` of peft: every projection, neither embedding nor head.
    pub const ALL: [Self; 7] = [Self::QProj, Self::KProj, Self::VProj, Self::OProj, Self::GateProj, Self::UpProj, Self::DownProj];

    /// The checkpoint's name inside a layer.
    fn module(self) -> &'static str {
        match self {
            Self::QProj => "self_attn.q_proj",
            Self::KProj => "self_attn.k_proj",
            Self::VProj => "self_attn.v_proj",
            Self::OProj => "self_attn.o_proj",
            Self::GateProj => "mlp.gate_proj",
            Self::UpProj => "mlp.up_proj",
            Self::DownProj => "mlp.down_proj",
        }
    }

    fn name(self) -> &'static str {
        self.module().rsplit('.').next().unwrap_or_default()
    }

    /// All names, as peft's `target_modules` has them.
    pub fn names() -> [&'static str; 7] {
        Self::ALL.map(Self::name)
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|target| target.name() == name)
    }
}

/// What an adapter is like; names as in peft.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoraSettings {
    /// Rank.
    pub r: usize,
    pub alpha: f64,
    /// In the order of `Target::ALL`, each once.
    pub targets: Vec<Target>,
    /// Share of the inputs of the additions that are 0 in training; the others are scaled up.
    pub dropout: f64,
    /// alpha / sqrt(r) in place of alpha / r.
    pub rslora: bool,
}

impl LoraSettings {
    /// Factor of the additions.
    pub fn scale(&self) -> f64 {
        self.alpha / if self.rslora { (self.r as f64).sqrt() } else { self.r as f64 }
    }
}

impl LoraSettings {
    /// Numbers that an adapter of a model has.
    pub fn parameters(&self, config: &Config) -> usize {
        let each = |joined: Joined| {
            let (inputs, parts) = joined.parts(config, &self.targets);
            parts.iter().map(|(_, rows)| self.r * (inputs + rows.len())).sum::<usize>()
        };
        config.layers * Joined::ALL.into_iter().map(each).sum::<usize>()
    }
}

/// The matrices of a layer as the decoder holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joined {
    Qkv,
    O,
    GateUp,
    Down,
}

impl Joined {
    pub const ALL: [Self; 4] = [Self::Qkv, Self::O, Self::GateUp, Self::Down];

    /// Its name inside a layer in the decoder's schema.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qkv => "self_attn.qkv_proj",
            Self::O => "self_attn.o_proj",
            Self::GateUp => "mlp.gate_up_proj",
            Self::Down => "mlp.down_proj",
        }
    }

    /// Inputs, and the projections it holds with their outputs.
    fn projections(self, config: &Config) -> (usize, Vec<(Target, usize)>) {
        let (d, f) = (config.hidden_size, config.intermediate_size);
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        match self {
            Self::Qkv => (d, vec![(Target::QProj, q), (Target::KProj, kv), (Target::VProj, kv)]),
            Self::O => (q, vec![(Target::OProj, d)]),
            Self::GateUp => (d, vec![(Target::GateProj, f), (Target::UpProj, f)]),
            Self::Down => (f, vec![(Target::DownProj, d)]),
        }
    }

    /// Inputs, and the rows that each wanted projection has in the matrix.
    pub fn parts(self, config: &Config, wanted: &[Target]) -> (usize, Vec<(Target, Range<usize>)>) {
        let (inputs, projections) = self.projections(config);
        let (mut from, mut parts) = (0, Vec::new());
        for (target, rows) in projections {
            if wanted.contains(&target) {
                parts.push((target, from..from + rows));
            }
            from += rows;
        }
        (inputs, parts)
    }
}

/// The additions to one of the decoder's matrices.
#[derive(Clone, Debug)]
pub(super) struct Addition {
    /// First factors of all P parts, one below the other, (P r, D).
    pub a: Tensor,
    /// Second factors, one below the other, (sum of the parts' rows, r).
    pub b: Tensor,
    pub shape: Arc<AdditionShape>,
    /// Of the inputs, in training only.
    pub dropout: Option<Dropout>,
}

/// Additions by layer and matrix: both factors of each that has one.
pub(super) type Factors = BTreeMap<(usize, usize), (Tensor, Tensor)>;

/// A new adapter, which adds nothing yet: A uniform in +-1/sqrt(D), as peft draws it, B zeros.
pub(super) fn fresh(config: &Config, settings: &LoraSettings, key: Key, device: &Device) -> Result<Factors> {
    let mut all = Factors::new();
    for layer in 0..config.layers {
        for (m, joined) in Joined::ALL.into_iter().enumerate() {
            let (inputs, parts) = joined.parts(config, &settings.targets);
            if parts.is_empty() {
                continue;
            }
            let bound = 1.0 / (inputs as f64).sqrt();
            let mut a = Vec::with_capacity(parts.len() * settings.r * inputs);
            for (target, _) in &parts {
                let mut stream = key.number(layer as u64).name(target.name()).stream();
                a.extend((0..settings.r * inputs).map(|_| ((2.0 * stream.unit() - 1.0) * bound) as f32));
            }
            let rows = parts.iter().map(|(_, rows)| rows.len()).sum::<usize>();
            let a = Tensor::from_vec(a, (parts.len() * settings.r, inputs), device)?;
            all.insert((layer, m), (a, Tensor::zeros((rows, settings.r), candle_core::DType::F32, device)?));
        }
    }
    Ok(all)
}

/// Name of the file with the settings; a folder that has it is an adapter.
const CONFIG: &str = "adapter_config.json";
pub(super) const WEIGHTS: &str = "adapter_model.safetensors";
/// What peft puts before a module's name.
const PREFIX: &str = "base_model.model.";

/// The model that an adapter belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct BaseModel {
    /// A folder or a Hub id.
    pub model: String,
    pub revision: Option<String>,
}

/// Whether a folder holds an adapter in place of a model.
pub fn is_adapter(folder: &Path) -> bool {
    folder.join(CONFIG).is_file()
}

/// The settings of an adapter's folder, and the model that it names as its base.
///
/// # Errors
/// What would change the arithmetic and is not supported (DoRA, biases, whole modules, ranks by module) is refused by name.
pub fn read_settings(folder: &Path) -> Result<(LoraSettings, BaseModel)> {
    let path = folder.join(CONFIG);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let json: Map<String, Value> = serde_json::from_str(&text).with_context(|| format!("{} is not a JSON object", path.display()))?;
    settings_of(&json).with_context(|| format!("in {}", path.display()))
}

fn settings_of(json: &Map<String, Value>) -> Result<(LoraSettings, BaseModel)> {
    let kind = json.get("peft_type").and_then(Value::as_str).unwrap_or_default();
    ensure!(kind == "LORA", "peft_type is {kind:?}: only LORA is read");
    let is_set = |value: &Value| match value {
        Value::Null => false,
        Value::Bool(set) => *set,
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
        _ => true,
    };
    // What only says how factors began (eva, corda, loftq) changes nothing here.
    const REFUSED: [&str; 19] = [
        "use_dora",
        "use_qalora",
        "use_bdlora",
        "fan_in_fan_out",
        "modules_to_save",
        "layers_to_transform",
        "layers_pattern",
        "rank_pattern",
        "alpha_pattern",
        "megatron_config",
        "exclude_modules",
        "layer_replication",
        "lora_bias",
        "trainable_token_indices",
        "target_parameters",
        "alora_invocation_tokens",
        "arrow_config",
        "kasa_config",
        "velora_config",
    ];
    if let Some(key) = REFUSED.into_iter().find(|key| json.get(*key).is_some_and(is_set)) {
        bail!("{key} is set, which is not supported");
    }
    let bias = json.get("bias").and_then(Value::as_str).unwrap_or("none");
    ensure!(bias == "none", "bias is {bias:?}: only \"none\" is supported");
    let r = json.get("r").and_then(Value::as_u64).context("r is missing or no number")? as usize;
    ensure!((1..=65_536).contains(&r), "r is {r}");
    let alpha = json.get("lora_alpha").and_then(Value::as_f64).context("lora_alpha is missing or no number")?;
    let names: Vec<&str> = match json.get("target_modules") {
        Some(Value::Array(names)) => {
            names.iter().map(|n| n.as_str().context("target_modules holds something else than names")).collect::<Result<_>>()?
        }
        Some(Value::String(all)) if all == "all-linear" => Target::names().to_vec(),
        other => bail!("target_modules is {}: a list of projections is wanted", other.unwrap_or(&Value::Null)),
    };
    let mut targets = names
        .iter()
        .map(|n| Target::named(n).with_context(|| format!("{n:?} among target_modules is no projection")))
        .collect::<Result<Vec<_>>>()?;
    targets.sort();
    targets.dedup();
    let flag = |key: &str| json.get(key).and_then(Value::as_bool).unwrap_or(false);
    let text = |key: &str| json.get(key).and_then(Value::as_str).map(str::to_owned);
    let base =
        BaseModel { model: text("base_model_name_or_path").context("base_model_name_or_path is missing")?, revision: text("revision") };
    let dropout = json.get("lora_dropout").and_then(Value::as_f64).unwrap_or(0.0);
    Ok((LoraSettings { r, alpha, targets, dropout, rslora: flag("use_rslora") }, base))
}

/// Reads an adapter's factors.
pub(super) fn read_factors(folder: &Path, config: &Config, settings: &LoraSettings, device: &Device) -> Result<Factors> {
    let path = folder.join(WEIGHTS);
    let mut stored =
        candle_core::safetensors::load(&path, device).with_context(|| format!("cannot read the adapter {}", path.display()))?;
    let mut read = |name: String, shape: [usize; 2]| -> Result<Tensor> {
        let tensor = stored.remove(&name).with_context(|| format!("{}: tensor {name} {shape:?} is missing", path.display()))?;
        ensure!(tensor.dims() == shape, "{}: tensor {name} has shape {:?}, expected {shape:?}", path.display(), tensor.dims());
        Ok(tensor.to_dtype(candle_core::DType::F32)?)
    };
    let mut all = Factors::new();
    for layer in 0..config.layers {
        for (m, joined) in Joined::ALL.into_iter().enumerate() {
            let (inputs, parts) = joined.parts(config, &settings.targets);
            if parts.is_empty() {
                continue;
            }
            let (mut a, mut b) = (Vec::new(), Vec::new());
            for (target, rows) in parts {
                a.push(read(tensor_name(layer, target, 'A'), [settings.r, inputs])?);
                b.push(read(tensor_name(layer, target, 'B'), [rows.len(), settings.r])?);
            }
            all.insert((layer, m), (Tensor::cat(&a, 0)?, Tensor::cat(&b, 0)?));
        }
    }
    if let Some(name) = stored.keys().min() {
        bail!("{}: {} tensors are no additions to the projections that {CONFIG} names, {name} among them", path.display(), stored.len());
    }
    Ok(all)
}

fn tensor_name(layer: usize, target: Target, factor: char) -> String {
    format!("{PREFIX}model.layers.{layer}.{}.lora_{factor}.weight", target.module())
}

/// Writes an adapter into `folder`, which the caller publishes, as `peft` loads it.
pub(super) fn write(folder: &Path, config: &Config, settings: &LoraSettings, base: &BaseModel, factors: &Factors) -> Result<()> {
    let mut named: Vec<(String, Tensor)> = Vec::new();
    for ((layer, m), (a, b)) in factors {
        let (_, parts) = Joined::ALL[*m].parts(config, &settings.targets);
        let mut row = 0;
        for (i, (target, rows)) in parts.into_iter().enumerate() {
            named.push((tensor_name(*layer, target, 'A'), a.narrow(0, i * settings.r, settings.r)?));
            named.push((tensor_name(*layer, target, 'B'), b.narrow(0, row, rows.len())?));
            row += rows.len();
        }
    }
    super::weights::write_tensors(&folder.join(WEIGHTS), named, super::weights::Precision::F32)?;
    let json = json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base.model, "revision": base.revision, "r": settings.r,
        "lora_alpha": settings.alpha, "lora_dropout": settings.dropout, "use_rslora": settings.rslora, "bias": "none", "fan_in_fan_out": false,
        "target_modules": settings.targets.iter().map(|t| t.name()).collect::<Vec<_>>(), "inference_mode": true, "init_lora_weights": true,
        "modules_to_save": null,
    });
    publish::json(folder.join(CONFIG), &json)
}
