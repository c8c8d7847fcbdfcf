//! The two pieces of Python's standard library that chat templates lean on: `json.dumps` and `datetime.strftime`.
//!
//! Written so that a rendered prompt has the same bytes as in transformers. Knows no templates. Dates are in UTC.

use serde_json::{Map, Value};

/// The arguments of `json.dumps`, with the defaults of transformers' `tojson` filter.
pub(super) struct Dumps {
    pub ensure_ascii: bool,
    pub indent: Option<usize>,
    /// Between items and between key and value; `None` is Python's default for the indent.
    pub separators: Option<(String, String)>,
    pub sort_keys: bool,
}

impl Dumps {
    pub fn dumps(&self, value: &Value) -> String {
        let default = if self.indent.is_some() { (",", ": ") } else { (", ", ": ") };
        let separators = self.separators.as_ref().map_or(default, |(item, key)| (item, key));
        let mut out = String::new();
        Writer { options: self, separators, out: &mut out }.value(value, 0);
        out
    }
}

struct Writer<'a> {
    options: &'a Dumps,
    separators: (&'a str, &'a str),
    out: &'a mut String,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) {
        match value {
            Value::Null => self.out.push_str("null"),
            Value::Bool(value) => self.out.push_str(if *value { "true" } else { "false" }),
            Value::Number(number) if number.is_f64() => self.out.push_str(&float(number.as_f64().unwrap_or(f64::NAN))),
            Value::Number(number) => self.out.push_str(&number.to_string()),
            Value::String(text) => self.string(text),
            Value::Array(items) => self.items('[', ']', items.iter(), depth, |writer, item| writer.value(item, depth + 1)),
            Value::Object(map) => self.items('{', '}', self.pairs(map).into_iter(), depth, |writer, (key, item)| {
                writer.string(key);
                writer.out.push_str(writer.separators.1);
                writer.value(item, depth + 1);
            }),
        }
    }

    fn pairs<'m>(&self, map: &'m Map<String, Value>) -> Vec<(&'m String, &'m Value)> {
        let mut pairs: Vec<_> = map.iter().collect();
        if self.options.sort_keys {
            pairs.sort_by_key(|(key, _)| *key);
        }
        pairs
    }

    fn items<T>(&mut self, open: char, close: char, items: impl ExactSizeIterator<Item = T>, depth: usize, write: impl Fn(&mut Self, T)) {
        let is_empty = items.len() == 0;
        self.out.push(open);
        for (i, item) in items.enumerate() {
            if i > 0 {
                self.out.push_str(self.separators.0);
            }
            self.newline(depth + 1);
            write(self, item);
        }
        if !is_empty {
            self.newline(depth);
        }
        self.out.push(close);
    }

    fn newline(&mut self, depth: usize) {
        if let Some(indent) = self.options.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent.saturating_mul(depth)));
        }
    }

    fn string(&mut self, text: &str) {
        // serde_json escapes the same characters in the same way; only `ensure_ascii` is Python's own.
        let quoted = Value::from(text).to_string();
        if !self.options.ensure_ascii {
            return self.out.push_str(&quoted);
        }
        for c in quoted.chars() {
            if c.is_ascii() {
                self.out.push(c);
            } else {
                let mut units = [0; 2];
                c.encode_utf16(&mut units).iter().for_each(|unit| self.out.push_str(&format!("\\u{unit:04x}")));
            }
        }
    }
}

/// `repr(float)`: the shortest digits that read back, with an exponent below 1e-4 and from 1e16 on.
fn float(value: f64) -> String {
    let scientific = format!("{value:e}");
    match scientific.split_once('e').and_then(|(digits, exponent)| Some((digits, exponent.parse::<i32>().ok()?))) {
        Some((digits, exponent)) if value != 0.0 && !(-4..16).contains(&exponent) => {
            format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
        }
        _ => format!("{value:?}"),
    }
}

/// Seconds since 1970 through a `strftime` format; a directive that is not known stays as it is.
pub(super) fn strftime(format: &str, unix_seconds: i64) -> String {
    const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
    const MONTHS: [&str; 12] =
        ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
    let (days, seconds) = (unix_seconds.div_euclid(86_400), unix_seconds.rem_euclid(86_400));
    let (year, month, day, day_of_year) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    // 1970-01-01 was a Thursday.
    let weekday = DAYS[(days + 4).rem_euclid(7) as usize];
    let month_name = MONTHS[month as usize - 1];
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        // As in glibc, `-` takes the padding away.
        let is_bare = chars.as_str().starts_with('-') && chars.as_str().chars().nth(1).is_some_and(|c| "demHIMSyj".contains(c));
        let directive = if is_bare { chars.nth(1) } else { chars.next() };
        let shown = match directive {
            Some('Y') => year.to_string(),
            Some('y') => format!("{:02}", year.rem_euclid(100)),
            Some('m') => format!("{month:02}"),
            Some('d') => format!("{day:02}"),
            Some('e') => format!("{day:2}"),
            Some('B') => month_name.to_string(),
            Some('b' | 'h') => month_name[..3].to_string(),
            Some('A') => weekday.to_string(),
            Some('a') => weekday[..3].to_string(),
            Some('j') => format!("{day_of_year:03}"),
            Some('H') => format!("{hour:02}"),
            Some('I') => format!("{:02}", (hour + 11) % 12 + 1),
            Some('M') => format!("{minute:02}"),
            Some('S') => format!("{second:02}"),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_string(),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('%') => "%".to_string(),
            other => std::iter::once('%').chain(other).collect(),
        };
        let bare = shown.trim_start_matches(['0', ' ']);
        out.push_str(match is_bare {
            true if bare.is_empty() => "0",
            true => bare,
            false => &shown,
        });
    }
    out
}

/// Year, month, day and day of the year of a count of days since 1970-01-01, in the Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64, i64) {
    const CYCLE: i64 = 146_097; // days in 400 years
    let (cycles, mut day) = (days.div_euclid(CYCLE), days.rem_euclid(CYCLE));
    let mut year = 1970 + 400 * cycles;
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    while day >= 365 + i64::from(is_leap(year)) {
        day -= 365 + i64::from(is_leap(year));
        year += 1;
    }
    let (mut month, day_of_year) = (1, day + 1);
    for length in [31, 28 + i64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    (year, month, day + 1, day_of_year)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_pythons_byte_for_byte() {
        // python3 -c 'import json; print(json.dumps(VALUE, ...))'
        let value: Value = serde_json::from_str(
            r#"{"b": [1, 2.0, 1e-7, 1e16, 123456.5, -0.0], "a": {"é<&>😀": "q\"\\\n\t\u0001\u007f"}, "c": [], "d": {}, "e": [null, true]}"#,
        )
        .unwrap();
        let plain = Dumps { ensure_ascii: false, indent: None, separators: None, sort_keys: false };
        assert_eq!(
            plain.dumps(&value),
            "{\"b\": [1, 2.0, 1e-07, 1e+16, 123456.5, -0.0], \"a\": {\"é<&>😀\": \"q\\\"\\\\\\n\\t\\u0001\u{7f}\"}, \"c\": [], \"d\": {}, \"e\": [null, true]}"
        );
        let small: Value = serde_json::from_str(r#"{"b": [1, {"x": "é😀"}], "a": [], "c": 0.0001}"#).unwrap();
        let sorted = Dumps { ensure_ascii: true, indent: Some(2), separators: None, sort_keys: true };
        assert_eq!(
            sorted.dumps(&small),
            "{\n  \"a\": [],\n  \"b\": [\n    1,\n    {\n      \"x\": \"\\u00e9\\ud83d\\ude00\"\n    }\n  ],\n  \"c\": 0.0001\n}"
        );
        let tight = Dumps { separators: Some((",".into(), ":".into())), ..plain };
        assert_eq!(tight.dumps(&small), "{\"b\":[1,{\"x\":\"é😀\"}],\"a\":[],\"c\":0.0001}");
    }

    #[test]
    fn dates_are_those_of_strftime() {
        // TZ=UTC python3 -c 'import time; print(time.strftime(FORMAT, time.gmtime(SECONDS)))'
        let rows = [
            (0, "%A %d %B %Y %H:%M:%S %p %I", "Thursday 01 January 1970 00:00:00 AM 12"),
            (951_782_400, "%a %e %b %y, %F %T", "Tue 29 Feb 00, 2000-02-29 00:00:00"),
            (1_741_320_306, "%d %b %Y %I:%M %p", "07 Mar 2025 04:05 AM"),
            (1_735_689_599, "%Y-%m-%d %H:%M:%S", "2024-12-31 23:59:59"),
            (4_107_542_400, "%F %a", "2100-03-01 Mon"),
            (-1, "%F %T", "1969-12-31 23:59:59"),
            (0, "100%% %Q % %-Q", "100% %Q % %-Q"),
            (951_782_400, "%-d %-m %-e %-H %-I %-y %j", "29 2 29 0 12 0 060"),
            (1_735_689_599, "%j %-j", "366 366"),
        ];
        for (seconds, format, expected) in rows {
            assert_eq!(strftime(format, seconds), expected);
        }
    }

    #[test]
    fn any_date_is_formatted_without_a_panic() {
        for seconds in [i64::MIN, i64::MAX, -62_135_596_801] {
            assert!(!strftime("%A %d %B %Y %y", seconds).is_empty());
        }
    }
}
