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

/// Words without evidence that a foreign stretch may have at its edge.
const EDGE: usize = 2;

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
        // `du = 3` and `Im z`: a differential, a product, a part, whatever they mean in French or German.
        if word.len() == 2 && mask & 1 == 0 && (matches!(word, b"Im" | b"Re") || is_operand(text, start, end)) {
            return self.is_target.then(Evidence::default);
        }
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
    ///
    /// cost[s](i) = min(cost[s](i - 1), min over t of cost[t](i - 1) + CHANGE) + evidence of word i against s.
    pub(super) fn resolve(&mut self, words: impl Iterator<Item = Evidence>) -> bool {
        self.words.clear();
        self.words.extend(words);
        if self.words.is_empty() || self.carry == self.base && self.words.iter().all(|word| word.costs[self.base] == 0) {
            return false;
        }
        let mut costs: [u32; N] = std::array::from_fn(|s| match s {
            // Where the sentence before ended costs nothing, nor does going back to the target, which is taken where nothing speaks against it.
            _ if s == self.carry || s == self.base => 0,
            _ => CHANGE,
        });
        self.parents.clear();
        for word in &self.words {
            let best = (0..N).min_by_key(|s| (costs[*s], *s != self.base)).unwrap_or(self.base);
            let parents = std::array::from_fn(|s| if costs[s] <= costs[best] + CHANGE { s as u8 } else { best as u8 });
            costs = std::array::from_fn(|s| costs[usize::from(parents[s])] + if usize::from(parents[s]) == s { 0 } else { CHANGE });
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
        self.path.reverse();
        self.trim();
        true
    }

    /// Gives words that say nothing back to the target where they lie at the edge of a foreign stretch: only the rest of the sentence
    /// would have told. A sentence that is foreign from end to end keeps all of its words.
    fn trim(&mut self) {
        let base = self.base as u8;
        if self.path.iter().all(|state| *state == self.path[0]) {
            return;
        }
        for forwards in [true, false] {
            // Words since the last one that speaks against the target, seen from outside of the stretch.
            let (mut idle, mut told) = (0, false);
            for step in 0..self.path.len() {
                let i = if forwards { self.path.len() - 1 - step } else { step };
                if self.path[i] == base {
                    (idle, told) = (0, false);
                    continue;
                }
                told |= self.words[i].costs[self.base] > 0;
                if !told {
                    idle += 1;
                    continue;
                }
                // The nearest few are left to the stretch.
                let outer = |k: usize| if forwards { i + k } else { i - k };
                (EDGE + 1..=idle).for_each(|k| self.path[outer(k)] = base);
                idle = 0;
            }
        }
    }

    /// Language of the `i`-th word of the sentence resolved last.
    pub(super) fn language(&self, i: usize) -> Language {
        LATIN[usize::from(self.path[i])]
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

/// Whether an equals sign or an operator stands beside a word, a space aside.
fn is_operand(text: &[u8], start: usize, end: usize) -> bool {
    let is_sign = |at: Option<&u8>| at.is_some_and(|byte| b"=+*/^|<>_".contains(byte));
    let behind = if text.get(end) == Some(&b' ') { end + 1 } else { end };
    let before = if start > 0 && text[start - 1] == b' ' { start - 1 } else { start };
    is_sign(text.get(behind)) || before > 0 && is_sign(text.get(before - 1))
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
