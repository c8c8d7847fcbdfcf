//! Which languages a text is in, word by word: R1's language consistency, and where another language stands.
//!
//! Neutral are mathematics, code, LaTeX, tags, numbers, single letters and names. Scripts are told by their letters, languages in Latin letters by
//! frequent words (`problem/words.rs`) and endings, a sentence at a time: a stretch is foreign only where that explains its words better than
//! loan words would. Of languages that share a script (Russian and Ukrainian, Arabic and Persian) the second is told only by letters of its own.

use super::pieces::{Kind, pieces};
use crate::problem::{LATIN, Language, Script};

mod latin;

/// The languages of one text.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct LanguageMix {
    pub target: Language,
    /// Words in `target` / words with a language, in [0, 1]; `None` where no word has a language: the text is neutral.
    pub share: Option<f64>,
    /// Words that have a language. A Han character is one word.
    pub words: usize,
    /// Words that are not in the language of the word before them.
    pub switches: usize,
    /// Stretches in another language, in order. Single words of another language in Latin letters are none: they may be loan words.
    pub foreign: Vec<Foreign>,
}

/// A stretch of text in another language than the target.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Foreign {
    /// Byte range, from the first letter to the last.
    pub span: (usize, usize),
    /// `None` for a language or script that has no name here.
    pub language: Option<Language>,
    pub words: usize,
}

impl LanguageMix {
    /// Changes of language per word, in [0, 1].
    pub fn switch_rate(&self) -> f64 {
        if self.words < 2 { 0.0 } else { self.switches as f64 / (self.words - 1) as f64 }
    }
}

/// Words in `target` / words with a language, in [0, 1]; 1.0 for a text without words.
///
/// Source: DeepSeek-R1, "Num(Words_target) / Num(Words)".
pub fn share(text: &str, target: Language) -> f64 {
    measure(text, target).share.unwrap_or(1.0)
}

/// Measures the languages of `text`. Linear in its length.
pub fn measure(text: &str, target: Language) -> LanguageMix {
    let mut scan = Scan::new(text, target);
    let mut at = 0;
    for (kind, piece) in pieces(text) {
        if kind == Kind::Prose {
            scan.prose(at, at + piece.len());
        }
        at += piece.len();
    }
    scan.end_sentence();
    scan.tally.finish()
}

/// A word before its sentence is understood.
#[derive(Clone, Copy)]
struct Word {
    start: usize,
    end: usize,
    kind: WordKind,
}

#[derive(Clone, Copy)]
enum WordKind {
    Latin(latin::Evidence),
    Han,
    Told(Option<Language>),
}

struct Scan<'a> {
    text: &'a str,
    words: Vec<Word>,
    /// Kana and Han characters of the sentence.
    kana: usize,
    han: usize,
    latin: latin::Latin,
    tally: Tally,
}

impl<'a> Scan<'a> {
    fn new(text: &'a str, target: Language) -> Self {
        Self { text, words: Vec::new(), kana: 0, han: 0, latin: latin::Latin::new(target), tally: Tally::new(target) }
    }

    /// Reads the words of one piece of prose. A sentence goes on behind mathematics.
    fn prose(&mut self, start: usize, end: usize) {
        let bytes = self.text.as_bytes();
        let mut at = start;
        while at < end {
            match bytes[at] {
                b'a'..=b'z' | b'A'..=b'Z' => at = self.latin_word(at, end),
                b'\n' | b'.' | b'!' | b'?' => {
                    self.end_sentence();
                    at += 1;
                }
                byte if byte < 0x80 => at += 1,
                _ => at = self.other(at, end),
            }
        }
    }

    fn latin_word(&mut self, start: usize, limit: usize) -> usize {
        let end = latin::word_end(self.text, start, limit);
        if let Some(evidence) = self.latin.evidence(self.text.as_bytes(), start, end) {
            self.words.push(Word { start, end, kind: WordKind::Latin(evidence) });
        }
        end
    }

    /// A character beyond ASCII and the rest of its word.
    fn other(&mut self, start: usize, limit: usize) -> usize {
        let rest = &self.text[start..limit];
        let Some(c) = rest.chars().next() else { return limit };
        let script = Script::of(c);
        match script {
            Script::Latin => return self.latin_word(start, limit),
            Script::Han => {
                self.han += 1;
                self.words.push(Word { start, end: start + c.len_utf8(), kind: WordKind::Han });
                return start + c.len_utf8();
            }
            Script::None => {
                if matches!(c, '。' | '！' | '？' | '؟' | '।') {
                    self.end_sentence();
                }
                return start + c.len_utf8();
            }
            _ => {}
        }
        let (mut end, mut letters, mut language) = (start, 0, of_script(script));
        for c in rest.chars().take_while(|c| Script::of(*c) == script) {
            end += c.len_utf8();
            letters += 1;
            // Letters of Ukrainian, of Persian and Urdu.
            if matches!(c, 'і' | 'ї' | 'є' | 'ґ' | 'پ' | 'چ' | 'ژ' | 'گ' | 'ک' | 'ی') {
                language = None;
            }
        }
        if script == Script::Kana {
            self.kana += letters;
        }
        // A single letter of an alphabet is a name in mathematics; a kana or a syllable of Hangul is a word.
        if letters > 1 || matches!(script, Script::Kana | Script::Hangul) {
            self.words.push(Word { start, end, kind: WordKind::Told(language) });
        }
        end
    }

    /// Gives every word of the sentence its language.
    fn end_sentence(&mut self) {
        if self.words.is_empty() {
            return;
        }
        let han = self.language_of_han();
        let has_latin = self.latin.resolve(self.words.iter().filter_map(|word| match word.kind {
            WordKind::Latin(evidence) => Some(evidence),
            _ => None,
        }));
        let mut latin = 0;
        for word in self.words.drain(..) {
            match word.kind {
                WordKind::Latin(evidence) => {
                    let language = if has_latin { self.latin.language(latin) } else { self.latin.base() };
                    latin += 1;
                    self.tally.word(word.start, word.end, Some(language), evidence.is_known());
                }
                WordKind::Han => self.tally.word(word.start, word.end, Some(han), true),
                WordKind::Told(language) => self.tally.word(word.start, word.end, language, true),
            }
        }
        (self.kana, self.han) = (0, 0);
    }

    /// Han characters are Japanese beside enough kana, and in Japanese text where they are too few to be a sentence.
    fn language_of_han(&self) -> Language {
        let few = self.tally.target == Language::Ja && self.kana == 0 && self.han <= 6;
        if few || self.kana > 0 && self.kana * 4 >= self.han { Language::Ja } else { Language::Zh }
    }
}

fn of_script(script: Script) -> Option<Language> {
    match script {
        Script::Kana => Some(Language::Ja),
        Script::Hangul => Some(Language::Ko),
        Script::Cyrillic => Some(Language::Ru),
        Script::Arabic => Some(Language::Ar),
        Script::Devanagari => Some(Language::Hi),
        _ => None,
    }
}

/// Counts words as they come and gathers foreign ones into stretches.
struct Tally {
    target: Language,
    words: usize,
    hits: usize,
    switches: usize,
    before: Option<Option<Language>>,
    foreign: Vec<Foreign>,
    open: Option<Open>,
}

/// A foreign stretch that may go on.
struct Open {
    found: Foreign,
    known: usize,
}

impl Tally {
    fn new(target: Language) -> Self {
        Self { target, words: 0, hits: 0, switches: 0, before: None, foreign: Vec::new(), open: None }
    }

    fn word(&mut self, start: usize, end: usize, language: Option<Language>, known: bool) {
        self.words += 1;
        self.switches += usize::from(self.before.is_some_and(|before| before != language));
        self.before = Some(language);
        if language == Some(self.target) {
            self.hits += 1;
            self.close();
            return;
        }
        if self.open.as_ref().is_some_and(|open| open.found.language != language) {
            self.close();
        }
        let open = self.open.get_or_insert(Open { found: Foreign { span: (start, end), language, words: 0 }, known: 0 });
        open.found.span.1 = end;
        open.found.words += 1;
        open.known += usize::from(known);
    }

    /// Keeps the stretch if it is one. Between Latin languages the sentence was weighed before; Latin words in another script need to be three, two of
    /// them frequent ones: fewer are terms and loan words.
    fn close(&mut self) {
        let Some(Open { found, known }) = self.open.take() else { return };
        let is_latin = |language| LATIN.contains(&language);
        let across = found.language.is_some_and(is_latin) && !is_latin(self.target);
        if !across || found.words >= 3 && known >= 2 {
            self.foreign.push(found);
        }
    }

    fn finish(mut self) -> LanguageMix {
        self.close();
        let share = (self.words > 0).then(|| self.hits as f64 / self.words as f64);
        LanguageMix { target: self.target, share, words: self.words, switches: self.switches, foreign: self.foreign }
    }
}

#[cfg(test)]
mod tests;
