//! Arithmetic that a text writes out: each `12*3 = 36` is computed again, exactly.
//!
//! Checked is a product or sum of plain numbers in front of an equals sign with one number behind it; whatever has a variable, a power, a function or
//! a number that goes on in it is passed over. A decimal result may be rounded to the digits that it has.

/// A fraction in lowest terms, its denominator positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Fraction {
    over: i128,
    under: i128,
}

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Audit {
    /// Equations that could be checked.
    pub checked: usize,
    pub wrong: usize,
    /// Byte range of the first wrong one.
    pub first_wrong: Option<(usize, usize)>,
    /// The value behind the last one checked.
    #[serde(skip)]
    pub last: Option<Fraction>,
}

/// Longest left side in bytes.
const REACH: usize = 160;

/// Checks every equation of `text`. Linear: each equals sign is looked at with a bounded number of bytes around it.
pub fn audit(text: &str) -> Audit {
    let bytes = text.as_bytes();
    let mut audit = Audit::default();
    for at in memchr::memchr_iter(b'=', bytes) {
        let Some((start, left)) = left_side(bytes, at) else { continue };
        let Some((end, right, digits)) = right_side(bytes, at + 1) else { continue };
        audit.checked += 1;
        audit.last = Some(right);
        if left != right && !rounds_to(left, right, digits) {
            audit.wrong += 1;
            audit.first_wrong = audit.first_wrong.or(Some((start, end)));
        }
    }
    audit
}

/// A plain number and nothing else.
pub(super) fn number(text: &str) -> Option<Fraction> {
    let text = text.trim().as_bytes();
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let (length, value, _) = read_number(digits)?;
    let value = if negative { value.negated()? } else { value };
    (length == digits.len()).then_some(value)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token {
    Number(Fraction),
    /// One of `+-*/()`.
    Sign(u8),
}

/// Where the expression before the equals sign begins, and its value.
fn left_side(bytes: &[u8], end: usize) -> Option<(usize, Fraction)> {
    let least = end.saturating_sub(REACH);
    let mut start = end;
    while start > least {
        match before(bytes, start) {
            Some(length) => start -= length,
            None => break,
        }
    }
    if start == least && least > 0 {
        return None;
    }
    // A comma or a point that ends a clause belongs to what stands before.
    let trimmed =
        bytes[start..end].iter().position(|byte| byte.is_ascii_digit() || matches!(byte, b'(' | b'-' | b'+' | b'*' | b'/' | b')'))?;
    start += trimmed;
    let mut tokens = tokens(&bytes[start..end])?;
    if tokens.first() == Some(&Token::Sign(b'-')) && bytes[start..].get(1) == Some(&b' ') && is_line_start(bytes, start) {
        tokens.remove(0);
    }
    stands_alone(bytes, start, tokens.first()?).then_some(())?;
    let operators = tokens
        .windows(2)
        .filter(|w| matches!((w[0], w[1]), (Token::Number(_) | Token::Sign(b')'), Token::Sign(b'+' | b'-' | b'*' | b'/'))));
    if operators.count() == 0 {
        return None;
    }
    let mut parser = Parser { tokens: &tokens, depth: 0 };
    let value = parser.sum()?;
    parser.tokens.is_empty().then_some((start, value))
}

/// How many bytes before `at` may belong to an expression.
fn before(bytes: &[u8], at: usize) -> Option<usize> {
    const WORDS: [&[u8]; 6] = ["\\times".as_bytes(), b"\\cdot", b"\\div", "×".as_bytes(), "·".as_bytes(), "÷".as_bytes()];
    match bytes[at - 1] {
        b' ' | b'0'..=b'9' | b'.' | b',' | b'+' | b'-' | b'*' | b'/' | b'(' | b')' => Some(1),
        _ => WORDS.iter().find(|word| bytes[..at].ends_with(word)).map(|word| word.len()),
    }
}

fn is_line_start(bytes: &[u8], at: usize) -> bool {
    bytes[..at].iter().rev().take_while(|byte| **byte != b'\n').take(8).all(|byte| *byte == b' ')
}

/// Whether nothing before `start` belongs to the expression: no operator goes on to the left, no variable, function or power stands there.
fn stands_alone(bytes: &[u8], start: usize, first: &Token) -> bool {
    let spaces = bytes[..start].iter().rev().take_while(|byte| **byte == b' ').count();
    let left = &bytes[..start - spaces];
    let Some(last) = left.last() else { return true };
    if matches!(first, Token::Sign(b'+' | b'*' | b'/' | b')')) {
        return false;
    }
    let letters = left.iter().rev().take(12).take_while(|byte| byte.is_ascii_alphabetic()).count();
    let is_minus = *first == Token::Sign(b'-');
    match *last {
        b'a'..=b'z' | b'A'..=b'Z' => {
            let word = left[left.len() - letters..].to_ascii_lowercase();
            let is_function = matches!(
                &word[..],
                b"sin" | b"cos" | b"tan" | b"log" | b"ln" | b"sqrt" | b"mod" | b"lcm" | b"gcd" | b"exp" | b"max" | b"min"
            );
            spaces > 0 && letters >= 2 && !is_function && left.len().checked_sub(letters + 1).is_none_or(|at| left[at] != b'\\')
        }
        b'=' | b':' | b';' | b',' | b'.' | b'\n' | b'$' | b'[' | b'!' | b'?' | b'>' | b'&' | b'"' | b'(' => !(is_minus && *last == b')'),
        // Behind a Chinese character or a Chinese mark; a symbol such as a square root is not one of these.
        0x80.. => is_chinese(left),
        _ => false,
    }
}

fn is_chinese(left: &[u8]) -> bool {
    let tail = &left[left.len().saturating_sub(3)..];
    std::str::from_utf8(tail)
        .is_ok_and(|text| text.chars().all(|c| crate::problem::is_han(c) || matches!(c, '，' | '。' | '：' | '；' | '（')))
}

fn tokens(bytes: &[u8]) -> Option<Vec<Token>> {
    let (mut tokens, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let (sign, length) = match rest[0] {
            b' ' => {
                at += 1;
                continue;
            }
            b'0'..=b'9' => {
                let (length, value, _) = read_number(rest)?;
                // Two numbers side by side, or a number before a parenthesis, are no plain arithmetic.
                if matches!(tokens.last(), Some(Token::Number(_) | Token::Sign(b')'))) {
                    return None;
                }
                tokens.push(Token::Number(value));
                at += length;
                continue;
            }
            b'*' if rest.get(1) == Some(&b'*') => return None,
            byte @ (b'+' | b'-' | b'*' | b'/' | b')') => (byte, 1),
            b'(' if matches!(tokens.last(), Some(Token::Number(_) | Token::Sign(b')'))) => return None,
            b'(' => (b'(', 1),
            _ if rest.starts_with(b"\\times") => (b'*', 6),
            _ if rest.starts_with(b"\\cdot") => (b'*', 5),
            _ if rest.starts_with(b"\\div") => (b'/', 4),
            _ if rest.starts_with("×".as_bytes()) || rest.starts_with("·".as_bytes()) => (b'*', 2),
            _ if rest.starts_with("÷".as_bytes()) => (b'/', 2),
            _ => return None,
        };
        tokens.push(Token::Sign(sign));
        at += length;
    }
    Some(tokens)
}

/// Length, value and decimals of the number that `bytes` begin with; commas between groups of three digits belong to it.
fn read_number(bytes: &[u8]) -> Option<(usize, Fraction, u32)> {
    let (mut at, mut over, mut decimals, mut is_decimal) = (0, 0i128, 0u32, false);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'0'..=b'9' => {
                over = over.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?;
                decimals += u32::from(is_decimal);
            }
            b'.' if !is_decimal && bytes.get(at + 1).is_some_and(u8::is_ascii_digit) => is_decimal = true,
            b',' if !is_decimal && is_group(&bytes[at + 1..]) => {}
            _ => break,
        }
        at += 1;
    }
    (at > 0 && bytes[0].is_ascii_digit()).then_some(())?;
    Some((at, Fraction::new(over, 10i128.checked_pow(decimals)?)?, decimals))
}

fn is_group(bytes: &[u8]) -> bool {
    bytes.len() >= 3 && bytes[..3].iter().all(u8::is_ascii_digit) && !bytes.get(3).is_some_and(u8::is_ascii_digit)
}

/// End, value and decimals of the one number behind an equals sign; `None` where something goes on behind it.
fn right_side(bytes: &[u8], start: usize) -> Option<(usize, Fraction, u32)> {
    let skip = |from: usize| from + bytes[from..].iter().take_while(|byte| **byte == b' ').count();
    let mut at = skip(start);
    let negative = bytes.get(at) == Some(&b'-');
    at += usize::from(negative);
    let (length, value, decimals) = read_number(bytes.get(at..)?)?;
    let end = at + length;
    let value = if negative { value.negated()? } else { value };
    let next = skip(end);
    let rest = &bytes[next..];
    let adjacent = next == end;
    let goes_on = match rest.first() {
        Some(b'+' | b'-' | b'*' | b'/' | b'^' | b'%' | b'(' | b'!' | b'_' | b'{' | b':' | b'0'..=b'9') => true,
        Some(byte) if byte.is_ascii_alphabetic() => adjacent || rest.starts_with(b"remainder") || is_single(rest),
        Some(b'\\') => ![&b"\\)"[..], b"\\]", b"\\\\", b"\\,", b"\\ ", b"\\;", b"\\quad", b"\\text", b"\\end"]
            .iter()
            .any(|mark| rest.starts_with(mark)),
        // A mark of Chinese punctuation or a Chinese character ends a number, a symbol or `余` does not; nor does a repeating decimal.
        Some(0xe3..=0xe9 | 0xef) => rest.starts_with("余".as_bytes()),
        Some(0x80..) => true,
        Some(b'.') => rest.starts_with(b"...") || rest.starts_with(b".\\"),
        _ => false,
    };
    (!goes_on).then_some((end, value, decimals))
}

/// A letter that stands alone is a variable.
fn is_single(rest: &[u8]) -> bool {
    rest[0].is_ascii_alphabetic() && !rest.get(1).is_some_and(u8::is_ascii_alphabetic)
}

/// sum = product (('+' | '-') product)*, product = factor (('*' | '/') factor)*, factor = '-' factor | '(' sum ')' | number.
struct Parser<'a> {
    tokens: &'a [Token],
    depth: usize,
}

impl Parser<'_> {
    fn sum(&mut self) -> Option<Fraction> {
        let mut value = self.product()?;
        while let Some(Token::Sign(sign @ (b'+' | b'-'))) = self.tokens.first() {
            let sign = *sign;
            self.tokens = &self.tokens[1..];
            let other = self.product()?;
            value = value.plus(if sign == b'-' { other.negated()? } else { other })?;
        }
        Some(value)
    }

    fn product(&mut self) -> Option<Fraction> {
        let mut value = self.factor()?;
        while let Some(Token::Sign(sign @ (b'*' | b'/'))) = self.tokens.first() {
            let sign = *sign;
            self.tokens = &self.tokens[1..];
            let other = self.factor()?;
            value = value.times(if sign == b'/' { Fraction::new(other.under, other.over)? } else { other })?;
        }
        Some(value)
    }

    fn factor(&mut self) -> Option<Fraction> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        match first {
            Token::Number(value) => Some(*value),
            Token::Sign(b'-') => self.nested(Self::factor)?.negated(),
            Token::Sign(b'(') => {
                let value = self.nested(Self::sum)?;
                let (close, rest) = self.tokens.split_first()?;
                self.tokens = rest;
                (*close == Token::Sign(b')')).then_some(value)
            }
            Token::Sign(_) => None,
        }
    }

    /// The left side is short, and so is what it nests.
    fn nested(&mut self, read: fn(&mut Self) -> Option<Fraction>) -> Option<Fraction> {
        self.depth += 1;
        let value = if self.depth > REACH { None } else { read(self) };
        self.depth -= 1;
        value
    }
}

impl Fraction {
    fn new(over: i128, under: i128) -> Option<Self> {
        if under == 0 {
            return None;
        }
        let (mut a, mut b) = (over.unsigned_abs(), under.unsigned_abs());
        while b != 0 {
            (a, b) = (b, a % b);
        }
        let divisor = i128::try_from(a.max(1)).ok()?.checked_mul(under.signum())?;
        Some(Self { over: over.checked_div(divisor)?, under: under.checked_div(divisor)? })
    }

    fn negated(self) -> Option<Self> {
        Some(Self { over: self.over.checked_neg()?, under: self.under })
    }

    fn plus(self, other: Self) -> Option<Self> {
        let over = self.over.checked_mul(other.under)?.checked_add(other.over.checked_mul(self.under)?)?;
        Self::new(over, self.under.checked_mul(other.under)?)
    }

    fn times(self, other: Self) -> Option<Self> {
        Self::new(self.over.checked_mul(other.over)?, self.under.checked_mul(other.under)?)
    }
}

/// Whether `exact` rounded or cut to `digits` decimals, one at least, is `shown`: they differ by less than one of its last place.
fn rounds_to(exact: Fraction, shown: Fraction, digits: u32) -> bool {
    let difference = || {
        let gap = exact.plus(shown.negated()?)?;
        gap.times(Fraction::new(10i128.checked_pow(digits)?, 1)?)
    };
    digits > 0 && difference().is_some_and(|gap| gap.over.unsigned_abs() < gap.under.unsigned_abs())
}
