//! What a text does with its own reasoning: verification, backtracking, subgoals, backward chaining, and words of reflection.
//!
//! The four behaviours are those of Gandhi et al., "Cognitive Behaviors that Enable Self-Improving Reasoners" (arXiv 2503.01307), which asks a model
//! for them; here rules look for phrases (`behaviours/rules.rs`), in English and Chinese. They are correlates and not causes: a text can say "let me
//! check" and check nothing, and a model that is paid for the phrase learns the phrase. So they describe, and no preset pays for them. How often the
//! rules are right is measured on labelled sentences in the tests.

use super::phrases::Phrases;
use super::reflection;
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
    /// As `reflection::words` counts them, sentences aside.
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

/// The rules' phrases, and behind them the words of reflection.
static PHRASES: LazyLock<Phrases> =
    LazyLock::new(|| Phrases::new(RULES.iter().map(|rule| rule.phrase).chain(reflection::WORDS.iter().copied())));

/// Counts all behaviours in one pass over `text`. Several signs of one behaviour in a sentence count once.
pub fn measure(text: &str) -> Behaviours {
    let bytes = text.as_bytes();
    let (mut counts, mut last) = ([0usize; 4], [None; 4]);
    let mut words = reflection::Counter::default();
    PHRASES.find(text, |number, start, end| {
        let Some(rule) = RULES.get(number) else {
            words.add(start, end);
            return;
        };
        let i = rule.behaviour as usize;
        // Phrases do not come quite in the order of their beginnings.
        let same = |before: usize| !ends_sentence(&bytes[before.min(start)..before.max(start)]);
        if last[i].is_some_and(same) || !holds(rule, bytes, start) {
            return;
        }
        counts[i] += 1;
        last[i] = Some(start);
    });
    let [verification, backtracking, subgoal, backward_chaining] = counts;
    Behaviours { verification, backtracking, subgoal, backward_chaining, thinking_words: words.count }
}

/// Longest look back for what a phrase needs before it, in bytes.
const REACH: usize = 48;

fn holds(rule: &Rule, bytes: &[u8], start: usize) -> bool {
    if matches!(rule.needs, Needs::Nothing) {
        return true;
    }
    let before = &bytes[start.saturating_sub(REACH)..start];
    let begin = before.iter().rposition(|byte| b".!?\n".contains(byte)).map_or(0, |at| at + 1);
    let before = before[begin..].to_ascii_lowercase();
    match rule.needs {
        Needs::Nothing => true,
        Needs::Start => before.iter().all(|byte| !byte.is_ascii_alphanumeric()),
        Needs::After(words) => {
            let begins = |at: usize| at == 0 || !before[at - 1].is_ascii_alphanumeric();
            (0..before.len()).filter(|at| begins(*at)).any(|at| words.iter().any(|word| before[at..].starts_with(word.as_bytes())))
        }
    }
}

fn ends_sentence(between: &[u8]) -> bool {
    memchr::memchr3(b'.', b'\n', b'?', between).is_some() || memchr::memchr2(b'!', 0xe3, between).is_some()
}

#[cfg(test)]
mod tests;
