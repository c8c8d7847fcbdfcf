//! Counting and hashing of plain bytes, in forms that the compiler turns into vector code.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Characters of `text`.
pub(super) fn characters(text: &str) -> usize {
    count(text.as_bytes(), |byte| (byte as i8) >= -64)
}

/// Characters that are not white space, and those of them that are neither letters nor digits. For ASCII only.
pub(super) fn visible_and_symbols(ascii: &[u8]) -> (usize, usize) {
    let visible = count(ascii, |byte| byte.wrapping_sub(9) > 4 && byte != b' ');
    let words = count(ascii, |byte| (byte | 0x20).wrapping_sub(b'a') < 26 || byte.wrapping_sub(b'0') < 10);
    (visible, visible - words)
}

/// A text in runs of ASCII and single other characters.
pub(super) enum Run<'a> {
    Ascii(&'a [u8]),
    /// A unified ideograph, by far the most frequent case: it need not be decoded.
    Han,
    Other(char),
}

/// The runs of `text` in order.
pub(super) fn runs(text: &str) -> impl Iterator<Item = Run<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let bytes = rest.as_bytes();
        let first = *bytes.first()?;
        let (run, length) = match first {
            0..0x80 => {
                let end = ascii_end(bytes);
                (Run::Ascii(&bytes[..end]), end)
            }
            0xe5..=0xe9 => (Run::Han, 3),
            0xe4 if bytes[1] >= 0xb8 => (Run::Han, 3),
            _ => {
                let c = rest.chars().next()?;
                (Run::Other(c), c.len_utf8())
            }
        };
        rest = &rest[length..];
        Some(run)
    })
}

/// As `char::is_alphanumeric`, without a search in its tables for the punctuation and the signs that are frequent.
pub(super) fn is_alphanumeric(c: char) -> bool {
    match c {
        '\u{2000}'..='\u{206f}'
        | '\u{2190}'..='\u{22ff}'
        | '\u{3000}'..='\u{3003}'
        | '\u{3008}'..='\u{3020}'
        | '\u{ff01}'..='\u{ff0f}'
        | '\u{ff1a}'..='\u{ff20}' => false,
        _ => c.is_alphanumeric(),
    }
}

/// How many bytes of ASCII there are before the first other one.
fn ascii_end(bytes: &[u8]) -> usize {
    let (words, _) = bytes.as_chunks::<8>();
    let whole = words.iter().take_while(|word| u64::from_le_bytes(**word) & 0x8080_8080_8080_8080 == 0).count();
    whole * 8 + bytes[whole * 8..].iter().take_while(|byte| byte.is_ascii()).count()
}

/// How many bytes are of a kind. Counts in bytes, 255 at a time, so that a vector holds many.
fn count(bytes: &[u8], is: impl Fn(u8) -> bool) -> usize {
    bytes.chunks(255).map(|chunk| usize::from(chunk.iter().fold(0u8, |sum, byte| sum.wrapping_add(u8::from(is(*byte)))))).sum()
}

const ODD: [u64; 3] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93, 0xa076_1d64_78bd_642f];

/// 64 well-mixed bits of `bytes`: eight at a time, each step a product of 128 bits folded in half. Not secret: whoever knows it can make two texts alike.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut state = ODD[0] ^ bytes.len() as u64;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word), ODD[1]);
    }
    let mut last = [0u8; 8];
    last[..rest.len()].copy_from_slice(rest);
    fold(state ^ u64::from_le_bytes(last), ODD[2])
}

/// Both halves of the product, laid over each other.
pub(super) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// A table by numbers that are hashes already.
pub(super) type Hashes<V> = HashMap<u64, V, BuildHasherDefault<AsItIs>>;

#[derive(Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash(bytes);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// A random number for each byte: `hash << 1` plus that of the next byte is the hash of the last 64.
pub(crate) static GEAR: [u64; 256] = gear();

const fn gear() -> [u64; 256] {
    let (mut table, mut i, mut state) = ([0u64; 256], 0, 0u64);
    while i < 256 {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let a = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let b = (a ^ a >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[i] = b ^ b >> 31;
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_characters() {
        for text in ["", "a b\t\n.", "é ü, 好。", "0123456789abcdef好好x", &"x+ ".repeat(300), "\u{b}\u{c}\r\u{1}\u{7f}", "\u{a0}\u{2003}é"]
        {
            assert_eq!(characters(text), text.chars().count(), "{text:?}");
            let ascii: String = text.chars().filter(char::is_ascii).collect();
            let visible: Vec<char> = ascii.chars().filter(|c| !c.is_whitespace()).collect();
            let symbols = visible.iter().filter(|c| !c.is_alphanumeric()).count();
            assert_eq!(visible_and_symbols(ascii.as_bytes()), (visible.len(), symbols), "{text:?}");
            let joined: String = runs(text)
                .map(|run| match run {
                    Run::Ascii(run) => String::from_utf8_lossy(run).into_owned(),
                    Run::Han => "好".into(),
                    Run::Other(c) => c.into(),
                })
                .collect();
            assert_eq!(joined, text);
        }
    }

    #[test]
    fn letters_are_those_of_the_standard_library() {
        for c in '\0'..=char::MAX {
            assert_eq!(is_alphanumeric(c), c.is_alphanumeric(), "{c:?}");
        }
    }

    #[test]
    fn hashes_differ_where_bytes_do() {
        let texts: Vec<String> =
            (0..20_000).map(|i| format!("line {i}")).chain(["".into(), "\0".into(), "\0\0".into(), "\0".repeat(8)]).collect();
        let hashes: std::collections::HashSet<u64> = texts.iter().map(|text| hash(text.as_bytes())).collect();
        assert_eq!(hashes.len(), texts.len());
    }
}
