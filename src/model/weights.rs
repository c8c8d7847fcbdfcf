//! Model folders: reading and writing safetensors under the checkpoint's own names, and initialising a model from nothing.
//!
//! q, k and v are joined on reading and cut on writing, and so are gate and up, so that a folder written here is an ordinary checkpoint. A
//! missing tensor, a wrong shape and a tensor that the architecture does not have are errors with names and shapes. Downloaded files are untrusted.

use super::config::{Config, Shape};
use super::decoder::Decoder;
use super::lora::{self, BaseModel};
use super::ops;
use crate::key::Key;
use crate::publish;
use anyhow::{Context, Result, bail, ensure};
use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A file of a checkpoint is closed once it holds this many bytes.
const FILE_BYTES: usize = 4 << 30;

const EMBED: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// Reads a model folder; weights in bf16, f16 and f32 become f32.
///
/// # Errors
/// A configuration that is not supported, a tensor that is missing, too many or of another shape, and a head that tied embeddings would drop.
pub fn load(folder: &Path, device: &Device) -> Result<Decoder> {
    load_layers(folder, device, None)
}

/// As [`load`], with the first `layers` alone: a model to try, not to use.
pub fn load_layers(folder: &Path, device: &Device, layers: Option<usize>) -> Result<Decoder> {
    let config = Config::load(folder)?;
    let all = config.layers;
    let config = layers.map_or(config.clone(), |n| config.with_layers(n));
    let files = weight_files(folder)?;
    // SAFETY: the files are mapped read-only; a file changed by another process while it is mapped is outside what we can guard against.
    let stored = unsafe { MmapedSafetensors::multi(&files) }
        .with_context(|| format!("cannot read the weights in {}: a file is cut off or is not safetensors", folder.display()))?;
    let mut unused: BTreeSet<String> = stored.tensors().into_iter().map(|(name, _)| name).collect();
    let mut read = |name: &str, shape: &[usize]| -> Result<Tensor> {
        unused.remove(name);
        let view = stored.get(name).map_err(|_| anyhow::anyhow!("{}: tensor {name} {shape:?} is missing", folder.display()))?;
        ensure!(view.shape() == shape, "{}: tensor {name} has shape {:?}, config.json asks for {shape:?}", folder.display(), view.shape());
        let other = || format!("{}: tensor {name} is {:?}: weights in bf16, f16 and f32 are read", folder.display(), view.dtype());
        let tensor = stored.load(name, device).with_context(other)?;
        ensure!(matches!(tensor.dtype(), DType::F32 | DType::F16 | DType::BF16), other());
        Ok(tensor.to_dtype(DType::F32)?)
    };
    let sizes = config.clone();
    let decoder = Decoder::build(config, device, |name, shape| {
        let parts = parts(name, shape, &sizes);
        let parts = parts.iter().map(|(name, shape)| read(name, shape)).collect::<Result<Vec<_>>>()?;
        Ok(if parts.len() == 1 { parts[0].clone() } else { Tensor::cat(&parts, 0)? })
    })?;
    if sizes.tie_embeddings && unused.contains(HEAD) {
        let (head, embed) = (stored.get(HEAD)?, stored.get(EMBED)?);
        let is_same = (head.dtype(), head.shape(), head.data()) == (embed.dtype(), embed.shape(), embed.data());
        ensure!(
            is_same,
            "{}: config.json ties the embeddings, but {HEAD} differs from {EMBED}; set tie_word_embeddings to false to keep both",
            folder.display()
        );
    }
    let is_left_out = |name: &str| (sizes.layers..all).any(|i| name.starts_with(&format!("model.layers.{i}.")));
    unused.retain(|name| !(name.ends_with("rotary_emb.inv_freq") || name == HEAD && sizes.tie_embeddings || is_left_out(name)));
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

/// Reads an adapter's folder on top of its base model.
pub fn load_adapter(folder: &Path, base: &Decoder) -> Result<Decoder> {
    let (settings, _) = lora::read_settings(folder)?;
    let factors = lora::read_factors(folder, base.config(), &settings, base.device())?;
    base.with_factors(&settings, factors)
}

/// Writes the adapter of `decoder` into `folder`, which the caller publishes, as `peft` loads it on top of `base`.
pub fn save_adapter(decoder: &Decoder, base: &BaseModel, folder: &Path) -> Result<()> {
    let settings = decoder.lora().context("a model without an adapter is saved as a model")?;
    lora::write(folder, decoder.config(), settings, base, &decoder.factors())
}

/// What weights are written as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    #[default]
    F32,
    /// Rounded to the nearest.
    Bf16,
}

impl Precision {
    /// Of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    fn torch(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
        }
    }

    fn encode(self, numbers: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::Bf16 => numbers.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect(),
        }
    }
}

/// Writes config.json and the weights in f32 into `folder`, which the caller publishes; the tokenizer's files are `Text`'s to add.
pub fn save(decoder: &Decoder, folder: &Path) -> Result<()> {
    save_as(decoder, folder, Precision::F32)
}

/// `save` in a precision.
///
/// # Errors
/// Where the disk refuses, and of a model with an adapter, whose weights would be its base's: merge it, or save the adapter.
pub fn save_as(decoder: &Decoder, folder: &Path, precision: Precision) -> Result<()> {
    ensure!(decoder.lora().is_none(), "a model with an adapter is not saved as a whole one before it is merged");
    let config = decoder.config();
    publish::json(folder.join("config.json"), &config.to_json_beside(precision.torch()))?;
    let mut files: Vec<Vec<(String, Tensor)>> = vec![Vec::new()];
    let mut bytes = 0;
    for (name, tensor) in decoder.tensors() {
        for (name, tensor) in checkpoint_parts(&name, &tensor, config)? {
            let size = tensor.elem_count() * precision.bytes();
            if bytes > 0 && bytes + size > FILE_BYTES {
                files.push(Vec::new());
                bytes = 0;
            }
            bytes += size;
            files.last_mut().expect("there is always an open file").push((name, tensor));
        }
    }
    if let [all] = &mut files[..] {
        return write_tensors(&folder.join("model.safetensors"), std::mem::take(all), precision);
    }
    let (count, mut map, mut total) = (files.len(), serde_json::Map::new(), 0);
    for (i, tensors) in files.into_iter().enumerate() {
        let file = format!("model-{:05}-of-{count:05}.safetensors", i + 1);
        for (name, tensor) in &tensors {
            map.insert(name.clone(), Value::String(file.clone()));
            total += tensor.elem_count() * precision.bytes();
        }
        write_tensors(&folder.join(&file), tensors, precision)?;
    }
    publish::json(folder.join("model.safetensors.index.json"), &json!({"metadata": {"total_size": total}, "weight_map": map}))
}

/// Writes tensors into a safetensors file, in the order of their names, with one of them at a time in memory as bytes.
pub(super) fn write_tensors(path: &Path, mut tensors: Vec<(String, Tensor)>, precision: Precision) -> Result<()> {
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut offset = 0;
    for (name, tensor) in &tensors {
        let end = offset + tensor.elem_count() * precision.bytes();
        header
            .insert(name.clone(), json!({"dtype": precision.name().to_uppercase(), "shape": tensor.dims(), "data_offsets": [offset, end]}));
        offset = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' '); // so that the numbers are aligned
    publish::file_with(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for (_, tensor) in &tensors {
            let numbers = tensor.to_dtype(DType::F32)?.flatten_all()?;
            ops::with_numbers(&numbers, |numbers| numbers.chunks(1 << 14).try_for_each(|part| file.write_all(&precision.encode(part))))??;
        }
        Ok(())
    })
}

/// A model made from nothing: embeddings N(0, 0.02), matrices N(0, 1/sqrt(fan-in)), the two that write to the residual stream halved.
pub(super) fn fresh(config: Config, key: Key, device: &Device) -> Result<Decoder> {
    Decoder::build(config, device, |name, shape| {
        let count = shape.iter().product();
        let std = if name == EMBED {
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

/// SHA-256 over the bytes of the weight files, for manifests; of an adapter, over its own alone.
pub fn weights_hash(folder: &Path) -> Result<String> {
    use sha2::{Digest, Sha256};
    let mut all = Sha256::new();
    let files = if lora::is_adapter(folder) { vec![folder.join(lora::WEIGHTS)] } else { weight_files(folder)? };
    for file in files {
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
    let mut names = BTreeSet::new();
    for (tensor, name) in map {
        let name = name.as_str().with_context(|| format!("{}: weight_map names {name} for {tensor}, not a file", index.display()))?;
        let is_here = !name.contains(['/', '\\']) && !name.contains("..") && name.ends_with(".safetensors");
        ensure!(is_here, "{}: weight_map names {name:?}, which is no file of weights in this folder", index.display());
        names.insert(name);
    }
    ensure!(!names.is_empty(), "{}: weight_map is empty", index.display());
    let path_of = |name| {
        let path = folder.join(name);
        ensure!(path.exists(), "{}: weight file {name} is missing", folder.display());
        Ok(path)
    };
    names.into_iter().map(path_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::{Dtype, TensorView};
    use std::fs;

    fn config(change: Value) -> Config {
        let Value::Object(mut json) = json!({
            "model_type": "llama", "vocab_size": 6, "hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2,
            "max_position_embeddings": 8, "rms_norm_eps": 1e-6, "tie_word_embeddings": true
        }) else {
            unreachable!()
        };
        json.extend(change.as_object().unwrap().clone());
        Config::from_json(json).unwrap()
    }

    /// A model folder whose tensors all hold these bytes again and again, with further tensors.
    fn folder(dtype: Dtype, pattern: &[u8], more: &[(&str, Dtype, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let config = config(json!({}));
        fs::write(folder.path().join("config.json"), config.to_json().to_string()).unwrap();
        let mut shapes = Vec::new();
        Decoder::build(config.clone(), &Device::Cpu, |name, shape| {
            shapes.extend(parts(name, shape, &config));
            Ok(Tensor::zeros(shape, DType::F32, &Device::Cpu)?)
        })
        .unwrap();
        let bytes: Vec<u8> = pattern.iter().copied().cycle().take(24 * 4 * size(dtype)).collect();
        let count = |shape: &[usize]| shape.iter().product::<usize>() * size(dtype);
        let view = |shape: Vec<usize>| TensorView::new(dtype, shape.clone(), &bytes[..count(&shape)]).unwrap();
        let mut tensors: Vec<(String, TensorView)> = shapes.into_iter().map(|(name, shape)| (name, view(shape))).collect();
        tensors.extend(more.iter().map(|(name, dtype, bytes)| (name.to_string(), TensorView::new(*dtype, vec![6, 4], bytes).unwrap())));
        fs::write(folder.path().join("model.safetensors"), safetensors::serialize(tensors, None).unwrap()).unwrap();
        folder
    }

    fn size(dtype: Dtype) -> usize {
        dtype.bitsize() / 8
    }

    fn message<T>(result: Result<T>) -> String {
        format!("{:#}", result.err().expect("this was to fail"))
    }

    #[test]
    fn halves_of_both_kinds_are_read_as_the_numbers_they_are() {
        // Bit patterns of 1, -2.5, 2^-14, the largest number, and the smallest denormal of each format.
        let numbers = [1.0, -2.5, 2f32.powi(-14)];
        for (dtype, bits, extremes) in [
            (Dtype::F16, [0x3C00u16, 0xC100, 0x0400, 0x7BFF, 0x0001], [65_504.0, 5.960_464_5e-8]),
            (Dtype::BF16, [0x3F80, 0xC020, 0x3880, 0x7F7F, 0x0001], [3.389_531_4e38, f32::from_bits(0x0001_0000)]),
        ] {
            let pattern: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
            let decoder = load(folder(dtype, &pattern, &[]).path(), &Device::Cpu).unwrap();
            let expected: Vec<f32> = numbers.iter().chain(&extremes).copied().collect();
            for (name, tensor) in decoder.tensors() {
                let read = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert_eq!(read[..4], expected[..4], "{name} in {dtype:?}");
                assert!(name.ends_with("norm.weight") || read[4] == expected[4], "{name} in {dtype:?}");
            }
        }
        for dtype in [Dtype::U8, Dtype::I8, Dtype::F8_E4M3, Dtype::F64] {
            let message = message(load(folder(dtype, &[1], &[]).path(), &Device::Cpu));
            assert!(message.contains(&format!("embed_tokens.weight is {dtype:?}: weights in bf16, f16 and f32 are read")), "{message}");
        }
    }

    #[test]
    fn a_head_that_tied_embeddings_would_drop_is_refused() {
        let half = 0x3F80u16.to_le_bytes();
        let equal: Vec<u8> = half.repeat(24);
        let mut other = equal.clone();
        other[47] = 0x40;
        let load = |head: &[u8]| load(folder(Dtype::BF16, &half, &[(HEAD, Dtype::BF16, head)]).path(), &Device::Cpu);
        load(&equal).unwrap();
        let message = message(load(&other));
        assert!(
            message.contains("config.json ties the embeddings, but lm_head.weight differs from model.embed_tokens.weight"),
            "{message}"
        );
    }

    #[test]
    fn an_index_names_files_of_its_own_folder_only() {
        for (map, expected) in [
            (json!({"a": 3}), "weight_map names 3 for a, not a file"),
            (json!({"a": ["x.safetensors"]}), "for a, not a file"),
            (json!({"a": "../x.safetensors"}), "\"../x.safetensors\", which is no file of weights in this folder"),
            (json!({"a": "/x.safetensors"}), "which is no file of weights"),
            (json!({"a": ".."}), "which is no file of weights"),
            (json!({"a": "x.bin"}), "which is no file of weights"),
            (json!({"a": "x.safetensors"}), "weight file x.safetensors is missing"),
            (json!({}), "weight_map is empty"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("model.safetensors.index.json"), json!({"weight_map": map}).to_string()).unwrap();
            let message = message(weight_files(folder.path()));
            assert!(message.contains(expected), "{message}");
        }
    }
}
