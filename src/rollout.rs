//! The only loop from problems to judged attempts: prompt, sample, verify, reward.
//!
//! Mass sampling, evaluation and GRPO all go through here, so a response is prompted, cut, judged and paid in one way. What becomes of an
//! attempt (a journal, a metric, a gradient) is the caller's business.

use crate::key::Key;
use crate::measure;
use crate::model::text::Text;
use crate::problem::{Answer, Problem};
use crate::response::Response;
use crate::reward::{RewardPreset, score};
use crate::sampler::{Attempt, Next, Prompt, Sampler, SamplingParams, Served};
use crate::trace::{Completion, FinishReason, LanguageShare, Message, Trace};
use crate::verify::Rules;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::Scope;

/// How a question becomes a prompt. The texts are in `data/prompts/`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PromptStyle {
    /// The question alone, in the model's chat template.
    #[default]
    Plain,
    /// The question and R1's instruction to reason and to box the answer, in the chat template.
    R1,
    /// R1-Zero's conversation for base models, without a chat template; opens the response with `<think>`.
    R1Zero,
    /// Logic-RL's instruction for puzzles, in the chat template; opens the response with `<think>`.
    LogicRl,
}

impl PromptStyle {
    fn template(self) -> &'static str {
        match self {
            Self::Plain => include_str!("../data/prompts/plain.jinja"),
            Self::R1 => include_str!("../data/prompts/r1.jinja"),
            Self::R1Zero => include_str!("../data/prompts/r1-zero.jinja"),
            Self::LogicRl => include_str!("../data/prompts/logic-rl.jinja"),
        }
    }

    /// What the user says.
    pub fn content(self, question: &str) -> Result<String> {
        let mut environment = minijinja::Environment::new();
        environment.set_keep_trailing_newline(false);
        let text = environment.render_str(self.template(), minijinja::context! { question });
        Ok(text.with_context(|| format!("prompt style {self:?}"))?.trim_start().to_owned())
    }

    /// What the prompt already says of the response, where the chat template does not.
    pub fn prefill(self) -> &'static str {
        match self {
            Self::Plain | Self::R1 => "",
            Self::R1Zero | Self::LogicRl => "<think>\n",
        }
    }
}

/// A rendered prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// What the user says.
    pub content: String,
    /// All of it, with the template's generation prompt and the prefill.
    pub text: String,
    /// The part of the response that the prompt already holds.
    pub prefill: String,
    pub tokens: Vec<u32>,
}

/// What is asked next.
pub enum Ask {
    Attempt { problem: Arc<Problem>, attempt: u32 },
    Wait,
    End,
}

/// A judged attempt with its tokens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Judged {
    pub trace: Trace,
    pub prompt: Vec<u32>,
    pub completion: Completion,
}

/// How attempts are prompted, sampled and judged.
#[derive(Clone)]
pub struct Rollout {
    /// Tokenizer and template of a model in this process; `None` where a server has them.
    pub text: Option<Arc<Text>>,
    pub prompt: PromptStyle,
    pub params: SamplingParams,
    pub verifier: Rules,
    pub reward: RewardPreset,
}

impl Rollout {
    /// The prompt of a question.
    pub fn render(&self, question: &str) -> Result<Rendered> {
        match &self.text {
            Some(text) => render(text, self.prompt, question),
            None => {
                let content = self.prompt.content(question)?;
                let prefill = self.prompt.prefill().to_owned();
                Ok(Rendered { text: format!("{content}{prefill}"), content, prefill, tokens: Vec::new() })
            }
        }
    }

    /// Samples and judges what `next` asks for, until it says `End`; `done` gets the attempts in the order in which they finish.
    ///
    /// Attempts at one problem should follow each other: its prompt is then computed once. Draws are keyed by `key`, problem and attempt.
    pub fn run(
        &self,
        sampler: &mut dyn Sampler,
        key: Key,
        next: &mut dyn FnMut() -> Result<Ask>,
        done: &mut dyn FnMut(Judged) -> Result<()>,
    ) -> Result<()> {
        let asked = RefCell::new(BTreeMap::<usize, Asked>::new());
        let mut current: Option<(Arc<Prompt>, Arc<Problem>)> = None;
        let mut request = || match next()? {
            Ask::Wait => Ok(Next::Wait),
            Ask::End => Ok(Next::End),
            Ask::Attempt { problem, attempt } => {
                let mut asked = asked.borrow_mut();
                let prompt = match &current {
                    Some((prompt, before)) if before.id == problem.id => prompt.clone(),
                    _ => {
                        let rendered = self.render(&problem.question).with_context(|| format!("problem {}", problem.id))?;
                        let index = current.as_ref().map_or(0, |(p, _)| p.index + 1);
                        let (name, key) = (problem.id.0.clone(), key.name(&problem.id.0));
                        let prompt = Arc::new(Prompt { index, name, text: rendered.text.clone(), tokens: rendered.tokens.clone(), key });
                        asked.insert(index, Asked { problem: problem.clone(), rendered: Arc::new(rendered), running: 0 });
                        current = Some((prompt.clone(), problem));
                        // Of the problems behind us only those with running attempts are still needed.
                        asked.retain(|i, a| *i == index || a.running > 0);
                        prompt
                    }
                };
                asked.get_mut(&prompt.index).context("the current problem is kept")?.running += 1;
                Ok(Next::Request { prompt, attempt })
            }
        };
        std::thread::scope(|scope| {
            let mut beside = Beside::new(scope, self);
            let mut finished = |attempt: Attempt| {
                let (problem, rendered) = {
                    let mut asked = asked.borrow_mut();
                    let entry = asked.get_mut(&attempt.prompt.index).context("a problem is kept while attempts at it run")?;
                    entry.running -= 1;
                    (entry.problem.clone(), entry.rendered.clone())
                };
                if !Rules::is_slow(&problem) {
                    return done(self.judge(&problem, &rendered, attempt)?);
                }
                beside.give((problem, rendered, attempt));
                beside.take(Beside::AHEAD * rayon::current_num_threads(), done)
            };
            let sampled = sampler.run(&self.params, &mut request, &mut finished);
            // What was sampled is judged and handed over, whatever ended the sampling; the first failure is the one to tell.
            let judged = beside.take(0, done);
            sampled.and(judged)
        })
    }

    /// Turns an attempt into a judged trace.
    fn judge(&self, problem: &Problem, rendered: &Rendered, attempt: Attempt) -> Result<Judged> {
        let Attempt { attempt, completion, served, .. } = attempt;
        let local = || Some((response_text(self.text.as_ref()?, rendered, &completion), Counts::of(rendered, &completion)));
        let remote = |served: Served| (format!("{}{}", rendered.prefill, served.text), Counts::of_server(&served));
        let (text, counts) = served.map(remote).or_else(local).context("tokens came without a tokenizer")?;
        let response = Response::parse(&text);
        // No verdict is no reward: what could not be run ends the stage, as the error that it is.
        let (verdict, rewards) = match &problem.answer {
            // No rule, so no verdict; what a judge thinks is the caller's business.
            Answer::Open { .. } => (None, serde_json::Map::new()),
            _ => {
                let judgement = self.verifier.judgement(problem, &response);
                let judgement = judgement.with_context(|| format!("problem {} cannot be judged", problem.id))?;
                let scored =
                    score(self.reward, problem, &response, &judgement, completion.finish, counts.completion, self.params.max_tokens);
                (Some(judgement.verdict), scored.to_map())
            }
        };
        let trace = Trace {
            id: Trace::id_of(&problem.id, attempt),
            problem: problem.id.clone(),
            attempt,
            task: problem.task.clone(),
            question: problem.question.clone(),
            gold: problem.answer.gold(),
            messages: vec![Message::user(&rendered.content), Message::assistant(&text)],
            answer: verdict.as_ref().and_then(|verdict| verdict.answer()).map(str::to_owned),
            verdict,
            rewards,
            prompt_tokens: counts.prompt,
            completion_tokens: counts.completion,
            finish: completion.finish,
            logprob: counts.logprob,
            language: LanguageShare { target: problem.language, share: measure::language::share(&text, problem.language) },
            source: 0,
            attempts: None,
            passes: None,
            other: serde_json::Map::new(),
            response: text,
        };
        Ok(Judged { trace, prompt: rendered.tokens.clone(), completion })
    }
}

/// What is judged beside the sampler, so that it does not wait for programs: a thread for each that computes, started with the first of these attempts.
struct Beside<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    rollout: &'scope Rollout,
    threads: Option<(mpsc::Sender<Waiting>, mpsc::Receiver<Result<Judged>>)>,
    /// Attempts that were given and not taken.
    open: usize,
}

type Waiting = (Arc<Problem>, Arc<Rendered>, Attempt);

impl<'scope, 'env> Beside<'scope, 'env> {
    /// Attempts for each thread that may wait to be judged: with more of them sampling waits. Few are so sampled again after a kill, and whoever stops a stage waits
    /// for no more than these.
    const AHEAD: usize = 4;

    fn new(scope: &'scope Scope<'scope, 'env>, rollout: &'scope Rollout) -> Self {
        Self { scope, rollout, threads: None, open: 0 }
    }

    fn give(&mut self, waiting: Waiting) {
        let (scope, rollout) = (self.scope, self.rollout);
        let (sender, _) = self.threads.get_or_insert_with(|| {
            let ((sender, waiting), (judged, receiver)) = (mpsc::channel::<Waiting>(), mpsc::channel());
            let waiting = Arc::new(Mutex::new(waiting));
            for _ in 0..rayon::current_num_threads() {
                let (waiting, judged) = (waiting.clone(), judged.clone());
                scope.spawn(move || {
                    let next = || waiting.lock().ok()?.recv().ok();
                    while let Some((problem, rendered, attempt)) = next() {
                        if judged.send(rollout.judge(&problem, &rendered, attempt)).is_err() {
                            return;
                        }
                    }
                });
            }
            (sender, receiver)
        });
        // Nobody is there to take it only where all threads have panicked, which the scope tells.
        self.open += usize::from(sender.send(waiting).is_ok());
    }

    /// Hands over what has been judged, and waits for more while over `most` are open.
    fn take(&mut self, most: usize, done: &mut dyn FnMut(Judged) -> Result<()>) -> Result<()> {
        if most == 0 {
            // The threads end when they have judged what is there.
            self.threads = self.threads.take().map(|(_, receiver)| (mpsc::channel().0, receiver));
        }
        let Some((_, receiver)) = &self.threads else { return Ok(()) };
        let mut failed = Ok(());
        while self.open > 0 {
            let Some(judged) = (if self.open > most { receiver.recv().ok() } else { receiver.try_recv().ok() }) else { break };
            self.open -= 1;
            // After a failure the others are still waited for; those that are good are handed over.
            failed = failed.and(judged.and_then(&mut *done));
        }
        failed
    }
}

/// Tokens of an attempt, as counted by whoever has the tokenizer.
struct Counts {
    prompt: usize,
    completion: usize,
    logprob: Option<f64>,
}

impl Counts {
    fn of(rendered: &Rendered, completion: &Completion) -> Self {
        let logprob = completion.logprobs.iter().map(|lp| f64::from(*lp)).sum();
        Self { prompt: rendered.tokens.len(), completion: completion.tokens.len(), logprob: Some(logprob) }
    }

    fn of_server(served: &Served) -> Self {
        Self { prompt: served.prompt_tokens, completion: served.completion_tokens, logprob: served.logprob }
    }
}

/// A problem whose attempts are under way.
struct Asked {
    problem: Arc<Problem>,
    rendered: Arc<Rendered>,
    running: usize,
}

/// The prompt of a question in a model's own form.
pub fn render(text: &Text, style: PromptStyle, question: &str) -> Result<Rendered> {
    render_messages(text, style, &[Message::user(style.content(question)?)])
}

/// The prompt of what was said, the style's own words included: what sampling and training on a trace share.
///
/// R1-Zero's style and a model without a chat template take one user message as it stands, after the tokenizer's own first token if it has
/// one; more of a conversation is an error there.
pub fn render_messages(text: &Text, style: PromptStyle, said: &[Message]) -> Result<Rendered> {
    let content = said.iter().rev().find(|m| m.role == "user").context("a conversation has no user message")?.content.clone();
    let is_raw = style == PromptStyle::R1Zero || !text.has_template();
    let mut rendered = if is_raw {
        ensure!(said.len() == 1, "a conversation of {} messages needs a chat template", said.len());
        content.clone()
    } else {
        text.render(said, true, &serde_json::Map::new())?
    };
    let mut prefill = text.prefill(&rendered).to_owned();
    if prefill.is_empty() && !style.prefill().is_empty() {
        rendered.push_str(style.prefill());
        prefill = style.prefill().to_owned();
    }
    let tokens = if is_raw { text.encode_prompt(&rendered) } else { text.encode(&rendered) }?;
    Ok(Rendered { content, text: rendered, prefill, tokens })
}

/// The response as text: prefill and completion, without the end token.
fn response_text(text: &Text, rendered: &Rendered, completion: &Completion) -> String {
    let mut tokens = &completion.tokens[..];
    if completion.finish == FinishReason::Stop
        && let [rest @ .., last] = tokens
        && text.stop_ids().contains(last)
    {
        tokens = rest;
    }
    format!("{}{}", rendered.prefill, text.decode(tokens))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::{CodeTests, Language, ProblemId};
    use crate::verify::{Extraction, Unavailable};

    /// Here the sandbox has no helper, since this program is a test: as on a machine that has no sandbox, nothing can be run.
    #[test]
    fn an_unavailable_verifier_gives_no_trace_and_no_reward() {
        let rollout = Rollout {
            text: Some(Arc::new(Text::tiny())),
            prompt: PromptStyle::Plain,
            params: SamplingParams::at(1.0, 4),
            verifier: Rules::new(Extraction::Flexible),
            reward: RewardPreset::SimplerlZoo,
        };
        let tests = CodeTests::Asserts { prompt: None, entry: None, test: "assert f() == 1".into() };
        let problem = Problem {
            id: ProblemId("t/0".into()),
            task: "t".into(),
            question: "f".into(),
            answer: Answer::Code { tests },
            language: Language::En,
            level: None,
        };
        let rendered = Rendered { content: "f".into(), text: "f".into(), prefill: "def f(): return 1".into(), tokens: vec![0] };
        let completion = Completion { tokens: Vec::new(), logprobs: Vec::new(), finish: FinishReason::Stop };
        let prompt = Prompt { index: 0, name: "t/0".into(), text: String::new(), tokens: vec![0], key: Key::new(0, "t") };
        let attempt = Attempt { prompt: Arc::new(prompt), attempt: 0, completion, served: None };
        let error = rollout.judge(&problem, &rendered, attempt).expect_err("nothing was run");
        assert!(error.is::<Unavailable>(), "{error:#}");
        assert!(format!("{error:#}").starts_with("problem t/0 cannot be judged: verifier unavailable: "), "{error:#}");
        assert!(rollout.verifier.ready([&problem].into_iter()).is_err());
    }
}
