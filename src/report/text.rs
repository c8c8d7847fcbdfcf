//! Numbers and untrusted text as the report prints them: no more digits than an interval carries, no character that moves a terminal.

use crate::problem::is_han;

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
    fn sparklines_start_at_zero() {
        assert_eq!(sparkline(&[0.0, 0.49, 0.5, 1.0, 2.0], 1.0), "▁▄▅██");
        assert_eq!(sparkline(&[0.0, f64::NAN], 0.0), "▁▁");
    }
}
