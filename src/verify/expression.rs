//! Answers that are numbers, expressions or words: found in the response, then compared with the reference.

use super::extract::{self, Extracted, Extraction, RuleUsed};
use super::math::{Outcome, Reference};
use super::{excerpt, number};
use crate::response::{Response, boxes};
use crate::tasks::number::canonical_number;
use crate::trace::{Reason, Verdict};

/// Judges a response against the text of a reference.
pub(super) fn judge(gold: &str, response: &Response, extraction: Extraction) -> Result<Verdict, Reason> {
    let found = extract::expression(response, extraction);
    if let Some(gold) = bare_number(gold)
        && let Ok(found) = &found
        && let Some(verdict) = plain_numbers(gold, found)
    {
        return Ok(verdict);
    }
    let reference = Reference::read(gold);
    if extraction == Extraction::Flexible
        && let Some(verdict) = stated_words(&reference, response)
    {
        return Ok(verdict);
    }
    match found {
        Ok(found) => Ok(expressions(gold, &reference, &found, response, extraction)),
        // A letter or a word needs no mark around it.
        Err(reason) => in_words(&reference, response, extraction).ok_or(reason),
    }
}

/// Compares an answer that stands alone, such as the field of a file.
pub fn compare(gold: &str, answer: &str) -> Outcome {
    match (bare_number(gold), number::plain(answer)) {
        (Some(a), Some(b)) if a == b => Outcome::Equal,
        (Some(a), Some(_)) if !a.contains('.') => Outcome::Different("different_number"),
        _ => Reference::read(gold).compare(answer),
    }
}

/// Plain decimal numbers on both sides, compared digit by digit. A decimal reference may also be met by rounding, which is left to the full comparison.
fn plain_numbers(gold: String, found: &Extracted) -> Option<Verdict> {
    let answer = number::plain(found.text)?;
    if answer == gold {
        return Some(Verdict::Correct { answer });
    }
    (!gold.contains('.')).then(|| Verdict::Wrong { reason: found.points(Reason::measured("different_number", &answer, gold)), answer })
}

/// The canonical form of a reference that is a number and nothing else: with a sign of money it has a unit.
fn bare_number(gold: &str) -> Option<String> {
    canonical_number(gold).filter(|_| !gold.contains('$'))
}

fn expressions(gold: &str, reference: &Reference, found: &Extracted, response: &Response, extraction: Extraction) -> Verdict {
    let outcome = reference.compare(found.text);
    let reason = |rule: &str| found.points(Reason::measured(rule, found.excerpt(), excerpt(gold)));
    let verdict = match outcome {
        Outcome::Equal => return Verdict::Correct { answer: found.excerpt() },
        Outcome::Different(rule) => Verdict::Wrong { answer: found.excerpt(), reason: reason(rule) },
        Outcome::Undecided(rule) => Verdict::Undecided { reason: reason(rule) },
    };
    // Several boxes, or pieces of mathematics, side by side are one answer with several parts.
    let joined = match found.by {
        RuleUsed::Boxed => extract::joined_boxes(response.answer, &boxes(response.answer)),
        RuleUsed::LastMath => extract::joined_math(response.answer).map(str::to_owned),
        _ => None,
    };
    if let Some(joined) = joined
        && reference.compare(&joined) == Outcome::Equal
    {
        return Verdict::Correct { answer: excerpt(&joined) };
    }
    let marked = matches!(found.by, RuleUsed::Boxed | RuleUsed::AnswerTag);
    let choice = if marked { None } else { choice_in_words(reference, response, extraction) };
    choice.unwrap_or(verdict)
}

/// Words behind an announcement (`the answer is yes`), where the reference is words and no mark says otherwise.
fn stated_words(reference: &Reference, response: &Response) -> Option<Verdict> {
    if !reference.is_words() || response.think_open || response.boxed().is_some() || response.tag("answer").is_some() {
        return None;
    }
    let words = extract::stated_sentence(response.answer)?;
    (reference.compare(words) == Outcome::Equal).then(|| Verdict::Correct { answer: excerpt(words) })
}

/// A response that is nothing but the words of the reference, or names the letter of a choice.
fn in_words(reference: &Reference, response: &Response, extraction: Extraction) -> Option<Verdict> {
    if extraction == Extraction::Flexible && reference.is_words() && !response.think_open && response.answer.len() <= 400 {
        let mut places = std::iter::once(response.answer).chain(extract::word_places(response.answer));
        if let Some(place) = places.find(|place| reference.compare(place) == Outcome::Equal) {
            return Some(Verdict::Correct { answer: excerpt(place) });
        }
    }
    choice_in_words(reference, response, extraction)
}

/// The letter of a choice that a response names in a sentence.
fn choice_in_words(reference: &Reference, response: &Response, extraction: Extraction) -> Option<Verdict> {
    let gold = reference.choice()?;
    if extraction == Extraction::Strict || response.think_open {
        return None;
    }
    let letter = extract::choice(response.answer)?;
    let answer = letter.to_string();
    Some(if letter == gold {
        Verdict::Correct { answer }
    } else {
        Verdict::Wrong { reason: Reason::measured("different_choice", &answer, gold), answer }
    })
}
