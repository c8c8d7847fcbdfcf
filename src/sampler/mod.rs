//! Sampling: the choice of the next token, continuous batching over one decoder, and servers that do both on their side.
//!
//! The sampler knows prompts as tokens or text and attempts as numbers; it does not know what is asked or whether an answer is right. Randomness
//! is keyed by (prompt, attempt, position), so an attempt's tokens do not depend on what runs beside it; a server is sent a seed made from the same key.

mod attempt;
mod batch;
mod choice;
mod params;
mod server;

pub use attempt::{Attempt, Next, Prompt, Sampler, Served, Usage};
pub use batch::LocalSampler;
pub use choice::{Choice, choose};
pub use params::SamplingParams;
pub use server::{Api, Endpoint, Patience, Refused, ServerSampler, check_url, is_url};
