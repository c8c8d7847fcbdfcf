//! Languages of questions and answers, and what letters say about them.
//!
//! Measuring a whole response is `measure/language.rs`; here is what a question needs to be given a language.

use super::words;
use serde::{Deserialize, Serialize};

/// Natural language of a question, the target of the language-consistency measure. Serialised by its ISO 639-1 code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    En,
    Zh,
    Ru,
    Ar,
    Es,
    Fr,
    De,
    Ja,
    Ko,
    Hi,
}

impl Language {
    pub const ALL: [Self; 10] = [Self::En, Self::Zh, Self::Ru, Self::Ar, Self::Es, Self::Fr, Self::De, Self::Ja, Self::Ko, Self::Hi];

    /// ISO 639-1.
    pub fn code(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh",
            Self::Ru => "ru",
            Self::Ar => "ar",
            Self::Es => "es",
            Self::Fr => "fr",
            Self::De => "de",
            Self::Ja => "ja",
            Self::Ko => "ko",
            Self::Hi => "hi",
        }
    }

    /// The language a question is written in: the one with most words, English where there are none.
    ///
    /// Latin words count where a list holds them (`words.rs`), so that variables, commands and names do not outvote a few Chinese characters; each
    /// of these counts as two words, since a question that has any is rarely in another language.
    pub fn of_question(text: &str) -> Self {
        let (mut latin, mut han, mut kana) = ([0usize; words::LATIN.len()], 0, 0);
        let (mut scripts, mut any_latin) = ([0usize; 4], 0);
        let mut start = None;
        let mut before = Script::None;
        for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
            let script = Script::of(c);
            match (script, start) {
                (Script::Latin, None) => start = Some(at),
                (Script::Latin, Some(_)) => {}
                (_, Some(from)) => {
                    let mask = if at - from < 2 || text[..from].ends_with('\\') { 0 } else { words::languages(&text.as_bytes()[from..at]) };
                    any_latin += usize::from(mask != 0);
                    (0..latin.len()).filter(|bit| mask >> bit & 1 == 1).for_each(|bit| latin[bit] += 1);
                    start = None;
                }
                _ => {}
            }
            let begins = script != before;
            match script {
                Script::Han => han += 1,
                Script::Kana => kana += 1,
                Script::Cyrillic if begins => scripts[0] += 1,
                Script::Arabic if begins => scripts[1] += 1,
                Script::Hangul if begins => scripts[2] += 1,
                Script::Devanagari if begins => scripts[3] += 1,
                _ => {}
            }
            before = script;
        }
        let east = if kana * 4 >= han.max(1) { Self::Ja } else { Self::Zh };
        let rows =
            [(east, 2 * (han + kana)), (Self::Ru, scripts[0]), (Self::Ar, scripts[1]), (Self::Ko, scripts[2]), (Self::Hi, scripts[3])];
        let (language, count) = rows.into_iter().rev().max_by_key(|(_, count)| *count).unwrap_or((Self::En, 0));
        if count > 0 && count >= any_latin {
            return language;
        }
        (0..latin.len()).rev().max_by_key(|bit| latin[*bit]).map_or(Self::En, |bit| words::LATIN[bit])
    }
}

/// Whether `c` is a Han character (unified ideographs with extension A and the compatibility block).
pub fn is_han(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

/// What a letter says about the language of its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// No letter of a language: digits, punctuation, and the letters of mathematics (Greek, letterlike, indices, units).
    None,
    Latin,
    Han,
    Kana,
    Hangul,
    Cyrillic,
    Arabic,
    Devanagari,
    Other,
}

impl Script {
    pub fn of(c: char) -> Self {
        match c {
            'a'..='z' | 'A'..='Z' => Self::Latin,
            '\0'..='\u{bf}' | '×' | '÷' => Self::None,
            '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' => Self::Latin,
            // Greek, letterlike symbols, mathematical alphanumerics, and letters of units and indices.
            '\u{2b0}'..='\u{3ff}' | '\u{1d00}'..='\u{1dff}' | '\u{2000}'..='\u{214f}' | '\u{1d400}'..='\u{1d7ff}' => Self::None,
            '\u{400}'..='\u{52f}' => Self::Cyrillic,
            '\u{600}'..='\u{6ff}' | '\u{750}'..='\u{77f}' | '\u{8a0}'..='\u{8ff}' | '\u{fb50}'..='\u{fdff}' | '\u{fe70}'..='\u{feff}' => {
                if c.is_alphabetic() {
                    Self::Arabic
                } else {
                    Self::None
                }
            }
            '\u{900}'..='\u{97f}' => {
                if c.is_numeric() || matches!(c, '।' | '॥') {
                    Self::None
                } else {
                    Self::Devanagari
                }
            }
            '\u{3041}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{ff66}'..='\u{ff9f}' => {
                if c.is_alphabetic() {
                    Self::Kana
                } else {
                    Self::None
                }
            }
            '\u{1100}'..='\u{11ff}' | '\u{3130}'..='\u{318f}' | '\u{ac00}'..='\u{d7af}' => Self::Hangul,
            _ if is_han(c) => Self::Han,
            _ if c.is_alphabetic() && c > '\u{250}' => Self::Other,
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_has_the_language_of_most_of_its_words() {
        let rows = [
            ("what is 7+4", Language::En),
            ("计算7+4", Language::Zh),
            ("", Language::En),
            ("2x + 3y = 7", Language::En),
            ("求 $\\sin x + \\cos x$ 的最大值", Language::Zh),
            ("Alice 有 3 个苹果，Bob 有 5 个，一共有多少个？", Language::Zh),
            ("Translate the word 你好 into English and say how it is spoken.", Language::En),
            ("Сколько будет 7+4?", Language::Ru),
            ("ما هو ناتج 7+4؟", Language::Ar),
            ("りんごを3個持っています。全部で何個ですか。", Language::Ja),
            ("사과가 3개 있습니다. 모두 몇 개입니까?", Language::Ko),
            ("मेरे पास 3 सेब हैं। कुल कितने सेब हैं?", Language::Hi),
            ("¿Cuántas manzanas tiene Ana si compra 3 más?", Language::Es),
            ("Combien de pommes reste-t-il si Paul en mange deux ?", Language::Fr),
            ("Wie viele Äpfel hat Anna, wenn sie drei kauft?", Language::De),
            ("Find all real x with x^2 = 2.", Language::En),
        ];
        for (text, expect) in rows {
            assert_eq!(Language::of_question(text), expect, "{text:?}");
        }
    }

    #[test]
    fn codes_are_what_is_stored() {
        for language in Language::ALL {
            assert_eq!(serde_json::to_value(language).expect("a code"), language.code());
        }
    }
}
