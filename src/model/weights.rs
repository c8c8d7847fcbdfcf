//! Model folders: reading and writing safetensors under the checkpoint's own names, and initialising a model from nothing.
//!
//! q, k and v are joined on reading and cut on writing, and so are gate and up, so that a folder written here is an ordinary checkpoint. A
//! missing tensor, a wrong shape and a tensor that the architecture does not have are errors with names and shapes. Downloaded files are untrusted.

use super::config::{Config, Shape};
use super::decoder::Decoder;
use crate::key::Key;
use crate::publish;
use anyhow::{Context, Result, bail, ensure};
use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, View};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// A file of a checkpoint is closed once it holds this many bytes.
const FILE_BYTES: usize = 4 << 30;

/// Reads a model folder in f32.
pub fn load(folder: &Path, device: &Device) -> Result<Decoder> {
    let config = Config::load(folder)?;
    let files = weight_files(folder)?;
    // SAFETY: the files are mapped read-only; a file changed by another process while it is mapped is outside what we can guard against.
    let stored = unsafe { MmapedSafetensors::multi(&files) }
        .with_context(|| format!("cannot read the weights in {}: a file is cut off or is not safetensors", folder.display()))?;
    let mut unused: BTreeSet<String> = stored.tensors().into_iter().map(|(name, _)| name).collect();
    let mut read = |name: &str, shape: &[usize]| -> Result<Tensor> {
        unused.remove(name);
        let view = stored.get(name).map_err(|_| anyhow::anyhow!("{}: tensor {name} {shape:?} is missing", folder.display()))?;
        ensure!(view.shape() == shape, "{}: tensor {name} has shape {:?}, config.json asks for {shape:?}", folder.display(), view.shape());
        Ok(stored.load(name, device)?.to_dtype(DType::F32)?)
    };
    let sizes = config.clone();
    let decoder = Decoder::build(config, device, |name, shape| {
        let parts = parts(name, shape, &sizes);
        let parts = parts.iter().map(|(name, shape)| read(name, shape)).collect::<Result<Vec<_>>>()?;
        Ok(if parts.len() == 1 { parts[0].clone() } else { Tensor::cat(&parts, 0)? })
    })?;
    unused.retain(|name| !(name.ends_with("rotary_emb.inv_freq") || name == "lm_head.weight" && sizes.tie_embeddings));
    if let Some(name) = unused.first() {
        bail!(
            "{}: {} tensors do not belong to a {:?} model, the first is {name}: the checkpoint is of another architecture than config.json says",
            folder.display(),
            unused.len(),
            sizes.architecture
        );
    }
    Ok(decoder)
}

/// Writes config.json and the weights (f32) into `folder`, which the caller publishes; the tokenizer's files are `Text`'s to add.
pub fn save(decoder: &Decoder, folder: &Path) -> Result<()> {
    let config = decoder.config();
    publish::json(folder.join("config.json"), &config.to_json())?;
    let mut named = Vec::new();
    for (name, tensor) in decoder.tensors() {
        for (name, tensor) in checkpoint_parts(&name, &tensor, config)? {
            named.push((name, Stored::new(&tensor)?));
        }
    }
    let mut files: Vec<Vec<(String, Stored)>> = vec![Vec::new()];
    let mut bytes = 0;
    for (name, tensor) in named {
        if bytes > 0 && bytes + tensor.0.len() > FILE_BYTES {
            files.push(Vec::new());
            bytes = 0;
        }
        bytes += tensor.0.len();
        files.last_mut().expect("there is always an open file").push((name, tensor));
    }
    let metadata = Some(HashMap::from([("format".to_owned(), "pt".to_owned())]));
    if let [all] = &mut files[..] {
        let data = safetensors::serialize(std::mem::take(all), metadata)?;
        return publish::file(folder.join("model.safetensors"), &data);
    }
    let (count, mut map, mut total) = (files.len(), serde_json::Map::new(), 0);
    for (i, tensors) in files.into_iter().enumerate() {
        let file = format!("model-{:05}-of-{count:05}.safetensors", i + 1);
        for (name, tensor) in &tensors {
            map.insert(name.clone(), Value::String(file.clone()));
            total += tensor.0.len();
        }
        publish::file(folder.join(&file), &safetensors::serialize(tensors, metadata.clone())?)?;
    }
    publish::json(folder.join("model.safetensors.index.json"), &json!({"metadata": {"total_size": total}, "weight_map": map}))
}

/// A model made from nothing: embeddings N(0, 0.02), matrices N(0, 1/sqrt(fan-in)), the two that write to the residual stream halved.
pub(super) fn fresh(config: Config, key: Key, device: &Device) -> Result<Decoder> {
    Decoder::build(config, device, |name, shape| {
        let count = shape.iter().product();
        let std = if name == "model.embed_tokens.weight" {
            0.02
        } else if name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight") {
            0.5 / (shape[1] as f64).sqrt()
        } else if shape.len() == 2 {
            1.0 / (shape[1] as f64).sqrt()
        } else {
            0.0
        };
        let data: Vec<f32> = if shape.len() == 2 {
            let mut stream = key.name(name).stream();
            (0..count).map(|_| (stream.normal() * std) as f32).collect()
        } else {
            vec![if name.ends_with("bias") { 0.0 } else { 1.0 }; count]
        };
        Ok(Tensor::from_vec(data, shape, device)?)
    })
}

impl Decoder {
    /// A model with weights drawn under `key`: see `fresh` for the distribution.
    pub fn fresh(shape: &Shape, vocab_size: usize, eos: u32, pad: u32, key: Key, device: &Device) -> Result<Self> {
        fresh(Config::fresh(shape, vocab_size, eos, pad)?, key, device)
    }

    /// A model of any supported configuration with weights drawn under `key`.
    pub fn random(config: Config, key: Key, device: &Device) -> Result<Self> {
        fresh(config, key, device)
    }
}

/// SHA-256 over the names and bytes of the weight files, for manifests.
pub fn weights_hash(folder: &Path) -> Result<String> {
    use sha2::{Digest, Sha256};
    let mut all = Sha256::new();
    for file in weight_files(folder)? {
        all.update(publish::sha256_file(&file)?);
    }
    Ok(all.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

/// A parameter, or its gradient, cut into the tensors that the checkpoint holds for it.
pub fn checkpoint_parts(name: &str, tensor: &Tensor, config: &Config) -> Result<Vec<(String, Tensor)>> {
    let mut from = 0;
    let cut = |(name, shape): (String, Vec<usize>)| {
        let part = tensor.narrow(0, from, shape[0])?;
        from += shape[0];
        Ok((name, part))
    };
    parts(name, tensor.dims(), config).into_iter().map(cut).collect()
}

/// The checkpoint's names for what the decoder holds under `name`, with their shapes.
fn parts(name: &str, shape: &[usize], config: &Config) -> Vec<(String, Vec<usize>)> {
    let (joined, pieces): (&str, Vec<(&str, usize)>) = if name.contains("qkv_proj") {
        let kv = config.kv_heads * config.head_dim;
        ("qkv_proj", vec![("q_proj", config.heads * config.head_dim), ("k_proj", kv), ("v_proj", kv)])
    } else if name.contains("gate_up_proj") {
        ("gate_up_proj", vec![("gate_proj", config.intermediate_size), ("up_proj", config.intermediate_size)])
    } else {
        return vec![(name.to_owned(), shape.to_vec())];
    };
    let rest = &shape[1..];
    pieces.into_iter().map(|(piece, rows)| (name.replace(joined, piece), [&[rows], rest].concat())).collect()
}

/// The safetensors files of a folder: the one file, or those that the index names.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let (single, index) = (folder.join("model.safetensors"), folder.join("model.safetensors.index.json"));
    if single.exists() {
        return Ok(vec![single]);
    }
    let text = std::fs::read_to_string(&index).with_context(|| {
        format!("{} holds neither model.safetensors nor model.safetensors.index.json (other formats are not read)", folder.display())
    })?;
    let json: Value = serde_json::from_str(&text).with_context(|| format!("{} is not JSON", index.display()))?;
    let map = json.get("weight_map").and_then(Value::as_object).with_context(|| format!("{}: no weight_map", index.display()))?;
    let names: BTreeSet<&str> = map.values().filter_map(Value::as_str).collect();
    names
        .into_iter()
        .map(|name| {
            ensure!(!name.contains(['/', '\\']), "{}: weight_map names {name:?}, which is not in this folder", index.display());
            let path = folder.join(name);
            ensure!(path.exists(), "{}: weight file {name} is missing", folder.display());
            Ok(path)
        })
        .collect()
}

/// A tensor as the safetensors writer wants it.
struct Stored(Vec<u8>, Vec<usize>);

impl Stored {
    fn new(tensor: &Tensor) -> Result<Self> {
        let data = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        Ok(Self(data.iter().flat_map(|x| x.to_le_bytes()).collect(), tensor.dims().to_vec()))
    }
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.1
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.0)
    }

    fn data_len(&self) -> usize {
        self.0.len()
    }
}
