//! A text cut into prose, mathematics, code and tags, so that measures of language see prose only.

use memchr::{memchr, memchr3};

/// What a piece of text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Prose,
    /// `$…$`, `$$…$$`, `\(…\)`, `\[…\]`, and single LaTeX commands outside of these.
    Math,
    /// Fenced blocks (an unclosed one goes on to the end) and spans between backticks.
    Code,
    /// `<name>` or `</name>`.
    Tag,
}

/// The pieces of `text` in order; together they are `text`.
pub(super) fn pieces(text: &str) -> Pieces<'_> {
    Pieces { text, at: 0, line_end: 0, absent: [0; CLOSERS.len()], ready: None, next: [0; 2], unclosed: 0 }
}

/// Opening mark, closing mark, kind, whether both stand on one line. `$` has a rule of its own.
const CLOSERS: [(&str, &str, Kind, bool); 6] = [
    ("```", "```", Kind::Code, false),
    ("`", "`", Kind::Code, true),
    ("$$", "$$", Kind::Math, false),
    ("\\[", "\\]", Kind::Math, false),
    ("\\(", "\\)", Kind::Math, false),
    ("$", "$", Kind::Math, true),
];
const FENCE: usize = 0;
const TICK: usize = 1;
const DOLLARS: usize = 2;
const DOLLAR: usize = 5;

pub(super) struct Pieces<'a> {
    text: &'a str,
    at: usize,
    /// End of the line last asked for.
    line_end: usize,
    /// Per mark: there is no closing mark before this byte. Keeps the work linear where nothing ever closes.
    absent: [usize; CLOSERS.len()],
    /// A piece that was found behind the prose returned last.
    ready: Option<(Kind, usize)>,
    /// No backtick, dollar or backslash stands before the first of these, no `<` before the second.
    next: [usize; 2],
    unclosed: usize,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = (Kind, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some((kind, end)) = self.ready.take() {
            return Some((kind, self.until(end)));
        }
        let mut look = self.at;
        while let Some(mark) = self.mark(look) {
            look = mark;
            match self.opened(look) {
                Some((kind, end)) if look == self.at => return Some((kind, self.until(end))),
                Some(found) => {
                    self.ready = Some(found);
                    return Some((Kind::Prose, self.until(look)));
                }
                // An escaped dollar or backtick opens nothing.
                None => look += if matches!(self.text.as_bytes().get(look..look + 2), Some(b"\\$" | b"\\`")) { 2 } else { 1 },
            }
        }
        (self.at < self.text.len()).then(|| (Kind::Prose, self.until(self.text.len())))
    }
}

impl<'a> Pieces<'a> {
    /// Marks that opened mathematics or a fence so far and were never closed. A dollar before a digit may be money and is not counted.
    pub(super) fn unclosed(&self) -> usize {
        self.unclosed
    }

    /// The first byte from `from` on that may open something.
    fn mark(&mut self, from: usize) -> Option<usize> {
        let bytes = self.text.as_bytes();
        if self.next[0] < from || from == 0 {
            self.next[0] = memchr3(b'`', b'$', b'\\', &bytes[from..]).map_or(bytes.len(), |i| from + i);
        }
        if self.next[1] < from || from == 0 {
            self.next[1] = memchr(b'<', &bytes[from..]).map_or(bytes.len(), |i| from + i);
        }
        let mark = self.next[0].min(self.next[1]);
        (mark < bytes.len()).then_some(mark)
    }

    fn until(&mut self, end: usize) -> &'a str {
        let piece = &self.text[self.at..end];
        self.at = end;
        piece
    }

    /// The kind and the end of what opens at byte `start`, if anything does.
    fn opened(&mut self, start: usize) -> Option<(Kind, usize)> {
        let rest = &self.text[start..];
        let mark = match *rest.as_bytes() {
            [b'`', b'`', b'`', ..] => FENCE,
            [b'`', ..] => TICK,
            [b'$', b'$', ..] => DOLLARS,
            [b'\\', b'[', ..] => 3,
            [b'\\', b'(', ..] => 4,
            [b'$', ..] => DOLLAR,
            [b'\\', ..] => return command(rest).map(|length| (Kind::Math, start + length)),
            _ => return tag(rest).map(|length| (Kind::Tag, start + length)),
        };
        let from = start + CLOSERS[mark].0.len();
        let closing = self.closing(mark, from);
        if closing.is_none() {
            let is_open = match mark {
                TICK => false,
                DOLLAR => self.text.as_bytes().get(from).is_some_and(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'\\' | b'(')),
                _ => true,
            };
            self.unclosed += usize::from(is_open);
        }
        closing.or((mark == FENCE).then_some(self.text.len())).map(|end| (CLOSERS[mark].2, end))
    }

    /// End of the closing mark that belongs to an opening mark which ends at `from`.
    fn closing(&mut self, mark: usize, from: usize) -> Option<usize> {
        if from < self.absent[mark] {
            return None;
        }
        let (_, close, _, one_line) = CLOSERS[mark];
        let limit = if one_line { self.line_end(from) } else { self.text.len() };
        let found = match mark {
            DOLLAR if !self.text[from..].starts_with(|c: char| !c.is_whitespace()) => return None,
            DOLLAR => {
                let dollars = memchr::memchr_iter(b'$', &self.text.as_bytes()[from..limit]);
                dollars.map(|i| from + i).find(|at| *at > from && self.closes_dollar(*at))
            }
            _ => find(&self.text.as_bytes()[from..limit], close.as_bytes()).map(|i| from + i),
        };
        if found.is_none() {
            self.absent[mark] = limit;
        }
        found.map(|at| at + close.len())
    }

    /// A dollar sign ends mathematics if no white space or backslash stands before it and no digit behind: `$5 and $6` is money.
    fn closes_dollar(&self, at: usize) -> bool {
        let bytes = self.text.as_bytes();
        !bytes[at - 1].is_ascii_whitespace() && bytes[at - 1] != b'\\' && !bytes.get(at + 1).is_some_and(u8::is_ascii_digit)
    }

    fn line_end(&mut self, from: usize) -> usize {
        if self.line_end < from || self.line_end == 0 {
            self.line_end = memchr(b'\n', &self.text.as_bytes()[from..]).map_or(self.text.len(), |i| from + i);
        }
        self.line_end
    }
}

/// Where a mark of one to three bytes stands: by its last byte, which is rarer than a backslash.
fn find(text: &[u8], mark: &[u8]) -> Option<usize> {
    let [.., last] = *mark else { return None };
    let before = mark.len() - 1;
    memchr::memchr_iter(last, text).find(|at| text[..=*at].ends_with(mark)).map(|at| at - before)
}

/// Length of the LaTeX command that `text` opens with, the name of an environment included.
fn command(text: &str) -> Option<usize> {
    let name = text[1..].bytes().take_while(u8::is_ascii_alphabetic).count();
    if name == 0 {
        return None;
    }
    let rest = &text[1 + name..];
    let environment = matches!(&text[1..=name], "begin" | "end") && rest.starts_with('{');
    let argument = if environment { rest.bytes().take(40).position(|byte| byte == b'}').map_or(0, |i| i + 1) } else { 0 };
    Some(1 + name + argument)
}

/// Length of the tag that `text` opens with.
fn tag(text: &str) -> Option<usize> {
    let slash = usize::from(text[1..].starts_with('/'));
    let name = text[1 + slash..].bytes().take(21).take_while(|byte| byte.is_ascii_alphabetic() || *byte == b'_').count();
    let end = 1 + slash + name;
    ((1..=20).contains(&name) && text[end..].starts_with('>')).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        pieces(text)
            .map(|(kind, piece)| match kind {
                Kind::Prose => piece.to_string(),
                Kind::Math => format!("[M {piece}]"),
                Kind::Code => format!("[C {piece}]"),
                Kind::Tag => format!("[T {piece}]"),
            })
            .collect()
    }

    #[test]
    fn mathematics_code_and_tags_are_told_from_prose() {
        let rows = [
            ("", ""),
            ("plain", "plain"),
            ("<think>a</think>b", "[T <think>]a[T </think>]b"),
            ("a < b and c > d", "a < b and c > d"),
            ("so $x+y$ is", "so [M $x+y$] is"),
            ("$5 and $6 more", "$5 and $6 more"),
            ("$5 and he pays $3", "$5 and he pays $3"),
            (r"costs \$5 or \$6", r"costs \$5 or \$6"),
            ("$a\nb$", "$a\nb$"),
            ("$$a\nb$$ c", "[M $$a\nb$$] c"),
            (r"\[a\] b \(c\)", r"[M \[a\]] b [M \(c\)]"),
            (r"\frac{a}{b}", r"[M \frac]{a}{b}"),
            (r"\begin{align}a\end{align}", r"[M \begin{align}]a[M \end{align}]"),
            ("use `len(x)` here", "use [C `len(x)`] here"),
            ("it`s", "it`s"),
            ("a\n```python\nprint()\n``` b", "a\n[C ```python\nprint()\n```] b"),
            ("```never closed", "[C ```never closed]"),
            ("è$é$ç", "è[M $é$]ç"),
            ("$", "$"),
            ("\\", "\\"),
            ("<", "<"),
        ];
        for (text, expect) in rows {
            assert_eq!(shown(text), expect, "{text:?}");
        }
    }

    #[test]
    fn pieces_are_the_text_even_when_nothing_closes() {
        for piece in ["`a", "$a ", "$$ $ a", "\\[", "\\(", "<think", "$a\n", "``", "\\", "é$"] {
            let text = piece.repeat(100_000);
            let start = std::time::Instant::now();
            let joined: String = pieces(&text).map(|(_, piece)| piece).collect();
            assert_eq!(joined.len(), text.len(), "{piece:?}");
            assert!(start.elapsed().as_secs() < 2, "{piece:?} took {:?}", start.elapsed());
        }
    }
}
