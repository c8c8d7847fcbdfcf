//! Countdown for models that start from nothing: three small numbers, asked in signs alone, and demonstrations that search.
//!
//! Everything written here is within the embedded tokenizer: `3 4 5=35` is a question, `3+4=7 7*5=35` one try. A demonstration makes a few tries
//! that miss and ends with one that hits, so its answer is always right; how many tries come first is drawn, so a model learns to go on after a
//! miss. The think part ends right behind the last result: whether to go on is decided where the result stands and can be compared with the
//! target. Which try hits cannot be copied from anywhere. The full task in words is `countdown.rs`'s; judging is `verify/`'s.

use crate::key::{Key, Stream};
use crate::problem::{Answer, Language, Problem, ProblemId};
use anyhow::ensure;
use std::collections::HashSet;

/// Largest number of a problem; the smallest is 1.
pub const LARGEST: i64 = 9;
/// Every result of a try lies in `0..=GREATEST`, so that it is one token.
pub const GREATEST: i64 = 99;
/// Smallest target.
pub const SMALLEST_TARGET: i64 = 10;
/// Most problems that `held_out` gives; the class has a few more.
pub const HELD_OUT_LIMIT: usize = 256;
/// One class of questions in so many is held out.
const CLASSES: u64 = 5;
/// A demonstration has at most so many tries that miss.
pub const MISSES: u32 = 5;

/// One way to use all three numbers: `a first b`, then its result with `c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Try {
    a: i64,
    first: char,
    b: i64,
    middle: i64,
    /// The operands of the second step, one of which is `middle`.
    left: i64,
    second: char,
    right: i64,
    /// Whether the third number stands before the first step.
    leads: bool,
    result: i64,
}

/// Problem `index` under `key` for training, with id `<prefix>/<index>`: never of the held-out class.
pub fn problem(key: Key, prefix: &str, index: u64) -> Problem {
    let (numbers, target) = draw(&mut key.number(index).stream(), false);
    ask(&numbers, target, format!("{prefix}/{index}"))
}

/// `n` different problems of the held-out class, with ids `countdown-tiny/held-out/<index>`.
///
/// # Errors
/// When `n` is above [`HELD_OUT_LIMIT`].
pub fn held_out(key: Key, n: usize) -> anyhow::Result<Vec<Problem>> {
    ensure!(n <= HELD_OUT_LIMIT, "countdown-tiny has at most {HELD_OUT_LIMIT} held-out problems, got {n}; ask for fewer");
    let (mut stream, mut seen, mut problems) = (key.stream(), HashSet::new(), Vec::with_capacity(n));
    while problems.len() < n {
        let (numbers, target) = draw(&mut stream, true);
        if seen.insert((numbers, target)) {
            problems.push(ask(&numbers, target, format!("countdown-tiny/held-out/{}", problems.len())));
        }
    }
    Ok(problems)
}

/// The numbers in rising order and the target, such as `3 4 5=35`.
pub fn question(numbers: &[i64], target: i64) -> String {
    let list: Vec<String> = numbers.iter().map(i64::to_string).collect();
    format!("{}={target}", list.join(" "))
}

/// A demonstration: up to [`MISSES`] different tries that miss, then one that hits, drawn under `key`.
///
/// `None` for what is not a problem of three numbers that such a try solves.
pub fn trace(problem: &Problem, key: Key) -> Option<String> {
    let Answer::Countdown { numbers, target } = &problem.answer else { return None };
    let tries = tries(<&[i64; 3]>::try_from(numbers.as_slice()).ok()?);
    let (hits, mut misses): (Vec<Try>, Vec<Try>) = tries.into_iter().partition(|t| t.result == *target);
    if hits.is_empty() {
        return None;
    }
    let mut stream = key.stream();
    stream.shuffle(&mut misses);
    misses.truncate(stream.below(MISSES + 1) as usize);
    let hit = stream.choose(&hits);
    let lines: Vec<String> = misses.iter().chain([hit]).map(Try::line).collect();
    Some(format!("<think>{}</think><answer>{}</answer>", lines.join("\n"), hit.expression()))
}

impl Try {
    /// `3+4=7 7*5=35`.
    fn line(&self) -> String {
        let Self { a, first, b, middle, left, second, right, result, .. } = self;
        format!("{a}{first}{b}={middle} {left}{second}{right}={result}")
    }

    /// `(3+4)*5`, or `5-(3+4)` where the third number leads.
    fn expression(&self) -> String {
        let Self { a, first, b, left, second, right, .. } = self;
        if self.leads { format!("{left}{second}({a}{first}{b})") } else { format!("({a}{first}{b}){second}{right}") }
    }
}

/// Three numbers in rising order and a target that some try reaches, inside or outside the held-out class.
fn draw(stream: &mut Stream, held_out: bool) -> ([i64; 3], i64) {
    // One draw in five, or four in five, is of the class; a draw without any target in range is rare.
    loop {
        let mut numbers = [0; 3].map(|_: i64| stream.range(1, LARGEST));
        numbers.sort_unstable();
        let targets: Vec<i64> = tries(&numbers).iter().map(|t| t.result).filter(|r| *r >= SMALLEST_TARGET).collect();
        if !targets.is_empty() {
            let target = *stream.choose(&targets);
            if is_held_out(&question(&numbers, target)) == held_out {
                return (numbers, target);
            }
        }
    }
}

fn ask(numbers: &[i64; 3], target: i64, id: String) -> Problem {
    Problem {
        id: ProblemId(id),
        task: "countdown-tiny".to_owned(),
        question: question(numbers, target),
        answer: Answer::Countdown { numbers: numbers.to_vec(), target },
        language: Language::En,
        level: Some(3),
    }
}

/// FNV-1a 64 of the question. The numbers are sorted, so no other order of them is on the other side.
fn is_held_out(question: &str) -> bool {
    let hash = question.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    hash.is_multiple_of(CLASSES)
}

/// All tries on three numbers whose results are whole and in range, each once, in a fixed order.
fn tries(numbers: &[i64; 3]) -> Vec<Try> {
    let mut all = Vec::new();
    let mut seen = HashSet::new();
    for (i, j, k) in [(0, 1, 2), (0, 2, 1), (1, 2, 0)] {
        for (a, first, b, middle) in steps(numbers[i], numbers[j]) {
            for (left, second, right, result) in steps(middle, numbers[k]) {
                // `middle` stands first unless the step swapped its operands; where both are equal the two readings are one.
                let leads = (left, right) != (middle, numbers[k]);
                let t = Try { a, first, b, middle, left, second, right, leads, result };
                if seen.insert(t) {
                    all.push(t);
                }
            }
        }
    }
    all
}

/// The steps on two numbers: sum and product once, difference and quotient in the order that gives a whole number in range.
fn steps(a: i64, b: i64) -> impl Iterator<Item = (i64, char, i64, i64)> {
    let (high, low) = (a.max(b), a.min(b));
    let difference = Some((high, '-', low, high - low));
    let quotient = (low > 0 && high % low == 0).then(|| (high, '/', low, high / low));
    let all = [Some((a, '+', b, a + b)), Some((a, '*', b, a * b)), difference, quotient];
    all.into_iter().flatten().filter(|step| (0..=GREATEST).contains(&step.3))
}

#[cfg(test)]
mod tests {
    use super::super::countdown::tests::is_solution;
    use super::*;

    fn parts(text: &str) -> (Vec<&str>, &str) {
        let (think, answer) = text.strip_prefix("<think>").and_then(|t| t.split_once("</think><answer>")).expect("the form");
        (think.lines().collect(), answer.strip_suffix("</answer>").expect("closed"))
    }

    fn countdown(numbers: &[i64], target: i64) -> Problem {
        let answer = Answer::Countdown { numbers: numbers.to_vec(), target };
        Problem { id: ProblemId("p".into()), task: "t".into(), question: String::new(), answer, language: Language::En, level: None }
    }

    #[test]
    fn questions_are_short_and_solvable_in_one_try() {
        assert_eq!(question(&[3, 4, 5], 35), "3 4 5=35");
        let key = Key::new(1, "questions");
        for i in 0..500 {
            let p = problem(key, "t", i);
            let Answer::Countdown { numbers, target } = &p.answer else { panic!("{p:?}") };
            assert!(numbers.is_sorted() && numbers.iter().all(|n| (1..=LARGEST).contains(n)), "{p:?}");
            assert!((SMALLEST_TARGET..=GREATEST).contains(target) && p.question == question(numbers, *target), "{p:?}");
            assert_eq!(problem(key, "t", i), p);
        }
    }

    #[test]
    fn every_demonstration_ends_right_and_misses_before() {
        let key = Key::new(2, "demonstrations");
        let mut lengths = [0; MISSES as usize + 2];
        for i in 0..2_000 {
            let p = problem(key, "t", i);
            let Answer::Countdown { numbers, target } = &p.answer else { panic!("{p:?}") };
            let text = trace(&p, key.number(i).name("trace")).expect("a problem of this task");
            let (lines, answer) = parts(&text);
            assert!(is_solution(answer, numbers, *target), "{} {text}", p.question);
            let results: Vec<i64> = lines.iter().map(|l| l.rsplit('=').next().and_then(|r| r.parse().ok()).expect("a result")).collect();
            let (last, before) = results.split_last().expect("at least one try");
            assert!(last == target && !before.contains(target), "{} {text}", p.question);
            lengths[lines.len()] += 1;
        }
        assert!(lengths[1..].iter().all(|n| *n > 250), "{lengths:?}");
    }

    /// Each `x=y` of a line is true, and the second step takes the first one's result.
    #[test]
    fn every_line_of_a_demonstration_is_true() {
        let key = Key::new(3, "lines");
        for i in 0..2_000 {
            let p = problem(key, "t", i);
            let text = trace(&p, key.number(i)).expect("a problem of this task");
            for line in parts(&text).0 {
                let (first, second) = line.split_once(' ').expect("two steps");
                let (_, middle) = first.split_once('=').expect("a result");
                for step in [first, second] {
                    let (sum, result) = step.split_once('=').expect("a result");
                    let at = sum.find(['+', '-', '*', '/']).expect("an operator");
                    let used: Vec<i64> = [&sum[..at], &sum[at + 1..]].map(|n| n.parse().expect("whole")).to_vec();
                    let result: i64 = result.parse().expect("whole");
                    assert!((0..=GREATEST).contains(&result) && is_solution(sum, &used, result), "{line}");
                }
                let at = second.find(['+', '-', '*', '/']).expect("an operator");
                assert!(second[..at] == *middle || second[at + 1..].split('=').next() == Some(middle), "{line}");
            }
        }
    }

    #[test]
    fn tries_are_all_there_are() {
        let texts = |n: [i64; 3]| tries(&n).iter().map(Try::expression).collect::<Vec<_>>();
        // The larger number stands first in a difference and above in a quotient, and nothing is divided by 0 or makes 0 by division.
        assert_eq!(
            texts([1, 1, 1]),
            [
                "(1+1)+1", "(1+1)*1", "(1+1)-1", "(1+1)/1", "(1*1)+1", "(1*1)*1", "(1*1)-1", "(1*1)/1", "(1-1)+1", "(1-1)*1", "1-(1-1)",
                "(1/1)+1", "(1/1)*1", "(1/1)-1", "(1/1)/1"
            ]
        );
        assert!(texts([3, 4, 5]).contains(&"(3+4)*5".to_owned()) && !texts([3, 4, 5]).contains(&"(4+3)*5".to_owned()));
        assert!(texts([2, 3, 9]).contains(&"9-(2*3)".to_owned()));
        assert!(texts([2, 3, 8]).contains(&"(8-2)/3".to_owned()) && texts([2, 4, 9]).iter().all(|t| !t.contains("9/2")));
    }

    #[test]
    fn held_out_questions_are_never_trained_on() {
        let key = Key::new(4, "classes");
        let held: HashSet<String> = held_out(key, HELD_OUT_LIMIT).expect("within the limit").into_iter().map(|p| p.question).collect();
        assert_eq!(held.len(), HELD_OUT_LIMIT);
        assert!((0..5_000).all(|i| !held.contains(&problem(key, "t", i).question)));
        let error = held_out(key, HELD_OUT_LIMIT + 1).expect_err("too many").to_string();
        assert_eq!(error, "countdown-tiny has at most 256 held-out problems, got 257; ask for fewer");
    }

    #[test]
    fn other_problems_have_no_demonstration() {
        let key = Key::new(5, "none");
        assert!(trace(&countdown(&[3, 4, 5], 35), key).is_some());
        for p in [countdown(&[3, 4], 7), countdown(&[1, 1, 1], 99), countdown(&[3, 4, 5, 6], 18)] {
            assert_eq!(trace(&p, key), None);
        }
        assert_eq!(trace(&Problem { answer: Answer::Number { value: "3".into() }, ..countdown(&[3, 4, 5], 35) }, key), None);
    }
}
