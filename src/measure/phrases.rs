//! Many phrases at once: each word of a text, and each Chinese character, is looked up as the one that a phrase is known by.
//!
//! Phrases of words match whole words, case ignored in ASCII; phrases of Chinese characters match anywhere. All matches are given, those inside
//! others too. One pass; eight bytes at a time where the text is words.

use super::bytes::fold;

/// Phrases by a word of theirs, the first that is not in every sentence.
pub(super) struct Phrases {
    /// Each phrase, and where in it the word stands that it is known by.
    phrases: Vec<(&'static str, usize)>,
    /// Key of a word, and the range in `by_word` of the phrases that are known by it; no phrase where the range is empty.
    slots: Vec<(u64, u32, u32)>,
    /// A bit for each key, in a place that few other keys share: most words are turned away here.
    filter: [u64; SLOTS / 8],
    by_word: Vec<u32>,
}

const SLOTS: usize = 1024;

/// Words that most sentences have: looking at a phrase at each of them would take most of the time.
const COMMON: &str = " i i'd we is it that this these to for in no the what if does on let me us s d do a of was not can be my would from ";

impl Phrases {
    /// Phrases are numbered as they come. There must be fewer than 512 different words that they are known by.
    pub(super) fn new(phrases: impl IntoIterator<Item = &'static str>) -> Self {
        let phrases: Vec<(&str, usize)> = phrases.into_iter().map(|phrase| (phrase, anchor(phrase))).collect();
        let mut keyed: Vec<(u64, u32)> = phrases.iter().zip(0..).map(|(phrase, i)| (key(&phrase.0.as_bytes()[phrase.1..]), i)).collect();
        keyed.sort_unstable();
        let (mut slots, mut filter) = (vec![(0, 0, 0); SLOTS], [0; SLOTS / 8]);
        for group in keyed.chunk_by(|a, b| a.0 == b.0) {
            let from = keyed.partition_point(|entry| entry.0 < group[0].0) as u32;
            let mut slot = home(group[0].0, SLOTS);
            let bit = home(group[0].0, 8 * SLOTS);
            filter[bit / 64] |= 1 << (bit % 64);
            while slots[slot].2 > 0 {
                slot = (slot + 1) % SLOTS;
            }
            slots[slot] = (group[0].0, from, from + group.len() as u32);
        }
        Self { phrases, slots, filter, by_word: keyed.into_iter().map(|(_, i)| i).collect() }
    }

    /// Calls `found` with the number of each phrase in `text` and its byte range, in the order of the words that they are known by.
    pub(super) fn find(&self, text: &str, mut found: impl FnMut(usize, usize, usize)) {
        let bytes = text.as_bytes();
        // Whether the byte before a block goes on a word.
        let mut carry = 0;
        for (block, begin) in bytes.chunks(64).zip((0..).step_by(64)) {
            let [letters, words, han] = classes(block);
            let mut starts = letters & !(words << 1 | carry) | han;
            carry = words >> 63;
            while starts != 0 {
                let at = begin + starts.trailing_zeros() as usize;
                starts &= starts - 1;
                let key = key(&bytes[at..]);
                let bit = home(key, 8 * SLOTS);
                if self.filter[bit / 64] >> (bit % 64) & 1 == 1 {
                    self.look_up(bytes, at, key, &mut found);
                }
            }
        }
    }

    fn look_up(&self, bytes: &[u8], at: usize, key: u64, found: &mut impl FnMut(usize, usize, usize)) {
        let mut slot = home(key, SLOTS);
        loop {
            let (held, from, to) = self.slots[slot];
            if to == 0 {
                return;
            }
            if held == key {
                for i in &self.by_word[from as usize..to as usize] {
                    let (phrase, offset) = self.phrases[*i as usize];
                    let phrase = phrase.as_bytes();
                    let Some(start) = at.checked_sub(offset) else { continue };
                    let end = start + phrase.len();
                    let same = bytes.get(start..end).is_some_and(|part| part.eq_ignore_ascii_case(phrase));
                    let joins = |own: Option<&u8>, next: Option<&u8>| own.is_some_and(|byte| is_word(*byte)) && next.is_some_and(|byte| is_word(*byte));
                    let goes_on = || joins(phrase.last(), bytes.get(end)) || start > 0 && joins(phrase.first(), bytes.get(start - 1));
                    if same && !goes_on() {
                        found(*i as usize, start, end);
                    }
                }
                return;
            }
            slot = (slot + 1) % SLOTS;
        }
    }
}

/// Where the word begins that a phrase is known by.
fn anchor(phrase: &str) -> usize {
    let begins = |at: &usize| phrase.as_bytes()[*at].is_ascii_alphabetic() && (*at == 0 || !phrase.as_bytes()[*at - 1].is_ascii_alphabetic());
    let is_rare = |at: &usize| {
        let word: &str = phrase[*at..].split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or("");
        !COMMON.split(' ').any(|common| common == word)
    };
    (0..phrase.len()).filter(begins).find(is_rare).unwrap_or(0)
}

fn home(key: u64, places: usize) -> usize {
    (fold(key, 0x9e37_79b9_7f4a_7c15) % places as u64) as usize
}

/// What makes up a word, as in a regular expression's `\w` over ASCII.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x80 * ONES;

/// Of eight bytes, the high bit of each that lies in `low..high`, for bounds up to 128; bytes beyond ASCII lie nowhere.
fn between(bytes: u64, low: u64, high: u64) -> u64 {
    // Sums of seven bits cannot reach the neighbour.
    let seven = bytes & !HIGH;
    (seven + (0x80 - low) * ONES) & !(seven + (0x80 - high) * ONES) & !bytes & HIGH
}

/// Which of up to 64 bytes are letters, parts of words, and first bytes of unified ideographs (the few others that begin so do no harm): a bit for each.
fn classes(block: &[u8]) -> [u64; 3] {
    let mut masks = [0u64; 3];
    let mut add = |eight: [u8; 8], shift: usize| {
        let bytes = u64::from_le_bytes(eight);
        let letters = between(bytes | 0x20 * ONES, 0x61, 0x7b);
        let words = letters | between(bytes, 0x30, 0x3a) | between(bytes, 0x5f, 0x60);
        let han = between(bytes & !HIGH, 0x64, 0x6a) & bytes;
        for (mask, found) in masks.iter_mut().zip([letters, words, han]) {
            // Gathers the high bits in the upper byte of the product.
            *mask |= ((found >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) << shift;
        }
    };
    let (chunks, rest) = block.as_chunks::<8>();
    chunks.iter().zip((0..).step_by(8)).for_each(|(chunk, shift)| add(*chunk, shift));
    if !rest.is_empty() {
        let mut last = [0u8; 8];
        last[..rest.len()].copy_from_slice(rest);
        add(last, 8 * chunks.len());
    }
    masks
}

/// The first eight letters, in lower case, of the word that `bytes` begin with, or the three bytes of the Chinese character.
fn key(bytes: &[u8]) -> u64 {
    let mut eight = [0u8; 8];
    match bytes.first_chunk::<8>() {
        Some(chunk) => eight = *chunk,
        None => eight[..bytes.len()].copy_from_slice(bytes),
    }
    let loaded = u64::from_le_bytes(eight);
    if !eight[0].is_ascii() {
        return loaded & 0xff_ffff;
    }
    let lower = loaded | 0x20 * ONES;
    let length = (between(lower, 0x61, 0x7b) ^ HIGH).trailing_zeros() & !7;
    lower & 1u64.checked_shl(length).map_or(u64::MAX, |end| end - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_are_found_as_whole_words_and_anywhere_in_chinese() {
        let phrases = Phrases::new(["check", "let me check", "let me", "re-check", "verification", "i need", "检查", "再检", "no, that", "let’s see"]);
        let rows: [(&str, &[usize]); 12] = [
            ("", &[]),
            ("Let me CHECK", &[2, 1, 0]),
            ("checks recheck _check check_ check2 2check", &[]),
            ("re-check.", &[3, 0]),
            ("verification", &[4]),
            ("verifications verificatio", &[]),
            ("I need; i needed", &[5]),
            ("再检查一下check", &[7, 6, 0]),
            ("No, that", &[8]),
            ("let’s see", &[9]),
            ("chec", &[]),
            ("\u{4e00}check\u{e000}", &[0]),
        ];
        for (text, expect) in rows {
            let mut found = Vec::new();
            phrases.find(text, |i, start, end| {
                assert!(text[start..end].eq_ignore_ascii_case(phrases.phrases[i].0));
                found.push(i);
            });
            found.sort_unstable();
            let mut expect = expect.to_vec();
            expect.sort_unstable();
            assert_eq!(found, expect, "{text:?}");
        }
    }
}
