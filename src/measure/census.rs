//! What a corpus is like: counts and means over many texts.

use crate::problem::Language;
use crate::trace::FinishReason;

/// One text of a corpus.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    pub text: &'a str,
    pub target: Language,
    pub tokens: usize,
    pub finish: FinishReason,
    pub correct: Option<bool>,
}

/// Sums over texts; a few bytes whatever their number.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Census {
    pub texts: usize,
    pub bytes: usize,
    pub tokens: usize,
}

impl Census {
    pub fn add(&mut self, sample: &Sample, _judge: &mut dyn FnMut(&str) -> Option<bool>) {
        self.merge(&Self { texts: 1, bytes: sample.text.len(), tokens: sample.tokens });
    }

    pub fn merge(&mut self, other: &Self) {
        self.texts += other.texts;
        self.bytes += other.bytes;
        self.tokens += other.tokens;
    }

    /// What, and how much of it.
    pub fn rows(&self) -> Vec<[String; 2]> {
        [("texts", self.texts), ("bytes", self.bytes), ("tokens", self.tokens)].map(|(what, n)| [what.to_owned(), n.to_string()]).to_vec()
    }
}
