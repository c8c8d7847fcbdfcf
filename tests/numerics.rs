//! Our numbers against PyTorch's and transformers', to 1e-4 relative in f32.
//!
//! The golden files and the Python programs that made them: `benches/peer/parity_goldens.py`, `benches/peer/adamw_goldens.py`,
//! `benches/peer/grpo_goldens.py`. None of the numbers comes from our own output.

use candle_core::{Device, Tensor, safetensors};
use distill::model::{self, Decoder, Packed, Parameter, Rows};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const TOLERANCE: f64 = 1e-4;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

struct Golden {
    name: &'static str,
    decoder: Decoder,
    parameters: Vec<Parameter>,
    numbers: HashMap<String, Tensor>,
}

impl Golden {
    fn load(name: &'static str) -> Self {
        let (decoder, parameters) = model::load(&golden(name), &Device::Cpu).unwrap().trainable().unwrap();
        Self { name, decoder, parameters, numbers: safetensors::load(golden(&format!("{name}.safetensors")), &Device::Cpu).unwrap() }
    }

    fn all() -> impl Iterator<Item = Self> {
        ["qwen2", "qwen3", "llama", "qwen2-sharded"].into_iter().map(Self::load)
    }

    fn numbers(&self, name: &str) -> &Tensor {
        self.numbers.get(name).unwrap_or_else(|| panic!("{} has no {name}", self.name))
    }

    fn ids(&self, i: usize) -> Vec<u32> {
        let ids = self.numbers(&format!("ids.{i}")).to_vec1::<i64>().unwrap();
        ids.into_iter().map(|id| id as u32).collect()
    }

    fn sequences(&self) -> Vec<Vec<u32>> {
        (0..3).map(|i| self.ids(i)).collect()
    }

    fn packed(&self) -> Packed {
        Packed::new(self.sequences().iter().map(Vec::as_slice)).unwrap()
    }

    /// Compares the gradient of `loss` for each parameter of the checkpoint with the numbers named `prefix.<name>`.
    fn compare_gradients(&self, loss: &Tensor, prefix: &str) {
        let grads = loss.backward().unwrap();
        let mut compared = 0;
        for parameter in &self.parameters {
            let grad = grads.get(&parameter.var).unwrap_or_else(|| panic!("{}: no gradient for {}", self.name, parameter.name));
            for (name, grad) in model::checkpoint_parts(&parameter.name, grad, self.decoder.config()).unwrap() {
                close(&format!("{} {prefix}.{name}", self.name), &grad, self.numbers(&format!("{prefix}.{name}")));
                compared += 1;
            }
        }
        let expected = self.numbers.keys().filter(|k| k.starts_with(&format!("{prefix}."))).count();
        assert_eq!(compared, expected, "{}: every gradient of the golden file is compared", self.name);
    }
}

/// The largest difference over the largest golden number is within the tolerance.
fn close(what: &str, ours: &Tensor, theirs: &Tensor) {
    assert_eq!(ours.dims(), theirs.dims(), "{what}");
    let (a, b) = (ours.flatten_all().unwrap().to_vec1::<f32>().unwrap(), theirs.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    let scale = b.iter().fold(0f64, |m, x| m.max(f64::from(x.abs())));
    let worst = a.iter().zip(&b).fold(0f64, |m, (x, y)| m.max((f64::from(*x) - f64::from(*y)).abs()));
    assert!(a.iter().all(|x| x.is_finite()), "{what}: not finite");
    assert!(scale > 0.0 && worst / scale < TOLERANCE, "{what}: largest difference {worst:.2e} of {scale:.2e}");
}

#[test]
fn packed_logits_are_those_of_transformers() {
    for golden in Golden::all() {
        let hidden = golden.decoder.hidden(&golden.packed()).unwrap();
        let logits = golden.decoder.logits(&hidden).unwrap();
        let mut from = 0;
        for i in 0..3 {
            let n = golden.ids(i).len();
            close(&format!("{} logits.{i}", golden.name), &logits.narrow(0, from, n).unwrap(), golden.numbers(&format!("logits.{i}")));
            from += n;
        }
    }
}

/// Rows of a packed batch that predict a masked target, and those targets.
fn masked(golden: &Golden) -> (Vec<u32>, Vec<u32>) {
    let (mut rows, mut targets, mut from) = (Vec::new(), Vec::new(), 0);
    for i in 0..3 {
        let ids = golden.ids(i);
        let mask = golden.numbers(&format!("mask.{i}")).to_vec1::<u8>().unwrap();
        for t in (1..ids.len()).filter(|t| mask[*t] == 1) {
            rows.push((from + t - 1) as u32);
            targets.push(ids[t]);
        }
        from += ids.len();
    }
    (rows, targets)
}

#[test]
fn masked_loss_and_every_gradient_are_those_of_transformers() {
    for golden in Golden::all() {
        let (rows, targets) = masked(&golden);
        let hidden = golden.decoder.hidden(&golden.packed()).unwrap();
        let hidden = golden.decoder.select(&hidden, rows).unwrap();
        let logprobs = golden.decoder.logprobs(&hidden, &targets, 1.0).unwrap();
        let loss = logprobs.mean_all().unwrap().neg().unwrap();
        close(&format!("{} loss", golden.name), &loss, golden.numbers("loss"));
        golden.compare_gradients(&loss, "grad");
    }
}

#[test]
fn logprobs_entropy_and_policy_gradient_at_a_temperature_are_those_of_transformers() {
    for golden in Golden::all() {
        let ids = golden.ids(0);
        let n = ids.len() - 1;
        let hidden = golden.decoder.hidden(&Packed::new([&ids[..]]).unwrap()).unwrap().narrow(0, 0, n).unwrap();
        let stats = golden.decoder.token_stats(&hidden, &ids[1..], 0.7, None).unwrap();
        close(&format!("{} logprobs", golden.name), &stats.logprobs, golden.numbers("logprobs_t07.0"));
        close(&format!("{} entropy", golden.name), &stats.entropy, golden.numbers("entropy.0"));
        if golden.name == "qwen2" {
            let loss = (stats.logprobs * golden.numbers("w.0")).unwrap().sum_all().unwrap().neg().unwrap();
            golden.compare_gradients(&loss, "pg_grad");
        }
    }
}

#[test]
fn kl_to_a_reference_over_the_whole_vocabulary_is_that_of_torch() {
    let golden = Golden::load("qwen2");
    let reference = golden.decoder.snapshot_scaled(1.05).unwrap();
    let ids = golden.ids(0);
    let n = ids.len() - 1;
    let batch = Packed::new([&ids[..]]).unwrap();
    let hidden = golden.decoder.hidden(&batch).unwrap().narrow(0, 0, n).unwrap();
    let reference_hidden = reference.hidden(&batch).unwrap().narrow(0, 0, n).unwrap();
    for (temperature, name) in [(1.0, "kl_full.0"), (0.7, "kl_full_t07.0")] {
        let stats = golden.decoder.token_stats(&hidden, &ids[1..], temperature, Some((&reference_hidden, &reference))).unwrap();
        close(name, &stats.kl, golden.numbers(name));
    }
}

#[test]
fn both_spellings_of_a_configuration_mean_the_same() {
    for name in ["qwen2", "qwen3", "llama"] {
        let read = |file: &str| {
            let text = std::fs::read_to_string(golden(name).join(file)).unwrap();
            let config = model::Config::from_json(serde_json::from_str(&text).unwrap()).unwrap();
            (config.inverse_frequencies(), config.parameters(), config.rope_theta)
        };
        assert_eq!(read("config.json"), read("config.v4.json"), "{name}");
    }
}

#[test]
fn decoding_over_a_cache_agrees_with_the_packed_path() {
    for golden in Golden::all() {
        let decoder = golden.decoder.frozen().unwrap();
        let sequences = golden.sequences();
        let starts = [20, 1, 16];
        let prompts = Packed::new(sequences.iter().zip(starts).map(|(s, n)| &s[..n])).unwrap();
        let prefixes = decoder.prefill(&prompts).unwrap();
        let mut cache = model::KvCache::new(decoder.config(), 5, 80, &Device::Cpu).unwrap();
        let slots = [3, 0, 4];
        for (slot, prefix) in slots.iter().zip(&prefixes) {
            cache.start(*slot, prefix, &decoder).unwrap();
        }
        let mut logits: Vec<Vec<Vec<f32>>> = prefixes.iter().map(|p| vec![p.logits.clone()]).collect();
        for step in 0..80 {
            let running: Vec<usize> = (0..3).filter(|i| starts[*i] + step < sequences[*i].len()).collect();
            if running.is_empty() {
                break;
            }
            let tokens = running.iter().map(|i| sequences[*i][starts[*i] + step]).collect();
            let rows = Rows { tokens, slots: running.iter().map(|i| slots[*i]).collect() };
            let out = decoder.decode(&rows, &mut cache).unwrap().to_vec2::<f32>().unwrap();
            running.iter().zip(out).for_each(|(i, row)| logits[*i].push(row));
        }
        for i in 0..3 {
            let theirs = golden.numbers(&format!("logits.{i}"));
            let theirs = theirs.narrow(0, starts[i] - 1, theirs.dim(0).unwrap() - starts[i] + 1).unwrap();
            close(&format!("{} cached logits.{i}", golden.name), &Tensor::new(logits[i].clone(), &Device::Cpu).unwrap(), &theirs);
        }
    }
}

/// The rows of a product may sit anywhere in a batch of any size (two rows at least) without a bit of difference.
#[test]
fn a_sequence_is_bit_equal_alone_and_beside_others() {
    let golden = Golden::load("qwen3");
    let decoder = golden.decoder.frozen().unwrap();
    let wanted = golden.ids(2);
    let alone = decoder.hidden(&Packed::new([&wanted[..]]).unwrap()).unwrap().to_vec2::<f32>().unwrap();
    for others in [1usize, 6, 63] {
        let noise = |i: usize| (0..3 + (i * 7) % 23).map(|t| ((i * 31 + t * 17) % 96) as u32).collect::<Vec<_>>();
        let sequences: Vec<Vec<u32>> = (0..others).map(noise).chain([wanted.clone()]).chain((0..others / 2).map(noise)).collect();
        let packed = Packed::new(sequences.iter().map(Vec::as_slice)).unwrap();
        let from = packed.bounds()[others];
        let hidden = decoder.hidden(&packed).unwrap().narrow(0, from, wanted.len()).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(hidden, alone, "beside {others} others");
    }
}

#[test]
fn saved_folders_are_read_back_bit_for_bit() {
    for golden in Golden::all() {
        let folder = tempfile::tempdir().unwrap();
        model::save(&golden.decoder, folder.path()).unwrap();
        let again = model::load(folder.path(), &Device::Cpu).unwrap();
        let packed = golden.packed();
        let logits = |d: &Decoder| d.logits(&d.hidden(&packed).unwrap()).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(logits(&golden.decoder), logits(&again), "{}", golden.name);
    }
}
