//! `Problem` and `Answer`: one question and its machine-checkable reference.
//!
//! A reference is parsed when it is loaded, so that everything behind this file can rely on it. This file does not know
//! where problems come from (`tasks/`), how a response is judged (`verify/`), or what a prompt looks like (`model/text.rs`).

mod language;
mod words;

pub use language::{Language, Script, is_han};
pub use words::{LATIN, Mask, languages};

use serde::{Deserialize, Serialize};

/// Stable name of a problem, such as `gsm8k/test/17`.
///
/// It keys all randomness of the problem's attempts and names it in shards, so it must be unique in a run.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProblemId(pub String);

impl std::fmt::Display for ProblemId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The machine-checkable reference of a problem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Answer {
    /// One decimal number in canonical form (`-12`, `0.5`): sign, digits, at most one point, no separators.
    Number { value: String },
    /// A LaTeX expression or words, kept as written.
    Math { text: String },
    /// This text and no other; white space is one blank each.
    Exact { text: String },
    /// The letter of a multiple choice, from A to J.
    Choice { letter: char },
    /// A text that matches this pattern as a whole.
    Regex { pattern: String },
    /// An expression that uses each of `numbers` exactly once and evaluates to `target`.
    Countdown { numbers: Vec<i64>, target: i64 },
    /// Who is a knight: `knights[i]` belongs to `names[i]`.
    Knights { names: Vec<String>, knights: Vec<bool> },
    /// A Python program that passes these tests.
    Code { tests: CodeTests },
    /// What the user's own program decides, which is given this reference; empty where it needs none.
    Command { reference: String },
    /// No rule decides: what is known, if anything, is for a model as judge.
    Open { reference: String },
}

/// How a program is tested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "style", rename_all = "snake_case", deny_unknown_fields)]
pub enum CodeTests {
    /// Python source with asserts. With an `entry`, the test has a `check(candidate)` that is called with that function of the program. `prompt` is
    /// source that a response may go on from in place of being whole.
    Asserts {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prompt: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        entry: Option<String>,
        test: String,
    },
    /// `entry` called with each list of arguments gives the expected value. Both are JSON texts, which keep all digits of a number.
    Calls { entry: String, calls: Vec<String>, expected: Vec<String> },
    /// The whole program, run once per case, turns an input into an output.
    Streams { cases: Vec<StreamCase> },
}

/// What a program reads and what it must then have written, line ends and trailing blanks apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamCase {
    #[serde(alias = "input")]
    pub stdin: String,
    #[serde(alias = "output")]
    pub stdout: String,
}

impl Answer {
    /// The reference as a person would write it, for traces and reports.
    pub fn gold(&self) -> String {
        match self {
            Self::Number { value } => value.clone(),
            Self::Math { text }
            | Self::Exact { text }
            | Self::Regex { pattern: text }
            | Self::Command { reference: text }
            | Self::Open { reference: text } => text.clone(),
            Self::Choice { letter } => letter.to_string(),
            Self::Countdown { numbers, target } => format!("{target} from {numbers:?}"),
            Self::Knights { names, knights } => names
                .iter()
                .zip(knights)
                .map(|(name, knight)| format!("{name} is a {}", if *knight { "knight" } else { "knave" }))
                .collect::<Vec<_>>()
                .join(", "),
            Self::Code { tests } => serde_json::to_string(tests).expect("texts and lists of texts have a JSON form"),
        }
    }
}

/// One question and its reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    pub id: ProblemId,
    /// Name of the task as reports print it: `arithmetic`, `gsm8k`, `aime24`, …
    pub task: String,
    pub question: String,
    pub answer: Answer,
    pub language: Language,
    /// Difficulty as the source states it (operands, people, numbers, stars); higher is harder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<u8>,
}
