//! What a text does with its own reasoning: verification, backtracking, subgoals, backward chaining, and words of reflection.
//!
//! The four behaviours are those of Gandhi et al., "Cognitive Behaviors that Enable Self-Improving Reasoners" (arXiv 2503.01307), which asks a model
//! for them; here rules look for phrases (`behaviours/rules.rs`), in English and Chinese. They are correlates and not causes: a text can say "let me
//! check" and check nothing, and a model that is paid for the phrase learns the phrase. So they describe, and no preset pays for them. How often the
//! rules are right is measured on labelled sentences in the tests.

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, MatchKind};
use std::sync::LazyLock;

mod rules;

use rules::{Needs, RULES, Rule};

/// What a phrase is a sign of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Checks a result or a step.
    Verification,
    /// Gives up what it found or how it went about it.
    Backtracking,
    /// Sets a step to be done on the way.
    Subgoal,
    /// Goes from what is wanted to what that needs.
    BackwardChaining,
}

/// Sentences with a sign of each behaviour, and words of reflection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Behaviours {
    pub verification: usize,
    pub backtracking: usize,
    pub subgoal: usize,
    pub backward_chaining: usize,
    /// As `reflection::words` counts them.
    pub thinking_words: usize,
}

impl Behaviours {
    /// Names and counts, in the order of the fields.
    pub fn named(&self) -> [(&'static str, usize); 5] {
        [
            ("verification", self.verification),
            ("backtracking", self.backtracking),
            ("subgoal", self.subgoal),
            ("backward_chaining", self.backward_chaining),
            ("thinking_words", self.thinking_words),
        ]
    }

    /// A count per thousand tokens; 0 for a text without tokens.
    pub fn per_thousand(count: usize, tokens: usize) -> f64 {
        if tokens == 0 { 0.0 } else { count as f64 * 1000.0 / tokens as f64 }
    }
}

static PHRASES: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasickBuilder::new()
        .ascii_case_insensitive(true)
        .match_kind(MatchKind::Standard)
        .kind(Some(AhoCorasickKind::DFA))
        .build(RULES.iter().map(|rule| rule.phrase))
        .expect("the phrases are constants that the tests build")
});

/// Counts all behaviours in one pass over `text`.
pub fn measure(text: &str) -> Behaviours {
    let mut counts = [0usize; 4];
    let mut last = [None; 4];
    find(text, |behaviour, at| {
        let i = behaviour as usize;
        if last[i].is_none_or(|before| ends_sentence(&text.as_bytes()[before..at])) {
            counts[i] += 1;
        }
        last[i] = Some(at);
    });
    let [verification, backtracking, subgoal, backward_chaining] = counts;
    Behaviours { verification, backtracking, subgoal, backward_chaining, thinking_words: super::reflection::words(text) }
}

/// Calls `found` with each sign and the byte where it begins.
fn find(text: &str, mut found: impl FnMut(Behaviour, usize)) {
    let bytes = text.as_bytes();
    for hit in PHRASES.find_overlapping_iter(bytes) {
        let rule = &RULES[hit.pattern().as_usize()];
        if is_whole(bytes, hit.start(), hit.end()) && holds(rule, bytes, hit.start()) {
            found(rule.behaviour, hit.start());
        }
    }
}

/// No letter or digit goes on at either end; Chinese has no such ends.
fn is_whole(bytes: &[u8], start: usize, end: usize) -> bool {
    let goes_on = |at: Option<&u8>| at.is_some_and(u8::is_ascii_alphanumeric);
    !bytes[start].is_ascii() || !goes_on(start.checked_sub(1).and_then(|at| bytes.get(at))) && !goes_on(bytes.get(end))
}

/// Longest look back for what a phrase needs before it, in bytes.
const REACH: usize = 48;

fn holds(rule: &Rule, bytes: &[u8], start: usize) -> bool {
    let before = &bytes[start.saturating_sub(REACH)..start];
    let begin = before.iter().rposition(|byte| b".!?\n".contains(byte)).map_or(0, |at| at + 1);
    let before = &before[begin..];
    match rule.needs {
        Needs::Nothing => true,
        Needs::Start => before.iter().all(|byte| !byte.is_ascii_alphanumeric()),
        Needs::After(words) => words.iter().any(|word| before.windows(word.len()).any(|w| w.eq_ignore_ascii_case(word.as_bytes()))),
    }
}

fn ends_sentence(between: &[u8]) -> bool {
    memchr::memchr3(b'.', b'\n', b'?', between).is_some() || memchr::memchr2(b'!', 0xe3, between).is_some()
}

#[cfg(test)]
mod tests;
