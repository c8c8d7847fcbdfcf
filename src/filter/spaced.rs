//! Words as white space parts them, as 64-bit numbers: what contamination is found by.
//!
//! A word is what stands between white space, or one Han character, by its letters, digits and the signs `+ - * / = < > ^ %` alone, in lower case: a formula of twelve
//! signs is one word and no long run, and punctuation, quotes and dollar signs make no difference. An asterisk counts between two letters or digits; elsewhere it
//! marks emphasis. Two different words get the same number with a probability of 2^-64; of one with more than 64 bytes the last 64 count.

use super::shingles::mix;
use crate::measure::bytes::GEAR;
use crate::problem::is_han;
use std::ops::Range;

/// What a byte does to the hash of the word that it stands in, in one number. There is no branch in the loop over these: where words end is what a processor cannot
/// foresee. The lowest bit says that the hash is shifted, [`ENDS`] that a word ends; the other bits are added to the hash.
static STEPS: [u64; 256] = steps();
const ENDS: u32 = 6;

const fn steps() -> [u64; 256] {
    let mut steps = [0; 256];
    let mut i = 0;
    while i < 256 {
        let byte = i as u8;
        if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'/' | b'=' | b'<' | b'>' | b'^' | b'%') {
            steps[i] = letter(byte.to_ascii_lowercase());
        } else if byte.is_ascii_whitespace() {
            steps[i] = 1 << ENDS;
        }
        i += 1;
    }
    steps
}

/// The step of a byte that belongs to a word.
const fn letter(byte: u8) -> u64 {
    GEAR[byte as usize] >> (ENDS + 1) << (ENDS + 1) | 1
}

/// The hash of a word and one more of its bytes.
#[inline(always)]
fn step(word: u64, step: u64) -> u64 {
    (word << (step & 63)).wrapping_add(step)
}

/// Bytes that are gone through before their words are handed over; what counts the words is a byte.
pub(super) const BLOCK: usize = 128;

/// The words of a text.
#[derive(Clone, Debug, Default)]
pub(super) struct Spaced {
    pub hashes: Vec<u64>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Spaced {
    /// The words under a key.
    pub fn of(text: &str, key: u64) -> Self {
        let mut words = Self::default();
        each::<true>(text, key, |hashes, ends| {
            words.hashes.extend(hashes);
            words.ends.extend(ends);
        });
        words
    }

    /// Byte range of a run of words in their text.
    pub fn place(&self, text: &str, run: Range<usize>) -> Range<usize> {
        let word = &text[..self.ends[run.start]];
        let start = match word.char_indices().next_back() {
            Some((at, last)) if is_han(last) => at,
            _ => word.char_indices().rev().take_while(|(_, c)| !c.is_whitespace() && !is_han(*c)).last().map_or(word.len(), |(at, _)| at),
        };
        start..self.ends[run.end - 1]
    }
}

/// Hands over the hashes of the words of `text`, at most [`BLOCK`] at a time, with where they end if `PLACES` are wanted.
#[inline(always)]
pub(super) fn each<const PLACES: bool>(text: &str, key: u64, mut found: impl FnMut(&[u64], &[usize])) {
    let bytes = text.as_bytes();
    // 0 between two words.
    let (mut at, mut word) = (0, 0u64);
    let (mut hashes, mut ends) = ([0u64; 256], [0usize; 256]);
    while at < bytes.len() {
        let block = plain(&bytes[at..bytes.len().min(at + BLOCK)]);
        let mut n = 0u8;
        for (i, byte) in block.iter().enumerate() {
            let next = STEPS[usize::from(*byte)];
            hashes[usize::from(n)] = word;
            if PLACES {
                ends[usize::from(n)] = at + i;
            }
            let end = next >> ENDS & 1;
            n = n.wrapping_add(end as u8);
            word = step(word, next) & end.wrapping_sub(1);
        }
        at += block.len();
        // White space after white space, and what holds neither letters nor digits nor signs, leaves a word of nothing.
        let mut kept = 0u8;
        for i in 0..n {
            let (hash, end) = (hashes[usize::from(i)], ends[usize::from(i)]);
            hashes[usize::from(kept)] = mix(hash ^ key);
            if PLACES {
                ends[usize::from(kept)] = end;
            }
            kept = kept.wrapping_add(u8::from(hash != 0));
        }
        found(&hashes[..usize::from(kept)], &ends[..usize::from(kept)]);
        if block.len() == BLOCK {
            continue;
        }
        let Some(c) = text[at..].chars().next() else { break };
        let (next, han) = (at + c.len_utf8(), is_han(c));
        if (han || c.is_whitespace()) && word != 0 {
            found(&[mix(word ^ key)], &[at]);
            word = 0;
        }
        let is_letter = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphanumeric);
        if han {
            // Its own number, and not that of a word of the same bytes.
            found(&[mix(!u64::from(c) ^ key)], &[next]);
        } else if c.is_alphanumeric() {
            let lower = c.to_lowercase();
            lower.for_each(|c| c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| word = step(word, letter(byte))));
        } else if c == '*' && is_letter(next) && at.checked_sub(1).is_some_and(is_letter) {
            word = step(word, letter(b'*'));
        }
        at = next;
    }
    if word != 0 {
        found(&[mix(word ^ key)], &[at]);
    }
}

/// The part before the first byte that needs a look at its neighbours.
fn plain(block: &[u8]) -> &[u8] {
    let is_special = |byte: &u8| !byte.is_ascii() || *byte == b'*';
    let any = block.iter().fold(false, |any, byte| any | is_special(byte));
    if any { block.split(is_special).next().unwrap_or(block) } else { block }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(text: &str) -> Vec<u64> {
        Spaced::of(text, 7).hashes
    }

    #[test]
    fn words_are_what_white_space_parts_without_punctuation() {
        let long = "so ".repeat(300);
        let rows: [(&str, &[&str]); 8] = [
            ("", &[]),
            (" ., \n", &[]),
            ("Let $x+y=5$, so (now)\u{3000}go.", &["Let", "$x+y=5$,", "so", "(now)", "go."]),
            ("设x为3 ok", &["设", "x", "为", "3", "ok"]),
            ("a - b", &["a", "-", "b"]),
            ("*a* , ( b", &["*a*", "b"]),
            ("É, a\u{301}b", &["É,", "a\u{301}b"]),
            (&long, &["so"; 300]),
        ];
        for (text, expected) in rows {
            let words = Spaced::of(text, 7);
            let places = (0..words.hashes.len()).map(|i| &text[words.place(text, i..i + 1)]);
            assert_eq!(places.collect::<Vec<_>>(), expected, "{text:?}");
        }
        let words = Spaced::of("one two, three.", 7);
        assert_eq!(words.place("one two, three.", 1..3), 4..15);
    }

    #[test]
    fn only_letters_digits_and_signs_tell_words_apart() {
        assert_eq!(hashes("The (JAR), is: \"Éa\" x+y."), hashes("the jar is éa $x+y$"));
        assert_eq!(hashes("**the** *jar*"), hashes("the jar"));
        assert_eq!(hashes("设 x"), hashes("设x"));
        for (a, b) in [("2*3", "23"), ("x-y", "x+y"), ("ab", "ba"), ("ab c", "a bc"), ("a", "aa"), ("设", "设设")] {
            assert_ne!(hashes(a), hashes(b), "{a} {b}");
        }
        assert_ne!(Spaced::of("a", 1).hashes, Spaced::of("a", 2).hashes);
    }

    #[test]
    fn a_word_is_the_same_wherever_a_block_ends() {
        for before in 240..272 {
            let text = format!("{}word, and éa 设", " ".repeat(before));
            assert_eq!(hashes(&text), hashes("word and éa 设"), "{before}");
        }
    }
}
