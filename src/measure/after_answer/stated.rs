//! Where a text states an answer: boxes, answer tags, and "the answer is".

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use std::sync::LazyLock;

/// An answer as it stands in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stated {
    /// Byte range of the answer itself, without box, tag or dollar signs.
    pub span: (usize, usize),
    pub boxed: bool,
}

/// The marks; the first two have an end of their own.
const MARKS: [&str; 9] =
    ["\\boxed{", "<answer>", "answer is", "answer should be", "answer would be", "answer must be", "final answer:", "答案是", "答案为"];

static FINDER: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .kind(Some(AhoCorasickKind::DFA))
        .build(MARKS)
        .expect("the marks are constants that the tests build")
});

/// Longest answer in bytes, so that the work stays linear where marks are nested or never end.
const LONGEST: usize = 200;

/// All answers of a text in order. An answer with no digit and no formula behind "the answer is" is talk, not an answer.
pub fn stated(text: &str) -> Vec<Stated> {
    let mut found: Vec<Stated> = Vec::new();
    for hit in FINDER.find_iter(text) {
        let mark = hit.pattern().as_usize();
        // The limit may fall into a character.
        let limit = (hit.end()..=text.len().min(hit.end() + LONGEST)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(hit.end());
        let rest = &text[hit.end()..limit];
        let length = match mark {
            0 => closing_brace(rest),
            1 => rest.find("</answer>"),
            _ => sentence(rest),
        };
        let Some(span) = length.and_then(|length| unwrapped(text, hit.end(), hit.end() + length)) else { continue };
        let span = if mark < 2 { span } else { without_hedge(text, span) };
        let answer = &text[span.0..span.1];
        let is_answer = mark < 2 || answer.len() <= 60 && (answer.contains(|c: char| c.is_ascii_digit()) || answer.starts_with('\\'));
        // "The answer is \boxed{3}" is one answer.
        if is_answer && !(mark >= 2 && answer.contains(MARKS[0])) {
            found.push(Stated { span, boxed: mark == 0 });
        }
    }
    found
}

fn closing_brace(rest: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Up to the end of the sentence or of the line; a point inside a number is none.
fn sentence(rest: &str) -> Option<usize> {
    let bytes = rest.as_bytes();
    let ends = |at: usize| match bytes[at] {
        b'\n' | b'!' | b'?' | b';' => true,
        b'.' | b',' => !bytes.get(at + 1).is_some_and(u8::is_ascii_digit),
        0xe3 | 0xef => rest[at..].starts_with(['。', '，', '；', '！']),
        _ => false,
    };
    Some((0..bytes.len()).find(|at| ends(*at)).unwrap_or(bytes.len()))
}

/// Without white space, dollar signs, `\(`, stars and colons at the ends.
fn unwrapped(text: &str, start: usize, end: usize) -> Option<(usize, usize)> {
    let (mut start, mut end) = (start, end);
    loop {
        let part = &text[start..end];
        let front = part.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '$' | '*' | ':' | '：'));
        let front = front.strip_prefix("\\(").or_else(|| front.strip_prefix("\\[")).unwrap_or(front);
        let back = front.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '$' | '*'));
        let back = back.strip_suffix("\\)").or_else(|| back.strip_suffix("\\]")).unwrap_or(back);
        if back.len() == part.len() {
            return (!part.is_empty()).then_some((start, end));
        }
        start = end - front.len();
        end = start + back.len();
    }
}

/// Without words that say how sure the text is.
fn without_hedge(text: &str, (start, end): (usize, usize)) -> (usize, usize) {
    const HEDGES: [&str; 10] =
        ["likely ", "probably ", "indeed ", "simply ", "just ", "still ", "therefore ", "actually ", "approximately ", "about "];
    let hedge = HEDGES.iter().find(|hedge| text[start..end].starts_with(**hedge));
    (start + hedge.map_or(0, |hedge| hedge.len()), end)
}
