//! Training tokens/s through `Learner`: forward, cross-entropy over all tokens but the first, backward, AdamW; 32 x 36 tokens, or 4 x 256.
//!
//!     cargo bench --bench train -- [FILTER] [--quick] [--threads N] [--seconds N]       FILTER as in tiny/train

mod common;

use distill::train::{AdamWSettings, Example, Learner, Seeds};

fn main() {
    let options = common::Options::read();
    // As the program runs: on a thread of the pool.
    rayon::scope(|_| bench(&options));
}

fn bench(options: &common::Options) {
    for bench in common::benches() {
        let (rows, length) = bench.train;
        if !options.wants(&format!("{}/train/{rows}", bench.name)) {
            continue;
        }
        let settings = AdamWSettings { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.01, max_grad_norm: 1.0 };
        let mut learner = Learner::new(&bench.decoder(), settings, rows * length).expect("the model fits");
        let examples: Vec<Example> =
            (0..rows).map(|row| Example { tokens: bench.ids(&format!("row {row}"), length), completion: 1 }).collect();
        let timing = common::time(options.quick, || {
            let mut seeds = |_, values: distill::train::Values| {
                let n = values.logprobs.len();
                Ok(Seeds { logprobs: vec![-1.0 / n as f32; n], entropy: None, kl: None })
            };
            learner.accumulate(&examples, 1.0, None, &mut seeds).expect("the batch is a valid one");
            learner.step(1e-4).expect("the gradient is finite");
        });
        options.report(&bench, "train", rows, rows * length, &timing, bench.ceiling(rows * length, true, options.quick));
    }
}
