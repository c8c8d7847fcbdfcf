//! Whether a person can read a text: named parts, a default rule over them, and a pattern that every line must match.

use super::bytes::{self, Hashes, Run};
use super::pieces::{Kind, pieces};
use crate::problem::Script;
use crate::trace::Reason;
use memchr::memchr_iter;
use memchr::memmem::Finder;
use regex::Regex;

/// What makes a text hard to read, in parts. Spans are byte ranges.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Readability {
    /// Characters of the longest run of lines without a blank one between.
    pub longest_paragraph: usize,
    /// Share of bytes inside code, in [0, 1].
    pub code_share: f64,
    /// `<think>` and `<answer>` tags that were opened and not closed.
    pub unclosed_tags: usize,
    /// `$`, `$$`, `\(`, `\[` and fences without an end, and environments whose `\begin` and `\end` do not pair.
    pub unclosed_latex: usize,
    /// Share of punctuation and symbols among the visible characters of the prose, in [0, 1].
    pub symbol_share: f64,
    /// How often the most frequent line stands, lines shorter than `LINE` characters aside: these return in any proof.
    pub repeated_lines: usize,
    /// Changes of script per word, in [0, 1]; words as in `Prose`. 0 for a text in ASCII, and for fewer than five changes: these may be quotations.
    pub switch_rate: f64,
    #[serde(skip)]
    pub paragraph_span: (usize, usize),
    /// Of the first line that is the most frequent one.
    #[serde(skip)]
    pub line_span: (usize, usize),
}

/// Shortest line, in characters, whose repetition counts.
const LINE: usize = 16;

/// Limits of the default rule: a paragraph as long as a page (500 English words), more code or more symbols than text, a line nine times, a
/// change of script every tenth word. A mark that was not closed may be a slip in ten pages: two are allowed.
const MAX_PARAGRAPH: usize = 4000;
const MAX_CODE_SHARE: f64 = 0.5;
const MAX_UNCLOSED_LATEX: usize = 2;
const MAX_SYMBOL_SHARE: f64 = 0.5;
const MAX_REPEATED_LINES: usize = 8;
const MAX_SWITCH_RATE: f64 = 0.1;

/// Measures all parts.
pub fn measure(text: &str) -> Readability {
    let (mut code, mut prose) = (0usize, Prose::default());
    let (mut think, mut answer) = (0usize, 0usize);
    let mut pieces = pieces(text);
    for (kind, piece) in pieces.by_ref() {
        match (kind, piece) {
            (Kind::Code, _) => code += piece.len(),
            (Kind::Prose, _) => prose.read(piece),
            (Kind::Tag, "<think>") => think += 1,
            (Kind::Tag, "</think>") => think = think.saturating_sub(1),
            (Kind::Tag, "<answer>") => answer += 1,
            (Kind::Tag, "</answer>") => answer = answer.saturating_sub(1),
            (Kind::Tag | Kind::Math, _) => {}
        }
    }
    let share = |part: usize, whole: usize| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let ((longest_paragraph, paragraph_span), (repeated_lines, line_span)) = lines(text);
    Readability {
        longest_paragraph,
        code_share: share(code, text.len()),
        unclosed_tags: think + answer,
        unclosed_latex: pieces.unclosed() + unpaired_environments(text),
        symbol_share: share(prose.symbols, prose.visible),
        repeated_lines,
        switch_rate: prose.switch_rate(),
        paragraph_span,
        line_span,
    }
}

fn unpaired_environments(text: &str) -> usize {
    let count = |mark: &str| Finder::new(mark).find_iter(text.as_bytes()).count();
    count("\\begin{").abs_diff(count("\\end{"))
}

/// A number that belongs to a stretch of text.
type Placed = (usize, (usize, usize));

/// The longest paragraph in characters, and how often the most frequent line stands.
fn lines(text: &str) -> (Placed, Placed) {
    let ascii = text.is_ascii();
    let (mut paragraph, mut begin, mut longest) = (0, 0, (0, (0, 0)));
    let mut counts: Hashes<(usize, usize)> = Hashes::default();
    let mut frequent = (0, (0, 0));
    let mut start = 0;
    for end in memchr_iter(b'\n', text.as_bytes()).chain([text.len()]) {
        let line = text[start..end].trim();
        let length = if ascii { line.len() } else { bytes::characters(line) };
        if length == 0 {
            paragraph = 0;
        } else {
            if paragraph == 0 {
                begin = start;
            }
            paragraph += length;
        }
        if paragraph > longest.0 {
            longest = (paragraph, (begin, end));
        }
        if length >= LINE {
            let (count, first) = counts.entry(bytes::hash(line.as_bytes())).or_insert((0, start));
            *count += 1;
            if *count > frequent.0 {
                frequent = (*count, (*first, *first + line.len()));
            }
        }
        start = end + 1;
    }
    (longest, frequent)
}

/// Counts symbols, and changes between scripts over the words that show one: Latin words of four letters or more, so that `sin`, `ABC` and `km` are
/// none, Han characters, and words in any other script.
#[derive(Default)]
struct Prose {
    visible: usize,
    symbols: usize,
    before: Writing,
    /// Bytes in ASCII: English words are six of them, with the space.
    ascii: usize,
    others: usize,
    switches: usize,
}

/// What the last word was written in.
#[derive(Clone, Copy, Default, PartialEq)]
enum Writing {
    #[default]
    Unknown,
    Latin,
    /// Kana belong to it: with Han they are one way of writing.
    Han,
    Other,
}

impl Prose {
    fn read(&mut self, piece: &str) {
        let mut inside = Script::None;
        for run in bytes::runs(piece) {
            let script = match run {
                Run::Ascii(run) => {
                    self.ascii_run(run);
                    Script::None
                }
                Run::Han => {
                    self.visible += 1;
                    self.word(Writing::Han);
                    Script::Han
                }
                Run::Other(c) => {
                    let visible = !c.is_whitespace();
                    self.visible += usize::from(visible);
                    self.symbols += usize::from(visible && !bytes::is_alphanumeric(c));
                    let script = Script::of(c);
                    match script {
                        Script::None | Script::Latin => {}
                        Script::Han => self.word(Writing::Han),
                        Script::Kana if script != inside => self.word(Writing::Han),
                        _ if script != inside => self.word(Writing::Other),
                        _ => {}
                    }
                    script
                }
            };
            inside = script;
        }
    }

    fn ascii_run(&mut self, run: &[u8]) {
        let (visible, symbols) = bytes::visible_and_symbols(run);
        self.visible += visible;
        self.symbols += symbols;
        self.ascii += run.len();
        if self.before == Writing::Latin {
            return;
        }
        let has_word = run.windows(4).any(|w| w.iter().all(u8::is_ascii_alphabetic));
        if has_word {
            self.switches += usize::from(self.before != Writing::Unknown);
            self.before = Writing::Latin;
        }
    }

    fn word(&mut self, script: Writing) {
        self.others += 1;
        self.switches += usize::from(self.before != script && self.before != Writing::Unknown);
        self.before = script;
    }

    fn switch_rate(&self) -> f64 {
        let words = self.others + self.ascii / 6;
        if words < 2 || self.switches < 5 { 0.0 } else { (self.switches as f64 / (words - 1) as f64).min(1.0) }
    }
}

/// The default rule: every part within its limit; the error names the first part that is not, and where it is if it has a place.
pub fn is_readable(parts: &Readability) -> Result<(), Reason> {
    let rows = [
        ("longest_paragraph", parts.longest_paragraph as f64, MAX_PARAGRAPH as f64, Some(parts.paragraph_span)),
        ("code_share", parts.code_share, MAX_CODE_SHARE, None),
        ("unclosed_tags", parts.unclosed_tags as f64, 0.0, None),
        ("unclosed_latex", parts.unclosed_latex as f64, MAX_UNCLOSED_LATEX as f64, None),
        ("symbol_share", parts.symbol_share, MAX_SYMBOL_SHARE, None),
        ("repeated_lines", parts.repeated_lines as f64, MAX_REPEATED_LINES as f64, Some(parts.line_span)),
        ("switch_rate", parts.switch_rate, MAX_SWITCH_RATE, None),
    ];
    match rows.into_iter().find(|(_, value, limit, _)| value > limit) {
        Some((part, value, limit, span)) => {
            Err(Reason { span, ..Reason::measured(format!("readable.{part}"), value, format!("at most {limit}")) })
        }
        None => Ok(()),
    }
}

/// Whether every non-empty line of `text`, white space at its end aside, matches `pattern`. A text without lines does not.
pub fn lines_match(text: &str, pattern: &Regex) -> bool {
    text.lines().any(|line| !line.trim().is_empty()) && first_other_line(text, pattern).is_none()
}

/// The first non-empty line that does not match.
pub fn first_other_line<'a>(text: &'a str, pattern: &Regex) -> Option<&'a str> {
    text.lines().map(str::trim_end).find(|line| !line.is_empty() && !pattern.is_match(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_counted() {
        let row = |text: &str| {
            let m = measure(text);
            (m.longest_paragraph, m.unclosed_tags, m.repeated_lines)
        };
        assert_eq!(row(""), (0, 0, 0));
        assert_eq!(row("ab\ncd\n\nefg\n"), (4, 0, 0));
        assert_eq!(row("等等\n好"), (3, 0, 0));
        assert_eq!(row("<think>a</think><answer>b</answer>").1, 0);
        assert_eq!(row("<think>a<answer>b").1, 2);
        assert_eq!(row("a</think>b").1, 0);
        assert_eq!(row("the same long line\n\n  the same long line\nother\nother\nother").2, 2);
        let m = measure("`abcd` x+y");
        assert!((m.code_share - 0.6).abs() < 1e-12 && (m.symbol_share - 1.0 / 3.0).abs() < 1e-12, "{m:?}");
        assert_eq!(measure(r"\[ x^2 + y^2 \]").symbol_share, 0.0);
    }

    #[test]
    fn the_default_rule_names_the_part_that_fails() {
        let rows = [
            ("7+4 is 11\n11-2 is 9".to_string(), None),
            ("word ".repeat(801), Some("readable.longest_paragraph")),
            (format!("so\n```\n{}", "x = 1\n".repeat(9)), Some("readable.code_share")),
            ("<think>never closed".into(), Some("readable.unclosed_tags")),
            ("a !?!?#@!".into(), Some("readable.symbol_share")),
            ("therefore it is so.\n\n".repeat(9), Some("readable.repeated_lines")),
            ("therefore it is so.\n\n".repeat(8), None),
        ];
        for (text, expect) in rows {
            let rule = is_readable(&measure(&text)).err().map(|reason| reason.rule);
            assert_eq!(rule.as_deref(), expect, "{text:?}");
        }
    }

    #[test]
    fn every_line_must_match() {
        let pattern = Regex::new(r"^\d+[+\-*]\d+( is |得)\d+$").expect("a pattern");
        let rows = [
            ("7+4 is 11\n11-2得9\n", true),
            ("\n7+4 is 11\n\n11-2 is 9", true),
            ("7+4 is 11\nso 9", false),
            ("7+4 is 11 or 12", false),
            ("", false),
            ("\n \n", false),
        ];
        for (text, expect) in rows {
            assert_eq!(lines_match(text, &pattern), expect, "{text:?}");
        }
        assert_eq!(first_other_line("7+4 is 11\nso 9\nx", &pattern), Some("so 9"));
    }

    #[test]
    fn real_reasoning_is_readable() {
        let Ok(folder) = std::env::var("DISTILL_DATA") else {
            eprintln!("skipped: DISTILL_DATA is unset (readability of real traces)");
            return;
        };
        let text = std::fs::read_to_string(format!("{folder}/traces/r1_math500_traces.jsonl")).expect("the data folder holds the file");
        let mut dropped: Vec<String> = Vec::new();
        for line in text.lines() {
            let row: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
            dropped.extend(is_readable(&measure(row["response"].as_str().expect("text"))).err().map(|reason| reason.rule));
        }
        dropped.sort();
        assert_eq!(dropped, ["readable.longest_paragraph", "readable.longest_paragraph", "readable.repeated_lines"]);
    }
}
