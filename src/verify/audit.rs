//! A second opinion on answers, by other means than `math/`: normalised text, then floating point. Where the two disagree, a person looks.
//!
//! It shares no code with the rules it checks, knows little, and says so: most forms it has no opinion on. It is never a reward.

/// Largest relative difference of two numbers that are taken for equal.
const TOLERANCE: f64 = 1e-12;

/// Whether a response (`response`) or a bare answer means the same as the reference; `None` where this rule has no opinion.
pub fn opinion(gold: &str, text: &str, response: bool) -> Option<bool> {
    let answer = if response { last_answer(text)? } else { text };
    let (gold, answer) = (normal(gold), normal(answer));
    if gold.is_empty() || answer.is_empty() {
        return None;
    }
    if gold == answer {
        return Some(true);
    }
    let (a, b) = (number(&gold)?, number(&answer)?);
    Some((a - b).abs() <= TOLERANCE * a.abs().max(b.abs()).max(1.0))
}

/// The inside of the last box behind the reasoning, else that of the last answer tag, else the rest of the last line with `####`.
fn last_answer(text: &str) -> Option<&str> {
    let text = text.rsplit("</think>").next().unwrap_or(text);
    if text.contains("<think>") {
        return None;
    }
    if let Some(at) = text.rfind("\\boxed{") {
        let inside = &text[at + 7..];
        let mut depth = 1;
        for (i, c) in inside.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(&inside[..i]);
            }
        }
        return None;
    }
    if let Some(end) = text.rfind("</answer>") {
        let start = text[..end].rfind("<answer>")? + "<answer>".len();
        return Some(text[start..end].trim());
    }
    let at = text.rfind("####")?;
    text[at + 4..].lines().next().map(str::trim)
}

/// A text without what only sets type: spaces, dollar signs, `\left`, units in `\text`, the spelling of fractions, thousands separators.
fn normal(text: &str) -> String {
    let mut text = text.trim().trim_end_matches('.').to_owned();
    for (from, to) in [
        ("\\left", ""),
        ("\\right", ""),
        ("\\dfrac", "\\frac"),
        ("\\tfrac", "\\frac"),
        ("\\cdot", "*"),
        ("\\times", "*"),
        ("{,}", ""),
        ("\\,", ""),
        ("\\!", ""),
        ("\\;", ""),
        ("\\ ", ""),
        ("\\$", ""),
        ("$", ""),
        ("−", "-"),
        ("^{\\circ}", ""),
        ("^\\circ", ""),
        ("\\%", "%"),
    ] {
        text = text.replace(from, to);
    }
    // `\text{ cm}` at the end.
    if let Some(at) = text.rfind("\\text{")
        && text.ends_with('}')
        && at > 0
    {
        text.truncate(at);
    }
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    match text.split_once('=') {
        Some((name, value)) if name.chars().count() == 1 && !value.is_empty() => value.to_owned(),
        _ => text,
    }
}

/// The value of a decimal (with commas between thousands), of a fraction of two, or of a percentage.
fn number(text: &str) -> Option<f64> {
    if let Some(share) = text.strip_suffix('%') {
        return number(share).map(|x| x / 100.0);
    }
    if let Some(rest) = text.strip_prefix('-') {
        return number(rest).map(|x| -x);
    }
    if let Some(inside) = text.strip_prefix("\\frac{").and_then(|r| r.strip_suffix('}')) {
        let (a, b) = inside.split_once("}{")?;
        return quotient(a, b);
    }
    if let Some((a, b)) = text.split_once('/') {
        return quotient(a, b);
    }
    let digits = text.replace(',', "");
    let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') && digits.bytes().any(|b| b.is_ascii_digit());
    let grouped = !text.contains(',') || text.split(['.']).next()?.split(',').skip(1).all(|group| group.len() == 3);
    if plain && grouped { digits.parse().ok() } else { None }
}

fn quotient(a: &str, b: &str) -> Option<f64> {
    let (a, b) = (number(a)?, number(b)?);
    (b != 0.0).then(|| a / b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_opinions_on_simple_forms_only() {
        let rows = [
            ("72", r"so \boxed{72}", Some(true)),
            ("72", r"so \boxed{73}", Some(false)),
            ("72", "#### 72", Some(true)),
            ("72", "<think>7</think><answer> 72 </answer>", Some(true)),
            ("72", r"<think>\boxed{72}</think> none", None),
            ("72", r"<think>\boxed{72}", None),
            ("0.5", r"\boxed{\dfrac{1}{2}}", Some(true)),
            (r"\frac12", r"\boxed{\frac12}", Some(true)),
            (r"\frac12", r"\boxed{0.5}", None),
            ("1,234", r"\boxed{1234}", Some(true)),
            ("1,23", r"\boxed{123}", None),
            ("50\\%", r"\boxed{0.5}", Some(true)),
            ("x^2+1", r"\boxed{1+x^2}", None),
            ("5", r"\boxed{5\text{ cm}}", Some(true)),
            ("5", r"\boxed{x = 5}", Some(true)),
            ("1/3", r"\boxed{0.3333333333}", Some(false)),
            ("5", "the answer is 5", None),
        ];
        for (gold, text, expect) in rows {
            assert_eq!(opinion(gold, text, true), expect, "{gold} {text}");
        }
        assert_eq!(opinion("3", "3.0", false), Some(true));
    }
}
