//! Whether a text runs in a loop: how much of its end is one piece, again and again.

use crate::trace::Reason;

/// Bytes that the repeated end of a text may have at most.
const MAX_TAIL: usize = 1000;
/// Longest period, in bytes, that is looked for.
const PERIOD: usize = 256;

/// How a text repeats itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Repetition {
    /// Bytes at the end of the text that go on with one period.
    pub tail: usize,
    /// Where they begin.
    pub start: usize,
}

/// Measures the periodic end.
pub fn measure(text: &str) -> Repetition {
    let bytes = text.as_bytes();
    let tail = |period: usize| bytes.iter().rev().zip(bytes.iter().rev().skip(period)).take_while(|(a, b)| a == b).count();
    let tail = (1..=PERIOD).map(tail).max().unwrap_or(0);
    Repetition { tail, start: text.len() - tail }
}

/// The rule over it; the error names the part that fails.
pub fn is_repetitive(parts: &Repetition) -> Result<(), Reason> {
    if parts.tail <= MAX_TAIL {
        return Ok(());
    }
    let span = Some((parts.start, parts.start + parts.tail));
    Err(Reason { span, ..Reason::measured("repetition.tail", parts.tail, format!("at most {MAX_TAIL}")) })
}
