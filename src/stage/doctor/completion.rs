//! Completions that no model wrote: one that answers a problem as well as can be, and one that answers it wrongly.
//!
//! Which form of an answer is paid best hangs on the reward; so there are several forms, and whoever asks takes the best. A program that passes tests, and what a
//! command or a judge wants, cannot be known.

use crate::key::Key;
use crate::problem::{Answer, Language, Problem};
use crate::tasks::arithmetic::Expression;
use crate::tasks::{cold_start, countdown, countdown_start};
use regex_syntax::hir::{Class, Hir, HirKind};

/// Texts that a pattern is tried on before it counts as one that matches nothing.
const TRIES: u64 = 300;
/// Repetitions beyond the fewest that a sample of a pattern has.
const MORE: u32 = 4;

/// Whole responses that answer the problem, in several forms; `Err` says why none is known.
pub(super) fn perfect(problem: &Problem) -> Result<Vec<String>, String> {
    let answer = right(problem)?;
    let mut forms = Vec::new();
    if problem.task == "arithmetic"
        && let Some(expression) = Expression::of_question(&problem.question)
    {
        forms.push(cold_start::gold_trace(&expression, problem.language));
    }
    if problem.task == "countdown-tiny" {
        forms.extend(countdown_start::trace(problem, Key::new(0, "doctor")));
    }
    forms.extend(in_forms(problem.language, &answer));
    Ok(forms)
}

/// The same forms around a wrong answer; `None` where no answer is known to be wrong.
pub(super) fn wrong(problem: &Problem) -> Option<Vec<String>> {
    let answer = match &problem.answer {
        Answer::Number { value } | Answer::Math { text: value } => if value.trim() == "7" { "8" } else { "7" }.to_owned(),
        Answer::Exact { text } => format!("not {text}"),
        Answer::Choice { letter } => if *letter == 'A' { "B" } else { "A" }.to_owned(),
        Answer::Countdown { numbers, target } => format!("{} = {}", numbers.first()?, target + 1),
        Answer::Knights { names, knights } => {
            Answer::Knights { names: names.clone(), knights: knights.iter().map(|knight| !knight).collect() }.gold()
        }
        Answer::Regex { .. } | Answer::Code { .. } | Answer::Command { .. } | Answer::Open { .. } => return None,
    };
    Some(in_forms(problem.language, &answer))
}

/// The text that belongs between the marks of an answer.
fn right(problem: &Problem) -> Result<String, String> {
    Ok(match &problem.answer {
        Answer::Countdown { numbers, target } => {
            countdown::solve(numbers, *target).ok_or_else(|| format!("{target} cannot be reached with {numbers:?}"))?
        }
        Answer::Regex { pattern } => matching(pattern)?,
        Answer::Code { .. } => return Err("a program that passes the tests is not known".into()),
        Answer::Command { .. } => return Err("what the command takes for right is not known".into()),
        Answer::Open { .. } => return Err("no rule says what is right".into()),
        other => other.gold(),
    })
}

fn in_forms(language: Language, answer: &str) -> Vec<String> {
    let work = match language {
        Language::En => "Let us work it out step by step and check the result.",
        Language::Zh => "我们一步一步地想，然后检查结果。",
        // Mathematics is of no language, so it is in the right one.
        _ => "1 + 1 = 2",
    };
    vec![
        format!("<think>\n{work}\n</think>\n<answer>\n{answer}\n</answer>"),
        format!("<think>\n{work}\n</think>\n<answer>{answer}</answer>"),
        format!("<think>\n{work}\n</think>\n\\boxed{{{answer}}}"),
        format!("<think>\n{work}\n</think>\n<answer>\\boxed{{{answer}}}</answer>"),
        // Without any reasoning: no right answer is shorter.
        format!("<answer>{answer}</answer>"),
        format!("\\boxed{{{answer}}}"),
    ]
}

/// A text that a pattern matches as a whole.
pub(super) fn matching(pattern: &str) -> Result<String, String> {
    let hir = regex_syntax::parse(pattern).map_err(|error| format!("the pattern {pattern:?} does not parse: {error}"))?;
    let whole = regex::Regex::new(&format!("^(?:{pattern})$")).map_err(|error| format!("the pattern {pattern:?} is none: {error}"))?;
    let key = Key::new(0, "pattern");
    (0..TRIES)
        .filter_map(|i| sample(&hir, &mut key.number(i).stream(), u32::from(i > 0)))
        .find(|text| whole.is_match(text))
        .ok_or_else(|| format!("none of {TRIES} texts built after the pattern {pattern:?} matches it"))
}

/// A text after the pattern, looking around left aside; `None` where a class is empty. With `more` 0 everything is repeated as little as may be.
fn sample(hir: &Hir, stream: &mut crate::key::Stream, more: u32) -> Option<String> {
    Some(match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => String::new(),
        HirKind::Literal(literal) => String::from_utf8_lossy(&literal.0).into_owned(),
        HirKind::Class(class) => one_of(class, stream)?.to_string(),
        HirKind::Capture(capture) => sample(&capture.sub, stream, more)?,
        HirKind::Concat(parts) => parts.iter().map(|part| sample(part, stream, more)).collect::<Option<String>>()?,
        HirKind::Alternation(parts) => {
            let n = u32::try_from(parts.len()).ok()?;
            sample(&parts[stream.below(n) as usize], stream, more)?
        }
        HirKind::Repetition(repetition) => {
            let room = repetition.max.map_or(MORE, |max| (max - repetition.min).min(MORE)) * more;
            let n = repetition.min.min(1000) + stream.below(room + 1);
            (0..n).map(|_| sample(&repetition.sub, stream, more)).collect::<Option<String>>()?
        }
    })
}

/// A character of a class, one that is seen where there is one.
fn one_of(class: &Class, stream: &mut crate::key::Stream) -> Option<char> {
    let ranges: Vec<(u32, u32)> = match class {
        Class::Unicode(class) => class.ranges().iter().map(|range| (range.start() as u32, range.end() as u32)).collect(),
        Class::Bytes(class) => class.ranges().iter().map(|range| (range.start().into(), range.end().into())).collect(),
    };
    let seen: Vec<(u32, u32)> =
        ranges.iter().map(|(low, high)| ((*low).max(0x21), (*high).min(0x7e))).filter(|(low, high)| low <= high).collect();
    let from = if seen.is_empty() { ranges } else { seen };
    let (low, high) = *from.get(stream.below(u32::try_from(from.len()).ok().filter(|n| *n > 0)?) as usize)?;
    char::from_u32(low + stream.below(high - low + 1)).or(char::from_u32(low))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::ProblemId;
    use crate::response::Response;
    use crate::verify::{Extraction, Rules};

    fn problem(answer: Answer) -> Problem {
        Problem { id: ProblemId("t/0".into()), task: "t".into(), question: "?".into(), answer, language: Language::En, level: None }
    }

    fn answers() -> Vec<Answer> {
        vec![
            Answer::Number { value: "42".into() },
            Answer::Number { value: "7".into() },
            Answer::Math { text: r"\frac{1}{2}".into() },
            Answer::Exact { text: "the Nile".into() },
            Answer::Choice { letter: 'A' },
            Answer::Regex { pattern: r"(cat|dog)s?-\d{2,4}[a-f]+".into() },
            Answer::Countdown { numbers: vec![3, 5, 7], target: 22 },
            Answer::Knights { names: vec!["Ann".into(), "Bo".into()], knights: vec![true, false] },
        ]
    }

    #[test]
    fn a_perfect_completion_is_right_and_a_wrong_one_is_wrong() {
        let rules = Rules::new(Extraction::Strict);
        for answer in answers() {
            let problem = problem(answer);
            let is_right = |text: &String| rules.judge(&problem, &Response::parse(text)).is_correct();
            assert!(perfect(&problem).unwrap().iter().any(is_right), "{problem:?}");
            assert!(!wrong(&problem).is_some_and(|texts| texts.iter().any(is_right)), "{problem:?}");
        }
    }

    #[test]
    fn a_pattern_that_can_match_is_matched_and_one_that_cannot_is_found_out() {
        for pattern in ["a", r"\d+", "[^a]{3}", "(?i)yes|no", "x{900}", r"-?\d+(\.\d+)?", "", "^ab$", r"\bword\b", ".*z", "[α-ω]+"] {
            let text = matching(pattern).unwrap_or_else(|why| panic!("{pattern}: {why}"));
            assert!(regex::Regex::new(&format!("^(?:{pattern})$")).unwrap().is_match(&text), "{pattern}: {text}");
        }
        for pattern in ["a^", "$b", r"\b\B", r"a\bb", "[a&&b]"] {
            assert!(matching(pattern).is_err(), "{pattern}");
        }
    }
}
