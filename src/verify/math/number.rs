//! Numbers as people write them: grouped thousands, decimals, repeating decimals, scientific notation, vulgar fractions.

use super::node::Number;
use dashu_int::{IBig, UBig};
use dashu_ratio::RBig;

/// Longest run of digits that is a number.
const MAX_DIGITS: usize = 1200;
/// Largest exponent of ten in scientific notation.
const MAX_EXPONENT: i64 = 1200;

/// Marks between groups of three digits. A plain comma or space groups only outside of brackets, where it does not separate members.
const GROUPS: [&str; 10] = ["{,}\\!", "{,}", ",\\!", "\\!,", "\\,", "\\!", "\u{2009}", "\u{202f}", "\u{a0}", "\\ "];

/// The number at the start of `text` and its length in bytes; `None` if it begins with none or is longer than any answer.
pub(super) fn scan(text: &str, in_brackets: bool) -> Option<(Number, usize)> {
    let (mut whole, mut at) = digits(text, 0);
    if !whole.is_empty() && whole.len() <= 3 && !whole.starts_with('0') {
        let alone = (whole.clone(), at);
        at = grouped(text, at, &mut whole, in_brackets);
        // `10,100,1000` was no grouping, and `1 123/456` is a mixed number.
        let comma = text[..at].contains(',') && text[at..].starts_with(',') && text[at + 1..].starts_with(|c: char| c.is_ascii_digit());
        let mixed = text[..at].contains(' ') && text[at..].starts_with('/');
        if comma || mixed {
            (whole, at) = alone;
        }
    }
    let mut fraction = String::new();
    let mut decimals = None;
    let mut repeating = String::new();
    if text[at..].starts_with('.') {
        let (found, end) = digits(text, at + 1);
        let (cycle, end) = repeated(text, &whole, &found, end);
        if !found.is_empty() || !cycle.is_empty() {
            (fraction, repeating, at) = (found, cycle, end);
            decimals = if repeating.is_empty() { Some(fraction.len() as u32) } else { None };
        } else if !text[at + 1..].starts_with('.') && !whole.is_empty() {
            at += 1; // `5.`
        }
    }
    if whole.len() + fraction.len() > MAX_DIGITS || (whole.is_empty() && fraction.is_empty() && repeating.is_empty()) {
        return None;
    }
    let mut value = decimal(&whole, &fraction, &repeating)?;
    if let Some((exponent, end)) = exponent(text, at) {
        value *= power_of_ten(exponent)?;
        decimals = None;
        at = end;
    }
    Some((Number { value, decimals }, at))
}

/// `whole.fraction` and then `repeating` for ever.
fn decimal(whole: &str, fraction: &str, repeating: &str) -> Option<RBig> {
    let all: UBig = format!("0{whole}{fraction}").parse().ok()?;
    let scale = UBig::from(10u8).pow(fraction.len());
    let mut value = RBig::from_parts(IBig::from(all), scale.clone());
    if !repeating.is_empty() {
        let cycle: UBig = repeating.parse().ok()?;
        let nines = UBig::from(10u8).pow(repeating.len()) - UBig::ONE;
        value += RBig::from_parts(IBig::from(cycle), nines * scale);
    }
    Some(value)
}

/// 10 to the power of `exponent`, for exponents an answer can have.
pub(super) fn power_of_ten(exponent: i64) -> Option<RBig> {
    if exponent.abs() > MAX_EXPONENT {
        return None;
    }
    let power = UBig::from(10u8).pow(exponent.unsigned_abs() as usize);
    Some(if exponent < 0 { RBig::from_parts(IBig::ONE, power) } else { RBig::from(power) })
}

fn digits(text: &str, from: usize) -> (String, usize) {
    let n = text[from..].bytes().take_while(u8::is_ascii_digit).count();
    (text[from..from + n].to_owned(), from + n)
}

/// Appends every group of three digits that follows; where the number ends then.
fn grouped(text: &str, mut at: usize, whole: &mut String, in_brackets: bool) -> usize {
    loop {
        let rest = &text[at..];
        let mark = GROUPS.iter().find(|mark| rest.starts_with(**mark)).map(|mark| mark.len());
        let plain = (!in_brackets && rest.starts_with([',', ' '])).then_some(1);
        let Some(mut n) = mark.or(plain) else { return at };
        if mark.is_some() {
            n += rest[n..].len() - rest[n..].trim_start_matches(' ').len();
        }
        let group = rest[n..].bytes().take_while(u8::is_ascii_digit).count();
        if group != 3 || whole.len() > MAX_DIGITS {
            return at;
        }
        whole.push_str(&rest[n..n + 3]);
        at += n + 3;
    }
}

/// The cycle of a repeating decimal whose digits end at `at`: `\overline{3}`, `\bar{3}`, `\dot{3}`, `(3)`, or dots behind three equal digits.
fn repeated(text: &str, whole: &str, found: &str, at: usize) -> (String, usize) {
    let rest = &text[at..];
    for open in ["\\overline{", "\\bar{", "\\dot{", "\\overline ", "\\bar ", "("] {
        let Some(inside) = rest.strip_prefix(open) else { continue };
        let (cycle, n) = digits(inside, 0);
        let close = match open {
            "(" => ")",
            _ if open.ends_with('{') => "}",
            _ => "",
        };
        // Behind other digits, brackets are a factor.
        if open == "(" && !(whole == "0" || whole.is_empty() || found.is_empty()) {
            continue;
        }
        if !cycle.is_empty() && cycle.len() <= 200 && inside[n..].starts_with(close) && !(open == "(" && found.is_empty() && at == 0) {
            return (cycle, at + open.len() + n + close.len());
        }
    }
    let dots = ["\\ldots", "\\dots", "\\cdots", "...", "…"].iter().find(|dots| rest.trim_start().starts_with(**dots));
    if let Some(dots) = dots
        && let Some(cycle) = evident_cycle(found)
    {
        return (cycle, text.len() - rest.trim_start().len() + dots.len());
    }
    (String::new(), at)
}

/// The shortest cycle of up to six digits that the last digits repeat three times (`333`), or all digits twice (`1414`).
fn evident_cycle(digits: &str) -> Option<String> {
    (1..=6).find_map(|n| {
        let times = if n == 1 { 3 } else { 2 };
        let tail = digits.get(digits.len().checked_sub(n)?..)?;
        let repeats = digits.as_bytes().rchunks(n).take_while(|chunk| *chunk == tail.as_bytes()).count();
        (repeats >= times && (n == 1 || repeats >= 3 || repeats * n == digits.len())).then(|| tail.to_owned())
    })
}

/// `e23`, `E-03` directly behind the digits.
fn exponent(text: &str, at: usize) -> Option<(i64, usize)> {
    let rest = text[at..].strip_prefix(['e', 'E'])?;
    let (sign, rest) = match rest.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, rest.strip_prefix('+').unwrap_or(rest)),
    };
    let n = rest.bytes().take_while(u8::is_ascii_digit).count();
    if n == 0 || n > 4 || rest[n..].starts_with(|c: char| c.is_alphabetic()) {
        return None;
    }
    Some((sign * rest[..n].parse::<i64>().ok()?, text.len() - rest.len() + n))
}

/// `½` and its like.
pub(super) fn vulgar_fraction(c: char) -> Option<(Number, usize)> {
    let (a, b) = match c {
        '½' => (1, 2),
        '⅓' => (1, 3),
        '⅔' => (2, 3),
        '¼' => (1, 4),
        '¾' => (3, 4),
        '⅕' => (1, 5),
        '⅖' => (2, 5),
        '⅗' => (3, 5),
        '⅘' => (4, 5),
        '⅙' => (1, 6),
        '⅚' => (5, 6),
        '⅛' => (1, 8),
        '⅜' => (3, 8),
        '⅝' => (5, 8),
        '⅞' => (7, 8),
        '⅑' => (1, 9),
        '⅒' => (1, 10),
        _ => return None,
    };
    Some((Number { value: RBig::from_parts(IBig::from(a), UBig::from(b as u32)), decimals: None }, c.len_utf8()))
}
