//! Plain decimal numbers as people and models write them, compared exactly. Anything that has to be computed first is not plain.

use crate::tasks::number::canonical_number;

/// Words and signs after a number that change its value; with one of them the number is not plain.
pub(super) const SCALES: [&str; 15] =
    ["%", "\\%", "percent", "hundred", "thousand", "million", "billion", "trillion", "dozen", "％", "十", "百", "千", "万", "亿"];

/// LaTeX commands that set their argument as words.
const TEXT_COMMANDS: [&str; 6] = ["\\text{", "\\textbf{", "\\textrm{", "\\mathrm{", "\\mathbf{", "\\mbox{"];

/// The canonical form of a plain number, or `None`.
///
/// Beyond what `canonical_number` takes off, these do not belong to the number: LaTeX math marks and emphasis at the ends, `\text{…}` around it, a
/// final period, and LaTeX's thousands separators `{,}` and `\,`.
pub(super) fn plain(text: &str) -> Option<String> {
    if text.contains("..") {
        return None;
    }
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

/// `\text{72}` is `72`; words behind a number make it a quantity, which is no plain number.
fn without_text_command(text: &str) -> &str {
    let Some(inside) = text.strip_suffix('}') else { return text };
    let words = TEXT_COMMANDS.iter().find_map(|command| inside.strip_prefix(command));
    words.filter(|words| !words.contains(['{', '}'])).unwrap_or(text)
}
