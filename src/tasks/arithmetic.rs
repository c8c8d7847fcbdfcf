//! The task of the tiny recipe: short integer expressions with precedence, asked in English or Chinese.
//!
//! Most of them are drawn so that plain left-to-right order gives a different result than precedence does. Whether an expression may be trained
//! on is decided by a hash of its text alone, so no list can leak. The corrupted traces on it are in `cold_start.rs`; tokens are `model/text.rs`'s.

use crate::key::{Key, Stream};
use crate::problem::{Answer, Language, Problem, ProblemId};
use anyhow::ensure;
use std::collections::HashSet;

/// Every intermediate result of a drawn expression, in either order, lies in `0..=LARGEST`.
pub const LARGEST: i64 = 20;
/// Most problems that `held_out` gives. The class holds 12,639 expressions on which the two orders differ, and drawing gets slow near the end.
pub const HELD_OUT_LIMIT: usize = 8_192;
/// One class in so many is held out.
const CLASSES: u64 = 5;
const MAX_OPERANDS: usize = 5;
/// Share of expressions for which left-to-right order may be right as well.
const EASY: f64 = 0.1;

/// A binary operator on integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    Add,
    Sub,
    Mul,
}

impl Operator {
    const ALL: [Self; 3] = [Self::Add, Self::Sub, Self::Mul];

    pub fn symbol(self) -> char {
        match self {
            Self::Add => '+',
            Self::Sub => '-',
            Self::Mul => '*',
        }
    }

    /// Saturating, so that any parsed expression has a value.
    pub fn apply(self, a: i64, b: i64) -> i64 {
        match self {
            Self::Add => a.saturating_add(b),
            Self::Sub => a.saturating_sub(b),
            Self::Mul => a.saturating_mul(b),
        }
    }
}

/// In which order the steps of an expression are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The leftmost `*` first until none is left, then from left to right: the right one.
    Precedence,
    LeftToRight,
}

/// One step: `a operator b is result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub a: i64,
    pub operator: Operator,
    pub b: i64,
    pub result: i64,
}

/// Operands joined by one operator fewer, such as `6-2*2+7`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Expression {
    operands: Vec<i64>,
    operators: Vec<Operator>,
}

impl std::fmt::Display for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.operands[0])?;
        for (operator, operand) in self.operators.iter().zip(&self.operands[1..]) {
            write!(f, "{}{operand}", operator.symbol())?;
        }
        Ok(())
    }
}

impl Expression {
    /// Reads `6-2*2+7`: 2 to 5 operands of 1 to 9. `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let (mut operands, mut operators) = (Vec::new(), Vec::new());
        for (i, byte) in text.bytes().enumerate() {
            match (i % 2, byte) {
                (0, b'1'..=b'9') => operands.push(i64::from(byte - b'0')),
                (1, _) => operators.push(Operator::ALL.into_iter().find(|o| o.symbol() == char::from(byte))?),
                _ => return None,
            }
        }
        ((2..=MAX_OPERANDS).contains(&operands.len()) && operators.len() + 1 == operands.len()).then_some(Self { operands, operators })
    }

    /// The expression that a question of this task asks for.
    pub fn of_question(question: &str) -> Option<Self> {
        [Language::En, Language::Zh].iter().find_map(|l| Self::parse(question.strip_prefix(opening(*l))?))
    }

    /// Number of operands: the level of the problem.
    pub fn n_operands(&self) -> usize {
        self.operands.len()
    }

    /// All steps in `order`; the result of the last one is the value in that order.
    pub fn steps(&self, order: Order) -> Vec<Step> {
        self.steps_with(order, |_, result| result)
    }

    /// As [`Self::steps`], but each result goes through `change(step_idx, result)` before the next step uses it.
    pub fn steps_with(&self, order: Order, mut change: impl FnMut(usize, i64) -> i64) -> Vec<Step> {
        let (mut values, mut operators) = (self.operands.clone(), self.operators.clone());
        let mut steps = Vec::with_capacity(operators.len());
        while !operators.is_empty() {
            let at = match order {
                Order::Precedence => operators.iter().position(|o| *o == Operator::Mul).unwrap_or(0),
                Order::LeftToRight => 0,
            };
            let (a, operator, b) = (values[at], operators.remove(at), values.remove(at + 1));
            let result = change(steps.len(), operator.apply(a, b));
            values[at] = result;
            steps.push(Step { a, operator, b, result });
        }
        steps
    }

    /// Value in `order`.
    pub fn value(&self, order: Order) -> i64 {
        self.steps(order).last().map_or(self.operands[0], |s| s.result)
    }

    /// Whether this expression belongs to the class that no training, GRPO or sampling stream draws from: FNV-1a 64 of its text, modulo 5, is 0.
    pub fn is_held_out(&self) -> bool {
        Draft::of(self).hash().is_multiple_of(CLASSES)
    }
}

/// Text before the expression in a question: in Chinese for Chinese, in English for any other language.
pub fn opening(language: Language) -> &'static str {
    match language {
        Language::Zh => "计算",
        _ => "what is ",
    }
}

/// Problem `index` of the training stream under `key`, with id `arithmetic/<prefix>/<index>`. Never of the held-out class.
pub fn problem(key: Key, prefix: &str, index: u64) -> Problem {
    let mut stream = key.number(index).stream();
    let expression = draw(&mut stream, false);
    ask(&expression, language(&mut stream), format!("arithmetic/{prefix}/{index}"))
}

/// `n` problems on distinct expressions of the held-out class, with ids `arithmetic/held-out/<index>`.
///
/// # Errors
/// When `n` is above [`HELD_OUT_LIMIT`].
pub fn held_out(key: Key, n: usize) -> anyhow::Result<Vec<Problem>> {
    ensure!(n <= HELD_OUT_LIMIT, "arithmetic has at most {HELD_OUT_LIMIT} held-out problems, got {n}; ask for fewer");
    let mut stream = key.stream();
    let mut seen = HashSet::with_capacity(n);
    let mut problems = Vec::with_capacity(n);
    while problems.len() < n {
        let expression = draw(&mut stream, true);
        let language = language(&mut stream);
        if seen.insert(expression.to_string()) {
            problems.push(ask(&expression, language, format!("arithmetic/held-out/{}", problems.len())));
        }
    }
    Ok(problems)
}

fn language(stream: &mut Stream) -> Language {
    if stream.chance(0.5) { Language::Zh } else { Language::En }
}

fn ask(expression: &Expression, language: Language, id: String) -> Problem {
    Problem {
        id: ProblemId(id),
        task: "arithmetic".to_owned(),
        question: format!("{}{expression}", opening(language)),
        answer: Answer::Number { value: expression.value(Order::Precedence).to_string() },
        language,
        level: u8::try_from(expression.n_operands()).ok(),
    }
}

/// Rejection sampling: about one draw in fifty is accepted, so the loop works on a fixed array and makes no string.
fn draw(stream: &mut Stream, held_out: bool) -> Expression {
    let n = match stream.unit() {
        u if u < 0.1 => 3,
        u if u < 0.6 => 4,
        _ => 5,
    };
    let easy = stream.chance(EASY);
    loop {
        let mut draft = Draft { n, operands: [0; MAX_OPERANDS], operators: [Operator::Add; MAX_OPERANDS - 1] };
        draft.operands[..n].fill_with(|| stream.range(1, 9));
        draft.operators[..n - 1].fill_with(|| Operator::ALL[stream.below(3) as usize]);
        let Some(left_to_right) = draft.bounded_value(Order::LeftToRight) else { continue };
        let Some(right) = draft.bounded_value(Order::Precedence) else { continue };
        if (easy || left_to_right != right) && draft.hash().is_multiple_of(CLASSES) == held_out {
            return Expression { operands: draft.operands[..n].to_vec(), operators: draft.operators[..n - 1].to_vec() };
        }
    }
}

/// An expression of `n` operands on the stack.
struct Draft {
    n: usize,
    operands: [i64; MAX_OPERANDS],
    operators: [Operator; MAX_OPERANDS - 1],
}

impl Draft {
    fn of(expression: &Expression) -> Self {
        let mut draft = Self { n: expression.n_operands(), operands: [0; MAX_OPERANDS], operators: [Operator::Add; MAX_OPERANDS - 1] };
        draft.operands[..draft.n].copy_from_slice(&expression.operands);
        draft.operators[..draft.n - 1].copy_from_slice(&expression.operators);
        draft
    }

    /// The value in `order`, or `None` when an intermediate leaves `0..=LARGEST`.
    fn bounded_value(&self, order: Order) -> Option<i64> {
        let (mut values, mut operators, mut n) = (self.operands, self.operators, self.n);
        while n > 1 {
            let at = match order {
                Order::Precedence => operators[..n - 1].iter().position(|o| *o == Operator::Mul).unwrap_or(0),
                Order::LeftToRight => 0,
            };
            values[at] = operators[at].apply(values[at], values[at + 1]);
            if !(0..=LARGEST).contains(&values[at]) {
                return None;
            }
            values.copy_within(at + 2..n, at + 1);
            operators.copy_within(at + 1..n - 1, at);
            n -= 1;
        }
        Some(values[0])
    }

    /// FNV-1a 64 of the expression's text (Fowler, Noll and Vo; offset basis and prime of the 64-bit form). Operands are single digits.
    fn hash(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut eat = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        for i in 0..self.n {
            if i > 0 {
                eat(self.operators[i - 1].symbol() as u8);
            }
            eat(b'0' + self.operands[i] as u8);
        }
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expression(text: &str) -> Expression {
        Expression::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn values_follow_the_order() {
        let check = |text: &str, precedence: i64, left_to_right: i64| {
            let e = expression(text);
            assert_eq!((e.value(Order::Precedence), e.value(Order::LeftToRight)), (precedence, left_to_right), "{text}");
            assert_eq!(e.to_string(), text);
        };
        check("6-2*2+7", 9, 15);
        check("7+4-2-8", 1, 1);
        check("2+3*4", 14, 20);
        check("2*3+4*1", 10, 10);
        check("9-2*3*1-1", 2, 20);
        check("1+1*2*2", 5, 8);
        check("8-3", 5, 5);
    }

    #[test]
    fn steps_show_their_operands() {
        let text = |order| {
            let steps = expression("6-2*2+7").steps(order);
            steps.iter().map(|s| format!("{}{}{}={}", s.a, s.operator.symbol(), s.b, s.result)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(text(Order::Precedence), "2*2=4 6-4=2 2+7=9");
        assert_eq!(text(Order::LeftToRight), "6-2=4 4*2=8 8+7=15");
    }

    #[test]
    fn only_expressions_of_the_task_are_read() {
        for not in ["", "5", "5+", "+5", "5+0", "15+3", "5/2", "1+2+3+4+5+6", "5 + 2", "５+2"] {
            assert_eq!(Expression::parse(not), None, "{not:?}");
        }
        assert_eq!(Expression::of_question("what is 7+4-2-8"), Expression::parse("7+4-2-8"));
        assert_eq!(Expression::of_question("计算7+4-2-8"), Expression::parse("7+4-2-8"));
        assert_eq!(Expression::of_question("compute 7+4-2-8"), None);
    }

    /// The hashes of "a" and "foobar" are test vectors of the FNV authors.
    #[test]
    fn class_is_the_hash_of_the_text() {
        let fnv = |text: &str| text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        assert_eq!(fnv("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv("foobar"), 0x8594_4171_f739_67e8);
        for text in ["1+1", "6-2*2+7", "9-2*3*1-1"] {
            assert_eq!(Draft::of(&expression(text)).hash(), fnv(text), "{text}");
            assert_eq!(expression(text).is_held_out(), fnv(text) % 5 == 0, "{text}");
        }
    }

    #[test]
    fn training_stream_keeps_its_promises() {
        let key = Key::new(1, "arithmetic-test");
        let n = 20_000;
        let (mut chinese, mut differ, mut levels) = (0, 0, [0usize; 6]);
        for i in 0..n {
            let p = problem(key, "train", i);
            let e = Expression::of_question(&p.question).expect("its own question");
            assert!(!e.is_held_out(), "{e}");
            for order in [Order::Precedence, Order::LeftToRight] {
                assert!(e.steps(order).iter().all(|s| (0..=LARGEST).contains(&s.result)), "{e}");
            }
            assert_eq!(p.answer, Answer::Number { value: e.value(Order::Precedence).to_string() });
            assert_eq!(Language::of_question(&p.question), p.language);
            chinese += usize::from(p.language == Language::Zh);
            differ += usize::from(e.value(Order::Precedence) != e.value(Order::LeftToRight));
            levels[usize::from(p.level.expect("set"))] += 1;
        }
        let share = |count: usize| count as f64 / n as f64;
        assert!((share(chinese) - 0.5).abs() < 0.02, "{chinese}");
        assert!((0.90..0.96).contains(&share(differ)), "{differ}");
        for (level, expect) in [(3, 0.1), (4, 0.5), (5, 0.4)] {
            assert!((share(levels[level]) - expect).abs() < 0.02, "{levels:?}");
        }
    }

    #[test]
    fn a_problem_depends_on_its_key_and_index_only() {
        let key = Key::new(1, "arithmetic-test");
        let late = problem(key, "train", 7);
        (0..5).for_each(|i| drop(problem(key, "train", i)));
        assert_eq!(problem(key, "train", 7), late);
        assert_eq!(late.id.0, "arithmetic/train/7");
        assert_ne!(problem(key, "train", 8).question, late.question);
        assert_ne!(problem(Key::new(2, "arithmetic-test"), "train", 7).question, late.question);
    }

    #[test]
    fn held_out_problems_are_distinct_and_of_the_class() {
        let problems = held_out(Key::new(3, "held-out"), 1024).expect("enough");
        let expressions: HashSet<String> =
            problems.iter().map(|p| Expression::of_question(&p.question).expect("own").to_string()).collect();
        assert_eq!(expressions.len(), 1024);
        assert!(expressions.iter().all(|e| expression(e).is_held_out()));
        let five = problems.iter().filter(|p| p.level == Some(5)).count();
        assert!((480..630).contains(&five), "about 54 % have five operands: {five}");
        assert_eq!(held_out(Key::new(3, "held-out"), HELD_OUT_LIMIT).expect("enough").len(), HELD_OUT_LIMIT);
        assert!(held_out(Key::new(3, "held-out"), HELD_OUT_LIMIT + 1).is_err());
    }
}
