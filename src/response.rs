//! A response taken apart: think part, answer part, boxes and tags.
//!
//! Pure text work over untrusted model output: total over all strings, never an error. It does not judge anything; `verify/`,
//! `measure/` and `reward.rs` read the parts they need from here, so that all of them see the same parts.

/// A view of one response; all parts are slices of `text`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// The whole response, a prefilled `<think>` included.
    pub text: &'a str,
    /// Inside of the think part; `None` when there is no `<think>` and no `</think>`.
    pub think: Option<&'a str>,
    /// Text after the last `</think>`; the whole text where no think part was opened; empty while one is open.
    pub answer: &'a str,
    /// A `<think>` was opened and never closed, so there is no answer part.
    pub think_open: bool,
}

impl<'a> Response<'a> {
    /// Takes `text` apart.
    ///
    /// Only what follows the last `</think>` is the answer part: a boxed value inside the reasoning is not an answer.
    pub fn parse(text: &'a str) -> Self {
        const OPEN: &str = "<think>";
        const CLOSE: &str = "</think>";
        let open = text.find(OPEN);
        match (open, text.rfind(CLOSE)) {
            (_, Some(close)) if text[close + CLOSE.len()..].contains(OPEN) => {
                let start = open.filter(|o| *o < close).map_or(0, |o| o + OPEN.len());
                Self { text, think: Some(&text[start..]), answer: "", think_open: true }
            }
            (open, Some(close)) => {
                let start = open.filter(|o| *o < close).map_or(0, |o| o + OPEN.len());
                Self { text, think: Some(&text[start..close]), answer: &text[close + CLOSE.len()..], think_open: false }
            }
            (Some(open), None) => Self { text, think: Some(&text[open + OPEN.len()..]), answer: "", think_open: true },
            (None, None) => Self { text, think: None, answer: text, think_open: false },
        }
    }

    /// Inside of the last `\boxed{…}` or `\fbox{…}` of the answer part, braces balanced; `None` when there is no closed one.
    pub fn boxed(&self) -> Option<&'a str> {
        boxes(self.answer).last().map(|(start, end)| &self.answer[*start..*end])
    }

    /// Inside of the last closed `<tag>…</tag>` of the answer part, untrimmed.
    pub fn tag(&self, tag: &str) -> Option<&'a str> {
        let close = self.answer.rfind(&format!("</{tag}>"))?;
        let open = format!("<{tag}>");
        let start = self.answer[..close].rfind(&open)? + open.len();
        Some(&self.answer[start..close])
    }

    /// Whether the response is `<think>…</think>` then `<answer>…</answer>`, each tag exactly once, nothing but white space around.
    ///
    /// This is the format of R1-Zero's template ("DeepSeek-R1", table 1).
    pub fn is_think_answer(&self) -> bool {
        let text = self.text.trim();
        let mut rest = text;
        for tag in ["<think>", "</think>", "<answer>", "</answer>"] {
            if text.matches(tag).count() != 1 {
                return false;
            }
            let Some(at) = rest.find(tag) else { return false };
            let between = rest[..at].trim();
            if (tag == "<think>" || tag == "<answer>") && !between.is_empty() {
                return false;
            }
            rest = &rest[at + tag.len()..];
        }
        rest.is_empty()
    }
}

/// Where the inside of each closed `\boxed{…}` and `\fbox{…}` starts and ends, in the order of their starts; `\{` and `\}` are no braces.
///
/// One pass: a box that never closes costs no scan of its own, however many there are.
pub fn boxes(text: &str) -> Vec<(usize, usize)> {
    let bytes = text.as_bytes();
    let command = |at: usize| ["\\boxed", "\\fbox"].iter().find(|name| bytes[at..].starts_with(name.as_bytes())).map(|name| name.len());
    let mut open: Vec<(usize, bool)> = Vec::new(); // where the inside of each open group starts, and whether a box opened it
    let mut found: Vec<(usize, usize)> = Vec::new();
    let (mut i, mut boxed) = (0, false); // boxed: between `i` and the box command before it is only white space
    while i < bytes.len() {
        // Nothing but braces and backslashes matters; outside of groups only a box does.
        match bytes[i..].iter().position(|b| matches!(b, b'\\' | b'{' | b'}')) {
            Some(skip) => {
                boxed &= bytes[i..i + skip].iter().all(u8::is_ascii_whitespace);
                i += skip;
            }
            None => break,
        }
        if let Some(length) = command(i) {
            (i, boxed) = (i + length, true);
            continue;
        }
        match bytes[i] {
            b'{' => open.push((i + 1, boxed)),
            b'}' => {
                if let Some((start, true)) = open.pop() {
                    found.push((start, i));
                }
            }
            _ => {}
        }
        boxed = false;
        // What a backslash escapes is skipped, unless it is itself the start of a box: `\\boxed{5}` is a box after a line break.
        let escapes = bytes[i] == b'\\' && command((i + 1).min(bytes.len())).is_none();
        i += if escapes { 2 } else { 1 };
    }
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_after_the_last_think_is_the_answer() {
        let check = |text: &str, think: Option<&str>, answer: &str, open: bool| {
            let r = Response::parse(text);
            assert_eq!((r.think, r.answer, r.think_open), (think, answer, open), "{text:?}");
        };
        check("<think>a</think>b", Some("a"), "b", false);
        check("a</think>b", Some("a"), "b", false);
        check("plain", None, "plain", false);
        check("<think>never ends \\boxed{3}", Some("never ends \\boxed{3}"), "", true);
        check("<think>a</think>b<think>c</think>d", Some("a</think>b<think>c"), "d", false);
        check("<think>a</think>b<think>c", Some("a</think>b<think>c"), "", true);
        check("", None, "", false);
        check("</think>", Some(""), "", false);
        check("</think><think>", Some("</think><think>"), "", true);
    }

    #[test]
    fn boxes_are_balanced_and_the_last_one_counts() {
        let check = |text: &str, expect: Option<&str>| assert_eq!(Response::parse(text).boxed(), expect, "{text:?}");
        check(r"\boxed{3}", Some("3"));
        check(r"\boxed{\frac{1}{2}} then \boxed{ 7 }", Some(" 7 "));
        check(r"\boxed{\left\{1,2\right\}}", Some(r"\left\{1,2\right\}"));
        check(r"\boxed {5}", Some("5"));
        check(r"\fbox{4} \boxed{unclosed", Some("4"));
        check(r"\boxed 5", None);
        check(r"<think>\boxed{1}</think>none", None);
        check(r"\boxed{\boxed{2}}", Some("2"));
        check(r"\boxed{1 \boxed{2}", Some("2"));
        check(r"\\boxed{5}", Some("5"));
        check(r"\boxed{\\}", Some(r"\\"));
        check(&r"\boxed{".repeat(100_000), None);
    }

    #[test]
    fn think_answer_format_wants_each_tag_once_in_order() {
        let check = |text: &str, expect: bool| assert_eq!(Response::parse(text).is_think_answer(), expect, "{text:?}");
        check("<think>a</think><answer>1</answer>", true);
        check("<think>\na\n</think>\n<answer> 1 </answer>\n", true);
        check("<think>a</think><answer>1</answer> and more", false);
        check("x<think>a</think><answer>1</answer>", false);
        check("<think>a</think> so <answer>1</answer>", false);
        check("<think>a<answer>1</answer></think>", false);
        check("<think>a</think><answer>1</answer><answer>2</answer>", false);
        check("<think>a</think><answer>1", false);
    }
}
