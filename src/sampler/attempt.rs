//! What a sampler is asked for and what it gives back, whoever computes it.

use super::params::SamplingParams;
use crate::key::Key;
use crate::trace::Completion;
use anyhow::Result;
use std::sync::Arc;

/// What to continue, and the key its attempts draw under.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Index of the problem in the caller's list.
    pub index: usize,
    /// Name for errors.
    pub name: String,
    /// What a server is sent: the user's message, or all of the text that is to be continued.
    pub text: String,
    /// For a decoder in this process; empty where a server has the tokenizer.
    pub tokens: Vec<u32>,
    pub key: Key,
}

/// What the caller wants sampled next.
pub enum Next {
    Request {
        prompt: Arc<Prompt>,
        attempt: u32,
    },
    /// Nothing until a running attempt has ended.
    Wait,
    End,
}

/// One finished attempt.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub prompt: Arc<Prompt>,
    pub attempt: u32,
    /// From a server it has a finish and no tokens.
    pub completion: Completion,
    pub served: Option<Served>,
}

/// What a server says of an attempt: text and counts, where a decoder in this process has tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Served {
    pub text: String,
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
    /// Sum over the completion, where the server's log-probabilities add up to its text byte by byte.
    pub logprob: Option<f64>,
}

/// What sampling has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens computed, each prompt counted as often as it was computed.
    pub prefilled: usize,
    /// Prompt tokens that were there already, since another prompt began with them.
    pub reused: usize,
    /// Attempts whose memory was given away because there was none left.
    pub preempted: usize,
    /// Tokens of these that were computed again.
    pub recomputed: usize,
    /// Attempts that got a token in a step, over all steps; in each step there could have been as many as there are slots.
    pub rows: usize,
    /// Steps of the whole batch; of a server, requests.
    pub steps: usize,
    /// Tokens sampled.
    pub sampled: usize,
}

/// Where attempts come from: a decoder in this process, or a server.
pub trait Sampler {
    /// Asks `next` for attempts until it says `End`, or `stop_when` says so, and gives each finished one to `done`, in the order in which they finish.
    ///
    /// `params` come with each run, since one sampler serves sampled and greedy attempts. A prompt that leaves no room is done with `Overflow`.
    fn run(
        &mut self,
        params: &SamplingParams,
        next: &mut dyn FnMut() -> Result<Next>,
        done: &mut dyn FnMut(Attempt) -> Result<()>,
    ) -> Result<()>;

    /// Makes `run` return soon after `stop` is true: running attempts are dropped, and can be asked for again under the same keys.
    fn stop_when(&mut self, stop: fn() -> bool);

    fn usage(&self) -> Usage;

    /// What a person should know of what was sampled.
    fn remarks(&self) -> Vec<&'static str> {
        Vec::new()
    }
}
