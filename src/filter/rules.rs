//! The rules over one trace, each a pure decision: what it measured, or the reason for which the trace is dropped.

use super::contamination::Evaluations;
use super::settings::{FilterSettings, FormatRule, LOCAL, LengthRule, RULES, ReadableRule};
use crate::measure::{language, readability, repetition};
use crate::response::Response;
use crate::trace::{FinishReason, Reason, Trace, Verdict};
use std::borrow::Cow;

/// What a rule says: the value it measured where it keeps the trace.
type Judgement = Result<Cow<'static, str>, Reason>;

/// What the rules over one trace need.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    pub settings: &'a FilterSettings,
    /// The compiled pattern of `readable`.
    pub lines: Option<&'a regex::Regex>,
    /// What `decontaminate` names.
    pub evaluations: &'a Evaluations,
}

/// What one rule said about a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub rule: &'static str,
    /// The measured value, or why the trace is dropped.
    pub says: Result<String, Reason>,
}

impl Rules<'_> {
    /// The first rule that drops a trace, by its place in [`RULES`].
    pub fn decide(&self, trace: &Trace) -> Option<(u8, Reason)> {
        let response = Response::parse(&trace.response);
        (0..LOCAL).filter(|rule| self.settings.is_on(*rule)).find_map(|rule| Some((rule, self.judge(rule, trace, &response).err()?)))
    }

    /// Every rule that was asked, down to the first that drops the trace.
    pub fn explain(&self, trace: &Trace) -> Vec<Finding> {
        let response = Response::parse(&trace.response);
        let mut findings = Vec::new();
        for rule in (0..LOCAL).filter(|rule| self.settings.is_on(*rule)) {
            let says = self.judge(rule, trace, &response).map(Cow::into_owned);
            let ends = says.is_err();
            findings.push(Finding { rule: RULES[usize::from(rule)], says });
            if ends {
                break;
            }
        }
        findings
    }

    fn judge(&self, rule: u8, trace: &Trace, response: &Response) -> Judgement {
        match RULES[usize::from(rule)] {
            "correct" => correct(trace),
            "finished" => finished(trace, response),
            "format" => self.settings.format.map_or(Ok("".into()), |rule| format(rule, response)),
            "length" => self.settings.length.map_or(Ok("".into()), |rule| length(rule, trace.completion_tokens)),
            // The share was measured when the attempt was judged, so that the reason shows the figure that the trace shows.
            "language" => {
                let judged = at_least("language", trace.language.share, self.settings.language.map_or(0.0, |rule| rule.min));
                judged.map_err(|reason| Reason { span: foreign(trace), ..reason })
            }
            "readable" => self.readable(trace, response),
            "repetition" => repetition::is_repetitive(&repetition::measure(&trace.response)).map(|()| "no loop".into()),
            _ => self.uncontaminated(trace),
        }
    }

    fn readable(&self, trace: &Trace, response: &Response) -> Judgement {
        match (&self.settings.readable, self.lines) {
            (Some(ReadableRule::Default(true)), _) => {
                readability::is_readable(&readability::measure(&trace.response)).map(|()| "every part within its limit".into())
            }
            (_, Some(pattern)) => readable_lines(response, pattern),
            _ => Ok("".into()),
        }
    }

    fn uncontaminated(&self, trace: &Trace) -> Judgement {
        for (text, place) in [(&trace.question, "question"), (&trace.response, "response")] {
            if let Some(hit) = self.evaluations.find(text) {
                return Err(hit.reason(place));
            }
        }
        Ok(format!("none of {} evaluation problems", self.evaluations.len()).into())
    }
}

fn correct(trace: &Trace) -> Judgement {
    let (value, span) = match &trace.verdict {
        Some(Verdict::Correct { answer }) => return Ok(format!("correct: {answer}").into()),
        Some(Verdict::Wrong { reason, .. }) => (format!("wrong: {reason}"), reason.span),
        Some(Verdict::NoAnswer { reason }) => (format!("no answer: {reason}"), reason.span),
        Some(Verdict::Undecided { reason }) => (format!("undecided: {reason}"), reason.span),
        None => ("no verdict".into(), None),
    };
    Err(Reason { span, ..Reason::measured("correct", value, "correct") })
}

fn finished(trace: &Trace, response: &Response) -> Judgement {
    let value = match trace.finish {
        FinishReason::Stop if response.think_open => "think not closed",
        FinishReason::Stop => return one_answer(response),
        FinishReason::Length => "length",
        FinishReason::Overflow => "overflow",
    };
    Err(Reason::measured("finished", value, "stop"))
}

/// A second box with other content, or a second `<answer>`, points at itself.
fn one_answer(response: &Response) -> Judgement {
    let offset = response.text.len() - response.answer.len();
    let second = match second_box(response.answer) {
        Some(place) => Some((place, "a second box")),
        None => response.answer.match_indices("<answer>").nth(1).map(|(at, tag)| ((at, at + tag.len()), "a second <answer>")),
    };
    match second {
        None => Ok("stop, one answer".into()),
        Some(((start, end), value)) => {
            Err(Reason { span: Some((offset + start, offset + end)), ..Reason::measured("finished.one_answer", value, "one answer") })
        }
    }
}

/// The first closed box whose content is not that of the first one, white space aside. One pass: a box inside a box is a part of it, and one that never closes
/// is the last.
fn second_box(text: &str) -> Option<(usize, usize)> {
    const BOX: &str = "\\boxed{";
    let mut first: Option<&str> = None;
    let mut at = 0;
    while let Some(found) = text[at..].find(BOX) {
        let start = at + found;
        let inside = start + BOX.len();
        let end = inside + closing_brace(&text[inside..])?;
        let content = &text[inside..end];
        let is_other = |first: &str| !first.split_whitespace().flat_map(str::chars).eq(content.split_whitespace().flat_map(str::chars));
        match first {
            Some(first) if is_other(first) => return Some((start, end + 1)),
            _ => first = first.or(Some(content)),
        }
        at = end;
    }
    None
}

/// Where the group closes in which `text` begins.
fn closing_brace(text: &str) -> Option<usize> {
    let (mut depth, mut escaped) = (0usize, false);
    for (i, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some(i),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn format(rule: FormatRule, response: &Response) -> Judgement {
    let (holds, threshold) = match rule {
        FormatRule::Think => (response.think.is_some() && !response.think_open && !response.answer.trim().is_empty(), "think"),
        FormatRule::ThinkAnswer => (response.is_think_answer(), "think-answer"),
    };
    let found = match response {
        Response { think_open: true, .. } => "think not closed",
        Response { think: None, .. } => "no think",
        Response { answer, .. } if answer.trim().is_empty() => "think without an answer",
        _ => "think",
    };
    if holds { Ok(threshold.into()) } else { Err(Reason::measured("format", found, threshold)) }
}

fn readable_lines(response: &Response, pattern: &regex::Regex) -> Judgement {
    let think = response.think.unwrap_or("");
    if readability::lines_match(think, pattern) {
        return Ok("every line matches".into());
    }
    let other = readability::first_other_line(think, pattern);
    let span = other.map(|line| {
        let start = line.as_ptr() as usize - response.text.as_ptr() as usize;
        (start, start + line.len())
    });
    let value: String = other.unwrap_or("no lines").chars().take(80).collect();
    Err(Reason { span, ..Reason::measured("readable.lines", value, pattern) })
}

fn length(rule: LengthRule, tokens: usize) -> Judgement {
    let low = rule.min.filter(|min| tokens < *min).map(|min| format!("at least {min}"));
    let high = rule.max.filter(|max| tokens > *max).map(|max| format!("at most {max}"));
    low.or(high).map_or_else(|| Ok(format!("{tokens} tokens").into()), |threshold| Err(Reason::measured("length", tokens, threshold)))
}

/// The longest stretch of the response in another language.
fn foreign(trace: &Trace) -> Option<(usize, usize)> {
    let found = language::measure(&trace.response, trace.language.target).foreign;
    found.iter().max_by_key(|stretch| (stretch.words, std::cmp::Reverse(stretch.span))).map(|stretch| stretch.span)
}

/// Written so that a share that is no number is below every limit.
pub(super) fn at_least(rule: &str, value: f64, min: f64) -> Judgement {
    if value >= min { Ok(value.to_string().into()) } else { Err(Reason::measured(rule, value, format!("at least {min}"))) }
}

pub(super) fn at_most(rule: &str, value: f64, max: f64) -> Judgement {
    if value > max { Err(Reason::measured(rule, value, format!("at most {max}"))) } else { Ok(value.to_string().into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_box_is_one_with_other_content() {
        let rows = [
            ("", None),
            (r"\boxed{1}", None),
            (r"\boxed{1} and again \boxed{ 1 }", None),
            (r"\boxed{1} or \boxed{2}", Some((13, 22))),
            (r"\boxed{\frac{1}{2}} so \boxed{\frac12}", Some((23, 38))),
            (r"\boxed{a\}b} \boxed{a\}b}", None),
            (r"\boxed{1} \boxed{2", None),
            (r"\boxed{1 \boxed{2} 3}", None),
        ];
        for (text, expected) in rows {
            assert_eq!(second_box(text), expected, "{text:?}");
        }
        assert_eq!(second_box(&r"\boxed{".repeat(100_000)), None);
    }
}
