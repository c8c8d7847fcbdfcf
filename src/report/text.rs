//! Numbers and untrusted text as the report prints them: no more digits than an interval carries, no character that moves a terminal.

use crate::problem::is_han;
use crate::trace::Reason;

/// Decimals of a quantity in percent whose 95 % interval reaches `half` points to each side: the half-width keeps one digit, two where it begins
/// with 1, 2 or 3.54 at most. At most two decimals; none where there is no spread to go by.
///
/// Source: the rounding rule of the Particle Data Group, "Review of particle physics", introduction, section 5.3.
pub fn decimals(half: f64) -> usize {
    match half {
        h if !h.is_finite() || h <= 0.0 || h >= 3.55 => 0,
        h if h >= 0.355 => 1,
        _ => 2,
    }
}

/// `65.4 % [62.5, 68.2]` of a rate and its interval, both as shares.
pub fn rate(value: f64, ci95: [f64; 2]) -> String {
    let [low, high] = ci95.map(|x| 100.0 * x);
    let d = decimals((high - low) / 2.0);
    format!("{:.d$} % [{low:.d$}, {high:.d$}]", 100.0 * value)
}

/// `+14.1 [+11.2, +17.0]`: a difference of rates in points, with its interval.
pub fn difference(value: f64, ci95: [f64; 2]) -> String {
    let [low, high] = ci95.map(|x| 100.0 * x);
    let d = decimals((high - low) / 2.0);
    // -0.0 and what rounds to it would print a sign that says something.
    let signed = |x: f64| if format!("{:.d$}", x.abs()) == format!("{:.d$}", 0.0) { format!("{:.d$}", 0.0) } else { format!("{x:+.d$}") };
    format!("{} [{}, {}]", signed(100.0 * value), signed(low), signed(high))
}

/// A share of `trials` without an interval of its own, in percent, with the digits that a binomial share of so many carries, one decimal at most.
pub fn share(value: f64, trials: usize) -> String {
    let half = 196.0 * (value * (1.0 - value) / trials.max(1) as f64).max(0.0).sqrt();
    format!("{:.*} %", decimals(half).min(1), 100.0 * value)
}

/// A probability value with two digits.
pub fn p_value(p: f64) -> String {
    match p {
        p if p < 0.001 => "< 0.001".into(),
        p if p < 0.01 => format!("{p:.4}"),
        p if p < 0.1 => format!("{p:.3}"),
        p => format!("{p:.2}"),
    }
}

/// `60 %` of a share that somebody set, so with the digits that it was set with.
pub fn setting(share: f64) -> String {
    format!("{} %", (share * 1000.0).round() / 10.0)
}

/// Three digits, of a mean without an interval.
pub fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 || v == 0.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

/// Heads of the buckets of pass rates in a table, one for each of [`crate::filter::BUCKETS`].
pub const PASS_RATES: [&str; crate::filter::BUCKETS.len()] = ["0", "≤.25", "≤.5", "≤.75", "<1", "1"];

/// `1,024`.
pub fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// An expected count of problems: whole where it is, or where there are many.
pub fn count(value: f64) -> String {
    if value.fract().abs() < 1e-9 || value >= 100.0 { thousands(value.round() as usize) } else { format!("{value:.1}") }
}

/// Bytes as `1.2 GB`, `20 MB`, `4 kB`.
pub fn size(bytes: usize) -> String {
    match bytes as f64 {
        b if b >= 1e9 => format!("{:.1} GB", b / 1e9),
        b if b >= 1e6 => format!("{:.0} MB", b / 1e6),
        b => format!("{:.0} kB", (b / 1e3).ceil()),
    }
}

/// Seconds as `12.3 s`, `4 min 05 s`, `3 h 07 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{:.1} s", seconds.max(0.0)),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Text without characters that a terminal or a browser obeys: control characters but the newline, and marks of direction, become U+FFFD.
pub fn harmless(text: &str) -> String {
    let replace = |c: char| match c {
        '\n' => '\n',
        '\t' => ' ',
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(replace).collect()
}

/// Columns of a terminal that a text takes: two for the wide characters of East Asia.
pub fn width(text: &str) -> usize {
    let wide = |c: char| {
        is_han(c)
            || matches!(c, '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}' | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}' | '\u{1f300}'..='\u{1faff}')
    };
    text.chars().map(|c| if wide(c) { 2 } else { 1 }).sum()
}

/// `text` cut at `columns`, with `…` where something is missing.
pub fn fit(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.into();
    }
    let (mut cut, mut used) = (String::new(), 1);
    for c in text.chars() {
        used += width(c.encode_utf8(&mut [0; 4]));
        if used > columns {
            break;
        }
        cut.push(c);
    }
    cut + "…"
}

/// The words of one line on lines of `columns` at most; those behind the first begin with `indent` spaces. A word that is longer is broken.
///
/// Spaces at the head of the line stay; a line that fits stays as it is.
pub fn wrap(line: &str, columns: usize, indent: usize) -> Vec<String> {
    if width(line) <= columns {
        return vec![line.to_owned()];
    }
    let head = line.len() - line.trim_start_matches(' ').len();
    let indent = if indent + 10 > columns { 0 } else { indent };
    let (mut lines, mut current, mut used) = (Vec::new(), line[..head].to_owned(), head);
    let mut empty = true;
    for word in line[head..].split_inclusive(' ') {
        let long = width(word.trim_end());
        if used + long > columns && !empty {
            lines.push(std::mem::take(&mut current).trim_end().to_owned());
            (current, used) = (" ".repeat(indent), indent);
        }
        for c in word.chars() {
            let wide = width(c.encode_utf8(&mut [0; 4]));
            if used + wide > columns && c != ' ' {
                lines.push(std::mem::take(&mut current).trim_end().to_owned());
                (current, used) = (" ".repeat(indent), indent);
            }
            current.push(c);
            used += wide;
        }
        empty = false;
    }
    lines.push(current.trim_end().to_owned());
    lines
}

/// `head` and `rest` beside it, wrapped under its own first column; below it, where less than 30 columns are left.
pub fn beside(head: &str, rest: &str, columns: usize) -> Vec<String> {
    let at = width(head);
    if rest.is_empty() {
        return vec![head.trim_end().to_owned()];
    }
    if at + width(rest) <= columns || at + 30 <= columns {
        return wrap(&format!("{head}{rest}"), columns, at);
    }
    let below = wrap(&format!("      {rest}"), columns, 6);
    std::iter::once(head.trim_end().to_owned()).chain(below).collect()
}

/// A number with three decimals at most, and without zeros at its end; what would round to `limit` and is not `limit` keeps more.
pub fn rounded(value: f64, limit: Option<f64>) -> String {
    let shown = |decimals: usize| {
        let text = format!("{value:.decimals$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    };
    let tells = |text: &String| {
        let said: f64 = text.parse().unwrap_or(value);
        (value == 0.0 || said != 0.0) && (limit.is_none_or(|limit| (said == limit) == (value == limit)))
    };
    (3..=17).map(shown).find(tells).unwrap_or_else(|| value.to_string())
}

/// Why something was dropped or judged so, with numbers that are rounded; the exact ones are in the trace.
pub fn reason(reason: &Reason) -> String {
    let number = |text: &String| text.rsplit(' ').next().and_then(|last| last.parse::<f64>().ok());
    // Other rules show what was written: an answer, a line.
    let measures =
        ["language", "pass_rate"].contains(&&*reason.rule) || reason.rule.starts_with("readable.") && reason.rule != "readable.lines";
    let value = reason.value.as_ref().map(|value| match value.parse::<f64>() {
        Ok(x) if measures => rounded(x, reason.threshold.as_ref().and_then(number)),
        _ => value.clone(),
    });
    Reason { value, ..reason.clone() }.to_string()
}

/// JSON as a person reads it: `n 2, sampling (temperature 0.7, top p 1)`.
pub fn plain_json(value: &serde_json::Value) -> String {
    use serde_json::Value;
    let inner = |value: &Value| match value {
        Value::Object(_) => format!("({})", plain_json(value)),
        _ => plain_json(value),
    };
    match value {
        Value::Null => "none".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => {
            n.as_u64().map_or_else(|| n.as_f64().map_or_else(|| n.to_string(), |x| rounded(x, None)), |n| thousands(n as usize))
        }
        Value::String(text) if text.is_empty() => "none".into(),
        Value::String(text) => harmless(text).replace('\n', " "),
        Value::Array(items) if items.is_empty() => "none".into(),
        Value::Array(items) => items.iter().map(inner).collect::<Vec<_>>().join(" "),
        Value::Object(pairs) => {
            let pairs = pairs.iter().map(|(key, value)| format!("{} {}", harmless(key).replace('_', " "), inner(value)));
            pairs.collect::<Vec<_>>().join(", ")
        }
    }
}

/// `text` cut at `columns` and filled up to them.
pub fn column(text: &str, columns: usize) -> String {
    let text = fit(text, columns);
    let fill = columns.saturating_sub(width(&text));
    text + &" ".repeat(fill)
}

/// One block character per value, on a scale from 0 to `top`.
pub fn sparkline(values: &[f64], top: f64) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let block = |value: &f64| if top > 0.0 { BLOCKS[((value / top * 8.0) as usize).min(7)] } else { BLOCKS[0] };
    values.iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_the_digits_that_their_interval_carries() {
        for (value, ci95, expected) in [
            (0.6543, [0.6254, 0.6824], "65.4 % [62.5, 68.2]"),
            (0.5588, [0.5282, 0.5894], "55.9 % [52.8, 58.9]"),
            (0.6543, [0.6143, 0.6943], "65 % [61, 69]"),
            (0.3667, [0.2, 0.5333], "37 % [20, 53]"),
            (0.90123, [0.89999, 0.90246], "90.12 % [90.00, 90.25]"),
            (1.0, [1.0, 1.0], "100 % [100, 100]"),
            (0.0, [0.0, 0.0], "0 % [0, 0]"),
        ] {
            assert_eq!(rate(value, ci95), expected);
        }
    }

    #[test]
    fn differences_have_a_sign_unless_they_round_to_zero() {
        for (value, ci95, expected) in [
            (0.1413, [0.1124, 0.1702], "+14.1 [+11.2, +17.0]"),
            (-0.0002, [-0.0124, 0.01201], "0.0 [-1.2, +1.2]"),
            (-0.1, [-0.2, 0.001], "-10 [-20, 0]"),
        ] {
            assert_eq!(difference(value, ci95), expected);
        }
    }

    #[test]
    fn shares_and_counts_are_short() {
        for (got, expected) in [
            (share(0.0019, 1024), "0.2 %"),
            (share(0.0234, 1024), "2.3 %"),
            (share(0.5, 30), "50 %"),
            (share(0.0, 1024), "0 %"),
            (share(1.0, 0), "100 %"),
            (p_value(0.0001), "< 0.001"),
            (p_value(0.00251), "0.0025"),
            (p_value(0.0312), "0.031"),
            (p_value(1.0), "1.00"),
            (three_digits(22.345), "22.3"),
            (three_digits(4212.6), "4213"),
            (three_digits(0.01234), "0.012"),
            (three_digits(0.0), "0.00"),
            (setting(1.0 - 0.6), "40 %"),
            (setting(0.125), "12.5 %"),
            (thousands(0), "0"),
            (thousands(999), "999"),
            (thousands(1_234_567), "1,234,567"),
            (count(12.34), "12.3"),
            (count(12.0), "12"),
            (count(1234.6), "1,235"),
            (size(0), "0 kB"),
            (size(4_001), "5 kB"),
            (size(20_400_000), "20 MB"),
            (size(61_040_000_000), "61.0 GB"),
            (duration(12.34), "12.3 s"),
            (duration(245.0), "4 min 05 s"),
            (duration(11_220.0), "3 h 07 min"),
        ] {
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn untrusted_text_cannot_move_a_terminal() {
        assert_eq!(harmless("a\u{1b}[31mred\r\u{202e}b\tc\n计算"), "a\u{fffd}[31mred\u{fffd}\u{fffd}b c\n计算");
    }

    #[test]
    fn text_is_cut_by_columns_and_not_by_characters() {
        for (text, columns, expected) in
            [("计算7+4", 7, "计算7+4"), ("计算7+4", 6, "计算7…"), ("计算", 3, "计…"), ("计算", 2, "…"), ("ab", 4, "ab  ")]
        {
            assert_eq!(column(text, columns), format!("{expected}{}", " ".repeat(columns - width(expected))), "{text} {columns}");
        }
    }

    #[test]
    fn lines_are_wrapped_at_words_and_under_their_own_column() {
        let check =
            |line: &str, columns: usize, indent: usize, expected: &[&str]| assert_eq!(wrap(line, columns, indent), expected, "{line}");
        check("as it is", 8, 4, &["as it is"]);
        check("  as it is, and more of it", 14, 4, &["  as it is,", "    and more", "    of it"]);
        check("一二三四五六七八九十", 15, 2, &["一二三四五六七", "  八九十"]);
        check("a 0123456789012345 b", 12, 0, &["a", "012345678901", "2345 b"]);
        for columns in 20..80 {
            let line = "evaluation/student-unfiltered-arithmetic   done   problems 64, 计算 attempts 128";
            let lines = wrap(line, columns, 6);
            assert!(lines.iter().all(|line| width(line) <= columns), "{columns}: {lines:?}");
            let letters = |text: &str| text.chars().filter(|c| *c != ' ').collect::<String>();
            assert_eq!(letters(&lines.concat()), letters(line), "{columns}");
        }
        assert_eq!(beside("name  ", "some words that are more than the rest of the line", 40).len(), 2);
        assert_eq!(beside("a name that takes all  ", "words of some length", 30), ["a name that takes all", "      words of some length"]);
    }

    #[test]
    fn numbers_for_people_are_short_and_never_lie_about_a_limit() {
        for (value, limit, expected) in [
            (2.0 / 3.0, Some(1.0), "0.667"),
            (0.99996, Some(1.0), "0.99996"),
            (0.1 + 0.2, None, "0.3"),
            (f64::from(0.6f32), None, "0.6"),
            (1.0, Some(1.0), "1"),
            (1e-6, None, "0.000001"),
            (120.0, None, "120"),
            (-0.5, None, "-0.5"),
        ] {
            assert_eq!(rounded(value, limit), expected);
        }
        let below = Reason::measured("language", 2.0 / 3.0, "at least 1");
        assert_eq!(reason(&below), "language (0.667, asked for at least 1)");
        let exact = Reason::measured("different_number", "3.14159265358979", "3");
        assert_eq!(reason(&exact), exact.to_string());
        let json = serde_json::json!({"prompt": "r1", "params": {"top_p": 0.95f32, "stop": [], "max_tokens": 4096}, "x": null});
        assert_eq!(plain_json(&json), "prompt r1, params (top p 0.95, stop none, max tokens 4,096), x none");
    }

    #[test]
    fn sparklines_start_at_zero() {
        assert_eq!(sparkline(&[0.0, 0.49, 0.5, 1.0, 2.0], 1.0), "▁▄▅██");
        assert_eq!(sparkline(&[0.0, f64::NAN], 0.0), "▁▁");
    }
}
