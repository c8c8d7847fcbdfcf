//! Which of the languages in Latin letters the words of a sentence are in: a shortest path over them.
//!
//! Each word costs a language that it speaks against, and each change of language costs more than one such word. So loan words and quoted terms
//! stay in the language around them, three words in a row that only Spanish has do not.

use crate::problem::{LATIN, Language, Script, languages};

const N: usize = LATIN.len();
/// A frequent word costs this in each language whose list has it not, endings and accents less.
const LISTED: u8 = 3;
/// A change inside a sentence, and a sentence in another language than the target. A way there and back costs as much as three listed words.
const CHANGE: u32 = 4;
/// Going back to the target between sentences.
const RETURN: u32 = 1;

/// What a word costs in each of `LATIN`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Evidence {
    costs: [u8; N],
    listed: bool,
}

impl Evidence {
    pub(super) fn is_known(&self) -> bool {
        self.listed
    }
}

/// Names of functions, units and the like: words of no language.
const NEUTRAL: &str = " sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp max min mod gcd lcm lim det deg rad sqrt km cm mm kg mg ml hr hrs \
     kmh mph ft lb oz rs usd eur etc vs eq ans qed iff cdot frac text times pi theta alpha beta ";

/// End of the word that begins at `start`; an apostrophe with a letter behind it is part of it.
pub(super) fn word_end(text: &str, start: usize, limit: usize) -> usize {
    let bytes = text.as_bytes();
    let mut at = start;
    while at < limit {
        let byte = bytes[at];
        if byte.is_ascii_alphabetic() {
            at += 1;
        } else if byte == b'\'' && at + 1 < limit && bytes[at + 1].is_ascii_alphabetic() {
            at += 2;
        } else if byte == 0xe2 && bytes[at..limit].starts_with("’".as_bytes()) && bytes.get(at + 3).is_some_and(u8::is_ascii_alphabetic) {
            at += 3;
        } else if (0xc3..=0xc9).contains(&byte) || byte == 0xe1 {
            match text[at..limit].chars().next() {
                Some(c) if Script::of(c) == Script::Latin => at += c.len_utf8(),
                _ => break,
            }
        } else {
            break;
        }
    }
    // The word was entered at a letter, so it has one.
    at.max(start + 1)
}

/// The languages of one text's Latin words, sentence by sentence.
pub(super) struct Latin {
    base: usize,
    /// The target is in Latin letters.
    is_target: bool,
    /// Language at the end of the sentence before.
    carry: usize,
    words: Vec<Evidence>,
    parents: Vec<[u8; N]>,
    path: Vec<u8>,
}

impl Latin {
    pub(super) fn new(target: Language) -> Self {
        let base = LATIN.iter().position(|language| *language == target);
        let (is_target, base) = (base.is_some(), base.unwrap_or(0));
        Self { base, is_target, carry: base, words: Vec::new(), parents: Vec::new(), path: Vec::new() }
    }

    /// The target, or English where the target has another script.
    pub(super) fn base(&self) -> Language {
        LATIN[self.base]
    }

    /// What the word at `start..end` says; `None` for a neutral one.
    pub(super) fn evidence(&self, text: &[u8], start: usize, end: usize) -> Option<Evidence> {
        let word = &text[start..end];
        if word.len() == 1 || word.len() == 2 && word[0] >= 0x80 {
            return None;
        }
        let core = match word.iter().position(|byte| *byte == b'\'' || *byte == 0xe2) {
            Some(cut) => return Some(with_apostrophe(word, cut)),
            None => word,
        };
        // Labels of points and lines and abbreviations (`DE = DF`, `LA`, `GCD`).
        if word.len() <= 4 && word.iter().all(u8::is_ascii_uppercase) {
            return self.is_target.then(Evidence::default);
        }
        let mask = languages(core);
        if mask != 0 {
            let costs = std::array::from_fn(|bit| if mask >> bit & 1 == 1 { 0 } else { LISTED });
            return Some(Evidence { costs, listed: true });
        }
        let capital = word[0].is_ascii_uppercase() || word[0] == 0xc3 && word.get(1).is_some_and(|byte| *byte < 0xa0);
        if !self.is_target && (capital || is_technical(text, start, end)) {
            return None;
        }
        Some(Evidence { costs: if capital { [0; N] } else { spelling(word) }, listed: false })
    }

    /// Finds the languages of the words of a sentence; false where all are in `base`.
    pub(super) fn resolve(&mut self, words: impl Iterator<Item = Evidence>) -> bool {
        self.words.clear();
        self.words.extend(words);
        if self.words.is_empty() || self.carry == self.base && self.words.iter().all(|word| word.costs[self.base] == 0) {
            return false;
        }
        let mut costs: [u32; N] = std::array::from_fn(|s| match s {
            _ if s == self.carry => 0,
            _ if s == self.base => RETURN,
            _ => CHANGE,
        });
        self.parents.clear();
        for word in &self.words {
            let best = (0..N).min_by_key(|s| (costs[*s], *s != self.base)).unwrap_or(self.base);
            let parents = std::array::from_fn(|s| if costs[s] <= costs[best] + CHANGE { s as u8 } else { best as u8 });
            costs = std::array::from_fn(|s| costs[usize::from(parents[s])] + if usize::from(parents[s]) == s { 0 } else { CHANGE });
            // The first word opens the sentence: what it cost to begin was paid above.
            costs = std::array::from_fn(|s| costs[s] + u32::from(word.costs[s]));
            self.parents.push(parents);
        }
        let mut state = (0..N).min_by_key(|s| (costs[*s], *s != self.base)).unwrap_or(self.base);
        self.carry = state;
        self.path.clear();
        for parents in self.parents.iter().rev() {
            self.path.push(state as u8);
            state = usize::from(parents[state]);
        }
        true
    }

    /// Language of the `i`-th word of the sentence resolved last.
    pub(super) fn language(&self, i: usize) -> Language {
        LATIN[usize::from(self.path[self.path.len() - 1 - i])]
    }
}

/// Contractions are English (`it's`, `don't`), elisions French (`l'aire`, `qu'il`); names with an apostrophe say nothing.
fn with_apostrophe(word: &[u8], cut: usize) -> Evidence {
    let tail = &word[cut + if word[cut] == b'\'' { 1 } else { 3.min(word.len() - cut) }..];
    let only = |bit: usize| Evidence { costs: std::array::from_fn(|s| if s == bit { 0 } else { LISTED }), listed: true };
    match tail {
        b"s" | b"t" | b"re" | b"ll" | b"ve" | b"d" | b"m" => only(0),
        _ if cut <= 2 && tail.len() >= 2 && tail[0].is_ascii_lowercase() => only(2),
        _ => Evidence::default(),
    }
}

/// Whether a word that no list has is a name of mathematics or of a program.
fn is_technical(text: &[u8], start: usize, end: usize) -> bool {
    let word = &text[start..end];
    let lower = word.to_ascii_lowercase();
    let is_neutral =
        || NEUTRAL.as_bytes().windows(lower.len() + 2).any(|w| w[0] == b' ' && w[w.len() - 1] == b' ' && w[1..w.len() - 1] == lower[..]);
    let joins = |byte: Option<&u8>| byte.is_some_and(|byte| matches!(byte, b'_' | b'(' | b'0'..=b'9'));
    word.len() <= 2 || joins(text.get(end)) || start > 0 && text[start - 1] == b'_' || word.len() < 8 && is_neutral()
}

/// Costs by accents and endings, in the order of `LATIN`.
fn spelling(word: &[u8]) -> [u8; N] {
    const ENDINGS: [(&[u8], [u8; N]); 14] = [
        (b"mente", [2, 0, 2, 2]),
        (b"amos", [2, 0, 2, 2]),
        (b"emos", [2, 0, 2, 2]),
        (b"iendo", [2, 0, 2, 2]),
        (b"idad", [2, 0, 2, 2]),
        (b"ando", [1, 0, 1, 1]),
        (b"ement", [0, 2, 0, 2]),
        (b"aient", [2, 2, 0, 2]),
        (b"ique", [1, 1, 0, 1]),
        (b"ieren", [2, 2, 2, 0]),
        (b"keit", [2, 2, 2, 0]),
        (b"ung", [1, 2, 2, 0]),
        (b"lich", [2, 2, 2, 0]),
        (b"ing", [0, 1, 1, 1]),
    ];
    if word.is_ascii() {
        let ending = || ENDINGS.iter().find(|(ending, _)| word.ends_with(ending)).map(|(_, costs)| *costs);
        return if word.len() < 6 { [0; N] } else { ending().unwrap_or([0; N]) };
    }
    let accent = word.windows(2).find(|w| w[0] == 0xc3).map_or(0, |w| w[1] | 0x20);
    match accent {
        0xb1 => [2, 0, 2, 2],                                                                       // ñ
        0xa1 | 0xad | 0xb3 | 0xba => [1, 0, 2, 2],                                                  // á í ó ú
        0xa9 => [1, 0, 0, 2],                                                                       // é
        0xa0 | 0xa2 | 0xa7 | 0xa8 | 0xaa | 0xab | 0xae | 0xaf | 0xb4 | 0xb9 | 0xbb => [1, 2, 0, 2], // à â ç è ê ë î ï ô ù û
        0xa4 | 0xb6 | 0xbc | 0xbf => [2, 2, 2, 0],                                                  // ä ö ü ß
        _ => [0; N],
    }
}
