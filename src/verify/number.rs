//! Plain decimal numbers as people and models write them, compared exactly. Anything that has to be computed first is not plain.

use crate::tasks::number::canonical_number;

/// Words and signs after a number that change its value; with one of them the number is not plain.
pub(super) const SCALES: [&str; 15] =
    ["%", "\\%", "percent", "hundred", "thousand", "million", "billion", "trillion", "dozen", "％", "十", "百", "千", "万", "亿"];

/// LaTeX commands that set their argument as words.
const TEXT_COMMANDS: [&str; 6] = ["\\text{", "\\textbf{", "\\textrm{", "\\mathrm{", "\\mathbf{", "\\mbox{"];

/// The canonical form of a plain number, or `None`.
///
/// Beyond what `canonical_number` takes off, these do not belong to the number: LaTeX math marks and emphasis at the ends, `\text{…}` around it or
/// (without digits) behind it, a final period, and LaTeX's thousands separators `{,}` and `\,`.
pub(super) fn plain(text: &str) -> Option<String> {
    let text = trim(without_text_command(trim(text)));
    canonical_number(&text.replace("{,}", ",").replace("\\,", ","))
}

/// Without what may stand around a number and does not belong to it.
fn trim(mut text: &str) -> &str {
    loop {
        let before = text.len();
        text = text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '$' | '*' | '~')).trim_end_matches(['.', '。']);
        for mark in ["\\$", "\\(", "\\[", "\\ ", "\\,"] {
            text = text.strip_prefix(mark).unwrap_or(text);
        }
        for mark in ["\\$", "\\)", "\\]", "\\ ", "\\,", "\\"] {
            text = text.strip_suffix(mark).unwrap_or(text);
        }
        if text.len() == before {
            return text;
        }
    }
}

/// `\text{72}` is `72`, and `5\text{ cm}` is `5`; but neither `5\text{ million}` nor `5\text{ in 2 days}` is a plain number.
fn without_text_command(text: &str) -> &str {
    let Some(inside) = text.strip_suffix('}') else { return text };
    let Some((start, command)) = TEXT_COMMANDS.iter().filter_map(|command| Some((inside.rfind(command)?, command))).max() else {
        return text;
    };
    let (before, words) = (&inside[..start], &inside[start + command.len()..]);
    let lower = words.to_ascii_lowercase();
    if words.contains(['{', '}']) {
        text
    } else if before.is_empty() {
        words
    } else if words.contains(|c: char| c.is_ascii_digit()) || SCALES.iter().any(|scale| lower.contains(scale)) {
        text
    } else {
        before
    }
}
