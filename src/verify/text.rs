//! Answers that are texts: the same text, or one that matches a pattern as a whole.

use super::extract::{self, Extracted, Extraction};
use crate::response::Response;
use crate::tasks::pattern;
use crate::trace::{Reason, Verdict};
use regex::Regex;
use std::cell::RefCell;

/// Whether the answer is this text, runs of white space being one blank. Case matters.
pub(super) fn exact(gold: &str, response: &Response, extraction: Extraction) -> Result<Verdict, Reason> {
    any(
        response,
        extraction,
        |text| text.split_whitespace().eq(gold.split(' ')),
        |found| found.points(Reason::measured("different_text", found.excerpt(), super::excerpt(gold))),
    )
}

/// Whether the answer matches the pattern from its first to its last character. A pattern that does not compile leaves everything undecided.
pub(super) fn regex(pattern: &str, response: &Response, extraction: Extraction) -> Result<Verdict, Reason> {
    with(pattern, |compiled| match compiled {
        Ok(regex) => any(
            response,
            extraction,
            |text| regex.is_match(text),
            |found| found.points(Reason::measured("no_match", found.excerpt(), super::excerpt(pattern))),
        ),
        Err(error) => Ok(Verdict::Undecided { reason: Reason { value: Some(super::excerpt(error)), ..Reason::rule("no_pattern") } }),
    })
}

/// Correct if one of the places where the answer may stand holds; the first place is the answer otherwise.
fn any(
    response: &Response,
    extraction: Extraction,
    holds: impl Fn(&str) -> bool,
    why: impl FnOnce(&Extracted) -> Reason,
) -> Result<Verdict, Reason> {
    let places = extract::text(response, extraction)?;
    if let Some(place) = places.iter().find(|place| holds(place.text)) {
        return Ok(Verdict::Correct { answer: place.excerpt() });
    }
    let first = places.first().ok_or_else(|| Reason::rule("no_answer"))?;
    Ok(Verdict::Wrong { answer: first.excerpt(), reason: why(first) })
}

/// Calls `then` with the compiled pattern; the last one of each thread is kept, since the attempts at a problem follow each other.
fn with<T>(pattern: &str, then: impl FnOnce(Result<&Regex, &String>) -> T) -> T {
    thread_local! {
        static LAST: RefCell<Option<(String, Result<Regex, String>)>> = const { RefCell::new(None) };
    }
    LAST.with_borrow_mut(|last| {
        if last.as_ref().is_none_or(|(text, _)| text != pattern) {
            *last = None;
        }
        let (_, compiled) = last.get_or_insert_with(|| (pattern.to_owned(), pattern::whole(pattern)));
        then(compiled.as_ref())
    })
}
