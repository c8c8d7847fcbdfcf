//! Where in a response the answer stands. It does not know whether the answer is right.

use super::excerpt;
use super::number;
use crate::problem::is_han;
use crate::response::Response;
use crate::trace::Reason;
use serde::{Deserialize, Serialize};

/// Longest answer that is looked at, in bytes; beyond that it counts as none.
const MAX_ANSWER: usize = 4096;

/// How hard to look for an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Extraction {
    /// Only an answer that is marked as one: the last `\boxed{…}`, else the last `<answer>…</answer>`, else the last `#### number`.
    #[default]
    Strict,
    /// After those, the last number of the answer part.
    Flexible,
}

/// The rule by which an answer was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RuleUsed {
    Boxed,
    AnswerTag,
    Hashes,
    LastNumber,
    /// The whole answer part, for answers that are sentences.
    AnswerPart,
}

/// An answer as it stands in the response, trimmed and not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extracted<'a> {
    pub text: &'a str,
    pub by: RuleUsed,
    /// Byte range of `text` in the response.
    pub span: (usize, usize),
}

/// The answer that is marked by a box, else by an answer tag; the error is the reason why there is none.
pub(super) fn explicit<'a>(response: &Response<'a>) -> Result<Extracted<'a>, Reason> {
    marked(response)?.ok_or_else(|| Reason::rule("no_answer"))
}

/// As `explicit`; without a mark, flexible extraction takes the whole answer part.
pub(super) fn explicit_or_all<'a>(response: &Response<'a>, extraction: Extraction) -> Result<Extracted<'a>, Reason> {
    match (marked(response)?, extraction) {
        (Some(found), _) => Ok(found),
        (None, Extraction::Strict) => Err(Reason::rule("no_answer")),
        (None, Extraction::Flexible) => extracted(response, response.answer, RuleUsed::AnswerPart),
    }
}

/// The answer to a question for a number: marked, after `####`, or (flexible) the last number.
pub(super) fn number<'a>(response: &Response<'a>, extraction: Extraction) -> Result<Extracted<'a>, Reason> {
    if let Some(found) = marked(response)? {
        return Ok(found);
    }
    if let Some(text) = hashes(response.answer) {
        return extracted(response, text, RuleUsed::Hashes);
    }
    match extraction {
        Extraction::Flexible => match last_number(response.answer) {
            Some(text) => extracted(response, text, RuleUsed::LastNumber),
            None => Err(Reason::rule("no_answer")),
        },
        Extraction::Strict => Err(Reason::rule("no_answer")),
    }
}

fn marked<'a>(response: &Response<'a>) -> Result<Option<Extracted<'a>>, Reason> {
    if response.think_open {
        return Err(Reason::rule("think_open"));
    }
    match (response.boxed(), response.tag("answer")) {
        (Some(text), _) => extracted(response, text, RuleUsed::Boxed).map(Some),
        (None, Some(text)) => extracted(response, text, RuleUsed::AnswerTag).map(Some),
        (None, None) => Ok(None),
    }
}

fn extracted<'a>(response: &Response<'a>, text: &'a str, by: RuleUsed) -> Result<Extracted<'a>, Reason> {
    let text = text.trim();
    // All parts of a response are slices of its text, so the distance between the two starts is the offset.
    let start = (text.as_ptr() as usize).saturating_sub(response.text.as_ptr() as usize);
    let span = (start, start + text.len());
    if text.is_empty() {
        return Err(Reason { span: Some(span), ..Reason::rule("empty_answer") });
    }
    if text.len() > MAX_ANSWER {
        return Err(Reason { span: Some(span), ..Reason::measured("answer_too_long", text.len(), MAX_ANSWER) });
    }
    Ok(Extracted { text, by, span })
}

/// What follows the last `####` of a line that ends in a number: GSM8K's mark. Headings of Markdown have four hashes too, hence the test.
fn hashes(text: &str) -> Option<&str> {
    text.rsplit('\n').find_map(|line| {
        let rest = &line[line.rfind("####")? + 4..];
        (rest.len() <= MAX_ANSWER && number::plain(rest).is_some()).then_some(rest)
    })
}

/// The last word with a digit in it, together with what belongs to its value: an operand before it, a percent sign or a scale after it.
///
/// So the last number of `1/2`, `10 - 5` or `5 million` is not taken out of its expression; the number rule then leaves the whole undecided.
fn last_number(text: &str) -> Option<&str> {
    let digit = text.rfind(|c: char| c.is_ascii_digit())?;
    let end = digit + text[digit..].find(is_break).unwrap_or(text.len() - digit);
    let after = text[end..].trim_start_matches(' ');
    let scale = number::SCALES.iter().find(|scale| starts_with_word(after, scale));
    let end = scale.map_or(end, |scale| text.len() - after.len() + scale.len());
    let word = text[with_operand(text, word_start(text, digit))..end].trim_matches(|c| "\"'*_`()[],;:!?".contains(c));
    match word.rsplit_once('=') {
        Some((left, value)) if !left.ends_with(['<', '>', '!']) => Some(value),
        _ => Some(word),
    }
}

/// `start`, or where the operand before it begins if an operator on the same line joins the two; a list's bullet is no operator.
fn with_operand(text: &str, start: usize) -> usize {
    let before = text[..start].trim_end_matches(' ');
    let word = &before[word_start(before, before.len())..];
    let left = before[..before.len() - word.len()].trim_end_matches(' ');
    let bullet = matches!(word, "-" | "*" | "+") && (left.is_empty() || left.ends_with('\n'));
    let joined = word
        .strip_suffix(|c| "+-−*/×÷·:".contains(c))
        .is_some_and(|w| w.is_empty() || w.ends_with(|c: char| c.is_ascii_digit() || c == ')'));
    let latex = word.starts_with('\\') || word.ends_with(['{', '^', '_']);
    if !bullet && (joined || latex) { word_start(left, left.len()) } else { start }
}

/// Where the word that ends at or goes through `at` begins.
fn word_start(text: &str, at: usize) -> usize {
    text[..at].char_indices().rev().find(|(_, c)| is_break(*c)).map_or(0, |(i, c)| i + c.len_utf8())
}

/// White space, Han characters, and the punctuation used with them.
fn is_break(c: char) -> bool {
    c.is_whitespace() || is_han(c) || matches!(c, '\u{3000}'..='\u{303f}' | '\u{ff00}'..='\u{ffef}')
}

/// Whether `text` opens with `word`, case ignored, and no letter goes on from it.
fn starts_with_word(text: &str, word: &str) -> bool {
    let opens = text.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word));
    opens && (!word.is_ascii() || !text[word.len()..].starts_with(|c: char| c.is_ascii_alphabetic()))
}

impl Extracted<'_> {
    /// `reason` with the place of this answer.
    pub(super) fn points(&self, reason: Reason) -> Reason {
        Reason { span: Some(self.span), ..reason }
    }

    /// A short copy for verdicts.
    pub(super) fn excerpt(&self) -> String {
        excerpt(self.text)
    }
}
