//! Decode tokens/s through `LocalSampler`: per row a prompt of 16 tokens of its own, 64 new ones at temperature 1, no stop, prefill included.
//!
//!     cargo bench --bench decode -- [FILTER] [--quick] [--threads N] [--seconds N]      FILTER as in tiny/decode/64

#[expect(dead_code, reason = "decoding reads no training shape")]
mod common;

use distill::key::Key;
use distill::model::text::Text;
use distill::sampler::{LocalSampler, Next, Prompt, Sampler, SamplingParams};
use std::sync::Arc;

const PROMPT: usize = 16;
const NEW: usize = 64;

/// A tokenizer whose end token is beyond every vocabulary here, so that no attempt stops early.
fn endless() -> Arc<Text> {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let end = r#"{"id": 1000000, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}"#;
    let model = r#"{"type": "WordLevel", "vocab": {"a": 0, "<end>": 1000000}, "unk_token": "a"}"#;
    let tokenizer = format!(
        r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [{end}], "normalizer": null, "pre_tokenizer": null,
            "post_processor": null, "decoder": null, "model": {model}}}"#
    );
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer).expect("the folder is ours");
    std::fs::write(folder.path().join("tokenizer_config.json"), r#"{"eos_token": "<end>"}"#).expect("the folder is ours");
    Arc::new(Text::from_folder(folder.path()).expect("the tokenizer above is a valid one"))
}

fn main() {
    let options = common::Options::read();
    // As the program runs: on a thread of the pool.
    rayon::scope(|_| bench(&options));
}

fn bench(options: &common::Options) {
    for bench in common::benches() {
        for batch in [1, 64, 256] {
            if !options.wants(&format!("{}/decode/{batch}", bench.name)) {
                continue;
            }
            let mut sampler = LocalSampler::new(&bench.decoder(), endless(), batch, PROMPT + NEW).expect("the cache fits");
            let prompts: Vec<Arc<Prompt>> = (0..batch)
                .map(|index| {
                    let name = format!("row {index}");
                    Arc::new(Prompt { index, text: String::new(), tokens: bench.ids(&name, PROMPT), key: Key::new(5, &name), name })
                })
                .collect();
            let params = SamplingParams::at(1.0, NEW);
            let timing = common::time(options.quick, || {
                let (mut asked, mut tokens) = (prompts.iter(), 0);
                let mut next = || Ok(asked.next().map_or(Next::End, |prompt| Next::Request { prompt: prompt.clone(), attempt: 0 }));
                let mut done = |attempt: distill::sampler::Attempt| {
                    tokens += attempt.completion.tokens.len();
                    Ok(())
                };
                sampler.run(&params, &mut next, &mut done).expect("random weights give finite logits");
                assert_eq!(tokens, batch * NEW, "an attempt stopped early");
            });
            options.report(&bench, "decode", batch, batch * NEW, &timing, bench.ceiling(batch, false, options.quick));
        }
    }
}
