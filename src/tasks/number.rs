//! The canonical form of a decimal number, on which references and responses are compared as text.
//!
//! It works on digits and never on floats, so `0.1` and a 60-digit integer are exact. It knows nothing of LaTeX, percent signs, fractions or
//! words: whoever reads those takes them off first.

/// Longest accepted input, in bytes after trimming.
pub const MAX_NUMBER_BYTES: usize = 200;

/// `text` as `Answer::Number` writes it: optional `-`, digits without leading zeros, at most one point and no zeros at the end behind it.
///
/// Accepted around that: white space, one sign (`+`, `-`, `−`) before or after one `$` or `\$`, and commas that group all digits before the point by
/// three. `None` for anything else, for a group that starts with 0 (`0,125` is a decimal comma) and for more than [`MAX_NUMBER_BYTES`].
pub fn canonical_number(text: &str) -> Option<String> {
    let text = text.trim();
    if text.len() > MAX_NUMBER_BYTES {
        return None;
    }
    let (sign, rest) = take_sign(text);
    let rest = rest.strip_prefix('\\').filter(|r| r.starts_with('$')).unwrap_or(rest);
    let rest = rest.strip_prefix('$').map_or(rest, str::trim_start);
    let (sign, rest) = if sign.is_none() { take_sign(rest) } else { (sign, rest) };

    let (whole, fraction) = rest.split_once('.').unwrap_or((rest, ""));
    let is_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if !is_digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let whole = if whole.contains(',') { ungroup(whole)? } else { whole.to_owned() };
    if !is_digits(&whole) {
        return None;
    }
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let mut canonical = String::with_capacity(text.len() + 2);
    if sign == Some('-') && !(whole.is_empty() && fraction.is_empty()) {
        canonical.push('-');
    }
    canonical.push_str(if whole.is_empty() { "0" } else { whole });
    if !fraction.is_empty() {
        canonical.push('.');
        canonical.push_str(fraction);
    }
    Some(canonical)
}

fn take_sign(text: &str) -> (Option<char>, &str) {
    for (mark, sign) in [('-', '-'), ('−', '-'), ('+', '+')] {
        if let Some(rest) = text.strip_prefix(mark) {
            return (Some(sign), rest);
        }
    }
    (None, text)
}

/// `1,234,567` without its commas, if they group by three from the right.
fn ungroup(whole: &str) -> Option<String> {
    let mut groups = whole.split(',');
    let first = groups.next()?;
    let grouped = matches!(first.len(), 1..=3) && !first.starts_with('0') && groups.all(|g| g.len() == 3);
    grouped.then(|| whole.replace(',', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_canonical_form() {
        let check = |text: &str, expect: Option<&str>| assert_eq!(canonical_number(text).as_deref(), expect, "{text:?}");
        check("18", Some("18"));
        check("  018 ", Some("18"));
        check("000", Some("0"));
        check("-0", Some("0"));
        check("-0.00", Some("0"));
        check("+7", Some("7"));
        check("−7", Some("-7"));
        check("3.50", Some("3.5"));
        check("3.", Some("3"));
        check(".5", Some("0.5"));
        check("-.50", Some("-0.5"));
        check("1,234", Some("1234"));
        check("12,345,678.90", Some("12345678.9"));
        check("$1,000", Some("1000"));
        check(r"\$5", Some("5"));
        check("$ 5", Some("5"));
        check("-$5", Some("-5"));
        check("$-5", Some("-5"));
        for not in [
            "", " ", ".", "-", "$", "--5", "-$-5", "+-5", "$$5", r"\5", "1e3", "5%", "1/2", "1 000", "five", "1.2.3", "1.2,3", "٣", "五",
            "0x10", "inf",
        ] {
            check(not, None);
        }
        for grouping in ["1,23", "1,2345", "1234,567", ",123", "123,", "1,,234", "0,125", "4,6,14,15", "1.234,567"] {
            check(grouping, None);
        }
    }

    #[test]
    fn canonical_form_is_a_fixed_point_and_length_is_bounded() {
        let long = "7".repeat(MAX_NUMBER_BYTES);
        assert_eq!(canonical_number(&long).as_deref(), Some(long.as_str()));
        assert_eq!(canonical_number(&format!("{long}7")), None);
        for text in ["-$1,234.500", "000.100", "−0.0", ".25"] {
            let once = canonical_number(text).expect("a number");
            assert_eq!(canonical_number(&once), Some(once.clone()), "{text:?}");
        }
    }
}
