//! Exact values: rational arithmetic with bounds on the size of every number, for constants and at given points.

use super::node::{Func, Node};
use super::{Fuel, No};
use dashu_base::{Abs, Gcd, Signed, SquareRoot};
use dashu_int::{IBig, UBig};
use dashu_ratio::RBig;

/// Largest numerator or denominator, in bits.
const MAX_BITS: usize = 20_000;
/// Largest n in n! and in binomial coefficients.
const MAX_FACTORIAL: usize = 1_000;

/// Values of variables.
pub(super) type Point<'a> = &'a dyn Fn(&str) -> Option<RBig>;

/// No variable has a value.
pub(super) fn nowhere(_: &str) -> Option<RBig> {
    None
}

/// The exact value of a node at a point.
///
/// # Errors
/// `Undefined` for a division by zero and its like; `Unsupported` for what has no rational value; `Fuel` where numbers would grow too large.
pub(super) fn value(node: &Node, at: Point<'_>, fuel: &mut Fuel) -> Result<RBig, No> {
    let result = match node {
        Node::Num(n) => n.value.clone(),
        Node::Sym(name) => at(name).ok_or(No::Unsupported)?,
        Node::Neg(a) => -value(a, at, fuel)?,
        Node::Add(items) => {
            let mut sum = RBig::ZERO;
            for item in items {
                sum += value(item, at, fuel)?;
                check(&sum, fuel)?;
            }
            sum
        }
        Node::Mul(items) => {
            let mut product = RBig::ONE;
            for item in items {
                product *= value(item, at, fuel)?;
                check(&product, fuel)?;
            }
            product
        }
        Node::Div(a, b) => {
            let below = value(b, at, fuel)?;
            if below.is_zero() {
                return Err(No::Undefined);
            }
            value(a, at, fuel)? / below
        }
        Node::Pow(a, b) => power(&value(a, at, fuel)?, &value(b, at, fuel)?)?,
        Node::Percent(a) => value(a, at, fuel)? / RBig::from(100),
        Node::Based(digits, base) => RBig::from(UBig::from_str_radix(digits, *base).map_err(|_| No::Undefined)?),
        Node::Call(func, args) => {
            let args = args.iter().map(|arg| value(arg, at, fuel)).collect::<Result<Vec<_>, _>>()?;
            call(*func, &args, fuel)?
        }
        _ => return Err(No::Unsupported),
    };
    check(&result, fuel)?;
    Ok(result)
}

fn bits(value: &RBig) -> usize {
    use dashu_base::BitTest;
    value.numerator().bit_len().max(value.denominator().bit_len())
}

fn check(value: &RBig, fuel: &mut Fuel) -> Result<(), No> {
    let bits = bits(value);
    // The greatest common divisor that keeps a fraction reduced takes the square of its length.
    let words = bits as u64 / 64;
    fuel.spend(1 + words + words * words / 16)?;
    if bits > MAX_BITS { Err(No::Fuel) } else { Ok(()) }
}

fn call(func: Func, args: &[RBig], fuel: &mut Fuel) -> Result<RBig, No> {
    Ok(match (func, args) {
        (Func::Abs, [x]) => x.clone().abs(),
        (Func::Floor, [x]) => RBig::from(x.floor()),
        (Func::Ceil, [x]) => RBig::from(x.ceil()),
        (Func::Sqrt, [x]) => root(x, 2)?,
        (Func::Root, [x, n]) => root(x, small(n).filter(|n| *n > 0).ok_or(No::Unsupported)?)?,
        (Func::Factorial, [n]) => {
            let n = natural(n)?;
            if n > MAX_FACTORIAL {
                return Err(No::Fuel);
            }
            fuel.spend((n * n / 100) as u64)?;
            RBig::from((2..=n).fold(UBig::ONE, |product, k| product * UBig::from(k)))
        }
        (Func::Binomial, [n, k]) => binomial(n, k, fuel)?,
        (Func::Gcd, [first, rest @ ..]) => rest.iter().fold(first.clone().abs(), |a, b| gcd(&a, b)),
        (Func::Lcm, [first, rest @ ..]) => rest.iter().fold(first.clone().abs(), |a, b| {
            let divisor = gcd(&a, b);
            if divisor.is_zero() { RBig::ZERO } else { (a * b / divisor).abs() }
        }),
        (Func::Max, [first, rest @ ..]) => rest.iter().fold(first.clone(), |a, b| if a < *b { b.clone() } else { a }),
        (Func::Min, [first, rest @ ..]) => rest.iter().fold(first.clone(), |a, b| if a > *b { b.clone() } else { a }),
        (Func::Mod, [a, m]) => {
            if m.is_zero() {
                return Err(No::Undefined);
            }
            let quotient = RBig::from((a / m).floor());
            a - quotient * m
        }
        (Func::Log, [x, base]) => logarithm(x, base)?,
        (Func::Re | Func::Conj, [x]) => x.clone(),
        (Func::Im, [_]) => RBig::ZERO,
        _ => return Err(No::Unsupported),
    })
}

/// log of `x` to an integer base, where that is an integer.
fn logarithm(x: &RBig, base: &RBig) -> Result<RBig, No> {
    if *base <= RBig::ONE || *x <= RBig::ZERO || !base.is_int() {
        return Err(No::Unsupported);
    }
    let (up, mut rest) = if *x >= RBig::ONE { (true, x.clone()) } else { (false, RBig::ONE / x) };
    for n in 0..256 {
        if rest.is_one() {
            return Ok(RBig::from(if up { n } else { -n }));
        }
        if rest < RBig::ONE {
            break;
        }
        rest /= base;
    }
    Err(No::Unsupported)
}

/// The greatest common divisor of two rational numbers: the largest of which both are integer multiples.
fn gcd(a: &RBig, b: &RBig) -> RBig {
    let (x, y) = (a.numerator() * IBig::from(b.denominator().clone()), b.numerator() * IBig::from(a.denominator().clone()));
    let below = a.denominator() * b.denominator();
    match (x == IBig::ZERO, y == IBig::ZERO) {
        (true, _) => b.clone().abs(),
        (_, true) => a.clone().abs(),
        _ => RBig::from_parts(IBig::from(x.gcd(y)), below),
    }
}

fn binomial(n: &RBig, k: &RBig, fuel: &mut Fuel) -> Result<RBig, No> {
    let (n, k) = (natural(n)?, natural(k)?);
    if k > n {
        return Ok(RBig::ZERO);
    }
    let k = k.min(n - k);
    if k > MAX_FACTORIAL || n > 100 * MAX_FACTORIAL {
        return Err(No::Fuel);
    }
    fuel.spend((k * k / 20) as u64)?;
    let mut result = UBig::ONE;
    for j in 0..k {
        result = result * UBig::from(n - j) / UBig::from(j + 1);
    }
    Ok(RBig::from(result))
}

/// A natural number that fits a machine word. A negative or broken one has no factorial.
fn natural(value: &RBig) -> Result<usize, No> {
    if !value.is_int() || value.is_negative() {
        return Err(No::Undefined);
    }
    usize::try_from(value.numerator()).map_err(|_| No::Fuel)
}

/// An integer that fits.
pub(super) fn small(value: &RBig) -> Option<i64> {
    if value.is_int() { i64::try_from(value.numerator()).ok() } else { None }
}

/// `base ^ exponent` where that is rational.
fn power(base: &RBig, exponent: &RBig) -> Result<RBig, No> {
    if base.is_zero() {
        return if exponent.is_positive() && !exponent.is_zero() { Ok(RBig::ZERO) } else { Err(No::Undefined) };
    }
    if base.is_one() {
        return Ok(RBig::ONE);
    }
    if !exponent.is_int() {
        // 8^(2/3): an exact root of a positive base; anything else has an irrational or a complex value.
        let degree = usize::try_from(exponent.denominator()).map_err(|_| No::Fuel)?;
        if base.is_negative() {
            return Err(No::Unsupported);
        }
        let root = root(base, i64::try_from(degree).map_err(|_| No::Fuel)?)?;
        return power(&root, &RBig::from(exponent.numerator().clone()));
    }
    let Some(n) = small(exponent) else {
        // (-1)^(10^20) is known, and so is its sign.
        if *base == RBig::from(-1) {
            let odd = exponent.numerator() % IBig::from(2) != IBig::ZERO;
            return Ok(if odd { RBig::from(-1) } else { RBig::ONE });
        }
        return Err(No::Fuel);
    };
    let size = bits(base).saturating_mul(usize::try_from(n.unsigned_abs()).unwrap_or(usize::MAX));
    if size > 2 * MAX_BITS && *base != RBig::from(-1) {
        return Err(No::Fuel);
    }
    let n_abs = n.unsigned_abs() as usize;
    let n_abs = if *base == RBig::from(-1) { n_abs % 2 } else { n_abs };
    let result = RBig::from_parts(base.numerator().pow(n_abs), base.denominator().pow(n_abs));
    Ok(if n < 0 { RBig::ONE / result } else { result })
}

/// The real root of a rational number where that is rational; odd roots of negative numbers are negative.
fn root(value: &RBig, degree: i64) -> Result<RBig, No> {
    if value.is_zero() {
        return Ok(RBig::ZERO);
    }
    if value.is_negative() {
        return if degree % 2 == 1 { Ok(-root(&-value, degree)?) } else { Err(No::Unsupported) };
    }
    let Ok(degree) = usize::try_from(degree) else { return Err(No::Unsupported) };
    if degree == 1 {
        return Ok(value.clone());
    }
    let integer_root = |n: &UBig| -> Result<UBig, No> {
        let r = if degree == 2 { n.sqrt() } else { n.nth_root(degree.min(MAX_BITS + 1)) };
        if r.pow(degree.min(MAX_BITS + 1)) == *n { Ok(r) } else { Err(No::Unsupported) }
    };
    let above = UBig::try_from(value.numerator().clone()).map_err(|_| No::Unsupported)?;
    Ok(RBig::from_parts(IBig::from(integer_root(&above)?), integer_root(value.denominator())?))
}
