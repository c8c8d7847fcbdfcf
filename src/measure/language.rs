//! Which share of a text's words is in the language asked for: R1's language consistency.

use super::pieces::{Kind, pieces};
use crate::problem::{Language, is_han};

/// Words in `target` / words with a language, in [0, 1]; 1.0 for a text without words.
///
/// A word of Latin letters is English, each Han character is one Chinese word, a word in another script belongs to neither. Neutral are
/// mathematics, code, tags, numbers, Greek letters, and single Latin letters (they are variables). Spanish in English is not seen.
/// Source: DeepSeek-R1, "Num(Words_target) / Num(Words)".
pub fn share(text: &str, target: Language) -> f64 {
    let (mut en, mut zh, mut other) = (0usize, 0usize, 0usize);
    for piece in pieces(text).filter(|(kind, _)| *kind == Kind::Prose).map(|(_, piece)| piece) {
        let (mut before, mut letters) = (Script::None, 0);
        for c in piece.chars() {
            let script = Script::of(c, before);
            letters = if script == before { letters + 1 } else { 1 };
            match script {
                Script::Han => zh += 1,
                Script::Latin if letters == 2 => en += 1,
                Script::Other if letters == 1 => other += 1,
                _ => {}
            }
            before = script;
        }
    }
    let words = en + zh + other;
    let hits = match target {
        Language::En => en,
        Language::Zh => zh,
    };
    if words == 0 { 1.0 } else { hits as f64 / words as f64 }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Script {
    None,
    Latin,
    Han,
    Other,
}

impl Script {
    /// The script of a character; an apostrophe goes on with the word `before` it.
    fn of(c: char, before: Self) -> Self {
        match c {
            'a'..='z' | 'A'..='Z' | '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' if c.is_alphabetic() => Self::Latin,
            '\'' | '’' => before,
            // Greek, letterlike symbols, mathematical alphanumerics, and letters of units and indices.
            'ª' | 'µ' | 'º' | '\u{370}'..='\u{3ff}' | '\u{2070}'..='\u{214f}' | '\u{1d400}'..='\u{1d7ff}' => Self::None,
            _ if is_han(c) => Self::Han,
            _ if c.is_alphabetic() => Self::Other,
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_counts_words_that_have_a_language() {
        let rows = [
            ("7+4 is 11\n11-2得9", 0.5, 0.5),
            ("<think>7+4 is 11\n</think><answer>11</answer>", 1.0, 0.0),
            ("7+4得11\n", 0.0, 1.0),
            ("", 1.0, 1.0),
            ("7+4=11", 1.0, 1.0),
            ("x + y = α, a² ≤ ℝ", 1.0, 1.0),
            ("$\\text{因为}$ so it's done", 1.0, 0.0),
            ("`因为` because ```\n所以\n``` yes", 1.0, 0.0),
            (r"\frac{1}{2} \quad half", 1.0, 0.0),
            ("设x为3", 0.0, 1.0),
            ("我们 check 一下", 0.2, 0.8),
            ("naïve façade", 1.0, 0.0),
            ("because потому что", 1.0 / 3.0, 0.0),
            ("ok かな", 0.5, 0.0),
            ("a I x", 1.0, 1.0),
        ];
        for (text, en, zh) in rows {
            assert!((share(text, Language::En) - en).abs() < 1e-12, "{text:?} en {}", share(text, Language::En));
            assert!((share(text, Language::Zh) - zh).abs() < 1e-12, "{text:?} zh {}", share(text, Language::Zh));
        }
    }
}
