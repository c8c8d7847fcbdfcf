//! The pattern of `verify = "regex:…"`: compiled within limits, and matched against the whole of an answer.
//!
//! Matching takes time linear in the answer (the regex crate), so a pattern cannot be made to hang; back references and look-around are not to be had.

use regex::{Regex, RegexBuilder};

/// Longest pattern, in bytes.
const MAX_PATTERN: usize = 10_000;
/// Memory of a compiled pattern and of its cache, in bytes.
const MAX_COMPILED: usize = 1 << 20;

/// A pattern that matches whole texts only.
///
/// # Errors
/// A sentence that says what is wrong with the pattern, or that it is too large.
pub fn whole(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > MAX_PATTERN {
        return Err(format!("the pattern has {} bytes; {MAX_PATTERN} are the most", pattern.len()));
    }
    // Alone first: `a)|(b` is none, whatever it makes of the brackets around it.
    compiled(pattern)?;
    compiled(&format!(r"\A(?:{pattern})\z")).map_err(|_| format!("the pattern {pattern:?} ends within a comment; end its line"))
}

fn compiled(pattern: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(pattern).size_limit(MAX_COMPILED).dfa_size_limit(MAX_COMPILED).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => format!("the pattern {pattern:?} becomes larger than {MAX_COMPILED} bytes"),
        other => {
            // The last line of the message says what is wrong; those before draw where.
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            format!("{pattern:?} is no pattern: {}", last.strip_prefix("error: ").unwrap_or(last))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_texts() {
        let rows = [
            ("a|ab", "ab", true),
            ("a|ab", "abc", false),
            ("[0-9]+", "12\n", false),
            ("(?i)paris", "PARIS", true),
            ("", "", true),
            ("(?x) a # one\n", "a", true),
            ("(a*)*b", &"a".repeat(4000), false),
        ];
        for (pattern, text, expect) in rows {
            assert_eq!(whole(pattern).map(|regex| regex.is_match(text)), Ok(expect), "{pattern:?} {text:?}");
        }
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        let long = "a".repeat(MAX_PATTERN + 1);
        let rows = [
            ("a)|(b", "unopened group"),
            ("[a", "unclosed character class"),
            (r"(a)\1", "backreferences are not supported"),
            ("(?=a)", "look-around"),
            ("(?x) a # b", "ends within a comment"),
            ("(((a{100}){100}){100})", "larger than"),
            (long.as_str(), "10001 bytes"),
        ];
        for (pattern, part) in rows {
            let error = whole(pattern).expect_err(pattern);
            assert!(error.contains(part), "{error}");
        }
    }
}
