//! Sampling: the choice of the next token, and continuous batching over one decoder.
//!
//! The sampler knows prompts as tokens and attempts as numbers; it does not know what is asked or whether an answer is right. Randomness
//! is keyed by (prompt, attempt, position), so an attempt's tokens do not depend on what runs beside it.

mod batch;
mod choice;

pub use batch::{Attempt, LocalSampler, Next, Prompt, Usage};
pub use choice::{Choice, SamplingParams, choose};
