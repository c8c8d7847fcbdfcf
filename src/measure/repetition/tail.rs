//! The loop that a text ends in: a runaway attempt that is cut at its limit.

/// The longest end of a text that is one stretch over and over; all 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tail {
    /// Bytes of one round.
    pub period: usize,
    /// Whole rounds.
    pub times: usize,
    /// Byte range of the loop.
    pub span: (usize, usize),
}

/// Longest period that is looked for, in bytes.
const WINDOW: usize = 1 << 16;
/// A loop ends in this many bytes that stood before. Shorter ends return in any text.
const ANCHOR: usize = 32;

/// Finds the period with which the end of `bytes` goes on furthest to the left, two rounds at least. Linear: a Z-function over the reversed window.
pub(super) fn measure(bytes: &[u8]) -> Tail {
    // White space at the very end is no part of a loop.
    let bytes = bytes.trim_ascii_end();
    let window = &bytes[bytes.len().saturating_sub(WINDOW)..];
    let Some(anchor) = window.len().checked_sub(ANCHOR) else { return Tail::default() };
    // Nearly every text ends in words that it has only once.
    if memchr::memmem::find(&window[..window.len() - 1], &window[anchor..]).is_none() {
        return Tail::default();
    }
    let matches = z_of_reversed(window);
    let extent = |period: usize| period + matches[period];
    let rounds = (1..window.len()).filter(|period| matches[*period] >= *period);
    let Some(period) = rounds.min_by_key(|period| (std::cmp::Reverse(extent(*period)), *period)) else { return Tail::default() };
    // What the window holds may be the end of a longer loop.
    let mut start = bytes.len() - extent(period);
    while start > 0 && bytes[start - 1] == bytes[start - 1 + period] {
        start -= 1;
    }
    Tail { period, times: (bytes.len() - start) / period, span: (start, bytes.len()) }
}

/// `z[p]`: how many bytes before the end are equal to those that stand p bytes before them.
fn z_of_reversed(bytes: &[u8]) -> Vec<usize> {
    let n = bytes.len();
    let back = |i: usize| bytes[n - 1 - i];
    let mut z = vec![0usize; n];
    let (mut left, mut right) = (0, 0);
    for i in 1..n {
        let mut length = if i < right { z[i - left].min(right - i) } else { 0 };
        while i + length < n && back(length) == back(i + length) {
            length += 1;
        }
        z[i] = length;
        if i + length > right {
            (left, right) = (i, i + length);
        }
    }
    z
}
