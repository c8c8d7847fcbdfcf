//! Whether a text repeats itself: paragraphs and sentences that return, stretches that return anywhere, and a tail that runs in a loop.
//!
//! The thresholds for paragraphs and sentences are those of open-instruct's filter for reasoning traces (`filter_ngram_repetitions.py`: 10
//! paragraphs, 40 sentences, 4 sentences in a row, more where mathematics, lists or several lines are repeated). Its lists of phrases that never count are not
//! taken over: they are matched inside words there, so that hardly any English sentence counts. Everything is linear in the length of the text.

use super::bytes::{Hashes, hash};
use crate::trace::Reason;
use memchr::memmem;

mod grams;
mod tail;

pub use grams::Grams;
pub use tail::Tail;

/// How a text repeats itself, in parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Repetition {
    pub paragraph: Repeat,
    pub sentence: Repeat,
    pub grams: Grams,
    pub tail: Tail,
}

/// The paragraph or sentence that comes closest to its limits, or furthest beyond them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Repeat {
    /// How often it stands; 0 where no unit was long enough to count.
    pub times: usize,
    /// How often it stands without another between.
    pub in_row: usize,
    /// It is repetitive from so many on.
    pub max_times: usize,
    /// The same for `in_row`.
    pub max_in_row: usize,
    /// Byte range of the last one counted.
    pub span: (usize, usize),
}

/// From this share of grams that stood before, and this number of times that one stands, a text is repetitive. Of 51 correct traces of R1 and its
/// distilled models none has more than 0.13 and 5.
const MAX_GRAM_SHARE: f64 = 0.3;
const MAX_GRAM_TIMES: usize = 20;
/// A tail is a loop from so many rounds and so many bytes on.
const LOOP_TIMES: usize = 4;
const LOOP_BYTES: usize = 256;

/// Measures all parts.
pub fn measure(text: &str) -> Repetition {
    let mut structured = None;
    Repetition {
        paragraph: paragraphs(text, &mut structured),
        sentence: sentences(text, &mut structured),
        grams: grams::measure(text.as_bytes()),
        tail: tail::measure(text.as_bytes()),
    }
}

/// The default rule; the error names the first part beyond its limit and where it is.
pub fn is_repetitive(parts: &Repetition) -> Result<(), Reason> {
    let Repetition { paragraph, sentence, grams, tail } = parts;
    let is_loop = tail.times >= LOOP_TIMES && tail.span.1 - tail.span.0 >= LOOP_BYTES;
    let rows = [
        ("tail", is_loop, tail.times as f64, LOOP_TIMES as f64, tail.span),
        ("paragraph", reaches(paragraph.times, paragraph.max_times), paragraph.times as f64, paragraph.max_times as f64, paragraph.span),
        (
            "sentence_in_row",
            reaches(sentence.in_row, sentence.max_in_row),
            sentence.in_row as f64,
            sentence.max_in_row as f64,
            sentence.span,
        ),
        ("sentence", reaches(sentence.times, sentence.max_times), sentence.times as f64, sentence.max_times as f64, sentence.span),
        ("gram_share", grams.share >= MAX_GRAM_SHARE && grams.counts(), grams.share, MAX_GRAM_SHARE, grams.span),
        ("gram_times", grams.times >= MAX_GRAM_TIMES, grams.times as f64, MAX_GRAM_TIMES as f64, grams.span),
    ];
    match rows.into_iter().find(|row| row.1) {
        Some((part, _, value, limit, span)) => {
            Err(Reason { span: Some(span), ..Reason::measured(format!("repetition.{part}"), value, format!("less than {limit}")) })
        }
        None => Ok(()),
    }
}

fn reaches(value: usize, limit: usize) -> bool {
    limit > 0 && value >= limit
}

/// How often one unit stood so far.
#[derive(Clone, Copy)]
struct Seen {
    times: u32,
    /// Number of the unit that was it last.
    last: u32,
    run: u32,
    longest: u32,
}

impl Seen {
    fn repeat(&self) -> Repeat {
        Repeat { times: self.times as usize, in_row: self.longest as usize, ..Repeat::default() }
    }
}

/// Units of one kind, as they come.
struct Units {
    seen: Hashes<Seen>,
    index: usize,
    worst: Repeat,
}

impl Units {
    fn new(text: &str, unit: usize) -> Self {
        Self { seen: Hashes::with_capacity_and_hasher(text.len() / unit, Default::default()), index: 0, worst: Repeat::default() }
    }

    /// Counts a unit; `limits` gives the limits (times, in a row) for one that stands so often and is asked where that may matter.
    fn add(&mut self, text: &str, span: (usize, usize), least: u32, limits: impl FnOnce(&Seen) -> (usize, usize)) {
        let index = self.index as u32;
        let new = Seen { times: 0, last: index, run: 0, longest: 0 };
        let seen = self.seen.entry(hash(&text.as_bytes()[span.0..span.1])).or_insert(new);
        seen.times += 1;
        seen.run = if seen.last + 1 == index { seen.run + 1 } else { 1 };
        (seen.last, seen.longest) = (index, seen.longest.max(seen.run));
        // Below the least limit there is nothing to weigh: the most frequent unit stands for the text.
        if excess(&self.worst) == 0.0 && seen.times as usize > self.worst.times {
            self.worst = Repeat { span, ..seen.repeat() };
        }
        if seen.times >= least {
            let (max_times, max_in_row) = limits(seen);
            let found = Repeat { max_times, max_in_row, span, ..seen.repeat() };
            if (excess(&found), found.times) >= (excess(&self.worst), self.worst.times) {
                self.worst = found;
            }
        }
    }
}

/// The larger share of a limit that is used up.
fn excess(repeat: &Repeat) -> f64 {
    let share = |value: usize, limit: usize| if limit == 0 { 0.0 } else { value as f64 / limit as f64 };
    share(repeat.times, repeat.max_times).max(share(repeat.in_row, repeat.max_in_row))
}

/// Paragraphs between blank lines, of ten characters or more, of twenty where none follows its like.
fn paragraphs(text: &str, structured: &mut Option<bool>) -> Repeat {
    let mut units = Units::new(text, 200);
    let mut start = 0;
    for end in memmem::find_iter(text.as_bytes(), "\n\n").chain([text.len()]) {
        if let Some(span) = trimmed(text, start, end) {
            let length = span.1 - span.0;
            if length >= 10 {
                units.add(text, span, 10, |seen| {
                    let unit = &text[span.0..span.1];
                    let several = if unit.contains('\n') { 4 } else { 1 };
                    let limit = 10 * several.max(factor(text, unit, structured));
                    match seen.longest {
                        1 if length < 20 => (0, 0),
                        1 => ((2 * limit).min(30), 0),
                        _ => (limit, 0),
                    }
                });
            }
            units.index += 1;
        }
        start = end + 2;
    }
    units.worst
}

/// Sentences up to `.`, `!`, `?` or their Chinese forms, of two words or more; of five characters in a row, of ten in all.
fn sentences(text: &str, structured: &mut Option<bool>) -> Repeat {
    let mut units = Units::new(text, 40);
    let mut start = 0;
    let mut unit = |start: usize, end: usize| {
        if let Some(span) = trimmed(text, start, end) {
            let length = span.1 - span.0;
            // A sentence that was used only once costs nothing but its hash.
            if length >= 5 {
                units.add(text, span, 4, |seen| {
                    let unit = &text[span.0..span.1];
                    if unit.is_ascii() && !unit.contains([' ', '\n']) {
                        return (0, 0);
                    }
                    // The limits are higher for some; that matters only to what reaches the least of them.
                    let factor = if seen.longest >= 4 || seen.times >= 40 { factor(text, unit, structured) } else { 1 };
                    (if length >= 10 { 40 * factor } else { 0 }, 4 * factor)
                });
            }
            units.index += 1;
        }
    };
    let bytes = text.as_bytes();
    let mut wide =
        memchr::memchr2_iter(0xe3, 0xef, bytes).filter(|at| matches!(bytes.get(at + 1..at + 3), Some([0x80, 0x82] | [0xbc, 0x81 | 0x9f])));
    let mut next_wide = wide.next();
    for end in memchr::memchr3_iter(b'.', b'!', b'?', bytes).chain([text.len()]) {
        while let Some(at) = next_wide.filter(|at| *at < end) {
            unit(start, at);
            (start, next_wide) = (at + 3, wide.next());
        }
        unit(start, end);
        start = end + 1;
    }
    units.worst
}

/// The part of `start..end` between white space, if there is one.
fn trimmed(text: &str, start: usize, end: usize) -> Option<(usize, usize)> {
    let part = text.get(start..end)?;
    let left = part.trim_start();
    let from = end - left.len();
    let right = left.trim_end();
    (!right.is_empty()).then_some((from, from + right.len()))
}

/// How much higher the limits are: twice for mathematics and code, three times in a text with a list.
fn factor(text: &str, unit: &str, structured: &mut Option<bool>) -> usize {
    let is_math = unit.bytes().any(|byte| b"=+-*/^()[]{}<>|&~!@#$%\\".contains(&byte));
    if *structured.get_or_insert_with(|| is_structured(text)) {
        3
    } else if is_math {
        2
    } else {
        1
    }
}

/// Two lines or more that begin as those of a list do: a number with a point, or a bullet.
fn is_structured(text: &str) -> bool {
    let (mut numbered, mut bullets) = (0, 0);
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', text.as_bytes()).chain([text.len()]) {
        let line = text[start..end].trim_start();
        start = end + 1;
        let digits = line.bytes().take_while(u8::is_ascii_digit).count();
        let is_item = |rest: &str| rest.starts_with(|c: char| c.is_whitespace());
        numbered += usize::from(digits > 0 && line[digits..].strip_prefix('.').is_some_and(is_item));
        bullets += usize::from(line.strip_prefix(['-', '*', '•']).is_some_and(is_item));
        if numbered >= 2 || bullets >= 2 {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests;
