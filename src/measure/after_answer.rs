//! What a response does once it has an answer, and whether its arithmetic holds.
//!
//! Knows no verifier: whoever wants to know about right and wrong answers passes a judge of answer texts.

use crate::response::Response;

mod audit;
mod stated;

pub use audit::{Audit, audit};
pub use stated::{Stated, stated};

/// What follows the first answer.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct AfterAnswer {
    /// Answers that the response states, one after another.
    pub answers: usize,
    /// Where the first one stands: bytes before it / bytes of the response, in [0, 1]; `None` without an answer.
    pub first: Option<f64>,
    /// Bytes of reasoning behind the first answer; 0 where it stands behind the reasoning.
    pub more: usize,
    /// Steps from one answer to the next that turn a right one into a wrong one, and the reverse; 0 where the judge does not say.
    pub right_to_wrong: usize,
    pub wrong_to_right: usize,
    pub audit: Audit,
    /// Whether the last boxed number is the last one that was computed; `None` where there is not both.
    pub boxed_is_last_computed: Option<bool>,
}

/// Reasoning goes on behind an answer from so many bytes on: two or three sentences.
const GOES_ON: usize = 200;

impl AfterAnswer {
    /// Whether the reasoning went on although it had an answer; `None` without an answer.
    pub fn goes_on(&self) -> Option<bool> {
        self.first.map(|_| self.more >= GOES_ON)
    }
}

/// Measures `text`; `judge` says whether an answer text is right, or that it cannot say.
pub fn measure(text: &str, judge: &mut dyn FnMut(&str) -> Option<bool>) -> AfterAnswer {
    let answers = stated(text);
    let response = Response::parse(text);
    // Where the reasoning ends: at the answer part, or with the text where the two are one.
    let reasoning = if response.think.is_some() && !response.think_open { text.len() - response.answer.len() } else { text.len() };
    let mut found = AfterAnswer { answers: answers.len(), audit: audit(text), ..AfterAnswer::default() };
    if let Some(first) = answers.first() {
        found.first = Some(first.span.0 as f64 / text.len().max(1) as f64);
        found.more = text.get(first.span.1..reasoning).map_or(0, |rest| rest.trim().len());
    }
    let (mut before, mut last_text) = (None, None);
    for answer in &answers {
        let now = &text[answer.span.0..answer.span.1];
        if last_text.replace(now) == Some(now) {
            continue;
        }
        let Some(right) = judge(now) else { continue };
        match before.replace(right) {
            Some(true) if !right => found.right_to_wrong += 1,
            Some(false) if right => found.wrong_to_right += 1,
            _ => {}
        }
    }
    let boxed = answers.iter().rev().find(|answer| answer.boxed).and_then(|answer| audit::number(&text[answer.span.0..answer.span.1]));
    found.boxed_is_last_computed = boxed.zip(found.audit.last).map(|(boxed, last)| boxed == last);
    found
}

#[cfg(test)]
mod tests;
