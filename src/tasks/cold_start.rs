//! Traces on arithmetic problems: right ones, and corrupted ones for the cold start of the tiny recipe.
//!
//! The corruption is planted on purpose: a wrong order is the modal one, results slip, steps are skipped, languages mix. What GRPO then removes is
//! known exactly. The text here has no end token and no prompt; those belong to the tokenizer.

use super::arithmetic::{Expression, Order, Step};
use crate::key::{Key, Stream};
use crate::problem::Language;
use anyhow::ensure;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Probabilities of the three independent draws behind one corrupted trace.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Corruption {
    /// The steps are taken from left to right instead of by precedence.
    pub left_to_right: f64,
    /// One result is off and the error is carried on. Excludes `skip`.
    pub slip: f64,
    /// The trace stops after some of its steps. Excludes `slip`.
    pub skip: f64,
    /// Each step draws its language at random instead of keeping the question's.
    pub mixed_language: f64,
}

impl Default for Corruption {
    fn default() -> Self {
        Self { left_to_right: 0.60, slip: 0.15, skip: 0.10, mixed_language: 0.50 }
    }
}

impl Corruption {
    /// # Errors
    /// When a probability is outside [0, 1] or `slip + skip` is above 1.
    pub fn validate(&self) -> anyhow::Result<()> {
        let named =
            [("left_to_right", self.left_to_right), ("slip", self.slip), ("skip", self.skip), ("mixed_language", self.mixed_language)];
        for (name, p) in named {
            ensure!((0.0..=1.0).contains(&p), "{name} must be in [0, 1], got {p}");
        }
        ensure!(self.slip + self.skip <= 1.0, "slip + skip must be at most 1, got {}", self.slip + self.skip);
        Ok(())
    }
}

/// What stands between a step and its result: in Chinese for Chinese, in English for any other language.
pub fn connective(language: Language) -> &'static str {
    match language {
        Language::Zh => "得",
        _ => " is ",
    }
}

/// The right response: all steps by precedence, in one language.
pub fn gold_trace(expression: &Expression, language: Language) -> String {
    let steps = expression.steps(Order::Precedence);
    let languages = vec![language; steps.len()];
    render(&steps, &languages)
}

/// A response with the planted faults, drawn under `key`. Its answer is always its own last result.
pub fn corrupted_trace(expression: &Expression, language: Language, key: Key, corruption: &Corruption) -> String {
    let mut stream = key.stream();
    let order = if stream.chance(corruption.left_to_right) { Order::LeftToRight } else { Order::Precedence };
    let defect = stream.unit();
    let mut steps = expression.steps(order);
    if defect < corruption.slip {
        steps = slipped(expression, order, &mut stream).unwrap_or(steps);
    } else if defect < corruption.slip + corruption.skip && steps.len() > 1 {
        steps.truncate(1 + stream.below(steps.len() as u32 - 1) as usize);
    }
    let mixed = stream.chance(corruption.mixed_language);
    let mut speak = || if mixed { *stream.choose(&[Language::En, Language::Zh]) } else { language };
    let languages: Vec<Language> = steps.iter().map(|_| speak()).collect();
    render(&steps, &languages)
}

/// One result off by 1, 2 or 10 (not below 0), redrawn while a later result leaves `0..=99`; `None` if that keeps happening.
fn slipped(expression: &Expression, order: Order, stream: &mut Stream) -> Option<Vec<Step>> {
    // An expression of the task is within 0..=20, so a slip at its last step alone succeeds in at least one draw of four.
    (0..256).find_map(|_| {
        let at = stream.below(expression.n_operands() as u32 - 1) as usize;
        let off = *stream.choose(&[-10, -2, -1, 1, 2, 10]);
        let steps = expression.steps_with(order, |i, result| if i == at { (result + off).max(0) } else { result });
        steps.iter().all(|s| (0..=99).contains(&s.result)).then_some(steps)
    })
}

fn render(steps: &[Step], languages: &[Language]) -> String {
    let mut text = String::from("<think>");
    for (step, language) in steps.iter().zip(languages) {
        let Step { a, operator, b, result } = step;
        writeln!(text, "{a}{}{b}{}{result}", operator.symbol(), connective(*language)).expect("writing to a string cannot fail");
    }
    let answer = steps.last().map_or(0, |s| s.result);
    write!(text, "</think><answer>{answer}</answer>").expect("writing to a string cannot fail");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::arithmetic::problem;

    fn sure(left_to_right: f64, slip: f64, skip: f64, mixed_language: f64) -> Corruption {
        Corruption { left_to_right, slip, skip, mixed_language }
    }

    fn answer(trace: &str) -> &str {
        trace.split_once("<answer>").and_then(|(_, rest)| rest.strip_suffix("</answer>")).expect("an answer")
    }

    #[test]
    fn traces_have_the_recipes_form() {
        let e = Expression::parse("7+4-2-8").expect("valid");
        assert_eq!(gold_trace(&e, Language::En), "<think>7+4 is 11\n11-2 is 9\n9-8 is 1\n</think><answer>1</answer>");
        assert_eq!(gold_trace(&e, Language::Zh), "<think>7+4得11\n11-2得9\n9-8得1\n</think><answer>1</answer>");
        let e = Expression::parse("2+3*4").expect("valid");
        let key = Key::new(1, "form");
        assert_eq!(
            corrupted_trace(&e, Language::En, key, &sure(1.0, 0.0, 0.0, 0.0)),
            "<think>2+3 is 5\n5*4 is 20\n</think><answer>20</answer>"
        );
        assert_eq!(corrupted_trace(&e, Language::Zh, key, &sure(0.0, 0.0, 0.0, 0.0)), gold_trace(&e, Language::Zh));
        assert_eq!(corrupted_trace(&e, Language::En, key, &sure(0.0, 0.0, 1.0, 0.0)), "<think>3*4 is 12\n</think><answer>12</answer>");
    }

    #[test]
    fn one_slip_is_carried_on_within_bounds() {
        let stream = Key::new(1, "slips");
        for i in 0..2_000 {
            let p = problem(stream, "t", i);
            let e = Expression::of_question(&p.question).expect("own");
            let steps = slipped(&e, Order::Precedence, &mut stream.number(i).name("slip").stream()).expect("possible");
            let wrong: Vec<i64> = steps.iter().map(|s| s.result - s.operator.apply(s.a, s.b)).filter(|d| *d != 0).collect();
            assert!(wrong.len() <= 1 && wrong.iter().all(|d| d.abs() <= 10), "{e} {steps:?}");
            assert!(steps.iter().all(|s| (0..=99).contains(&s.result)), "{e} {steps:?}");
        }
    }

    #[test]
    fn shares_of_twenty_thousand_traces_are_the_recipes() {
        let key = Key::new(5, "cold-start-test");
        let n = 20_000;
        let (mut right, mut skipped, mut slipped, mut foreign, mut ordered, mut told) = (0, 0, 0, 0, 0, 0);
        for i in 0..n {
            let p = problem(key, "t", i);
            let e = Expression::of_question(&p.question).expect("own");
            let trace = corrupted_trace(&e, p.language, key.number(i).name("trace"), &Corruption::default());
            right += u32::from(answer(&trace) == p.answer.gold());
            let lines: Vec<&str> = trace.trim_start_matches("<think>").lines().filter(|l| !l.starts_with("</think>")).collect();
            skipped += u32::from(lines.len() + 1 < e.n_operands());
            let is_false = |l: &&str| {
                let (left, result) = l.split_once(" is ").or_else(|| l.split_once('得')).expect("a connective");
                let at = left.find(['+', '-', '*']).expect("an operator");
                let (a, b): (i64, i64) = (left[..at].parse().expect("int"), left[at + 1..].parse().expect("int"));
                let value = match left.as_bytes()[at] {
                    b'+' => a + b,
                    b'-' => a - b,
                    _ => a * b,
                };
                value.to_string() != result
            };
            slipped += u32::from(lines.iter().any(is_false));
            let other = if p.language == Language::En { '得' } else { 'i' };
            foreign += u32::from(trace.trim_start_matches("<think>").lines().any(|l| !l.starts_with('<') && l.contains(other)));
            // Where the two orders begin differently, the first operands tell which one was taken.
            let first = |order| e.steps(order)[0];
            let (ltr, precedence) = (first(Order::LeftToRight), first(Order::Precedence));
            if (ltr.a, ltr.operator, ltr.b) != (precedence.a, precedence.operator, precedence.b) {
                told += 1;
                ordered += u32::from(lines[0].starts_with(&format!("{}{}{}", ltr.a, ltr.operator.symbol(), ltr.b)));
            }
        }
        let share = |count: u32, of: u32| f64::from(count) / f64::from(of);
        let n = n as u32;
        assert!((share(ordered, told) - 0.60).abs() < 0.02, "left to right {ordered} of {told}");
        assert!((share(skipped, n) - 0.10).abs() < 0.01, "skipped {skipped}");
        // A slip below 0 is clamped, so a slip of a result 0 by -1 shows nothing: a little under .15.
        assert!((0.130..0.155).contains(&share(slipped, n)), "slipped {slipped}");
        // Half of the traces mix; a mixed one of k steps keeps one language by chance in 2^-k of the cases.
        assert!((0.42..0.47).contains(&share(foreign, n)), "foreign {foreign}");
        assert!((0.28..0.38).contains(&share(right, n)), "right {right}");
    }

    #[test]
    fn a_trace_depends_on_its_key_only() {
        let e = Expression::parse("6-2*2+7").expect("valid");
        let trace = |seed| corrupted_trace(&e, Language::En, Key::new(seed, "t"), &Corruption::default());
        assert_eq!(trace(1), trace(1));
        assert!((2..40).any(|seed| trace(seed) != trace(1)));
    }

    #[test]
    fn impossible_probabilities_are_refused() {
        assert!(Corruption::default().validate().is_ok());
        let error = |c: Corruption| c.validate().expect_err("refused").to_string();
        assert_eq!(error(sure(1.5, 0.0, 0.0, 0.0)), "left_to_right must be in [0, 1], got 1.5");
        assert_eq!(error(sure(0.0, 0.75, 0.5, 0.0)), "slip + skip must be at most 1, got 1.25");
        assert!(sure(0.0, f64::NAN, 0.0, 0.0).validate().is_err());
    }
}
