//! Words and runs of words as 64-bit numbers: what duplicates are found by, and the runs for contamination too.
//!
//! A word is a run of letters and digits in lower case, one Han character, or one of the signs `+ - * / = < > ^ %`; everything else only parts words,
//! so that punctuation, layout and LaTeX's braces make no difference. Two different runs of words get the same number with a probability of 2^-64.

use crate::key::Key;
use crate::problem::is_han;
use std::ops::Range;

/// Hashes words and runs of words under a key.
#[derive(Clone, Copy, Debug)]
pub struct Hasher {
    start: u64,
    /// Odd: the base of the polynomial over the words of a run.
    base: u64,
}

/// The hash of a word that is being read: eight bytes at a time.
struct Word {
    hash: u64,
    bytes: u64,
    length: u32,
}

impl Word {
    fn new(start: u64) -> Self {
        Self { hash: start, bytes: 0, length: 0 }
    }

    #[inline(always)]
    fn eat(&mut self, byte: u8) {
        self.bytes = self.bytes << 8 | u64::from(byte);
        self.length += 1;
        if self.length.is_multiple_of(8) {
            self.hash = mix(self.hash ^ self.bytes);
            self.bytes = 0;
        }
    }

    #[inline(always)]
    fn finish(self) -> u64 {
        mix(self.hash ^ self.bytes ^ u64::from(self.length).rotate_right(8))
    }
}

/// The finalizer of SplitMix64: every bit of the input reaches every bit of the output.
pub(super) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// What a byte of ASCII is to a word: its lower case, 1 for a sign that is a word of its own, 0 for what parts words.
const ASCII: [u8; 128] = {
    let mut table = [0; 128];
    let mut i = 0;
    while i < 128 {
        let byte = i as u8;
        if byte.is_ascii_alphanumeric() {
            table[i] = byte.to_ascii_lowercase();
        } else if matches!(byte, b'+' | b'-' | b'*' | b'/' | b'=' | b'<' | b'>' | b'^' | b'%') {
            table[i] = 1;
        }
        i += 1;
    }
    table
};

impl Hasher {
    pub fn new(key: Key) -> Self {
        let [a, b, c, d] = key.block(0, 0);
        Self { start: u64::from(a) << 32 | u64::from(b), base: (u64::from(c) << 32 | u64::from(d)) | 1 }
    }

    /// The hashes of the words of a text, handed over one by one.
    pub fn each_hash(&self, text: &str, mut found: impl FnMut(u64)) {
        self.each_word(text, |hash, _| found(hash));
    }

    #[inline(always)]
    fn each_word(&self, text: &str, mut found: impl FnMut(u64, Range<usize>)) {
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let begin = at;
            let mut word = Word::new(self.start);
            at = Self::word(text, at, &mut word);
            if at > begin {
                found(word.finish(), begin..at);
                continue;
            }
            // What stands here goes on with no word: a sign or a Han character is one of its own, everything else parts words.
            at = (at + 1..=bytes.len()).find(|end| text.is_char_boundary(*end)).unwrap_or(bytes.len());
            let alone = if at == begin + 1 { ASCII[usize::from(bytes[begin])] == 1 } else { text[begin..at].chars().any(is_han) };
            if alone {
                let mut word = Word::new(!self.start);
                bytes[begin..at].iter().for_each(|byte| word.eat(*byte));
                found(word.finish(), begin..at);
            }
        }
    }

    /// Eats letters and digits from `at` on; gives where they end.
    #[inline(always)]
    fn word(text: &str, mut at: usize, word: &mut Word) -> usize {
        let bytes = text.as_bytes();
        while let Some(byte) = bytes.get(at) {
            if *byte < 128 {
                let lower = ASCII[usize::from(*byte)];
                if lower <= 1 {
                    return at;
                }
                word.eat(lower);
                at += 1;
                continue;
            }
            let c = text[at..].chars().next().unwrap_or(' ');
            if !c.is_alphanumeric() || is_han(c) {
                return at;
            }
            c.to_lowercase().for_each(|c| c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| word.eat(byte)));
            at += c.len_utf8();
        }
        at
    }

    /// One number for each run of `n` words; one for all words where there are fewer; none where there are none.
    pub fn runs(&self, words: &[u64], n: usize) -> Vec<u64> {
        let n = n.clamp(1, words.len().max(1));
        if words.is_empty() {
            return Vec::new();
        }
        let power = (0..n).fold(1u64, |power, _| power.wrapping_mul(self.base));
        let mut sum = 0u64;
        let mut runs = Vec::with_capacity(words.len() + 1 - n);
        for (i, word) in words.iter().enumerate() {
            sum = sum.wrapping_mul(self.base).wrapping_add(*word);
            if i >= n {
                sum = sum.wrapping_sub(words[i - n].wrapping_mul(power));
            }
            if i + 1 >= n {
                runs.push(mix(sum));
            }
        }
        runs
    }

    /// The runs of `n` words of question and response as a set, sorted; no run reaches from one into the other.
    pub fn shingles(&self, question: &str, response: &str, n: usize) -> Vec<u64> {
        let mut all = Vec::new();
        for text in [question, response] {
            let mut words = Vec::with_capacity(text.len() / 4);
            self.each_hash(text, |hash| words.push(hash));
            all.extend(self.runs(&words, n));
        }
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Shared elements / elements of either, of two sorted sets; 0 for two empty ones.
pub fn jaccard(a: &[u64], b: &[u64]) -> f64 {
    let (mut i, mut j, mut both) = (0, 0, 0usize);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => (i, j, both) = (i + 1, j + 1, both + 1),
        }
    }
    let either = a.len() + b.len() - both;
    if either == 0 { 0.0 } else { both as f64 / either as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        let mut found = Vec::new();
        Hasher::new(Key::new(1, "words")).each_word(text, |_, place| found.push(&text[place]));
        found
    }

    fn hashes(hasher: &Hasher, text: &str) -> Vec<u64> {
        let mut found = Vec::new();
        hasher.each_hash(text, |hash| found.push(hash));
        found
    }

    #[test]
    fn words_are_letters_digits_han_characters_and_signs() {
        let rows: [(&str, &[&str]); 7] = [
            ("", &[]),
            (" ,.!\n", &[]),
            ("Let x=5, so 2x+1 is 11.", &["Let", "x", "=", "5", "so", "2x", "+", "1", "is", "11"]),
            (r"\frac{1}{2}$\le$ n", &["frac", "1", "2", "le", "n"]),
            ("设x为3。然后ok", &["设", "x", "为", "3", "然", "后", "ok"]),
            ("naïve Façade", &["naïve", "Façade"]),
            ("a-b", &["a", "-", "b"]),
        ];
        for (text, expected) in rows {
            assert_eq!(words(text), expected, "{text:?}");
        }
    }

    #[test]
    fn equal_words_have_equal_numbers_and_others_do_not() {
        let hasher = Hasher::new(Key::new(1, "words"));
        let hash = |text: &str| hashes(&hasher, text);
        assert_eq!(hash("The ANSWER, is: Éa 好"), hash("the answer is éa好"));
        assert_ne!(hash("ab c"), hash("a bc"));
        assert_ne!(hash("7-4"), hash("7+4"));
        assert_ne!(hashes(&Hasher::new(Key::new(2, "words")), "a"), hash("a"));
    }

    #[test]
    fn runs_depend_on_their_own_words_alone() {
        let hasher = Hasher::new(Key::new(1, "words"));
        let runs = |text: &str, n| hasher.runs(&hashes(&hasher, text), n);
        let long = runs("a b c d a b c", 3);
        assert_eq!(long.len(), 5);
        assert_eq!(long[0], long[4]);
        assert_eq!(long[1], runs("b c d", 3)[0]);
        assert_eq!(runs("a b", 3), runs("a b", 2));
        assert_ne!(runs("a b c", 3), runs("a c b", 3));
        assert!(runs("", 3).is_empty());
    }

    #[test]
    fn jaccard_is_shared_over_all() {
        for (a, b, expected) in [(&[1, 2, 3][..], &[2, 3, 4][..], 0.5), (&[], &[], 0.0), (&[1], &[1], 1.0), (&[1], &[2], 0.0)] {
            assert_eq!(jaccard(a, b), expected);
        }
    }
}
