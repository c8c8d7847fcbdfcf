//! Continuous batching: as many running attempts as the cache has slots, a finished one's slot refilled at once.
//!
//! A prompt is computed once for all attempts that follow each other on it. Every attempt's tokens come from its own key, so the batch it
//! happens to share changes nothing.

use super::attempt::{Attempt, Next, Prompt, Sampler, Usage};
use super::choice::{Choice, choose};
use super::params::SamplingParams;
use crate::key::Key;
use crate::lanes;
use crate::model::text::Text;
use crate::model::{Decoder, KvCache, Packed, Prefix, Rows};
use crate::trace::{Completion, FinishReason};
use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use std::sync::Arc;

/// Samples from a decoder in this process.
pub struct LocalSampler {
    model: Model,
    text: Arc<Text>,
    stop_ids: Vec<u32>,
    /// Slot s is slot s / lanes of cache s mod lanes: each lane decodes its own rows, on one thread from embedding to choice. Empty between the runs of a large model
    /// that is trained meanwhile.
    caches: Vec<KvCache>,
    slots: usize,
    capacity: usize,
    usage: Usage,
    stop: fn() -> bool,
}

/// What is sampled from.
enum Model {
    /// Shares its memory with what may be trained: laid out at the beginning of each run.
    Following(Decoder),
    /// Laid out once.
    Fixed(Arc<Decoder>),
}

impl Model {
    fn decoder(&self) -> &Decoder {
        match self {
            Self::Following(decoder) => decoder,
            Self::Fixed(decoder) => decoder,
        }
    }
}

/// Rows from which on a lane of its own pays.
const LANE_ROWS: usize = 16;

/// Prompt tokens that are computed together, at most; a longer prompt goes alone.
const PREFILL_TOKENS: usize = 4096;

/// Tokens of the text that are decoded again at each step to look for a stop string, beside one per byte of the longest.
const STOP_WINDOW: usize = 4;

struct Running {
    prompt: Arc<Prompt>,
    attempt: u32,
    key: Key,
    slot: usize,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
}

impl LocalSampler {
    /// A sampler of `slots` attempts at once, each with room for `capacity` tokens, its prompt included.
    ///
    /// `decoder` may share its memory with one that is being trained: the next `run` then uses the new weights.
    pub fn new(decoder: &Decoder, text: Arc<Text>, slots: usize, capacity: usize) -> Result<Self> {
        Ok(Self::of(Model::Following(decoder.frozen()?), (text, slots, capacity)))
    }

    /// `new` for a model that nobody trains: it takes the memory of one copy of the weights and not of two.
    pub fn fixed(decoder: Decoder, text: Arc<Text>, slots: usize, capacity: usize) -> Result<Self> {
        Ok(Self::of(Model::Fixed(Arc::new(decoder.for_sampling()?)), (text, slots, capacity)))
    }

    fn of(model: Model, (text, slots, capacity): (Arc<Text>, usize, usize)) -> Self {
        let capacity = capacity.min(model.decoder().config().max_positions);
        Self {
            model,
            stop_ids: text.stop_ids(),
            text,
            caches: Vec::new(),
            slots: slots.max(1),
            capacity,
            usage: Usage::default(),
            stop: || false,
        }
    }

    /// From now on samples from this model as it is now, whatever is trained meanwhile; `new` follows its steps. The model must have the shape of the one before it.
    /// Makes a whole copy of the weights before it lays them out.
    ///
    /// # Errors
    /// Where the device has no memory for the copy.
    pub fn fix(&mut self, decoder: &Decoder) -> Result<()> {
        // The copy that was sampled from before goes first.
        self.model = Model::Following(decoder.frozen()?);
        self.model = Model::Fixed(Arc::new(decoder.snapshot()?.for_sampling()?));
        Ok(())
    }

    /// Caches for a run; those of the run before are taken again where they are still there.
    fn take_caches(&mut self) -> Result<()> {
        if self.caches.is_empty() {
            let decoder = self.model.decoder();
            let config = decoder.config();
            let lanes = if config.is_small() { lanes::count().min(self.slots / LANE_ROWS).max(1) } else { 1 };
            let cache = |lane| KvCache::new(config, (self.slots + lanes - 1 - lane) / lanes, self.capacity, decoder.device());
            self.caches = (0..lanes).map(cache).collect::<Result<_>>()?;
        }
        Ok(())
    }

    /// Room for one attempt, its prompt included.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Computes the prompts that are new, and starts an attempt with its first token in a slot for each request.
    ///
    /// Prompts are computed some thousand tokens at a time and put into their slots at once; of what was computed only the last is kept, for the
    /// attempts that may follow on it.
    fn start(
        &mut self,
        decoder: &Decoder,
        fresh: Vec<(Arc<Prompt>, u32)>,
        free: &mut Vec<usize>,
        last: &mut Option<(Arc<Prompt>, Prefix)>,
        params: &SamplingParams,
    ) -> Result<Vec<Running>> {
        let mut started = Vec::with_capacity(fresh.len());
        let mut fresh = fresh.into_iter().peekable();
        while fresh.peek().is_some() {
            let (mut chunk, mut new, mut tokens): (Vec<_>, Vec<Arc<Prompt>>, usize) = (Vec::new(), Vec::new(), 0);
            while let Some((prompt, _)) = fresh.peek() {
                let known = last.iter().map(|(p, _)| p).chain(&new).any(|p| Arc::ptr_eq(p, prompt));
                if !known {
                    if tokens > 0 && tokens + prompt.tokens.len() > PREFILL_TOKENS {
                        break;
                    }
                    tokens += prompt.tokens.len();
                    new.push(prompt.clone());
                }
                chunk.extend(fresh.next());
            }
            let mut prefixes: Vec<(Arc<Prompt>, Prefix)> = last.take().into_iter().collect();
            if !new.is_empty() {
                let packed = Packed::new(new.iter().map(|p| &p.tokens[..]))?;
                self.usage.prefilled += packed.tokens();
                prefixes.extend(new.into_iter().zip(decoder.prefill(&packed)?));
            }
            for (prompt, attempt) in chunk {
                let (_, prefix) =
                    prefixes.iter().find(|(p, _)| Arc::ptr_eq(p, &prompt)).expect("every prompt of the chunk was computed just now");
                let slot = free.pop().expect("no more requests are taken than slots are free");
                let lanes = self.caches.len();
                self.caches[slot % lanes].start(slot / lanes, prefix, decoder)?;
                let key = prompt.key.number(u64::from(attempt));
                let choice = choose(&prefix.logits, params, key, 0);
                let mut attempt = Running { prompt, attempt, key, slot, tokens: Vec::new(), logprobs: Vec::new() };
                self.push(&mut attempt, choice)?;
                started.push(attempt);
            }
            *last = prefixes.pop().map(|(prompt, prefix)| Ok::<_, anyhow::Error>((prompt, prefix.alone()?))).transpose()?;
        }
        Ok(started)
    }

    /// One decode step for all running attempts.
    fn step(&mut self, decoder: &Decoder, running: &mut [Running], params: &SamplingParams) -> Result<()> {
        let n = self.caches.len();
        let mut of_lane: Vec<Vec<usize>> = vec![Vec::new(); n];
        for (i, r) in running.iter().enumerate() {
            of_lane[r.slot % n].push(i);
        }
        let all = &*running;
        let decode = |(cache, rows): (&mut KvCache, Vec<usize>)| -> Result<Vec<(usize, Option<Choice>)>> {
            if rows.is_empty() {
                return Ok(Vec::new());
            }
            let running = || rows.iter().map(|i| &all[*i]);
            let step = Rows {
                tokens: running().map(|r| *r.tokens.last().expect("a running attempt has its first token")).collect(),
                slots: running().map(|r| r.slot / n).collect(),
            };
            let logits = decoder.decode(&step, cache)?;
            let vocabulary = logits.dim(1)?;
            Decoder::with_logits(&logits, |logits| {
                let choices = rows.par_iter().zip(logits.par_chunks_exact(vocabulary)).with_min_len(8);
                choices.map(|(i, row)| (*i, choose(row, params, all[*i].key, all[*i].tokens.len() as u32))).collect()
            })
        };
        let chosen = lanes::map(self.caches.iter_mut().zip(of_lane).collect(), decode);
        self.usage.steps += 1;
        let mut choices: Vec<Option<Choice>> = vec![None; running.len()];
        for (i, choice) in chosen.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten() {
            choices[i] = choice;
        }
        for (attempt, choice) in running.iter_mut().zip(choices) {
            self.push(attempt, choice)?;
        }
        Ok(())
    }

    fn push(&mut self, attempt: &mut Running, choice: Option<Choice>) -> Result<()> {
        let choice = choice.with_context(|| {
            format!(
                "the model's logits are not finite (problem {}, attempt {}): its weights are damaged",
                attempt.prompt.name, attempt.attempt
            )
        })?;
        attempt.tokens.push(choice.token);
        attempt.logprobs.push(choice.logprob);
        self.usage.sampled += 1;
        Ok(())
    }

    /// Hands over the attempts that have ended and frees their slots.
    fn settle(
        &self,
        running: &mut Vec<Running>,
        free: &mut Vec<usize>,
        params: &SamplingParams,
        done: &mut dyn FnMut(Attempt) -> Result<()>,
    ) -> Result<()> {
        let mut i = 0;
        while i < running.len() {
            match self.finish(&running[i], params) {
                None => i += 1,
                Some(finish) => {
                    let r = running.swap_remove(i);
                    free.push(r.slot);
                    let completion = Completion { tokens: r.tokens, logprobs: r.logprobs, finish };
                    done(Attempt { prompt: r.prompt, attempt: r.attempt, completion, served: None })?;
                }
            }
        }
        Ok(())
    }

    fn finish(&self, attempt: &Running, params: &SamplingParams) -> Option<FinishReason> {
        let last = attempt.tokens.last()?;
        if self.stop_ids.contains(last) || self.has_stop_string(&attempt.tokens, &params.stop) {
            return Some(FinishReason::Stop);
        }
        let full = attempt.prompt.tokens.len() + attempt.tokens.len() >= self.capacity;
        (full || attempt.tokens.len() >= params.max_tokens).then_some(FinishReason::Length)
    }

    /// Whether the newest tokens complete a stop string.
    fn has_stop_string(&self, tokens: &[u32], stop: &[String]) -> bool {
        let Some(longest) = stop.iter().map(String::len).max() else { return false };
        let tail = self.text.decode(&tokens[tokens.len().saturating_sub(longest + STOP_WINDOW)..]);
        stop.iter().any(|s| tail.contains(s.as_str()))
    }
}

impl Sampler for LocalSampler {
    /// # Errors
    /// Logits that are not finite, or `Wait` while nothing runs.
    fn run(
        &mut self,
        params: &SamplingParams,
        next: &mut dyn FnMut() -> Result<Next>,
        done: &mut dyn FnMut(Attempt) -> Result<()>,
    ) -> Result<()> {
        self.take_caches()?;
        let decoder = match &self.model {
            Model::Following(decoder) => Arc::new(decoder.clone().for_sampling()?),
            Model::Fixed(decoder) => decoder.clone(),
        };
        let served = self.serve(&decoder, params, next, done);
        if matches!(&self.model, Model::Following(decoder) if !decoder.config().is_small()) {
            self.caches.clear(); // what trains until the next run needs the room
        }
        served
    }

    /// Between two steps; what is sampled again has the same tokens.
    fn stop_when(&mut self, stop: fn() -> bool) {
        self.stop = stop;
    }

    fn usage(&self) -> Usage {
        self.usage
    }
}

impl LocalSampler {
    fn serve(
        &mut self,
        decoder: &Decoder,
        params: &SamplingParams,
        next: &mut dyn FnMut() -> Result<Next>,
        done: &mut dyn FnMut(Attempt) -> Result<()>,
    ) -> Result<()> {
        let mut free: Vec<usize> = (0..self.caches.iter().map(KvCache::slots).sum()).rev().collect();
        let mut running: Vec<Running> = Vec::new();
        let mut last: Option<(Arc<Prompt>, Prefix)> = None;
        let mut ended = false;
        loop {
            if (self.stop)() {
                return Ok(());
            }
            let mut waiting = false;
            let mut fresh = Vec::new();
            while !ended && !waiting && fresh.len() < free.len() {
                match next()? {
                    Next::Request { prompt, attempt } if prompt.tokens.is_empty() || prompt.tokens.len() >= self.capacity => {
                        let completion = Completion { tokens: vec![], logprobs: vec![], finish: FinishReason::Overflow };
                        done(Attempt { prompt, attempt, completion, served: None })?;
                    }
                    Next::Request { prompt, attempt } => fresh.push((prompt, attempt)),
                    Next::Wait => waiting = true,
                    Next::End => ended = true,
                }
            }
            let started = self.start(decoder, fresh, &mut free, &mut last, params)?;
            running.extend(started);
            self.settle(&mut running, &mut free, params, done)?;
            if running.is_empty() {
                if ended {
                    return Ok(());
                }
                if waiting {
                    bail!("the sampler was told to wait while no attempt was running");
                }
                continue;
            }
            self.step(decoder, &mut running, params)?;
            self.settle(&mut running, &mut free, params, done)?;
        }
    }
}
