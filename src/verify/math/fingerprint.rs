//! Identity of expressions by evaluation in finite fields: equal rational functions have equal values at every point.
//!
//! Variables, π and e take keyed residues modulo a prime, i is a square root of -1 there; two points lie in fields of different primes. A function that is not rational
//! is one more unknown, named by its arguments: so `2 sin x cos x` and `cos x · 2 sin x` agree without knowing what a sine is. Agreement at
//! two independent points means equality, but for a chance of about degree · 2^-128; disagreement means difference only where no such
//! unknown took part (Schwartz 1980, Zippel 1979).

use super::exact;
use super::node::{Constant, Func, Node};
use super::{Fuel, No};
use dashu_int::{IBig, UBig};
use dashu_ratio::RBig;

/// A field of integers modulo a prime p with p = 1 mod 4, so that -1 has a square root in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    p: u64,
    /// A square root of -1.
    i: u64,
}

/// 2^64 - 2^32 + 1 and 2^64 - 59: what agrees in one of them by its arithmetic (2^48 is a root of -1 there) differs in the other.
const FIELDS: [Field; 2] = [Field { p: 0xffff_ffff_0000_0001, i: 1 << 48 }, Field { p: 0xffff_ffff_ffff_ffc5, i: 0x1fdd_1bb8_73dc_8195 }];

/// The field in which a point lies: points of even and of odd number lie in different ones.
fn field(seed: u64) -> Field {
    FIELDS[(seed % 2) as usize]
}

/// The value of a node at the point that `seed` names, and whether every operation in it is rational.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Residue {
    pub value: u64,
    pub rational: bool,
}

/// # Errors
/// `Undefined` where a division by zero occurs at this point, `Unsupported` for lists, sets and other shapes, `Fuel`.
pub(super) fn residue(node: &Node, seed: u64, fuel: &mut Fuel) -> Result<Residue, No> {
    Evaluation { seed, field: field(seed), fuel }.of(node)
}

/// a / b at a point; `b` is not 0.
pub(super) fn quotient(a: u64, b: u64, seed: u64) -> u64 {
    let field = field(seed);
    field.mul(a, field.inverse(b))
}

/// One walk over a tree at one point.
struct Evaluation<'a> {
    seed: u64,
    field: Field,
    fuel: &'a mut Fuel,
}

impl Evaluation<'_> {
    fn of(&mut self, node: &Node) -> Result<Residue, No> {
        self.fuel.spend(1)?;
        let field = self.field;
        let known = |value: u64| Ok(Residue { value, rational: true });
        match node {
            Node::Num(n) => known(field.rational(&n.value)?),
            Node::Sym(name) => known(self.named(1, name.as_bytes())),
            Node::Const(Constant::Pi) => known(self.named(2, b"pi")),
            Node::Const(Constant::E) => known(self.named(2, b"e")),
            Node::Const(Constant::I) => known(field.i),
            Node::Const(Constant::Infinity) => Err(No::Undefined),
            Node::Neg(a) => self.of(a).map(|a| Residue { value: field.sub(0, a.value), ..a }),
            Node::Percent(a) => self.scaled(a, 100),
            Node::Degree(a) => {
                let a = self.scaled(a, 180)?;
                Ok(Residue { value: field.mul(a.value, self.named(2, b"pi")), ..a })
            }
            Node::Add(items) => self.fold(items, 0, Field::add),
            Node::Mul(items) => self.fold(items, 1, Field::mul),
            Node::Div(a, b) => {
                let (a, b) = (self.of(a)?, self.of(b)?);
                if b.value == 0 {
                    return Err(No::Undefined);
                }
                Ok(Residue { value: field.mul(a.value, field.inverse(b.value)), rational: a.rational && b.rational })
            }
            Node::Pow(a, b) => self.power(a, b),
            Node::Call(func, args) => self.function(*func, args),
            Node::Based(..) => known(field.rational(&exact::value(node, &exact::nowhere, self.fuel)?)?),
            Node::PlusMinus(minus, a) => {
                let a = self.of(a)?;
                let sign = self.named(3, b"plus-minus");
                let sign = if *minus { field.sub(0, sign) } else { sign };
                Ok(Residue { value: field.mul(a.value, sign), rational: false })
            }
            Node::Unit(a, unit) => {
                let a = self.of(a)?;
                Ok(Residue { value: field.mul(a.value, self.named(4, unit.as_bytes())), ..a })
            }
            _ => Err(No::Unsupported),
        }
    }

    fn fold(&mut self, items: &[Node], start: u64, op: fn(Field, u64, u64) -> u64) -> Result<Residue, No> {
        let mut total = Residue { value: start, rational: true };
        for item in items {
            let item = self.of(item)?;
            total = Residue { value: op(self.field, total.value, item.value), rational: total.rational && item.rational };
        }
        Ok(total)
    }

    /// A hundredth, or a hundred-and-eightieth.
    fn scaled(&mut self, node: &Node, below: u64) -> Result<Residue, No> {
        let a = self.of(node)?;
        Ok(Residue { value: self.field.mul(a.value, self.field.inverse(below)), ..a })
    }

    fn power(&mut self, base: &Node, exponent: &Node) -> Result<Residue, No> {
        let a = self.of(base)?;
        match exact::value(exponent, &exact::nowhere, self.fuel) {
            Ok(n) if n.is_int() => {
                if a.value == 0 {
                    return if n > RBig::ZERO { Ok(Residue { value: 0, ..a }) } else { Err(No::Undefined) };
                }
                // Fermat: exponents count modulo p - 1.
                let order = IBig::from(self.field.p - 1);
                let reduced = ((n.numerator() % &order) + &order) % &order;
                let value = self.field.pow(a.value, u64::try_from(reduced).map_err(|_| No::Fuel)?);
                Ok(Residue { value, ..a })
            }
            Ok(_) | Err(No::Unsupported | No::Fuel) => {
                let b = self.of(exponent)?;
                Ok(self.unknown(b"power", &[a.value, b.value]))
            }
            Err(other) => Err(other),
        }
    }

    fn function(&mut self, func: Func, args: &[Node]) -> Result<Residue, No> {
        if args.iter().all(|arg| matches!(arg, Node::Num(_)))
            && let Ok(value) = exact::value(&Node::Call(func, args.to_vec()), &exact::nowhere, self.fuel)
        {
            return Ok(Residue { value: self.field.rational(&value)?, rational: true });
        }
        let mut values = args.iter().map(|arg| self.of(arg).map(|r| r.value)).collect::<Result<Vec<_>, _>>()?;
        if matches!(func, Func::Gcd | Func::Lcm | Func::Max | Func::Min) {
            values.sort_unstable();
            values.dedup();
            if values.len() == 1 && matches!(func, Func::Max | Func::Min) {
                return Ok(Residue { value: values[0], rational: false });
            }
        }
        Ok(self.unknown(format!("{func:?}").as_bytes(), &values))
    }

    /// An unknown of its own for a function and its arguments.
    fn unknown(&self, name: &[u8], args: &[u64]) -> Residue {
        let mut bytes = name.to_vec();
        args.iter().for_each(|arg| bytes.extend_from_slice(&arg.to_le_bytes()));
        Residue { value: self.named(5, &bytes), rational: false }
    }

    /// A residue for a name: FNV-1a with a finish of splitmix64, which is well spread and the same everywhere.
    fn named(&self, kind: u64, name: &[u8]) -> u64 {
        let start = 0xcbf2_9ce4_8422_2325 ^ self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ kind.wrapping_mul(0xd6e8_feb8_6659_fd93);
        let hash = name.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        let mut z = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % self.field.p
    }
}

impl Field {
    fn rational(self, value: &RBig) -> Result<u64, No> {
        let p = UBig::from(self.p);
        let magnitude = |n: UBig| u64::try_from(n % &p).map_err(|_| No::Fuel);
        let negative = *value < RBig::ZERO;
        let above = UBig::try_from(if negative { -value.numerator() } else { value.numerator().clone() }).map_err(|_| No::Fuel)?;
        let (above, below) = (magnitude(above)?, magnitude(value.denominator().clone())?);
        if below == 0 {
            return Err(No::Undefined);
        }
        let quotient = if below == 1 { above } else { self.mul(above, self.inverse(below)) };
        Ok(if negative { self.sub(0, quotient) } else { quotient })
    }

    fn add(self, a: u64, b: u64) -> u64 {
        ((u128::from(a) + u128::from(b)) % u128::from(self.p)) as u64
    }

    fn sub(self, a: u64, b: u64) -> u64 {
        ((u128::from(a) + u128::from(self.p) - u128::from(b)) % u128::from(self.p)) as u64
    }

    fn mul(self, a: u64, b: u64) -> u64 {
        ((u128::from(a) * u128::from(b)) % u128::from(self.p)) as u64
    }

    fn pow(self, mut base: u64, mut n: u64) -> u64 {
        let mut result = 1;
        while n > 0 {
            if n & 1 == 1 {
                result = self.mul(result, base);
            }
            base = self.mul(base, base);
            n >>= 1;
        }
        result
    }

    /// By Fermat's little theorem; `a` is not 0.
    fn inverse(self, a: u64) -> u64 {
        self.pow(a, self.p - 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_have_inverses_and_a_root_of_minus_one() {
        for field in FIELDS {
            let p = field.p;
            for a in [1, 2, 3, p - 1, 0x1234_5678_9abc_def0] {
                assert_eq!(field.mul(a, field.inverse(a)), 1);
            }
            assert_eq!(field.mul(field.i, field.i), p - 1);
            assert_eq!(field.add(p - 1, 1), 0);
            assert_eq!(field.sub(0, 1), p - 1);
        }
    }
}
