//! Gradients of the ways to compute them against each other, and what may change a model and what may not.

use super::*;
use crate::model::{Config, Divergence, LoraSettings, Target};
use crate::train::{Optim, SftLoss, sft_step};
use candle_core::Device;
use serde_json::json;

/// Gradients of a loss with all three kinds of seeds, by parameter, and its values.
fn gradients(decoder: &Decoder, reference: Against, micro_batch_tokens: usize, recompute: bool) -> (Vec<Tensor>, Values) {
    let optimizer = AdamWSettings { betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.0, max_grad_norm: 1.0, optim: Optim::Adamw };
    let mut learner = Learner::new(decoder, optimizer, Batching { micro_batch_tokens, recompute: Some(recompute) }).unwrap();
    let mut stream = Key::new(3, "tokens").stream();
    // More rows than a feed-forward part takes at once.
    let examples: Vec<Example> =
        [700, 1, 90, 500, 33].map(|n| Example { tokens: (0..n + 5).map(|_| stream.below(60)).collect(), completion: 3 }).to_vec();
    let mut of = vec![Values::default(); examples.len()];
    let mut seeds = |indices: &[usize], mut values: Values| {
        let slope = |by: f32, x: &[f32]| x.iter().map(|x| by * x.sin()).collect::<Vec<f32>>();
        let seeds = Seeds {
            logprobs: slope(1.0, &values.logprobs),
            entropy: Some(slope(0.3, &values.entropy)),
            divergence: Some(slope(-0.2, &values.logprobs)),
        };
        indices.iter().for_each(|i| of[*i] = values.take(examples[*i].targets()));
        Ok(seeds)
    };
    learner.accumulate(&examples, 0.9, Some(reference), &mut seeds).unwrap();
    let mut all = Values::default();
    of.into_iter().for_each(|values| all.extend(values));
    let mut collected = learner.collector.as_ref().map(Decoder::take_gradients).unwrap_or_default();
    let parameters = learner.optimizer.parameters().iter().zip(learner.gradients);
    (parameters.map(|(p, g)| whole(p, collected.remove(&p.name), g).unwrap()).collect(), all)
}

fn config(model: &str, tied: bool, width: usize) -> Config {
    let json = json!({
        "model_type": model, "vocab_size": 64, "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": width / 4, "max_position_embeddings": 1024, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": tied
    });
    let config = Config::from_json(json.as_object().unwrap().clone()).unwrap();
    // The wide ones are beyond the size that keeps its graph and is cut into shares.
    assert_eq!(config.is_small(), width < 600);
    config
}

fn random(config: &Config, name: &str) -> Decoder {
    Decoder::random(config.clone(), Key::new(1, name), &Device::Cpu).unwrap()
}

/// With an adapter whose second factors are not the zeros that they begin as.
fn adapted(decoder: &Decoder, targets: &[Target]) -> Decoder {
    let settings = LoraSettings { r: 3, alpha: 5.0, targets: targets.to_vec(), dropout: 0.0, rslora: true };
    let (decoder, parameters) = decoder.with_adapter(&settings, Key::new(2, "adapter")).unwrap().trainable().unwrap();
    let mut stream = Key::new(4, "factors").stream();
    for p in parameters {
        let numbers: Vec<f32> = (0..p.var.elem_count()).map(|_| stream.normal() as f32 * 0.1).collect();
        p.var.set(&Tensor::from_vec(numbers, p.var.shape(), &Device::Cpu).unwrap()).unwrap();
    }
    decoder
}

fn norm(x: &Tensor) -> f64 {
    crate::model::ops::sum_of_squares(x).unwrap().sqrt()
}

#[test]
fn recomputed_layers_give_the_values_and_gradients_of_the_whole_graph() {
    let (all, some) = (&Target::ALL[..], &[Target::KProj, Target::VProj, Target::UpProj, Target::DownProj][..]);
    let (reverse, forward, mixed) = (Divergence::Reverse, Divergence::Forward, Divergence::JensenShannon(0.5));
    for (model, tied, width, lora, divergence) in [
        ("qwen2", true, 24, None, reverse),
        ("qwen3", false, 24, None, forward),
        ("llama", false, 24, None, mixed),
        ("qwen2", true, 600, None, reverse),
        ("qwen3", true, 24, Some(all), reverse),
        ("qwen2", true, 600, Some(some), mixed),
    ] {
        let config = config(model, tied, width);
        let (decoder, reference) = (random(&config, "policy"), random(&config, "reference"));
        let reference = Against { model: &reference, divergence };
        let decoder = lora.map_or(decoder.clone(), |targets| adapted(&decoder, targets));
        let (expected, values) = gradients(&decoder, reference, 10_000, false);
        for micro_batch_tokens in [10_000, 600] {
            let (found, again) = gradients(&decoder, reference, micro_batch_tokens, true);
            let close = |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5 * (1.0 + a.abs()));
            assert!(close(&values.logprobs, &again.logprobs) && close(&values.entropy, &again.entropy));
            assert!(close(&values.divergence, &again.divergence));
            for (i, (a, b)) in expected.iter().zip(&found).enumerate() {
                let difference = norm(&(a - b).unwrap()) / norm(a);
                assert!(difference < 1e-5, "parameter {i} of {model}, {width} wide, {lora:?}: {difference}");
            }
        }
    }
}

/// A device that has no memory for more than 300 targets at once, and says so in the middle of a step.
#[test]
fn where_memory_runs_out_micro_batches_are_halved_and_the_step_stays_what_it_is() {
    for width in [24, 600] {
        let decoder = random(&config("qwen2", true, width), "policy");
        let mut stream = Key::new(3, "tokens").stream();
        let examples: Vec<Example> =
            [250, 30, 700, 90, 200, 33].map(|n| Example { tokens: (0..n).map(|_| stream.below(60)).collect(), completion: n / 2 }).to_vec();
        let after = |most: usize| {
            let optimizer = AdamWSettings { betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.0, max_grad_norm: 1.0, optim: Optim::Adamw };
            let mut learner = Learner::new(&decoder, optimizer, Batching { micro_batch_tokens: 1200, recompute: None }).unwrap();
            let targets = learner
                .fitting(|learner| {
                    let mut targets = 0;
                    let mut seeds = |_: &[usize], v: Values| {
                        targets += v.logprobs.len();
                        ensure!(v.logprobs.len() <= most, "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")");
                        Ok(Seeds { logprobs: vec![-1e-3; v.logprobs.len()], entropy: None, divergence: None })
                    };
                    learner.accumulate(&examples, 1.0, None, &mut seeds)?;
                    Ok(targets)
                })
                .unwrap();
            assert_eq!(targets, examples.iter().map(Example::targets).sum::<usize>());
            (learner.micro_batch_tokens(), learner.step(1e-3).unwrap())
        };
        let ((whole, norm), (halved, again)) = (after(10_000), after(350));
        assert_eq!((whole, halved), (1200, 600));
        assert!((norm - again).abs() < 1e-5 * norm, "{norm} and {again}");
    }
}

#[test]
fn the_longest_micro_batch_is_rehearsed_and_leaves_no_trace() {
    let decoder = random(&config("qwen2", true, 600), "policy");
    let examples: Vec<Example> = [20, 90, 10, 70, 60].map(|n| Example { tokens: vec![3; n], completion: 1 }).to_vec();
    let optimizer = AdamWSettings { betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.0, max_grad_norm: 1.0, optim: Optim::Adamw };
    let mut learner = Learner::new(&decoder, optimizer, Batching { micro_batch_tokens: 180, recompute: None }).unwrap();
    assert_eq!(learner.rehearse(&examples, None).unwrap(), 160, "90 and 70, and 60 has no room");
    assert_eq!(learner.step(1.0).unwrap(), 0.0);
    assert_eq!(numbers(learner.decoder()), numbers(&decoder));
}

#[test]
fn an_adapter_changes_no_weight_of_its_base_and_counts_in_sampling_as_in_training() {
    let config = config("qwen2", true, 24);
    let base = random(&config, "policy");
    let before: Vec<Vec<f32>> = numbers(&base);
    let settings = LoraSettings { r: 2, alpha: 4.0, targets: Target::ALL.to_vec(), dropout: 0.5, rslora: false };
    let start = base.with_adapter(&settings, Key::new(2, "adapter")).unwrap();
    let optimizer = AdamWSettings { betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.0, max_grad_norm: 1.0, optim: Optim::Adamw };
    let mut learner = Learner::new(&start, optimizer, Batching { micro_batch_tokens: 100, recompute: Some(true) }).unwrap();
    assert_eq!(learner.optimizer().parameters().len(), 3 * 4 * 2, "two factors for each of four matrices of three layers");
    let examples = [Example { tokens: (0..40).collect(), completion: 2 }];
    let lp = |model: &Decoder| learner.values(model, &examples, 1.0).unwrap().logprobs;
    let untrained = lp(&base);
    assert_eq!(lp(learner.decoder()), untrained, "a new adapter adds nothing");
    for _ in 0..2 {
        let mut seeds = |_: &[usize], v: Values| Ok(Seeds { logprobs: vec![-0.1; v.logprobs.len()], entropy: None, divergence: None });
        learner.accumulate(&examples, 1.0, None, &mut seeds).unwrap();
        learner.step(0.01).unwrap();
    }
    let lp = |model: &Decoder| learner.values(model, &examples, 1.0).unwrap().logprobs;
    assert_eq!(numbers(&base), before);
    assert_eq!(lp(&learner.decoder().without_adapter()), untrained);
    let trained = lp(learner.decoder());
    let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
    assert!(!close(&trained, &untrained));
    let merged = learner.decoder().merged().unwrap();
    assert!(merged.lora().is_none() && close(&lp(&merged), &trained));
    let packed = Packed::new([&examples[0].tokens[..]]).unwrap();
    let logits = |model: &Decoder| model.logits(&model.hidden(&packed).unwrap()).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(close(&logits(&learner.decoder().clone().for_sampling().unwrap()), &logits(learner.decoder())));
}

fn numbers(model: &Decoder) -> Vec<Vec<f32>> {
    model.tensors().iter().map(|(_, t)| t.flatten_all().unwrap().to_vec1().unwrap()).collect()
}

/// A model for rows in which each token follows from the one before it.
fn successors() -> Decoder {
    random(&config("qwen2", true, 24), "successors")
}

fn rows() -> Vec<Example> {
    let row = |i: u32| {
        (0..24)
            .scan(i, |t, _| {
                *t = (*t * 7 + 3) % 40;
                Some(*t)
            })
            .collect()
    };
    (0..8).map(|i| Example { tokens: row(i), completion: 2 }).collect()
}

/// Steps that bf16 weights would lose: each is a thousandth of a weight.
#[test]
fn weights_take_steps_that_are_smaller_than_bf16_can_tell() {
    let settings = AdamWSettings { betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.0, max_grad_norm: 1.0, optim: Optim::Adamw };
    let start = successors().in_bf16(true);
    let mut learner = Learner::new(&start, settings, Batching { micro_batch_tokens: 1000, recompute: None }).unwrap();
    sft_step(&mut learner, &rows(), SftLoss::Nll, 1e-6).unwrap();
    let (before, after) = (numbers(&start)[9].clone(), numbers(learner.decoder())[9].clone());
    let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    assert!(moved * 10 > before.len() * 9, "{moved} of {}", before.len());
    assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 2e-6));
}

#[test]
fn training_in_bf16_goes_as_in_f32_and_its_recomputed_gradients_are_the_graphs() {
    let settings = AdamWSettings { betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.0, max_grad_norm: 1.0, optim: Optim::Adamw };
    let run = |in_bf16: bool, recompute: bool| {
        let batching = Batching { micro_batch_tokens: 1000, recompute: Some(recompute) };
        let mut learner = Learner::new(&successors().in_bf16(in_bf16), settings, batching).unwrap();
        (0..60).map(|_| sft_step(&mut learner, &rows(), SftLoss::Nll, 3e-3).map(|r| (r.loss, r.grad_norm)).unwrap()).collect::<Vec<_>>()
    };
    let (plain, graph, recomputed) = (run(false, false), run(true, false), run(true, true));
    assert!(plain[59].0 < plain[0].0 / 4.0, "the task is learnt: {:?} {:?}", plain[0], plain[59]);
    assert!(plain[0] != graph[0], "bf16 is in use");
    for (i, (f32s, bf16s)) in plain.iter().zip(&graph).enumerate() {
        assert!((f32s.0 - bf16s.0).abs() < 0.02 * (1.0 + f32s.0), "step {i}: {} in f32, {} in bf16", f32s.0, bf16s.0);
    }
    let (a, b) = (graph[0], recomputed[0]);
    assert!((a.0 - b.0).abs() < 1e-5 && (a.1 - b.1).abs() < 1e-4 * a.1, "{a:?} {b:?}");
}
