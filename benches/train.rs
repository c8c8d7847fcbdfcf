//! Training tokens/s through `Learner`: forward, cross-entropy over all tokens but the first, backward, AdamW.
//!
//!     cargo bench --bench train -- [FILTER] [--quick] [--threads N] [--seconds N]       FILTER as in tiny/train: 32 x 36 tokens, or 4 x 256
//!     cargo bench --bench train -- 0.5b/full/2048 [--quick] [--threads N]               SHAPE/METHOD/TOKENS: one row of real shape, and its memory
//!
//! The second form has one measurement in a process, for its peak; definitions are those of `benches/peer/finetune.py`: layers are computed again in the backward pass,
//! METHOD is `full`, `8bit` (moments) or `lora` (r 16 on all projections). `share_of_peak` is 6 operations (4 with LoRA) for each token and weight of a product (attention
//! and what is computed again are not counted) against a product of 2048 x 2048 x 2048 in the same process.

mod common;

use candle_core::{DType, Device, Tensor};
use common::Bench;
use distill::key::Key;
use distill::model::{Decoder, LoraSettings, Shape, Target};
use distill::train::{AdamWSettings, Batching, Example, Learner, Optim, Seeds, Values};
use serde_json::json;
use std::time::Instant;

fn main() {
    let options = common::Options::read();
    // As the program runs: on a thread of the pool.
    rayon::scope(|_| match options.filter.split('/').collect::<Vec<_>>()[..] {
        [shape, method @ ("full" | "8bit" | "lora"), tokens] => {
            finetune(&options, shape, method, tokens.parse().expect("a number of tokens"))
        }
        _ => bench(&options),
    });
}

const SETTINGS: AdamWSettings =
    AdamWSettings { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.01, max_grad_norm: 1.0, optim: Optim::Adamw };

/// Cross-entropy, and the optimiser's step; seconds until the gradients were there.
fn step(learner: &mut Learner, examples: &[Example]) -> f64 {
    let begin = Instant::now();
    let mut seeds = |_: &[usize], values: Values| {
        let n = values.logprobs.len();
        Ok(Seeds { logprobs: vec![-1.0 / n as f32; n], entropy: None, divergence: None })
    };
    learner.accumulate(examples, 1.0, None, &mut seeds).expect("the batch is a valid one");
    let seconds = begin.elapsed().as_secs_f64();
    learner.step(1e-4).expect("the gradient is finite");
    seconds
}

fn bench(options: &common::Options) {
    for bench in common::benches() {
        let (rows, length) = bench.train;
        if !options.wants(&format!("{}/train/{rows}", bench.name)) {
            continue;
        }
        let batching = Batching { micro_batch_tokens: rows * length, recompute: None };
        let mut learner = Learner::new(&bench.decoder(), SETTINGS, batching).expect("the model fits");
        let examples: Vec<Example> =
            (0..rows).map(|row| Example { tokens: bench.ids(&format!("row {row}"), length), completion: 1 }).collect();
        let timing = common::time(options.quick, || {
            step(&mut learner, &examples);
        });
        options.report(&bench, "train", rows, rows * length, &timing, bench.ceiling(rows * length, true, options.quick));
    }
}

/// A shape that people train, by name.
fn real(name: &str) -> Bench {
    let shape = |hidden_size, layers, heads, kv_heads, intermediate_size| Shape {
        hidden_size,
        layers,
        heads,
        kv_heads,
        intermediate_size,
        positions: 32_768,
    };
    match name {
        "base" => Bench { name: "base", shape: shape(768, 12, 12, 2, 2048), vocabulary: 32_000, train: (1, 2048) },
        // Qwen2.5-0.5B
        "0.5b" => Bench { name: "0.5b", shape: shape(896, 24, 14, 2, 4864), vocabulary: 151_936, train: (1, 2048) },
        other => panic!("{other} is no shape: base, 0.5b"),
    }
}

fn finetune(options: &common::Options, shape: &str, method: &str, tokens: usize) {
    let bench = real(shape);
    let decoder = bench.decoder();
    let decoder = if method == "lora" { adapted(&decoder) } else { decoder };
    let optim = if method == "8bit" { Optim::Adamw8bit } else { Optim::Adamw };
    let batching = Batching { micro_batch_tokens: tokens, recompute: Some(true) };
    let mut learner = Learner::new(&decoder, AdamWSettings { optim, ..SETTINGS }, batching).expect("the model fits");
    drop(decoder);
    let trained: usize = learner.optimizer().parameters().iter().map(|p| p.var.elem_count()).sum();
    let examples = [Example { tokens: bench.ids("row", tokens), completion: 1 }];
    let mut seconds = Vec::new();
    for i in 0..=if options.quick { 1 } else { 3 } {
        let begin = Instant::now();
        let gradients = step(&mut learner, &examples);
        let all = begin.elapsed().as_secs_f64();
        eprintln!("step {i}: {all:.1} s, {gradients:.1} of them gradients; peak {:.2} GiB", gib(peak_memory()));
        seconds.push(all);
    }
    seconds.remove(0); // the first allocates
    seconds.sort_by(f64::total_cmp);
    let (median, spread) = (seconds[seconds.len() / 2], seconds[seconds.len() - 1] / seconds[0]);
    let products: usize = bench.products().iter().map(|(i, o)| i * o).sum();
    let (peak, operations) = (product_rate(), if method == "lora" { 4.0 } else { 6.0 });
    let round = |x: f64| (x * 1000.0).round() / 1000.0;
    let line = json!({
        "peer": "distill", "what": options.filter, "threads": options.threads, "trained": trained, "tokens_per_s": round(tokens as f64 / median),
        "spread": round(spread), "peak_gib": round(gib(peak_memory())), "gflops": round(peak / 1e9),
        "share_of_peak": round(operations * products as f64 * tokens as f64 / median / peak),
    });
    println!("{line}");
}

fn adapted(decoder: &Decoder) -> Decoder {
    let settings = LoraSettings { r: 16, alpha: 32.0, targets: Target::ALL.to_vec(), dropout: 0.0, rslora: false };
    decoder.with_adapter(&settings, Key::new(1, "adapter")).expect("the shape is a valid one")
}

/// Bytes that the process has held at most.
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok()).unwrap_or(0) * 1024
}

/// Floating-point operations per second of a large product on all threads, as the program multiplies: the best of some.
fn product_rate() -> f64 {
    const N: usize = 2048;
    let a = Tensor::ones((N, N), DType::F32, &Device::Cpu).expect("there is memory");
    let time = || {
        let begin = Instant::now();
        std::hint::black_box(a.matmul(&a).expect("the inner sizes agree"));
        begin.elapsed().as_secs_f64()
    };
    let best = (0..8).map(|_| time()).fold(f64::INFINITY, f64::min);
    2.0 * (N * N * N) as f64 / best
}

fn gib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}
