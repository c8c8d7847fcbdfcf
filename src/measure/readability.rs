//! Whether a person can read a text: named parts, a default rule over them, and a pattern that every line must match.

use super::pieces::{Kind, pieces};
use crate::trace::Reason;
use regex::Regex;
use std::collections::HashMap;

/// What makes a text hard to read, in parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Readability {
    /// Characters of the longest run of lines without a blank one between.
    pub longest_paragraph: usize,
    /// Share of characters inside code, in [0, 1].
    pub code_share: f64,
    /// `<think>` and `<answer>` tags that were opened and not closed.
    pub unclosed_tags: usize,
    /// Share of punctuation and symbols among the visible characters of the prose, in [0, 1].
    pub symbol_share: f64,
    /// How often the most frequent line stands, lines shorter than `LINE` characters aside: these return in any proof.
    pub repeated_lines: usize,
}

/// Shortest line, in characters, whose repetition counts.
const LINE: usize = 16;

/// Limits of the default rule. Of 60 traces of R1 and its distilled models on MATH, they drop two with a paragraph as long as a page and one that
/// runs in a loop.
const MAX_PARAGRAPH: usize = 4000;
const MAX_CODE_SHARE: f64 = 0.5;
const MAX_SYMBOL_SHARE: f64 = 0.5;
const MAX_REPEATED_LINES: usize = 8;

/// Measures all parts.
pub fn measure(text: &str) -> Readability {
    let (mut all, mut code, mut visible, mut symbols) = (0usize, 0usize, 0usize, 0usize);
    let (mut think, mut answer) = (0usize, 0usize);
    for (kind, piece) in pieces(text) {
        let length = piece.chars().count();
        all += length;
        match (kind, piece) {
            (Kind::Code, _) => code += length,
            (Kind::Prose, _) => {
                visible += piece.chars().filter(|c| !c.is_whitespace()).count();
                symbols += piece.chars().filter(|c| !c.is_whitespace() && !c.is_alphanumeric()).count();
            }
            (Kind::Tag, "<think>") => think += 1,
            (Kind::Tag, "</think>") => think = think.saturating_sub(1),
            (Kind::Tag, "<answer>") => answer += 1,
            (Kind::Tag, "</answer>") => answer = answer.saturating_sub(1),
            (Kind::Tag | Kind::Math, _) => {}
        }
    }
    let share = |part: usize, whole: usize| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let (longest_paragraph, repeated_lines) = lines(text);
    Readability {
        longest_paragraph,
        code_share: share(code, all),
        unclosed_tags: think + answer,
        symbol_share: share(symbols, visible),
        repeated_lines,
    }
}

/// The longest paragraph in characters, and how often the most frequent line stands.
fn lines(text: &str) -> (usize, usize) {
    let (mut paragraph, mut longest) = (0, 0);
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for line in text.lines().map(str::trim) {
        let length = line.chars().count();
        paragraph = if length == 0 { 0 } else { paragraph + length };
        longest = longest.max(paragraph);
        if length >= LINE {
            *counts.entry(line).or_default() += 1;
        }
    }
    (longest, counts.into_values().max().unwrap_or(0))
}

/// The default rule: every part within its limit; the error names the first part that is not.
pub fn is_readable(parts: &Readability) -> Result<(), Reason> {
    let rows = [
        ("longest_paragraph", parts.longest_paragraph as f64, MAX_PARAGRAPH as f64),
        ("code_share", parts.code_share, MAX_CODE_SHARE),
        ("unclosed_tags", parts.unclosed_tags as f64, 0.0),
        ("symbol_share", parts.symbol_share, MAX_SYMBOL_SHARE),
        ("repeated_lines", parts.repeated_lines as f64, MAX_REPEATED_LINES as f64),
    ];
    match rows.into_iter().find(|(_, value, limit)| value > limit) {
        Some((part, value, limit)) => Err(Reason::measured(format!("readable.{part}"), value, format!("at most {limit}"))),
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
