//! Continuous batching over a paged cache: as many running attempts as there are slots, a finished one's place taken at once.
//!
//! A step computes the next token of every running attempt and, beside them, parts of prompts that are to be started. A prompt is computed once for all attempts at
//! it: they share its full pages and get a copy of the last, and what other prompts begin alike is not computed again either. Every attempt's tokens come from its
//! own key, and a row's bits from its own sequence, so who shares a batch or a page, and who was computed twice, changes nothing.

mod lengths;
mod pages;

use super::attempt::{Attempt, Next, Prompt, Sampler, Usage};
use super::choice::{Choice, choose};
use super::params::SamplingParams;
use crate::key::Key;
use crate::lanes;
use crate::model::text::Text;
use crate::model::{Decoder, PagedCache, Piece};
use crate::trace::{Completion, FinishReason};
use anyhow::{Context, Result, bail};
use lengths::Lengths;
use pages::{PAGE, PagePool};
use rayon::prelude::*;
use std::collections::VecDeque;
use std::sync::Arc;

/// Samples from a decoder in this process.
pub struct LocalSampler {
    model: Model,
    text: Arc<Text>,
    stop_ids: Vec<u32>,
    /// `None` between the runs of a large model that is trained meanwhile.
    cache: Option<PagedCache>,
    pool: PagePool,
    pages: usize,
    slots: usize,
    capacity: usize,
    lengths: Lengths,
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

/// Rows of a small model from which on a share of their own pays.
const SHARE_LEAST: usize = 16;

/// Rows of a small model whose numbers stay in a core's cache from one operation to the next.
const SHARE_MOST: usize = 64;

/// Tokens of prompts that a step computes beside the running attempts, at most.
const PREFILL_TOKENS: usize = 1024;

/// Tokens of the text that are decoded again at each step to look for a stop string, beside one per byte of the longest.
const STOP_WINDOW: usize = 4;

/// An attempt under way.
struct Running {
    prompt: Arc<Prompt>,
    attempt: u32,
    key: Key,
    /// The prompt's tokens, then those sampled.
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
    pages: Vec<u32>,
    /// Tokens whose keys and values are in the cache: all but the last, or fewer where its pages were given away.
    computed: usize,
    /// In which place it was started.
    order: u64,
}

impl Running {
    fn sampled(&self) -> usize {
        self.tokens.len() - self.prompt.tokens.len()
    }
}

/// A prompt that is being computed, and the attempts that wait for it.
struct Opening {
    prompt: Arc<Prompt>,
    pages: Vec<u32>,
    computed: usize,
    attempts: Vec<u32>,
}

/// A prompt that was computed: what attempts at it start from. Nothing is written to its pages any more.
struct Opened {
    prompt: Arc<Prompt>,
    pages: Vec<u32>,
    /// Of what follows it, (V,).
    logits: Vec<f32>,
}

/// What waits for room in the cache.
enum Waiting {
    Fresh(Arc<Prompt>, u32),
    /// Its pages were given away; what it has sampled stays.
    Paused(Running),
}

/// Everything that a run has under way.
#[derive(Default)]
struct Work {
    queue: VecDeque<Waiting>,
    openings: Vec<Opening>,
    /// In the order in which they were started.
    running: Vec<Running>,
    started: u64,
    /// The last prompt that was computed, for the attempts that may follow on it.
    last: Option<Opened>,
}

impl Work {
    /// Attempts that were asked for and are not done.
    fn attempts(&self) -> usize {
        self.queue.len() + self.running.len() + self.openings.iter().map(|opening| opening.attempts.len()).sum::<usize>()
    }
}

/// What a piece of a step is part of.
#[derive(Clone, Copy)]
enum Part {
    Running(usize),
    Opening(usize),
}

/// What a piece that wanted logits has given.
enum Given {
    /// `None` where the logits are not finite.
    Token(Option<Choice>),
    Logits(Vec<f32>),
}

impl LocalSampler {
    /// A sampler of `slots` attempts at once, each with room for `capacity` tokens, its prompt included.
    ///
    /// `decoder` may share its memory with one that is being trained: the next `run` then uses the new weights.
    pub fn new(decoder: &Decoder, text: Arc<Text>, slots: usize, capacity: usize) -> Result<Self> {
        Ok(Self::of(Model::Following(decoder.frozen()?), (text, slots, capacity)))
    }

    /// `new` for a model that nobody trains: it takes the memory of one copy of the weights and not of two, and what prompts of one run begin with is there in the next.
    pub fn fixed(decoder: Decoder, text: Arc<Text>, slots: usize, capacity: usize) -> Result<Self> {
        Ok(Self::of(Model::Fixed(Arc::new(decoder.for_sampling()?)), (text, slots, capacity)))
    }

    fn of(model: Model, (text, slots, capacity): (Arc<Text>, usize, usize)) -> Self {
        let capacity = capacity.min(model.decoder().config().max_positions);
        let slots = slots.max(1);
        let pages = Self::cache_pages(slots, capacity);
        Self {
            model,
            stop_ids: text.stop_ids(),
            text,
            cache: None,
            pool: PagePool::new(pages),
            pages,
            slots,
            capacity,
            lengths: Lengths::default(),
            usage: Usage::default(),
            stop: || false,
        }
    }

    /// Pages of a cache in which `slots` attempts of `capacity` tokens each have room in any case: one more of them stands for the prompt that is shared.
    pub fn cache_pages(slots: usize, capacity: usize) -> usize {
        (slots + 1) * PagedCache::pages_for(capacity)
    }

    /// With a cache of so many tokens in place of one that holds all slots at their longest. Where it is full, the attempt that was started last gives its pages away and
    /// is computed again later. At least two attempts of `capacity` fit in any case.
    pub fn with_cache_tokens(mut self, tokens: usize) -> Self {
        self.pages = PagedCache::pages_for(tokens).max(Self::cache_pages(1, self.capacity));
        self.pool = PagePool::new(self.pages);
        self.cache = None;
        self
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
        self.pool.forget_all();
        Ok(())
    }

    /// Room for one attempt, its prompt included.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Takes what waits into the next steps, as long as there is room for it and for what is expected to follow.
    fn admit(&mut self, cache: &mut PagedCache, work: &mut Work, params: &SamplingParams) -> Result<()> {
        let expected = |sampled: usize| PagedCache::pages_for(self.lengths.left(sampled, params.max_tokens));
        let fresh = 1 + expected(0);
        let mut promised: usize = work.running.iter().map(|r| expected(r.sampled())).sum();
        promised += work.openings.iter().map(|opening| opening.attempts.len() * fresh).sum::<usize>();
        while let Some(first) = work.queue.pop_front() {
            let growth = match &first {
                Waiting::Fresh(..) => fresh,
                Waiting::Paused(running) => PagedCache::pages_for(self.lengths.left(running.sampled(), params.max_tokens)),
            };
            if let Some(first) = self.take_in(cache, work, first, growth + promised, params)? {
                work.queue.push_front(first);
                break;
            }
            promised += growth;
        }
        Ok(())
    }

    /// Takes in what waits, or gives it back where it and `promised` pages have no room.
    fn take_in(
        &mut self,
        cache: &mut PagedCache,
        work: &mut Work,
        first: Waiting,
        promised: usize,
        params: &SamplingParams,
    ) -> Result<Option<Waiting>> {
        // Alone it has all of the cache.
        let reserve = if work.running.is_empty() && work.openings.is_empty() { 0 } else { promised };
        match first {
            Waiting::Fresh(prompt, attempt) => {
                if let Some(opening) = work.openings.iter_mut().find(|opening| Arc::ptr_eq(&opening.prompt, &prompt)) {
                    if self.pool.available() < reserve {
                        return Ok(Some(Waiting::Fresh(prompt, attempt)));
                    }
                    opening.attempts.push(attempt);
                    return Ok(None);
                }
                if work.last.as_ref().is_some_and(|last| Arc::ptr_eq(&last.prompt, &prompt)) && self.pool.available() > reserve {
                    let last = work.last.take().expect("it is there");
                    let choice = choose(&last.logits, params, prompt.key.number(u64::from(attempt)), 0);
                    self.begin(cache, work, &last, attempt, choice)?;
                    work.last = Some(last);
                    return Ok(None);
                }
                Ok(match self.pages_for(work, &prompt.tokens, reserve) {
                    Some((pages, computed)) => {
                        self.usage.reused += computed;
                        work.openings.push(Opening { prompt, pages, computed, attempts: vec![attempt] });
                        None
                    }
                    None => Some(Waiting::Fresh(prompt, attempt)),
                })
            }
            Waiting::Paused(mut running) => Ok(match self.pages_for(work, &running.tokens, reserve) {
                Some((pages, computed)) => {
                    (running.pages, running.computed) = (pages, computed);
                    let place = work.running.partition_point(|r| r.order < running.order);
                    work.running.insert(place, running);
                    None
                }
                None => Some(Waiting::Paused(running)),
            }),
        }
    }

    /// Pages for a sequence, and how many of its tokens are in them already; `None` where these and `reserve` pages are not there.
    fn pages_for(&mut self, work: &mut Work, tokens: &[u32], reserve: usize) -> Option<(Vec<u32>, usize)> {
        let mut pages = self.pool.find(tokens);
        let computed = pages.len() * PAGE;
        let needed = PagedCache::pages_for(tokens.len()) - pages.len();
        if self.pool.available() < needed + reserve
            && let Some(last) = work.last.take()
        {
            self.pool.leave(last.pages);
        }
        if self.pool.available() < needed + reserve {
            self.pool.leave(pages);
            return None;
        }
        pages.extend(std::iter::from_fn(|| self.pool.take()).take(needed));
        Some((pages, computed))
    }

    /// Starts an attempt with its first token behind a prompt that was computed; it waits where there is no page for it.
    fn begin(&mut self, cache: &mut PagedCache, work: &mut Work, opened: &Opened, attempt: u32, choice: Option<Choice>) -> Result<()> {
        let prompt = opened.prompt.clone();
        let full = prompt.tokens.len() / PAGE;
        let mut pages = opened.pages[..full].to_vec();
        // The last page is written on.
        if let Some(rest) = opened.pages.get(full) {
            let Some(page) = self.pool.take() else {
                work.queue.push_front(Waiting::Fresh(prompt, attempt));
                return Ok(());
            };
            cache.copy(*rest, page)?;
            pages.push(page);
        }
        pages[..full].iter().for_each(|page| self.pool.share(*page));
        let (key, tokens, computed) = (prompt.key.number(u64::from(attempt)), prompt.tokens.clone(), prompt.tokens.len());
        let mut running = Running { prompt, attempt, key, tokens, logprobs: Vec::new(), pages, computed, order: work.started };
        work.started += 1;
        self.push(&mut running, choice)?;
        work.running.push(running);
        Ok(())
    }

    /// Sees to it that every running attempt has a page for its newest token. Where there is none left, those that were started last wait.
    fn make_room(&mut self, work: &mut Work) {
        let mut i = 0;
        while i < work.running.len() {
            if work.running[i].pages.len() * PAGE >= work.running[i].tokens.len() {
                i += 1;
            } else if let Some(page) = self.pool.take() {
                work.running[i].pages.push(page);
            } else if let Some(last) = work.last.take() {
                self.pool.leave(last.pages);
            } else {
                let mut paused = work.running.pop().expect("one is running");
                self.pool.leave(std::mem::take(&mut paused.pages));
                self.usage.preempted += 1;
                paused.computed = 0;
                work.queue.push_front(Waiting::Paused(paused));
            }
        }
    }

    /// Computes one step, and gives each attempt that has come to its newest token the next one.
    fn step(&mut self, decoder: &Decoder, cache: &mut PagedCache, work: &mut Work, params: &SamplingParams) -> Result<()> {
        let parts = work.parts();
        let rows: usize = parts.iter().map(|(_, taken)| taken).sum();
        let shares = if decoder.config().is_small() { shares(rows, lanes::count()) } else { 1 };
        let (mut of_share, mut pieces, mut dealt): (Vec<Vec<Part>>, Vec<Vec<Piece>>, usize) =
            (vec![vec![]; shares], vec![vec![]; shares], 0);
        for (part, taken) in &parts {
            let share = dealt * shares / rows;
            of_share[share].push(*part);
            pieces[share].push(work.piece(*part, *taken));
            dealt += taken;
        }
        let seen = &*work;
        let given = decoder.advance(cache, &pieces, |share, logits| -> Vec<(Part, Given)> {
            let wanting: Vec<Part> =
                pieces[share].iter().zip(&of_share[share]).filter(|(piece, _)| piece.wants_logits).map(|(_, part)| *part).collect();
            let give = |(part, row): (&Part, &[f32])| match part {
                Part::Running(i) => (*part, Given::Token(choose(row, params, seen.running[*i].key, seen.running[*i].sampled() as u32))),
                Part::Opening(_) => (*part, Given::Logits(row.to_vec())),
            };
            let vocabulary = logits.len() / wanting.len().max(1);
            wanting.par_iter().zip(logits.par_chunks_exact(vocabulary.max(1))).with_min_len(8).map(give).collect()
        })?;
        self.usage.steps += 1;
        for (part, taken) in parts {
            match part {
                Part::Running(i) => {
                    let running = &mut work.running[i];
                    running.computed += taken;
                    self.usage.recomputed += taken - usize::from(running.computed == running.tokens.len());
                }
                Part::Opening(i) => {
                    work.openings[i].computed += taken;
                    self.usage.prefilled += taken;
                }
            }
        }
        let mut opened = Vec::new();
        for (part, given) in given.into_iter().flatten() {
            match (part, given) {
                (Part::Running(i), Given::Token(choice)) => {
                    self.usage.rows += 1;
                    self.push(&mut work.running[i], choice)?;
                }
                (Part::Opening(i), Given::Logits(logits)) => opened.push((i, logits)),
                _ => unreachable!("each part is given what it is for"),
            }
        }
        // Those behind move up, so the last goes first.
        opened.sort_unstable_by_key(|(i, _)| std::cmp::Reverse(*i));
        let opened: Vec<_> = opened.into_iter().map(|(i, logits)| (work.openings.remove(i), logits)).collect();
        opened.into_iter().rev().try_for_each(|(opening, logits)| self.open(cache, work, opening, logits, params))
    }

    /// Starts the attempts that have waited for a prompt.
    fn open(&mut self, cache: &mut PagedCache, work: &mut Work, opening: Opening, logits: Vec<f32>, params: &SamplingParams) -> Result<()> {
        let Opening { prompt, pages, attempts, .. } = opening;
        self.pool.publish(&prompt.tokens, &pages);
        if let Some(last) = work.last.take() {
            self.pool.leave(last.pages);
        }
        let opened = Opened { prompt, pages, logits };
        let key = |attempt: &u32| opened.prompt.key.number(u64::from(*attempt));
        let choices: Vec<_> = attempts.par_iter().with_min_len(8).map(|attempt| choose(&opened.logits, params, key(attempt), 0)).collect();
        let waiting = work.queue.len();
        for (attempt, choice) in attempts.into_iter().zip(choices) {
            self.begin(cache, work, &opened, attempt, choice)?;
        }
        // Those that found no page came to the front one by one.
        let back = work.queue.len() - waiting;
        work.queue.make_contiguous()[..back].reverse();
        work.last = Some(opened);
        Ok(())
    }

    fn push(&mut self, running: &mut Running, choice: Option<Choice>) -> Result<()> {
        let choice = choice.with_context(|| {
            format!(
                "the model's logits are not finite (problem {}, attempt {}): its weights are damaged",
                running.prompt.name, running.attempt
            )
        })?;
        running.tokens.push(choice.token);
        running.logprobs.push(choice.logprob);
        self.usage.sampled += 1;
        Ok(())
    }

    /// Hands over the attempts that have ended and frees their pages.
    fn settle(&mut self, work: &mut Work, params: &SamplingParams, done: &mut dyn FnMut(Attempt) -> Result<()>) -> Result<()> {
        let mut i = 0;
        while i < work.running.len() {
            match self.finish(&work.running[i], params) {
                None => i += 1,
                Some(finish) => {
                    let r = work.running.remove(i);
                    self.pool.leave(r.pages);
                    self.lengths.add(r.logprobs.len());
                    let tokens = r.tokens[r.prompt.tokens.len()..].to_vec();
                    let completion = Completion { tokens, logprobs: r.logprobs, finish };
                    done(Attempt { prompt: r.prompt, attempt: r.attempt, completion, served: None })?;
                }
            }
        }
        Ok(())
    }

    fn finish(&self, attempt: &Running, params: &SamplingParams) -> Option<FinishReason> {
        let sampled = &attempt.tokens[attempt.prompt.tokens.len()..];
        let last = sampled.last()?;
        if self.stop_ids.contains(last) || self.has_stop_string(sampled, &params.stop) {
            return Some(FinishReason::Stop);
        }
        (attempt.tokens.len() >= self.capacity || sampled.len() >= params.max_tokens).then_some(FinishReason::Length)
    }

    /// Whether the newest tokens complete a stop string.
    fn has_stop_string(&self, tokens: &[u32], stop: &[String]) -> bool {
        let Some(longest) = stop.iter().map(String::len).max() else { return false };
        let tail = self.text.decode(&tokens[tokens.len().saturating_sub(longest + STOP_WINDOW)..]);
        stop.iter().any(|s| tail.contains(s.as_str()))
    }

    fn serve(
        &mut self,
        decoder: &Decoder,
        cache: &mut PagedCache,
        params: &SamplingParams,
        next: &mut dyn FnMut() -> Result<Next>,
        done: &mut dyn FnMut(Attempt) -> Result<()>,
    ) -> Result<()> {
        let mut work = Work::default();
        let mut ended = false;
        while !(self.stop)() {
            let mut waiting = false;
            while !ended && !waiting && work.attempts() < self.slots {
                match next()? {
                    Next::Request { prompt, attempt } if prompt.tokens.is_empty() || prompt.tokens.len() >= self.capacity => {
                        let completion = Completion { tokens: vec![], logprobs: vec![], finish: FinishReason::Overflow };
                        done(Attempt { prompt, attempt, completion, served: None })?;
                    }
                    Next::Request { prompt, attempt } => work.queue.push_back(Waiting::Fresh(prompt, attempt)),
                    Next::Wait => waiting = true,
                    Next::End => ended = true,
                }
            }
            if work.attempts() == 0 {
                if waiting {
                    bail!("the sampler was told to wait while no attempt was running");
                }
                return self.leave(work); // all are done and no more are to come
            }
            self.admit(cache, &mut work, params)?;
            self.settle(&mut work, params, done)?;
            self.make_room(&mut work);
            if work.running.is_empty() && work.openings.is_empty() {
                continue;
            }
            self.step(decoder, cache, &mut work, params)?;
            self.settle(&mut work, params, done)?;
        }
        self.leave(work)
    }

    /// Gives back all pages that are held.
    fn leave(&mut self, work: Work) -> Result<()> {
        let held = work.running.into_iter().map(|r| r.pages).chain(work.openings.into_iter().map(|o| o.pages));
        held.chain(work.last.map(|last| last.pages)).for_each(|pages| self.pool.leave(pages));
        anyhow::ensure!(
            self.pool.available() == self.pages,
            "{} of {} pages of the cache were lost",
            self.pages - self.pool.available(),
            self.pages
        );
        Ok(())
    }
}

/// Into how many shares the rows of a step of a small model are cut: as many for each lane.
fn shares(rows: usize, lanes: usize) -> usize {
    let lanes = lanes.min(rows / SHARE_LEAST).max(1);
    rows.div_ceil(SHARE_MOST).next_multiple_of(lanes)
}

impl Work {
    /// What the next step computes, and how many tokens of each: the newest of each attempt, and parts of what has more to compute, as many as fit.
    fn parts(&self) -> Vec<(Part, usize)> {
        let running = self.running.iter().enumerate().map(|(i, r)| (Part::Running(i), r.tokens.len() - r.computed));
        let openings = self.openings.iter().enumerate().map(|(i, o)| (Part::Opening(i), o.prompt.tokens.len() - o.computed));
        let mut budget = PREFILL_TOKENS;
        let take = |(part, left): (Part, usize)| {
            let is_newest = left == 1 && matches!(part, Part::Running(_));
            let taken = if is_newest { 1 } else { left.min(budget) };
            budget -= if is_newest { 0 } else { taken };
            (part, taken)
        };
        running.chain(openings).map(take).filter(|(_, taken)| *taken > 0).collect()
    }

    fn piece(&self, part: Part, taken: usize) -> Piece<'_> {
        let (tokens, start, pages) = match part {
            Part::Running(i) => (&self.running[i].tokens, self.running[i].computed, &self.running[i].pages),
            Part::Opening(i) => (&self.openings[i].prompt.tokens, self.openings[i].computed, &self.openings[i].pages),
        };
        Piece { tokens: &tokens[start..start + taken], start, pages, wants_logits: start + taken == tokens.len() }
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
        let decoder = match &self.model {
            Model::Following(decoder) => Arc::new(decoder.clone().for_sampling()?),
            Model::Fixed(decoder) => decoder.clone(),
        };
        let follows = matches!(self.model, Model::Following(_));
        if follows {
            self.pool.forget_all(); // what was computed with other weights
        }
        let mut cache = self.cache.take().unwrap_or_else(|| PagedCache::new(decoder.config(), self.pages));
        let served = self.serve(&decoder, &mut cache, params, next, done);
        if served.is_err() {
            self.pool = PagePool::new(self.pages);
        }
        if !follows || decoder.config().is_small() {
            self.cache = Some(cache); // a large model that is trained until the next run needs the room
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
