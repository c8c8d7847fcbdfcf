//! Countdown: an expression over + - * / that uses each given number exactly once and hits the target, in exact rationals.
//!
//! The parser is bounded in length and depth, and every operation checks for overflow: hostile text is wrong or undecided, never slow.

use super::extract::Extracted;
use crate::trace::{Reason, Verdict};

/// Longest expression that is read, in bytes.
const MAX_EXPRESSION: usize = 512;
/// Deepest nesting of brackets and signs.
const MAX_DEPTH: usize = 64;

/// How the operators may be written besides ASCII, and LaTeX that means nothing here: it becomes a space, so that no two numbers grow together.
const SPELLINGS: [(&str, &str); 14] = [
    ("\\times", "*"),
    ("\\cdot", "*"),
    ("\\div", "/"),
    ("\\left", " "),
    ("\\right", " "),
    ("\\(", " "),
    ("\\)", " "),
    ("\\,", " "),
    ("$", " "),
    ("×", "*"),
    ("·", "*"),
    ("÷", "/"),
    ("−", "-"),
    ("–", "-"),
];

/// Judges an expression, which may end in `= target`.
pub(super) fn judge(numbers: &[i64], target: i64, found: &Extracted) -> Verdict {
    let wrong = |reason: Reason| Verdict::Wrong { answer: found.excerpt(), reason: found.points(reason) };
    if found.text.len() > MAX_EXPRESSION {
        return wrong(Reason::measured("expression_too_long", found.text.len(), MAX_EXPRESSION));
    }
    let text = SPELLINGS.iter().fold(found.text.to_string(), |text, (from, to)| text.replace(from, to));
    let (left, right) = text.split_once('=').map_or((text.as_str(), None), |(left, right)| (left, Some(right)));
    if right.is_some_and(|right| right.trim().parse() != Ok(target)) {
        return wrong(Reason::measured("states_another_target", right.unwrap_or_default().trim(), target));
    }
    let mut parser = Parser { rest: left.as_bytes(), used: Vec::new() };
    let value = parser.all();
    let (mut used, mut given) = (parser.used, numbers.to_vec());
    used.sort_unstable();
    given.sort_unstable();
    match value {
        Err(Fault::Overflow) => Verdict::Undecided { reason: found.points(Reason::rule("overflow")) },
        Err(fault) => wrong(Reason::rule(fault.rule())),
        Ok(_) if used != given => wrong(Reason::measured("wrong_numbers", format!("{used:?}"), format!("{given:?}"))),
        Ok(value) if value.is(target) => Verdict::Correct { answer: found.excerpt() },
        Ok(value) => wrong(Reason::measured("misses_target", value, target)),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Syntax,
    TooDeep,
    DivisionByZero,
    Overflow,
}

impl Fault {
    fn rule(self) -> &'static str {
        match self {
            Self::Syntax => "not_an_expression",
            Self::TooDeep => "nested_too_deep",
            Self::DivisionByZero => "division_by_zero",
            Self::Overflow => "overflow",
        }
    }
}

/// A fraction in lowest terms, the denominator positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ratio {
    num: i128,
    den: i128,
}

impl Ratio {
    /// `None` on overflow, including that of the sign.
    fn new(num: i128, den: i128) -> Option<Self> {
        let divisor = i128::try_from(gcd(num.unsigned_abs(), den.unsigned_abs())).ok()?;
        let sign = if den < 0 { -1 } else { 1 };
        Some(Self { num: (num / divisor).checked_mul(sign)?, den: (den / divisor).checked_mul(sign)? })
    }

    fn is(self, whole: i64) -> bool {
        self == Self { num: i128::from(whole), den: 1 }
    }

    fn apply(self, operator: u8, other: Self) -> Result<Self, Fault> {
        let cross = |a: i128, b: i128| a.checked_mul(b).ok_or(Fault::Overflow);
        let (left, right) = (cross(self.num, other.den)?, cross(other.num, self.den)?);
        let (num, den) = match operator {
            b'+' => (left.checked_add(right), self.den.checked_mul(other.den)),
            b'-' => (left.checked_sub(right), self.den.checked_mul(other.den)),
            b'*' => (self.num.checked_mul(other.num), self.den.checked_mul(other.den)),
            _ if other.num == 0 => return Err(Fault::DivisionByZero),
            _ => (Some(left), Some(right)),
        };
        num.zip(den).and_then(|(num, den)| Self::new(num, den)).ok_or(Fault::Overflow)
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.den == 1 { write!(f, "{}", self.num) } else { write!(f, "{}/{}", self.num, self.den) }
    }
}

/// Not 0 as long as one of the two is not.
fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Recursive descent over `sum := product (± product)*`, `product := factor (×÷ factor)*`, `factor := ± factor | ( sum ) | digits`.
struct Parser<'a> {
    rest: &'a [u8],
    /// The numbers read so far.
    used: Vec<i64>,
}

impl Parser<'_> {
    fn all(&mut self) -> Result<Ratio, Fault> {
        let value = self.sum(0)?;
        if self.peek().is_some() { Err(Fault::Syntax) } else { Ok(value) }
    }

    fn sum(&mut self, depth: usize) -> Result<Ratio, Fault> {
        let mut value = self.product(depth)?;
        while let Some(operator) = self.take(b"+-") {
            value = value.apply(operator, self.product(depth)?)?;
        }
        Ok(value)
    }

    fn product(&mut self, depth: usize) -> Result<Ratio, Fault> {
        let mut value = self.factor(depth)?;
        while let Some(operator) = self.take(b"*/") {
            value = value.apply(operator, self.factor(depth)?)?;
        }
        Ok(value)
    }

    fn factor(&mut self, depth: usize) -> Result<Ratio, Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault::TooDeep);
        }
        match self.take(b"+-(") {
            Some(b'(') => {
                let value = self.sum(depth + 1)?;
                self.take(b")").map(|_| value).ok_or(Fault::Syntax)
            }
            Some(b'-') => Ratio { num: 0, den: 1 }.apply(b'-', self.factor(depth + 1)?),
            Some(_) => self.factor(depth + 1),
            None => self.number(),
        }
    }

    fn number(&mut self) -> Result<Ratio, Fault> {
        let length = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        if length == 0 {
            return Err(Fault::Syntax);
        }
        let (digits, rest) = self.rest.split_at(length);
        self.rest = rest;
        let value = digits
            .iter()
            .try_fold(0i64, |value, digit| value.checked_mul(10)?.checked_add(i64::from(digit - b'0')))
            .ok_or(Fault::Overflow)?;
        self.used.push(value);
        Ok(Ratio { num: i128::from(value), den: 1 })
    }

    fn peek(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_ascii_start();
        self.rest.first().copied()
    }

    fn take(&mut self, wanted: &[u8]) -> Option<u8> {
        let next = self.peek().filter(|byte| wanted.contains(byte))?;
        self.rest = &self.rest[1..];
        Some(next)
    }
}
