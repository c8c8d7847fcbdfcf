//! What happened at one attempt: `Completion`, `Verdict`, `Trace`, and `Group`, all attempts at one problem.
//!
//! A trace is written once and never edited; unknown fields survive a rewrite. This file knows no tensors, no files and no rules: the
//! sampler makes completions, `verify/` makes verdicts, `shard/` stores traces.

use crate::problem::ProblemId;
use serde::{Deserialize, Serialize};

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// By itself: an end token or a stop string.
    Stop,
    /// At `max_tokens`.
    Length,
    /// The prompt left no room in the model's positions.
    Overflow,
}

/// Sampled tokens of one attempt, the prompt not included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// Token ids, the end token included where the attempt ended with one.
    pub tokens: Vec<u32>,
    /// As long as `tokens`: log-probabilities at the sampling temperature, of the untruncated distribution (at temperature 1 where sampling was greedy).
    pub logprobs: Vec<f32>,
    pub finish: FinishReason,
}

/// Why something was judged or dropped: a rule's name, what it measured, and the limit it was held against.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    pub rule: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<String>,
    /// Byte range in the response that the rule points at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<(usize, usize)>,
}

impl Reason {
    /// A reason that a name says in full.
    pub fn rule(rule: impl Into<String>) -> Self {
        Self { rule: rule.into(), value: None, threshold: None, span: None }
    }

    /// A reason with what was measured and what was asked for.
    pub fn measured(rule: impl Into<String>, value: impl ToString, threshold: impl ToString) -> Self {
        Self { rule: rule.into(), value: Some(value.to_string()), threshold: Some(threshold.to_string()), span: None }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.rule)?;
        match (&self.value, &self.threshold) {
            (Some(value), Some(threshold)) => write!(f, " ({value}, asked for {threshold})"),
            (Some(value), None) => write!(f, " ({value})"),
            (None, Some(threshold)) => write!(f, " (asked for {threshold})"),
            (None, None) => Ok(()),
        }
    }
}

/// What a verifier found. Total over responses: there is no error among these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    Correct { answer: String },
    Wrong { answer: String, reason: Reason },
    NoAnswer { reason: Reason },
    Undecided { reason: Reason },
}

impl Verdict {
    pub fn is_correct(&self) -> bool {
        matches!(self, Self::Correct { .. })
    }

    /// The answer that was extracted, if any.
    pub fn answer(&self) -> Option<&str> {
        match self {
            Self::Correct { answer } | Self::Wrong { answer, .. } => Some(answer),
            Self::NoAnswer { .. } | Self::Undecided { .. } => None,
        }
    }

    /// Why it is not correct; `None` for `Correct`.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Correct { .. } => None,
            Self::Wrong { reason, .. } | Self::NoAnswer { reason } | Self::Undecided { reason } => Some(reason),
        }
    }
}

/// One message of a chat, as SFT trainers in the ecosystem read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub role: String,
    pub content: String,
}

impl Message {
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: "user".into(), content: content.into() }
    }

    pub fn assistant(content: impl Into<String>) -> Self {
        Self { role: "assistant".into(), content: content.into() }
    }
}

/// Which language the response should be in and the share of its words that are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LanguageShare {
    pub target: crate::problem::Language,
    /// In [0, 1]; 1 where the text has no words at all.
    pub share: f64,
}

/// One attempt at one problem, judged: one JSON object per line of a shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// `<problem>#<attempt>`.
    pub id: String,
    pub problem: ProblemId,
    pub attempt: u32,
    pub task: String,
    pub question: String,
    /// The reference as text.
    pub gold: String,
    pub messages: Vec<Message>,
    /// A prefilled `<think>` included, the end token not.
    pub response: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// `None` for general data without a reference.
    pub verdict: Option<Verdict>,
    #[serde(default)]
    pub rewards: serde_json::Map<String, serde_json::Value>,
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
    pub finish: FinishReason,
    /// Sum of the completion's log-probabilities; `None` for traces from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprob: Option<f64>,
    pub language: LanguageShare,
    /// Index into the manifest's sources.
    #[serde(default)]
    pub source: usize,
    /// How many attempts at this problem were filtered with this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// How many of them are correct.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passes: Option<u32>,
    /// Fields this version does not know, kept as they came.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// A chat as SFT trainers store it: general data, which nobody has judged.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Chat {
    messages: Vec<Message>,
}

impl Trace {
    /// A line that holds `messages` and nothing else, as the trace that it stands for: the last message is the response, and there is no reference,
    /// verdict, reward or count of tokens. `name` becomes the name of its problem. `None` for any other line.
    pub fn of_chat(line: &[u8], name: String) -> Option<Self> {
        let Chat { messages } = serde_json::from_slice(line).ok()?;
        let response = messages.last().filter(|last| last.role == "assistant")?.content.clone();
        let question = messages.iter().rfind(|message| message.role == "user")?.content.clone();
        let target = crate::problem::Language::of_question(&question);
        let problem = ProblemId(name);
        Some(Self {
            id: Self::id_of(&problem, 0),
            problem,
            attempt: 0,
            task: "general".into(),
            question,
            gold: String::new(),
            messages,
            response,
            answer: None,
            verdict: None,
            rewards: serde_json::Map::new(),
            prompt_tokens: 0,
            completion_tokens: 0,
            finish: FinishReason::Stop,
            logprob: None,
            language: LanguageShare { target, share: 1.0 },
            source: 0,
            attempts: None,
            passes: None,
            other: serde_json::Map::new(),
        })
    }

    /// The name of an attempt.
    pub fn id_of(problem: &ProblemId, attempt: u32) -> String {
        format!("{problem}#{attempt}")
    }

    pub fn is_correct(&self) -> bool {
        self.verdict.as_ref().is_some_and(Verdict::is_correct)
    }

    /// The reward that training uses: the component named `total`, 0 where there is none.
    pub fn reward(&self) -> f64 {
        self.rewards.get("total").and_then(serde_json::Value::as_f64).unwrap_or(0.0)
    }
}

/// All attempts at one problem in the order of their attempt numbers: GRPO's group.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub problem: ProblemId,
    pub traces: Vec<Trace>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chat_is_a_trace_that_nobody_judged() {
        let line = r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "什么?"}, {"role": "assistant", "content": "a"}]}"#;
        let trace = Trace::of_chat(line.as_bytes(), "general/3".into()).expect("a chat");
        assert_eq!((trace.id.as_str(), trace.question.as_str(), trace.response.as_str()), ("general/3#0", "什么?", "a"));
        assert_eq!((trace.verdict, trace.messages.len(), trace.finish), (None, 3, FinishReason::Stop));
        for other in [
            r#"{"messages": []}"#,
            r#"{"messages": [{"role": "user", "content": "q"}]}"#,
            r#"{"messages": [{"role": "assistant", "content": "a"}]}"#,
            r#"{"id": "x#0", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}"#,
            r#"{"question": "q"}"#,
            "{",
        ] {
            assert!(Trace::of_chat(other.as_bytes(), "x".into()).is_none(), "{other}");
        }
    }
}
