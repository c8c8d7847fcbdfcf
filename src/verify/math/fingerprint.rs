//! Identity of expressions by evaluation in a finite field: equal rational functions have equal values at every point.
//!
//! Variables, π and e take keyed residues modulo the prime 2^64 - 2^32 + 1, i is a square root of -1 there. A function that is not rational
//! is one more unknown, named by its arguments: so `2 sin x cos x` and `cos x · 2 sin x` agree without knowing what a sine is. Agreement at
//! two independent points means equality, but for a chance of about degree · 2^-128; disagreement means difference only where no such
//! unknown took part (Schwartz 1980, Zippel 1979).

use super::exact;
use super::node::{Constant, Func, Node};
use super::{Fuel, No};
use dashu_int::{IBig, UBig};
use dashu_ratio::RBig;

const P: u64 = 0xffff_ffff_0000_0001;

/// The value of a node at the point that `seed` names, and whether every operation in it is rational.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Residue {
    pub value: u64,
    pub rational: bool,
}

/// # Errors
/// `Undefined` where a division by zero occurs at this point, `Unsupported` for lists, sets and other shapes, `Fuel`.
pub(super) fn residue(node: &Node, seed: u64, fuel: &mut Fuel) -> Result<Residue, No> {
    fuel.spend(1)?;
    let known = |value: u64| Ok(Residue { value, rational: true });
    match node {
        Node::Num(n) => known(of_rational(&n.value)?),
        Node::Sym(name) => known(named(seed, 1, name.as_bytes())),
        Node::Const(Constant::Pi) => known(named(seed, 2, b"pi")),
        Node::Const(Constant::E) => known(named(seed, 2, b"e")),
        Node::Const(Constant::I) => known(1 << 48),
        Node::Const(Constant::Infinity) => Err(No::Undefined),
        Node::Neg(a) => residue(a, seed, fuel).map(|a| Residue { value: sub(0, a.value), ..a }),
        Node::Percent(a) => scaled(residue(a, seed, fuel)?, &RBig::from_parts(IBig::ONE, UBig::from(100u8))),
        Node::Degree(a) => {
            let a = scaled(residue(a, seed, fuel)?, &RBig::from_parts(IBig::ONE, UBig::from(180u8)))?;
            Ok(Residue { value: mul(a.value, named(seed, 2, b"pi")), ..a })
        }
        Node::Add(items) => fold(items, seed, fuel, 0, add),
        Node::Mul(items) => fold(items, seed, fuel, 1, mul),
        Node::Div(a, b) => {
            let (a, b) = (residue(a, seed, fuel)?, residue(b, seed, fuel)?);
            if b.value == 0 {
                return Err(No::Undefined);
            }
            Ok(Residue { value: mul(a.value, inverse(b.value)), rational: a.rational && b.rational })
        }
        Node::Pow(a, b) => power(node, a, b, seed, fuel),
        Node::Call(func, args) => function(*func, args, seed, fuel),
        Node::Based(..) => known(of_rational(&exact::value(node, &exact::nowhere, fuel)?)?),
        Node::PlusMinus(minus, a) => {
            let a = residue(a, seed, fuel)?;
            let sign = named(seed, 3, b"plus-minus");
            let sign = if *minus { sub(0, sign) } else { sign };
            Ok(Residue { value: mul(a.value, sign), rational: false })
        }
        Node::Unit(a, unit) => {
            let a = residue(a, seed, fuel)?;
            Ok(Residue { value: mul(a.value, named(seed, 4, unit.as_bytes())), ..a })
        }
        _ => Err(No::Unsupported),
    }
}

fn fold(items: &[Node], seed: u64, fuel: &mut Fuel, start: u64, op: fn(u64, u64) -> u64) -> Result<Residue, No> {
    let mut total = Residue { value: start, rational: true };
    for item in items {
        let item = residue(item, seed, fuel)?;
        total = Residue { value: op(total.value, item.value), rational: total.rational && item.rational };
    }
    Ok(total)
}

fn power(node: &Node, base: &Node, exponent: &Node, seed: u64, fuel: &mut Fuel) -> Result<Residue, No> {
    let a = residue(base, seed, fuel)?;
    match exact::value(exponent, &exact::nowhere, fuel) {
        Ok(n) if n.is_int() => {
            if a.value == 0 {
                return if n > RBig::ZERO { Ok(Residue { value: 0, ..a }) } else { Err(No::Undefined) };
            }
            // Fermat: exponents count modulo P - 1.
            let order = IBig::from(P - 1);
            let reduced = ((n.numerator() % &order) + &order) % &order;
            let value = pow(a.value, u64::try_from(reduced).map_err(|_| No::Fuel)?);
            Ok(Residue { value, ..a })
        }
        Ok(_) | Err(No::Unsupported | No::Fuel) => {
            let b = residue(exponent, seed, fuel)?;
            let _ = node;
            Ok(unknown(seed, b"power", &[a.value, b.value]))
        }
        Err(other) => Err(other),
    }
}

fn function(func: Func, args: &[Node], seed: u64, fuel: &mut Fuel) -> Result<Residue, No> {
    if args.iter().all(|arg| matches!(arg, Node::Num(_)))
        && let Ok(value) = exact::value(&Node::Call(func, args.to_vec()), &exact::nowhere, fuel)
    {
        return Ok(Residue { value: of_rational(&value)?, rational: true });
    }
    let mut values = args.iter().map(|arg| residue(arg, seed, fuel).map(|r| r.value)).collect::<Result<Vec<_>, _>>()?;
    if matches!(func, Func::Gcd | Func::Lcm | Func::Max | Func::Min) {
        values.sort_unstable();
        values.dedup();
        if values.len() == 1 && matches!(func, Func::Max | Func::Min) {
            return Ok(Residue { value: values[0], rational: false });
        }
    }
    Ok(unknown(seed, format!("{func:?}").as_bytes(), &values))
}

/// An unknown of its own for a function and its arguments.
fn unknown(seed: u64, name: &[u8], args: &[u64]) -> Residue {
    let mut bytes = name.to_vec();
    args.iter().for_each(|arg| bytes.extend_from_slice(&arg.to_le_bytes()));
    Residue { value: named(seed, 5, &bytes), rational: false }
}

fn scaled(a: Residue, factor: &RBig) -> Result<Residue, No> {
    Ok(Residue { value: mul(a.value, of_rational(factor)?), ..a })
}

/// A residue for a name: FNV-1a with a finish of splitmix64, which is well spread and the same everywhere.
fn named(seed: u64, kind: u64, name: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ kind.wrapping_mul(0xd6e8_feb8_6659_fd93);
    let hash = name.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let mut z = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % P
}

fn of_rational(value: &RBig) -> Result<u64, No> {
    let p = UBig::from(P);
    let magnitude = |n: UBig| u64::try_from(n % &p).map_err(|_| No::Fuel);
    let negative = *value < RBig::ZERO;
    let above = UBig::try_from(if negative { -value.numerator() } else { value.numerator().clone() }).map_err(|_| No::Fuel)?;
    let (above, below) = (magnitude(above)?, magnitude(value.denominator().clone())?);
    if below == 0 {
        return Err(No::Undefined);
    }
    let quotient = if below == 1 { above } else { mul(above, inverse(below)) };
    Ok(if negative { sub(0, quotient) } else { quotient })
}

fn add(a: u64, b: u64) -> u64 {
    ((u128::from(a) + u128::from(b)) % u128::from(P)) as u64
}

fn sub(a: u64, b: u64) -> u64 {
    ((u128::from(a) + u128::from(P) - u128::from(b)) % u128::from(P)) as u64
}

fn mul(a: u64, b: u64) -> u64 {
    ((u128::from(a) * u128::from(b)) % u128::from(P)) as u64
}

fn pow(mut base: u64, mut n: u64) -> u64 {
    let mut result = 1;
    while n > 0 {
        if n & 1 == 1 {
            result = mul(result, base);
        }
        base = mul(base, base);
        n >>= 1;
    }
    result
}

/// a / b in the field; `b` is not 0.
pub(super) fn quotient(a: u64, b: u64) -> u64 {
    mul(a, inverse(b))
}

/// By Fermat's little theorem; `a` is not 0.
fn inverse(a: u64) -> u64 {
    pow(a, P - 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_has_inverses_and_a_root_of_minus_one() {
        for a in [1, 2, 3, P - 1, 0x1234_5678_9abc_def0] {
            assert_eq!(mul(a, inverse(a)), 1);
        }
        assert_eq!(mul(1 << 48, 1 << 48), P - 1);
        assert_eq!(add(P - 1, 1), 0);
        assert_eq!(sub(0, 1), P - 1);
    }
}
