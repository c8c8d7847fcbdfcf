//! The rules over one trace, and the selection among the traces of one problem.

use super::{Decision, FilterSettings, FormatRule, LengthRule, Order, PerProblemRule, ReadableRule};
use crate::key::Key;
use crate::measure::readability;
use crate::response::Response;
use crate::trace::{FinishReason, Reason, Trace, Verdict};

/// Applies the rules that need one trace only; `attempts` and `passes` must be filled in. `lines` is the compiled pattern of `readable`.
pub(super) fn decide(settings: &FilterSettings, lines: Option<&regex::Regex>, trace: &Trace) -> Decision {
    let response = Response::parse(&trace.response);
    let checks = [
        settings.correct.then(|| correct(trace)),
        settings.finished.then(|| finished(trace, &response)),
        settings.format.map(|rule| format(rule, &response)),
    ];
    if let Some(reason) = checks.into_iter().flatten().flatten().next() {
        return Decision::Drop(reason);
    }
    // The share was measured when the attempt was judged, so that the reason shows the figure that the trace shows.
    let language = || settings.language.and_then(|rule| below("language", trace.language.share, rule.min));
    let readable = || match (&settings.readable, lines) {
        (Some(ReadableRule::Default(true)), _) => readability::is_readable(&readability::measure(&trace.response)).err(),
        (_, Some(pattern)) => unreadable_line(&response, pattern),
        _ => None,
    };
    let length = || settings.length.and_then(|rule| length(rule, trace.completion_tokens));
    let pass_rate = || {
        let rate = f64::from(trace.passes.unwrap_or(0)) / f64::from(trace.attempts.unwrap_or(0).max(1));
        settings.pass_rate.and_then(|rule| below("pass_rate", rate, rule.min).or_else(|| above("pass_rate", rate, rule.max)))
    };
    language().or_else(readable).or_else(length).or_else(pass_rate).map_or(Decision::Keep, Decision::Drop)
}

/// The rule that a reason belongs to: parts of a rule are named behind a point.
pub(super) fn name(reason: &Reason) -> &str {
    reason.rule.split('.').next().unwrap_or(&reason.rule)
}

/// Leaves `rule.max` kept traces of one problem, sorted by attempt before and after.
pub(super) fn select(rule: &PerProblemRule, key: Key, judged: &mut [(Trace, Decision)]) {
    let mut kept: Vec<usize> = (0..judged.len()).filter(|i| judged[*i].1 == Decision::Keep).collect();
    let total = kept.len();
    kept.sort_by_cached_key(|i| {
        let trace = &judged[*i].0;
        match rule.order {
            Order::Shortest => (trace.completion_tokens as u64, 0),
            Order::Longest => (u64::MAX - trace.completion_tokens as u64, 0),
            Order::Random => {
                let [a, b, c, d] = key.name("per_problem").name(&trace.problem.0).number(u64::from(trace.attempt)).block(0, 0);
                (u64::from(a) << 32 | u64::from(b), u64::from(c) << 32 | u64::from(d))
            }
        }
    });
    let order = match rule.order {
        Order::Shortest => "shortest",
        Order::Longest => "longest",
        Order::Random => "random",
    };
    for (place, i) in kept.into_iter().enumerate().skip(rule.max) {
        let value = format!("place {} of {total}", place + 1);
        judged[i].1 = Decision::Drop(Reason::measured("per_problem", value, format!("{} {order}", rule.max)));
    }
}

fn correct(trace: &Trace) -> Option<Reason> {
    let (value, span) = match &trace.verdict {
        Some(Verdict::Correct { .. }) => return None,
        Some(Verdict::Wrong { reason, .. }) => (format!("wrong: {reason}"), reason.span),
        Some(Verdict::NoAnswer { reason }) => (format!("no answer: {reason}"), reason.span),
        Some(Verdict::Undecided { reason }) => (format!("undecided: {reason}"), reason.span),
        None => ("no verdict".into(), None),
    };
    Some(Reason { span, ..Reason::measured("correct", value, "correct") })
}

fn finished(trace: &Trace, response: &Response) -> Option<Reason> {
    let value = match trace.finish {
        FinishReason::Stop if !response.think_open => return None,
        FinishReason::Stop => "think not closed",
        FinishReason::Length => "length",
        FinishReason::Overflow => "overflow",
    };
    Some(Reason::measured("finished", value, "stop"))
}

fn format(rule: FormatRule, response: &Response) -> Option<Reason> {
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
    (!holds).then(|| Reason::measured("format", found, threshold))
}

fn unreadable_line(response: &Response, pattern: &regex::Regex) -> Option<Reason> {
    let think = response.think.unwrap_or("");
    if readability::lines_match(think, pattern) {
        return None;
    }
    let line = readability::first_other_line(think, pattern).unwrap_or("no lines");
    Some(Reason::measured("readable.lines", line.chars().take(80).collect::<String>(), pattern))
}

fn length(rule: LengthRule, tokens: usize) -> Option<Reason> {
    let low = rule.min.filter(|min| tokens < *min).map(|min| format!("at least {min}"));
    let high = rule.max.filter(|max| tokens > *max).map(|max| format!("at most {max}"));
    low.or(high).map(|threshold| Reason::measured("length", tokens, threshold))
}

/// Written so that a share that is no number is below every limit.
fn below(rule: &str, value: f64, min: f64) -> Option<Reason> {
    let holds = value >= min;
    (!holds).then(|| Reason::measured(rule, value, format!("at least {min}")))
}

fn above(rule: &str, value: f64, max: f64) -> Option<Reason> {
    (value > max).then(|| Reason::measured(rule, value, format!("at most {max}")))
}
