//! Traces on disk: a journal while a stage works, sealed shards with a manifest afterwards.
//!
//! Both are independent zstd frames with content checksums, so that damage is noticed, and reading in order takes one frame of memory. Shards are plain
//! JSON lines that other programs read as they are; the token ids lie beside them. What a trace means is not known here, nor which stage writes it.

mod cache;
mod frame;
pub mod journal;
pub mod manifest;
pub mod reader;
pub mod tokens;
pub mod writer;

pub use journal::{Journal, Place, Recovered};
pub use manifest::{Manifest, ShardInfo, Source};
pub use reader::{Batch, Rows, traces};
pub use tokens::{TokenRecord, Tokens, TokensInOrder};
pub use writer::{SealOptions, Sealer, seal};

use crate::trace::Trace;
use serde::{Deserialize, Serialize};

/// A trace with the token ids it was sampled as: what a stage journals and seals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub trace: Trace,
    /// `None` for traces from elsewhere. Its id is the trace's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokenRecord>,
}

#[cfg(test)]
pub(crate) mod samples {
    use super::*;
    use crate::key::Key;
    use serde_json::json;

    /// Attempt `attempt` at problem `p/<problem>`: words and tokens that depend on both, a field that `Trace` does not know.
    pub(crate) fn entry(problem: u32, attempt: u32) -> Entry {
        let mut draw = Key::new(u64::from(problem), "sample").number(u64::from(attempt)).stream();
        let n = 5 + draw.below(20);
        let words: Vec<String> = (0..n).map(|_| format!("word{}", draw.below(1000))).collect();
        let id = format!("p/{problem}#{attempt}");
        let trace = serde_json::from_value(json!({
            "id": id, "problem": format!("p/{problem}"), "attempt": attempt, "task": "sample", "question": "why, 为什么?", "gold": "1",
            "messages": [{"role": "user", "content": "why?"}], "response": words.join(" "), "verdict": {"verdict": "correct", "answer": "1"},
            "prompt_tokens": 3, "completion_tokens": n, "finish": "stop", "language": {"target": "en", "share": 1.0},
            "zz_unknown": {"b": [1, 2.5], "a": null}
        }))
        .expect("the sample is a trace");
        let logprobs: Vec<f32> = (0..n).map(|_| -draw.unit() as f32).collect();
        let tokens = TokenRecord::new(id, vec![1, 2, 3], (0..n).map(|_| draw.below(150_000)).collect(), &logprobs);
        Entry { trace, tokens: Some(tokens) }
    }

    /// `problems` x 2 attempts, in order.
    pub(crate) fn entries(problems: u32) -> Vec<Entry> {
        (0..problems).flat_map(|p| [entry(p, 0), entry(p, 1)]).collect()
    }

    /// The order of the samples: by number, not by text.
    pub(crate) fn order(trace: &Trace) -> (u32, u32) {
        (trace.problem.0[2..].parse().expect("sample ids are p/<number>"), trace.attempt)
    }
}
