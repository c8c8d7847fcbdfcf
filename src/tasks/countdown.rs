//! The Countdown task: reach a target from given numbers, each used exactly once. Generator and solver.
//!
//! Arithmetic is exact (rationals), the search is complete up to [`MAX_NUMBERS`] numbers, and a generated problem is one that the solver has solved.
//! How a response is judged is `verify/`'s; stored problem files are `read.rs`'s.

use crate::key::{Key, Stream};
use crate::problem::{Answer, Language, Problem, ProblemId};
use anyhow::{bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Most numbers that [`solve`] looks at; the search space grows about eighty-fold with each one.
pub const MAX_NUMBERS: usize = 6;
/// Largest absolute value of a number or a target, so that no exact result of six numbers overflows in common cases.
pub const MAX_VALUE: i64 = 9_999;
const TRIES: usize = 1_000;

/// What the generator draws from; every bound is inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Count of numbers, which is the level: uniform between the two, within 3..=6.
    pub numbers: (usize, usize),
    /// Largest number; the smallest is 1.
    pub largest: i64,
    pub target: (i64, i64),
}

impl Default for Settings {
    fn default() -> Self {
        Self { numbers: (3, 4), largest: 99, target: (10, 99) }
    }
}

impl Settings {
    /// # Errors
    /// When a range is empty or outside what the solver proves.
    pub fn validate(&self) -> anyhow::Result<()> {
        let (low, high) = self.numbers;
        ensure!(
            3 <= low && low <= high && high <= MAX_NUMBERS,
            "numbers must be [low, high] within 3..={MAX_NUMBERS}, got [{low}, {high}]"
        );
        ensure!((1..=MAX_VALUE).contains(&self.largest), "largest must be in 1..={MAX_VALUE}, got {}", self.largest);
        let (low, high) = self.target;
        ensure!(1 <= low && low <= high && high <= MAX_VALUE, "target must be [low, high] within 1..={MAX_VALUE}, got [{low}, {high}]");
        Ok(())
    }
}

/// Problem `index` under `key`, with id `countdown/<prefix>/<index>`: numbers and target drawn uniformly until the solver finds an expression.
///
/// # Errors
/// When the settings are invalid, or so narrow that 1,000 draws hold no solvable problem.
pub fn problem(key: Key, prefix: &str, index: u64, settings: &Settings) -> anyhow::Result<Problem> {
    settings.validate()?;
    let mut stream = key.number(index).stream();
    // The level is drawn once, so that the harder-to-solve short lists do not get rarer than asked for.
    let n = stream.range(settings.numbers.0 as i64, settings.numbers.1 as i64) as usize;
    for _ in 0..TRIES {
        let (numbers, target) = draw(&mut stream, n, settings);
        if solve(&numbers, target).is_some() {
            return Ok(Problem {
                id: ProblemId(format!("countdown/{prefix}/{index}")),
                task: "countdown".to_owned(),
                question: question(&numbers, target),
                answer: Answer::Countdown { numbers, target },
                language: Language::En,
                level: u8::try_from(n).ok(),
            });
        }
    }
    let Settings { largest, target: (low, high), .. } = settings;
    bail!(
        "no solvable countdown problem of {n} numbers up to {largest} with a target in {low}..={high} in {TRIES} draws; widen largest or target"
    )
}

fn draw(stream: &mut Stream, n: usize, settings: &Settings) -> (Vec<i64>, i64) {
    let numbers = (0..n).map(|_| stream.range(1, settings.largest)).collect();
    (numbers, stream.range(settings.target.0, settings.target.1))
}

/// The question as our generator words it; also asked for stored problems that come without a text.
pub fn question(numbers: &[i64], target: i64) -> String {
    let list = numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
    format!(
        "Write an arithmetic expression whose value is {target}. It must use each of the numbers {list} exactly once, and besides them only \
         the operators +, -, *, / and parentheses."
    )
}

/// An expression that uses each of `numbers` exactly once and equals `target`, such as `(3 + 4) * 2`; `None` when there is none.
///
/// `None` also for more than [`MAX_NUMBERS`] numbers and for absolute values above [`MAX_VALUE`]. A branch whose exact value leaves `i64` is given
/// up; up to 99 no branch does.
pub fn solve(numbers: &[i64], target: i64) -> Option<String> {
    if numbers.is_empty() || numbers.len() > MAX_NUMBERS || numbers.iter().chain([&target]).any(|n| n.unsigned_abs() > MAX_VALUE as u64) {
        return None;
    }
    let values: Vec<Rational> = numbers.iter().map(|n| Rational { num: *n, den: 1 }).collect();
    let mut search = Search { target: Rational { num: target, den: 1 }, moves: Vec::new(), seen: HashSet::new() };
    search.reaches(&values).then(|| replay(numbers, &search.moves))
}

/// A fraction in lowest terms with a positive denominator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Rational {
    num: i64,
    den: i64,
}

impl Rational {
    fn new(num: i64, den: i64) -> Option<Self> {
        let divisor = gcd(num.unsigned_abs(), den.unsigned_abs());
        let divisor = i64::try_from(divisor).ok().filter(|d| *d > 0)?;
        let sign = if den < 0 { -1 } else { 1 };
        Some(Self { num: num.checked_mul(sign)? / divisor, den: den.checked_mul(sign)? / divisor })
    }

    /// `a operator b`, or `None` on division by zero and on overflow.
    fn apply(a: Self, operator: char, b: Self) -> Option<Self> {
        let (ad, bd) = (a.num.checked_mul(b.den)?, b.num.checked_mul(a.den)?);
        match operator {
            '+' => Self::new(ad.checked_add(bd)?, a.den.checked_mul(b.den)?),
            '-' => Self::new(ad.checked_sub(bd)?, a.den.checked_mul(b.den)?),
            '*' => Self::new(a.num.checked_mul(b.num)?, a.den.checked_mul(b.den)?),
            _ if b.num == 0 => None,
            _ => Self::new(ad, bd),
        }
    }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Combine values `i` and `j` (taken out, in this order) with an operator; the result goes to the end of the list.
#[derive(Clone, Copy, Debug)]
struct Move {
    i: usize,
    j: usize,
    operator: char,
}

/// Depth-first search over all ways to combine two values into one, with a memory of the value lists that lead nowhere.
struct Search {
    target: Rational,
    moves: Vec<Move>,
    seen: HashSet<Vec<Rational>>,
}

impl Search {
    fn reaches(&mut self, values: &[Rational]) -> bool {
        if let [value] = values {
            return *value == self.target;
        }
        // Short lists are cheaper to search again than to remember.
        if values.len() > 2 {
            let mut sorted = values.to_vec();
            sorted.sort_unstable();
            if !self.seen.insert(sorted) {
                return false;
            }
        }
        for i in 0..values.len() {
            for j in 0..values.len() {
                let operators: &[char] = if i < j { &['+', '-', '*', '/'] } else { &['-', '/'] };
                if i != j && operators.iter().any(|operator| self.tries(values, Move { i, j, operator: *operator })) {
                    return true;
                }
            }
        }
        false
    }

    fn tries(&mut self, values: &[Rational], step: Move) -> bool {
        let Some(result) = Rational::apply(values[step.i], step.operator, values[step.j]) else { return false };
        let mut rest = without(values, step);
        rest.push(result);
        self.moves.push(step);
        let found = self.reaches(&rest);
        if !found {
            self.moves.pop();
        }
        found
    }
}

fn without<T: Clone>(values: &[T], step: Move) -> Vec<T> {
    values.iter().enumerate().filter(|(k, _)| *k != step.i && *k != step.j).map(|(_, v)| v.clone()).collect()
}

/// The moves as one expression, with parentheses around every part but the whole.
fn replay(numbers: &[i64], moves: &[Move]) -> String {
    let mut parts: Vec<String> = numbers.iter().map(|n| if *n < 0 { format!("({n})") } else { n.to_string() }).collect();
    for (k, step) in moves.iter().enumerate() {
        let text = format!("{} {} {}", parts[step.i], step.operator, parts[step.j]);
        let mut rest = without(&parts, *step);
        rest.push(if k + 1 == moves.len() { text } else { format!("({text})") });
        parts = rest;
    }
    parts.concat()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Exact value of an expression and the numbers in it, written apart from the solver: integers, + - * /, parentheses.
    pub(crate) fn evaluate(text: &str) -> Option<(Vec<i64>, (i128, i128))> {
        fn sum(t: &[u8], at: &mut usize, used: &mut Vec<i64>) -> Option<(i128, i128)> {
            let mut left = product(t, at, used)?;
            while let Some(op @ (b'+' | b'-')) = t.get(*at) {
                *at += 1;
                let right = product(t, at, used)?;
                let signed = if *op == b'+' { right.0 } else { -right.0 };
                left = (left.0 * right.1 + signed * left.1, left.1 * right.1);
            }
            Some(left)
        }
        fn product(t: &[u8], at: &mut usize, used: &mut Vec<i64>) -> Option<(i128, i128)> {
            let mut left = atom(t, at, used)?;
            while let Some(op @ (b'*' | b'/')) = t.get(*at) {
                *at += 1;
                let right = atom(t, at, used)?;
                left = if *op == b'*' { (left.0 * right.0, left.1 * right.1) } else { (left.0 * right.1, left.1 * right.0) };
            }
            (left.1 != 0).then_some(left)
        }
        fn atom(t: &[u8], at: &mut usize, used: &mut Vec<i64>) -> Option<(i128, i128)> {
            if t.get(*at) == Some(&b'(') {
                *at += 1;
                let inner = sum(t, at, used)?;
                *at += 1;
                return (t.get(*at - 1) == Some(&b')')).then_some(inner);
            }
            let start = *at;
            while t.get(*at).is_some_and(u8::is_ascii_digit) {
                *at += 1;
            }
            let n: i64 = std::str::from_utf8(&t[start..*at]).ok()?.parse().ok()?;
            used.push(n);
            Some((n.into(), 1))
        }
        let compact: Vec<u8> = text.bytes().filter(|b| *b != b' ').collect();
        let (mut at, mut used) = (0, Vec::new());
        let value = sum(&compact, &mut at, &mut used)?;
        used.sort_unstable();
        (at == compact.len()).then_some((used, value))
    }

    pub(crate) fn is_solution(text: &str, numbers: &[i64], target: i64) -> bool {
        let mut numbers = numbers.to_vec();
        numbers.sort_unstable();
        evaluate(text).is_some_and(|(used, (num, den))| used == numbers && num == i128::from(target) * den)
    }

    #[test]
    fn solver_finds_what_exists_and_nothing_else() {
        let solvable: &[(&[i64], i64)] = &[
            (&[7], 7),
            (&[3, 4, 2], 14),
            (&[1, 5, 5, 5], 24),
            (&[3, 3, 8, 8], 24),
            (&[1, 3, 4, 6], 24),
            (&[15, 44, 5], 54),
            (&[2, 2], 0),
            (&[99, 98, 97, 96, 95, 94], 77),
        ];
        for (numbers, target) in solvable {
            let found = solve(numbers, *target).unwrap_or_else(|| panic!("{numbers:?} {target}"));
            assert!(is_solution(&found, numbers, *target), "{found}");
        }
        let unsolvable: &[(&[i64], i64)] =
            &[(&[], 0), (&[7], 8), (&[1, 1, 1, 1], 24), (&[2, 2, 2], 9), (&[0, 5], 7), (&[1, 1, 1, 1, 1, 1, 1], 3)];
        for (numbers, target) in unsolvable {
            assert_eq!(solve(numbers, *target), None, "{numbers:?} {target}");
        }
        assert_eq!(solve(&[i64::MIN, 3], 3), None);
    }

    /// A search that finds nothing visits everything; most of a minute away from the limit on a slow machine.
    #[test]
    fn a_full_search_of_six_numbers_ends() {
        let start = std::time::Instant::now();
        assert_eq!(solve(&[1, 1, 1, 1, 1, 2], 9_999), None);
        assert_eq!(solve(&[2, 4, 6, 8, 10, 12], 9_973), None);
        assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
    }

    #[test]
    fn generated_problems_are_solvable_and_within_their_settings() {
        let settings = Settings { numbers: (3, 6), largest: 50, target: (10, 25) };
        let key = Key::new(1, "countdown-test");
        let mut levels = [0; MAX_NUMBERS + 1];
        for i in 0..120 {
            let p = problem(key, "t", i, &settings).expect("solvable");
            let Answer::Countdown { numbers, target } = &p.answer else { panic!("{p:?}") };
            let found = solve(numbers, *target).expect("solvable");
            assert!(is_solution(&found, numbers, *target), "{found} {numbers:?} {target}");
            assert!(numbers.iter().all(|n| (1..=50).contains(n)) && (10..=25).contains(target), "{p:?}");
            assert_eq!(p.level.map(usize::from), Some(numbers.len()));
            levels[numbers.len()] += 1;
        }
        assert!(levels[3..].iter().all(|n| *n > 10), "{levels:?}");
        assert_eq!(problem(key, "t", 3, &settings).ok(), problem(key, "t", 3, &settings).ok());
    }

    #[test]
    fn impossible_settings_are_errors() {
        let error = |s: Settings| problem(Key::new(1, "e"), "t", 0, &s).expect_err("refused").to_string();
        let d = Settings::default();
        assert_eq!(error(Settings { numbers: (3, 7), ..d }), "numbers must be [low, high] within 3..=6, got [3, 7]");
        assert_eq!(error(Settings { target: (20, 10), ..d }), "target must be [low, high] within 1..=9999, got [20, 10]");
        assert!(
            error(Settings { numbers: (3, 3), largest: 1, target: (90, 99) }).starts_with("no solvable countdown problem of 3 numbers")
        );
    }
}
