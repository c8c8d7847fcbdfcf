//! Answers that are numbers, expressions or words: found in the response, then compared with the reference.

use super::extract::{self, Extracted, Extraction, RuleUsed};
use super::math::{Outcome, Reference};
use super::{excerpt, number};
use crate::response::Response;
use crate::tasks::number::canonical_number;
use crate::trace::{Reason, Verdict};

/// Judges a response against the text of a reference.
pub(super) fn judge(gold: &str, response: &Response, extraction: Extraction) -> Result<Verdict, Reason> {
    let plain = bare_number(gold);
    if extraction == Extraction::Flexible
        && plain.is_none()
        && let Some(verdict) = stated_words(gold, response)
    {
        return Ok(verdict);
    }
    let found = match extract::expression(response, extraction) {
        Ok(found) => found,
        // A letter or a word needs no mark around it.
        Err(reason) => return in_words(gold, response, extraction).ok_or(reason),
    };
    Ok(plain.and_then(|gold| plain_numbers(gold, &found)).unwrap_or_else(|| expressions(gold, &found, response, extraction)))
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

fn expressions(gold: &str, found: &Extracted, response: &Response, extraction: Extraction) -> Verdict {
    let reference = Reference::read(gold);
    let outcome = reference.compare(found.text);
    if outcome == Outcome::Equal {
        return Verdict::Correct { answer: found.excerpt() };
    }
    // Several boxes side by side are one answer with several parts.
    if found.by == RuleUsed::Boxed
        && let Some(joined) = extract::joined_boxes(response.answer)
        && reference.compare(&joined) == Outcome::Equal
    {
        return Verdict::Correct { answer: excerpt(&joined) };
    }
    if found.by == RuleUsed::LastMath
        && let Some(joined) = extract::joined_math(response.answer)
        && reference.compare(joined) == Outcome::Equal
    {
        return Verdict::Correct { answer: excerpt(joined) };
    }
    if reference.choice().is_some()
        && !matches!(found.by, RuleUsed::Boxed | RuleUsed::AnswerTag)
        && let Some(verdict) = choice_in_words(gold, response, extraction)
    {
        return verdict;
    }
    let reason = |rule: &str| found.points(Reason::measured(rule, found.excerpt(), excerpt(gold)));
    match outcome {
        Outcome::Different(rule) => Verdict::Wrong { answer: found.excerpt(), reason: reason(rule) },
        Outcome::Undecided(rule) => Verdict::Undecided { reason: reason(rule) },
        Outcome::Equal => Verdict::Correct { answer: found.excerpt() },
    }
}

/// Words behind an announcement (`the answer is yes`), where the reference is words and no mark says otherwise.
fn stated_words(gold: &str, response: &Response) -> Option<Verdict> {
    if response.think_open || response.boxed().is_some() || response.tag("answer").is_some() {
        return None;
    }
    let words = extract::stated_sentence(response.answer)?;
    let reference = Reference::read(gold);
    let equal = reference.is_words() && reference.compare(words) == Outcome::Equal;
    equal.then(|| Verdict::Correct { answer: excerpt(words) })
}

/// A response that is nothing but the words of the reference, or names the letter of a choice.
fn in_words(gold: &str, response: &Response, extraction: Extraction) -> Option<Verdict> {
    if extraction == Extraction::Flexible && !response.think_open && response.answer.len() <= 400 {
        let reference = Reference::read(gold);
        if reference.is_words() && reference.compare(response.answer) == Outcome::Equal {
            return Some(Verdict::Correct { answer: excerpt(response.answer) });
        }
        let place = extract::word_places(response.answer)
            .into_iter()
            .find(|place| reference.is_words() && reference.compare(place) == Outcome::Equal);
        if let Some(place) = place {
            return Some(Verdict::Correct { answer: excerpt(place) });
        }
    }
    choice_in_words(gold, response, extraction)
}

/// The letter of a choice that a response names in a sentence.
fn choice_in_words(gold: &str, response: &Response, extraction: Extraction) -> Option<Verdict> {
    let gold = Reference::read(gold).choice()?;
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
