//! An OpenAI-compatible server as a sampler: vLLM, SGLang, llama.cpp and others.
//!
//! A pool of threads holds one request each; what fails in passing is tried again later, and while the server is in trouble fewer requests are under way.
//! Attempts have seeds made from their keys, which a server may or may not honour. It has the tokenizer: here are texts and the server's own counts.

mod client;
mod protocol;
#[cfg(test)]
mod tests;

use super::attempt::{Attempt, Next, Prompt, Sampler, Served, Usage};
use super::params::SamplingParams;
use crate::hub::Temporary;
use crate::key::Key;
use crate::trace::{Completion, FinishReason};
use anyhow::{Result, anyhow, bail};
use client::{Client, Fault, Secret};
use protocol::{Answer, Ask, Extras};
use serde::{Deserialize, Serialize};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Which of a server's two ways of asking is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Api {
    /// A message of the user; the server renders the prompt.
    #[default]
    Chat,
    /// A text to go on with.
    Completion,
}

/// A model of a server.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Such as `http://host:8000/v1`.
    pub base: String,
    pub model: String,
    pub api: Api,
}

/// Whether a model's place is a server's address.
pub fn is_url(model: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| model.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
}

/// What is wrong with an address, if anything. It does not repeat the address, which may hold a password.
pub fn check_url(url: &str) -> Result<()> {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.contains('@') {
        bail!("must be an address without a name or password; the key is taken from DISTILL_API_KEY");
    }
    if url.contains(['?', '#']) || url.contains(char::is_whitespace) || host.is_empty() {
        bail!("must be an address such as http://host:8000/v1");
    }
    Ok(())
}

/// How many requests are under way, and how long to wait for what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Patience {
    /// Requests under way at once, at most.
    pub requests: usize,
    /// For one answer.
    pub request: Duration,
    /// Without any answer, until the server is given up for now.
    pub silence: Duration,
    /// The longest wait before the second try; doubled for each further one, up to a minute.
    pub pause: Duration,
    /// Tries at one request.
    pub tries: u32,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { requests: 32, request: seconds(1800), silence: seconds(300), pause: seconds(1), tries: 12 }
    }
}

/// Tries at a request whose answers are not of the API.
const ODD_TRIES: u32 = 3;
/// The longest wait between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How soon a person's wish to stop is noticed.
const MOMENT: Duration = Duration::from_millis(100);

/// The server will not do what is asked, now or later (exit code 78).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

/// Samples from a server.
pub struct ServerSampler {
    endpoint: Endpoint,
    patience: Patience,
    variable: fn(&str) -> Option<String>,
    usage: Usage,
    /// What the server has been found to know.
    extras: Extras,
    stop: fn() -> bool,
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl ServerSampler {
    /// A sampler of a server's model, which is not asked anything yet.
    pub fn new(mut endpoint: Endpoint, patience: Patience) -> Result<Self> {
        check_url(&endpoint.base)?;
        endpoint.base.truncate(endpoint.base.trim_end_matches('/').len());
        Ok(Self {
            endpoint,
            patience,
            variable: environment,
            usage: Usage::default(),
            extras: Extras { sampling: true, logprobs: true },
            stop: || false,
        })
    }

    fn client(&self) -> Client {
        Client::new(self.endpoint.clone(), Secret::from_variables(self.variable), self.patience.request)
    }

    /// Makes sure that the server has the model, and gives the positions that it has, where the server tells.
    ///
    /// # Errors
    /// [`Refused`] where it is not there or the server wants another key; [`Temporary`] where nothing answers.
    pub fn check(&self) -> Result<Option<usize>> {
        let client = self.client();
        let key = Key::new(0, "server").name(&self.endpoint.base);
        for tries in 1.. {
            let fault = match client.models() {
                Ok(None) => return Ok(None),
                Ok(Some(listing)) => {
                    let name = &self.endpoint.model;
                    let found = listing.data.iter().find(|m| m.id == *name || m.aliases.contains(name));
                    let names: Vec<String> = listing.data.iter().take(20).map(|m| protocol::shown(&m.id)).collect();
                    let found = found
                        .ok_or_else(|| Refused(format!("{} has no model {name:?}; it lists {}", self.endpoint.base, names.join(", "))))?;
                    return Ok(found.max_model_len.and_then(|n| usize::try_from(n).ok()));
                }
                Err(fault) => fault,
            };
            match fault {
                Fault::Passing { what, after } => {
                    if tries >= self.patience.tries.min(4) {
                        bail!(Temporary(format!("{what}; start the server, or run the same command again later")));
                    }
                    self.rest(wait(self.patience.pause, key, tries, after))?;
                }
                Fault::Refused(what) => bail!(Refused(what)),
                Fault::Odd(what) => bail!(Refused(format!("{} lists no models: {what}", self.endpoint.base))),
                Fault::TooLong | Fault::Unknown => return Ok(None),
            }
        }
        Ok(None)
    }

    fn rest(&self, time: Duration) -> Result<()> {
        let begin = Instant::now();
        while let Some(left) = time.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()) {
            if (self.stop)() {
                bail!(Temporary("stopped while waiting for the server".into())); // the caller knows of the stop
            }
            std::thread::sleep(left.min(MOMENT));
        }
        Ok(())
    }
}

/// The wait before a new try: what the server asks for and, on top, a keyed part of the doubled pause ("full jitter", so that many clients spread).
fn wait(pause: Duration, key: Key, tries: u32, after: Option<Duration>) -> Duration {
    let longest = (pause * 2u32.saturating_pow(tries.saturating_sub(1).min(16))).min(LONGEST_PAUSE);
    let asked = after.unwrap_or_default().min(Duration::from_secs(600));
    asked + longest.mul_f64(key.name("retry").number(tries.into()).stream().unit())
}

/// The seed that names an attempt to a server: 31 bits, which every server takes.
fn seed(key: Key) -> u32 {
    key.name("seed").block(0, 0)[0] >> 1
}

/// An attempt that is asked for.
struct Job {
    prompt: Arc<Prompt>,
    attempt: u32,
    key: Key,
    tries: u32,
    odd: u32,
}

type Outcome = (Job, Result<Answer, Fault>);

impl Sampler for ServerSampler {
    /// # Errors
    /// [`Temporary`] where the server has given nothing for longer than [`Patience::silence`], or one request has failed too often; [`Refused`].
    fn run(
        &mut self,
        params: &SamplingParams,
        next: &mut dyn FnMut() -> Result<Next>,
        done: &mut dyn FnMut(Attempt) -> Result<()>,
    ) -> Result<()> {
        let client = self.client();
        let (ask, asked) = channel::<Job>();
        let (tell, told) = channel::<Outcome>();
        let asked = Mutex::new(asked);
        std::thread::scope(|scope| {
            for _ in 0..self.patience.requests {
                let (client, asked, tell) = (&client, &asked, tell.clone());
                scope.spawn(move || work(client, params, asked, tell));
            }
            drop(tell);
            let mut desk = Desk {
                ask: Some(ask),
                told,
                later: Vec::new(),
                running: 0,
                window: self.patience.requests as f64,
                heard: Instant::now(),
                held: None,
            };
            let result = self.serve(&mut desk, next, done);
            // What runs beside a failure or a stop is cut off; what it had answered by now is kept.
            desk.ask = None;
            client.agent.clone().shutdown();
            self.extras = client.extras();
            let mut late = desk.told.try_iter().filter_map(|(job, answer)| Some((job, answer.ok()?)));
            let kept = late.try_for_each(|(job, answer)| done(finished(job, answer)));
            result.and(kept)
        })
    }

    fn stop_when(&mut self, stop: fn() -> bool) {
        self.stop = stop;
    }

    fn usage(&self) -> Usage {
        self.usage
    }

    fn remarks(&self) -> Vec<&'static str> {
        let mut all = Vec::new();
        if !self.extras.sampling {
            all.push("the server knows no top_k, min_p and repetition_penalty: its own defaults hold");
        }
        if !self.extras.logprobs {
            all.push("the server gives no log-probabilities");
        }
        all
    }
}

/// Asks the server for one job after the other, until there are no more.
fn work(client: &Client, params: &SamplingParams, asked: &Mutex<Receiver<Job>>, tell: Sender<Outcome>) {
    loop {
        let job = asked.lock().map(|queue| queue.recv());
        let Ok(Ok(job)) = job else { return };
        let ask = Ask { prompt: &job.prompt.text, params, seed: seed(job.key), n: 1, extras: client.extras() };
        let answer = client.complete(&ask).and_then(|answers| answers.into_iter().next().ok_or_else(|| Fault::Odd("no choice".into())));
        if tell.send((job, answer)).is_err() {
            return;
        }
    }
}

fn finished(job: Job, answer: Answer) -> Attempt {
    let completion = Completion { tokens: Vec::new(), logprobs: Vec::new(), finish: answer.finish };
    Attempt { prompt: job.prompt, attempt: job.attempt, completion, served: Some(answer.served) }
}

/// Where requests are given out and answers come in.
struct Desk {
    /// `None` once nothing more is asked.
    ask: Option<Sender<Job>>,
    told: Receiver<Outcome>,
    /// Jobs to try again, with the time from which on.
    later: Vec<(Instant, Job)>,
    running: usize,
    /// Requests that may be under way: halved where the server is in trouble, one more for each answer.
    window: f64,
    /// When the last answer came.
    heard: Instant,
    /// The server has asked to be left alone until then.
    held: Option<Instant>,
}

impl Desk {
    fn has_room(&self) -> bool {
        self.running < self.window as usize && self.held.is_none_or(|until| Instant::now() >= until)
    }

    fn send(&mut self, job: Job) -> Result<()> {
        self.running += 1;
        let gone = || anyhow!("the threads that talk to the server have ended");
        self.ask.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())
    }

    /// A job whose time to be tried again has come.
    fn due(&mut self) -> Option<Job> {
        let now = Instant::now();
        let i = self.later.iter().position(|(due, _)| *due <= now)?;
        Some(self.later.swap_remove(i).1)
    }
}

impl ServerSampler {
    fn serve(
        &mut self,
        desk: &mut Desk,
        next: &mut dyn FnMut() -> Result<Next>,
        done: &mut dyn FnMut(Attempt) -> Result<()>,
    ) -> Result<()> {
        let mut ended = false;
        loop {
            if (self.stop)() {
                return Ok(());
            }
            let mut waiting = false;
            while desk.has_room() {
                // What has failed before goes first, and as long as much waits to be tried again nothing new is begun.
                if let Some(job) = desk.due() {
                    desk.send(job)?;
                    continue;
                }
                if ended || waiting || desk.running + desk.later.len() >= self.patience.requests {
                    break;
                }
                match next()? {
                    Next::Request { prompt, attempt } => {
                        let key = prompt.key.number(u64::from(attempt));
                        desk.send(Job { prompt, attempt, key, tries: 0, odd: 0 })?;
                    }
                    Next::Wait => waiting = true,
                    Next::End => ended = true,
                }
            }
            if desk.running + desk.later.len() == 0 {
                if ended {
                    return Ok(());
                }
                if waiting {
                    bail!("the sampler was told to wait while no attempt was running");
                }
            }
            match desk.told.recv_timeout(MOMENT.min(self.patience.pause)) {
                Ok((job, outcome)) => self.settle(desk, job, outcome, done)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the threads that talk to the server have ended"),
            }
        }
    }

    /// Hands over an answer, or puts the job aside to be tried again.
    fn settle(
        &mut self,
        desk: &mut Desk,
        mut job: Job,
        outcome: Result<Answer, Fault>,
        done: &mut dyn FnMut(Attempt) -> Result<()>,
    ) -> Result<()> {
        desk.running -= 1;
        self.usage.steps += 1;
        let name = format!("problem {}, attempt {}", job.prompt.name, job.attempt);
        let (what, after) = match outcome {
            Ok(answer) => {
                desk.heard = Instant::now();
                desk.window = (desk.window + 1.0).min(self.patience.requests as f64);
                self.usage.prefilled += answer.served.prompt_tokens;
                self.usage.sampled += answer.served.completion_tokens;
                return done(finished(job, answer));
            }
            Err(Fault::TooLong) => {
                desk.heard = Instant::now();
                let served = Served { text: String::new(), prompt_tokens: 0, completion_tokens: 0, logprob: None };
                return done(finished(job, Answer { served, finish: FinishReason::Overflow }));
            }
            Err(Fault::Unknown) => {
                desk.later.push((Instant::now(), job));
                return Ok(());
            }
            Err(Fault::Refused(what)) => bail!(Refused(format!("{what} ({name})"))),
            Err(Fault::Odd(what)) => {
                job.odd += 1;
                if job.odd >= ODD_TRIES {
                    bail!(Refused(format!("{}: what it answers is not the API's: {what} ({name})", self.endpoint.base)));
                }
                (what, None)
            }
            Err(Fault::Passing { what, after }) => (what, after),
        };
        job.tries += 1;
        desk.window = (desk.window / 2.0).max(1.0);
        if job.tries >= self.patience.tries || desk.heard.elapsed() >= self.patience.silence {
            bail!(Temporary(format!("{what}, {} tries ({name}); what has come is kept, run the same command again later", job.tries)));
        }
        if let Some(after) = after {
            desk.held = desk.held.max(Some(Instant::now() + after.min(Duration::from_secs(600))));
        }
        desk.later.push((Instant::now() + wait(self.patience.pause, job.key, job.tries, after), job));
        Ok(())
    }
}
