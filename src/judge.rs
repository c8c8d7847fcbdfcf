//! A model as judge, where rules cannot decide: question, reference and answer to a model, its opinion back, several times.
//!
//! An opinion stands beside the rule's verdict and never over it. It does not know whether a decoder or a server answers, nor where opinions are kept.
//! A judge can be talked into things by what it judges: what it says is a measurement with an error, which [`Agreement`] gives where rules decide too.

use crate::key::Key;
use crate::model::text::Text;
use crate::response::Response;
use crate::sampler::{Attempt, Next, Prompt, Sampler, SamplingParams};
use crate::trace::{Message, Trace};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of an answer that a judge sees: its last ones, where the answer is.
const LONGEST_ANSWER: usize = 16 << 10;
/// Places at which a reply's object may begin that are tried, from the last on.
const PLACES: usize = 64;

/// What is judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Name for seeds and errors: the trace's id.
    pub id: String,
    pub question: String,
    /// Without one the judge gives a score.
    pub reference: Option<String>,
    /// The response's answer part.
    pub answer: String,
}

impl Case {
    /// A trace as a judge sees it: without its reasoning, since only the answer part counts.
    pub fn of(trace: &Trace) -> Self {
        let answer = Response::parse(&trace.response).answer.trim();
        let reference = Some(trace.gold.clone()).filter(|gold| !gold.is_empty());
        Self { id: trace.id.clone(), question: trace.question.clone(), reference, answer: tail(answer, LONGEST_ANSWER).to_owned() }
    }
}

/// How a judge is asked.
pub struct Judge {
    /// Tokenizer and template of a model in this process; `None` where a server has them.
    pub text: Option<Arc<Text>>,
    /// Opinions on each case.
    pub votes: u32,
    pub params: SamplingParams,
    pub key: Key,
}

/// What came of the votes on one case: the field `judge` of a trace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Opinion {
    /// Votes that could be read.
    pub votes: u32,
    /// Replies that hold no opinion.
    pub unreadable: u32,
    /// Of the votes, those for correct; none where there is no reference.
    pub correct: u32,
    /// What more than half of all that were asked say; `None` where neither has that many, and where there is no reference.
    pub verdict: Option<bool>,
    /// In [0, 1]: the share of votes for correct, or the mean score; `None` without votes.
    pub score: Option<f64>,
    /// The first readable vote's.
    pub analysis: String,
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
}

/// What one reply says.
#[derive(Clone, Debug, PartialEq)]
enum Vote {
    Verdict {
        correct: bool,
        analysis: String,
    },
    /// In [0, 1].
    Score {
        score: f64,
        analysis: String,
    },
}

/// A vote by its number, with the tokens of prompt and reply; `None` where the reply could not be read.
type Cast = (u32, Option<Vote>, [usize; 2]);

/// What judging has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    pub requests: usize,
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
}

impl Judge {
    /// Asks for `votes` opinions on each of the cases, whose ids must differ; `done` gets each case's as soon as all of its votes are there.
    ///
    /// # Errors
    /// Those of the sampler and of `done`. A reply that cannot be read is none of them: it is counted.
    pub fn run(&self, sampler: &mut dyn Sampler, cases: &[Case], done: &mut dyn FnMut(&Case, Opinion) -> Result<()>) -> Result<Cost> {
        ensure!(self.votes > 0, "a judge needs at least one vote");
        let mut asks = (0..cases.len()).flat_map(|i| (0..self.votes).map(move |vote| (i, vote)));
        let current: RefCell<Option<Arc<Prompt>>> = RefCell::new(None);
        let mut next = || {
            let Some((index, attempt)) = asks.next() else { return Ok(Next::End) };
            let mut current = current.borrow_mut();
            let prompt = match current.as_ref().filter(|prompt| prompt.index == index) {
                Some(prompt) => prompt.clone(),
                None => current.insert(Arc::new(self.prompt(index, &cases[index])?)).clone(),
            };
            Ok(Next::Request { prompt, attempt })
        };
        let mut open: BTreeMap<usize, Vec<Cast>> = BTreeMap::new();
        let mut cost = Cost::default();
        let mut finished = |attempt: Attempt| {
            let index = attempt.prompt.index;
            let (text, counts) = self.reply(&attempt)?;
            cost.requests += 1;
            cost.prompt_tokens += counts[0];
            cost.completion_tokens += counts[1];
            let votes = open.entry(index).or_default();
            votes.push((attempt.attempt, read(&text, cases[index].reference.is_some()), counts));
            if votes.len() < self.votes as usize {
                return Ok(());
            }
            let mut votes = open.remove(&index).unwrap_or_default();
            votes.sort_by_key(|(vote, ..)| *vote);
            done(&cases[index], opinion(self.votes, votes.into_iter().map(|(_, vote, counts)| (vote, counts))))
        };
        sampler.run(&self.params, &mut next, &mut finished)?;
        Ok(cost)
    }

    /// Room for the longest of these prompts and its reply, within so many positions.
    pub fn room(&self, cases: &[Case], positions: usize) -> Result<usize> {
        let lengths = cases.iter().map(|case| Ok(self.prompt(0, case)?.tokens.len())).collect::<Result<Vec<_>>>()?;
        Ok((lengths.into_iter().max().unwrap_or(0) + self.params.max_tokens).min(positions))
    }

    fn prompt(&self, index: usize, case: &Case) -> Result<Prompt> {
        let template = match case.reference {
            Some(_) => include_str!("../data/prompts/judge.jinja"),
            None => include_str!("../data/prompts/judge-preference.jinja"),
        };
        let key = self.key.name(&case.id);
        // What is judged cannot know the marks, and so cannot end its own part.
        let mark = format!("{:08x}", key.name("mark").block(0, 0)[0]);
        let mut environment = minijinja::Environment::new();
        environment.set_keep_trailing_newline(false);
        let (question, reference, answer) = (&case.question, &case.reference, &case.answer);
        let content = environment.render_str(template, minijinja::context! { question, reference, answer, mark });
        let content = content.with_context(|| format!("the judge's prompt for {}", case.id))?.trim_start().to_owned();
        let (text, tokens) = match &self.text {
            None => (content, Vec::new()),
            Some(text) => {
                let rendered = text.render(&[Message::user(content)], true, &serde_json::Map::new())?;
                let tokens = text.encode(&rendered)?;
                (rendered, tokens)
            }
        };
        Ok(Prompt { index, name: case.id.clone(), text, tokens, key })
    }

    /// A reply as text, with its tokens and those of its prompt.
    fn reply(&self, attempt: &Attempt) -> Result<(String, [usize; 2])> {
        if let Some(served) = &attempt.served {
            return Ok((served.text.clone(), [served.prompt_tokens, served.completion_tokens]));
        }
        let text = self.text.as_ref().context("tokens came without a tokenizer")?;
        let tokens = &attempt.completion.tokens;
        let shown = match tokens.split_last() {
            Some((last, rest)) if text.stop_ids().contains(last) => rest,
            _ => tokens,
        };
        Ok((text.decode(shown), [attempt.prompt.tokens.len(), tokens.len()]))
    }
}

/// The reward component of an opinion, in [0, 1]: only where no rule can check, so `None` for every trace that rules have judged, whatever they said.
///
/// It is logged under its own name, and is the total of the preset `judge` alone.
pub fn reward(trace: &Trace, opinion: &Opinion) -> Option<f64> {
    opinion.score.filter(|_| trace.verdict.is_none())
}

fn opinion(asked: u32, votes: impl Iterator<Item = (Option<Vote>, [usize; 2])>) -> Opinion {
    let mut found = Opinion::default();
    let (mut sum, mut verdicts) = (0.0, 0);
    for (vote, [prompt, completion]) in votes {
        found.prompt_tokens += prompt;
        found.completion_tokens += completion;
        let (value, analysis) = match vote {
            None => {
                found.unreadable += 1;
                continue;
            }
            Some(Vote::Verdict { correct, analysis }) => {
                verdicts += 1;
                found.correct += u32::from(correct);
                (f64::from(u8::from(correct)), analysis)
            }
            Some(Vote::Score { score, analysis }) => (score, analysis),
        };
        if found.votes == 0 {
            found.analysis = analysis;
        }
        found.votes += 1;
        sum += value;
    }
    found.score = (found.votes > 0).then(|| sum / f64::from(found.votes));
    let majority = |n: u32| 2 * n > asked;
    found.verdict =
        [(true, found.correct), (false, verdicts - found.correct)].into_iter().find(|(_, n)| majority(*n)).map(|(side, _)| side);
    found
}

/// Reads a reply: the last JSON object after its reasoning that holds an opinion of the kind that was asked for, not counting objects inside others.
fn read(reply: &str, has_reference: bool) -> Option<Vote> {
    let reply = tail(Response::parse(reply).answer, LONGEST_ANSWER);
    let mut places: Vec<usize> = reply.rmatch_indices('{').map(|(at, _)| at).take(PLACES).collect();
    places.reverse();
    let (mut found, mut end) = (None, 0);
    for at in places {
        if at < end {
            continue;
        }
        let mut values = serde_json::Deserializer::from_str(&reply[at..]).into_iter::<Value>();
        if let Some(Ok(value)) = values.next() {
            end = at + values.byte_offset();
            found = vote(&value, has_reference).or(found);
        }
    }
    found
}

fn vote(value: &Value, has_reference: bool) -> Option<Vote> {
    let analysis = value["analysis"].as_str().unwrap_or_default().chars().take(2000).collect();
    if has_reference {
        let correct = match value["verdict"].as_str()?.trim().to_ascii_lowercase().as_str() {
            "correct" => true,
            "wrong" | "incorrect" => false,
            _ => return None,
        };
        return Some(Vote::Verdict { correct, analysis });
    }
    let score = value["score"].as_f64().filter(|score| (0.0..=10.0).contains(score))?;
    Some(Vote::Score { score: score / 10.0, analysis })
}

/// The last bytes of a text, at most so many, from a character's start on.
fn tail(text: &str, most: usize) -> &str {
    let mut start = text.len().saturating_sub(most);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// How a judge's verdicts stand to those of rules, over traces that rules have decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    pub both_correct: u64,
    pub both_wrong: u64,
    /// The judge says correct, the rules do not.
    pub judge_only: u64,
    pub rules_only: u64,
    /// The judge has no majority.
    pub no_majority: u64,
}

impl Agreement {
    pub fn add(&mut self, rules: bool, judge: Option<bool>) {
        *match (rules, judge) {
            (true, Some(true)) => &mut self.both_correct,
            (false, Some(false)) => &mut self.both_wrong,
            (false, Some(true)) => &mut self.judge_only,
            (true, Some(false)) => &mut self.rules_only,
            (_, None) => &mut self.no_majority,
        } += 1;
    }

    fn decided(&self) -> f64 {
        (self.both_correct + self.both_wrong + self.judge_only + self.rules_only) as f64
    }

    /// The share of traces on which both say the same, of those on which the judge has a majority.
    pub fn share(&self) -> Option<f64> {
        (self.decided() > 0.0).then(|| (self.both_correct + self.both_wrong) as f64 / self.decided())
    }

    /// Cohen's kappa, (p - e) / (1 - e): agreement beyond what two judges with these habits would reach by chance. `None` where one of them always says
    /// the same and so nothing is beyond chance.
    pub fn kappa(&self) -> Option<f64> {
        let n = self.decided();
        let p = self.share()?;
        let judge = (self.both_correct + self.judge_only) as f64 / n;
        let rules = (self.both_correct + self.rules_only) as f64 / n;
        let e = judge * rules + (1.0 - judge) * (1.0 - rules);
        (e < 1.0).then(|| (p - e) / (1.0 - e))
    }
}

#[cfg(test)]
mod tests;
