//! Whether two quantities are equal: exactly where both are rational, by identity in two finite fields, then by evaluation in high precision.
//!
//! Variables stand for real numbers: points where a side has no real value say nothing, and removable gaps do not count.

use super::ball::{Ball, Same};
use super::exact::{self, nowhere};
use super::fingerprint::residue;
use super::node::{Constant, Func, Node};
use super::{Fuel, No};
use dashu_base::BitTest;
use dashu_ratio::RBig;

/// Points tried, and how many of them must agree.
const POINTS: usize = 14;
const ENOUGH: usize = 3;

/// The answer to "are these equal".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Equal {
    Yes,
    No,
    Unknown,
}

impl Equal {
    pub(super) fn of(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }

    /// Both hold.
    pub(super) fn and(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Yes => other(),
            Self::No => Self::No,
            Self::Unknown => {
                if other() == Self::No {
                    Self::No
                } else {
                    Self::Unknown
                }
            }
        }
    }

    /// One of both holds.
    pub(super) fn or(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Yes => Self::Yes,
            Self::No => other(),
            Self::Unknown => {
                if other() == Self::Yes {
                    Self::Yes
                } else {
                    Self::Unknown
                }
            }
        }
    }
}

/// Whether two quantities are equal wherever both are defined.
pub(super) fn equal(a: &Node, b: &Node, fuel: &mut Fuel) -> Equal {
    // Equal trees have equal values, without evaluating a tower of powers; but what is undefined equals nothing.
    match (exact::value(a, &nowhere, fuel), exact::value(b, &nowhere, fuel)) {
        (Ok(a), Ok(b)) => return Equal::of(a == b),
        (Err(No::Undefined), _) | (_, Err(No::Undefined)) => return Equal::No,
        _ => {}
    }
    if a == b && infinities(a).is_none() {
        return if is_defined_somewhere(a, fuel) { Equal::Yes } else { Equal::Unknown };
    }
    match (infinities(a), infinities(b)) {
        (None, None) => {}
        (a, b) => return Equal::of(a.is_some() && a == b && a != Some(0)),
    }
    match identity(a, b, fuel) {
        Equal::Unknown => at_points(a, b, fuel),
        decided => decided,
    }
}

/// The sign of an infinite value, 0 where infinity is part of something larger (which has no value); `None` for finite expressions.
pub(super) fn infinities(node: &Node) -> Option<i8> {
    match node {
        Node::Const(Constant::Infinity) => Some(1),
        Node::Neg(a) => infinities(a).map(|sign| -sign),
        Node::Unit(a, _) => infinities(a),
        other => other.any(&|n| matches!(n, Node::Const(Constant::Infinity))).then_some(0),
    }
}

/// Whether an expression has a value at all: false for `(x-x)/(x-x)`.
fn is_defined_somewhere(a: &Node, fuel: &mut Fuel) -> bool {
    (1..=2).any(|seed| match residue(a, seed, fuel) {
        Err(No::Undefined) => false,
        Ok(_) | Err(_) => true,
    })
}

/// By evaluation in a finite field.
fn identity(a: &Node, b: &Node, fuel: &mut Fuel) -> Equal {
    let mut agreed = 0;
    for seed in 1..=4 {
        match (residue(a, seed, fuel), residue(b, seed, fuel)) {
            (Ok(x), Ok(y)) if x.value == y.value => agreed += 1,
            (Ok(x), Ok(y)) => return if x.rational && y.rational { Equal::No } else { Equal::Unknown },
            (Err(No::Undefined), _) | (_, Err(No::Undefined)) => {}
            _ => return Equal::Unknown,
        }
        if agreed == 2 {
            return confirmed(a, b, fuel);
        }
    }
    Equal::Unknown
}

/// Agreement in the fields, checked once more at a point where numbers are involved that could be made to fit them.
fn confirmed(a: &Node, b: &Node, fuel: &mut Fuel) -> Equal {
    let large = |n: &Node| match n {
        Node::Const(Constant::I) => true,
        Node::Num(n) => n.value.numerator().bit_len() > 31 || n.value.denominator().bit_len() > 31,
        _ => false,
    };
    if !a.any(&large) && !b.any(&large) {
        return Equal::Yes;
    }
    let point = |name: &str| Some(RBig::from_parts((3 + name.len() as i64).into(), 7u8.into()));
    match (evaluate(a, &point, fuel), evaluate(b, &point, fuel)) {
        (Ok(x), Ok(y)) if x.same(&y) == Same::No => Equal::No,
        _ => Equal::Yes,
    }
}

/// By evaluation in high precision, at several points where there are variables.
fn at_points(a: &Node, b: &Node, fuel: &mut Fuel) -> Equal {
    let mut names = a.symbols();
    names.extend(b.symbols());
    names.sort();
    names.dedup();
    fuel.sizes = (0, 0);
    let mut sizes = (0, 0);
    if names.is_empty() {
        return match (evaluate(a, &nowhere, fuel), evaluate(b, &nowhere, fuel)) {
            (Ok(x), Ok(y)) => of_same(x.same(&y), fuel),
            (Err(No::Undefined), _) | (_, Err(No::Undefined)) => Equal::No,
            _ => Equal::Unknown,
        };
    }
    let complex = has_i(a) || has_i(b);
    let domain = Domain::of(a, b);
    // Points at which both sides agree, and those of them at which the value is not 0: an identity may not rest on zeros alone.
    let (mut agreed, mut not_zero, mut unknown) = (0, 0, 0);
    fuel.real = !complex;
    for index in 0..POINTS {
        let point = |name: &str| names.iter().position(|n| n == name).map(|i| domain.point(index, i, name));
        // What counts is compared by counting.
        if !domain.naturals.is_empty()
            && let (Ok(x), Ok(y)) = (exact::value(a, &point, fuel), exact::value(b, &point, fuel))
        {
            if x != y {
                fuel.real = false;
                return Equal::No;
            }
            agreed += 1;
            not_zero += usize::from(!x.is_zero());
            continue;
        }
        fuel.sizes = (0, 0);
        let (x, y) = match (evaluate(a, &point, fuel), evaluate(b, &point, fuel)) {
            (Ok(x), Ok(y)) => (x, y),
            (Err(No::Fuel), _) | (_, Err(No::Fuel)) => {
                unknown += 1;
                continue;
            }
            _ => continue,
        };
        match x.same(&y) {
            Same::Yes => {
                agreed += 1;
                not_zero += usize::from(!x.contains_zero());
                sizes = (fuel.sizes.0.min(sizes.0), fuel.sizes.1.max(sizes.1));
            }
            Same::No => {
                fuel.real = false;
                return Equal::No;
            }
            Same::Unknown => unknown += 1,
        }
    }
    let against_zero =
        domain.naturals.is_empty() && [a, b].iter().any(|side| exact::value(side, &nowhere, fuel).is_ok_and(|v| v.is_zero()));
    let enough = not_zero >= ENOUGH || (against_zero && agreed >= ENOUGH);
    fuel.sizes = sizes;
    fuel.real = false;
    if enough && unknown <= agreed { of_same(Same::Yes, fuel) } else { Equal::Unknown }
}

/// `f = c g` at all points for one real constant c that is not 0, above 0 if `positive`.
pub(super) fn proportional(f: &Node, g: &Node, positive: bool, fuel: &mut Fuel) -> Equal {
    let names = f.symbols();
    let domain = Domain::of(f, g);
    let mut first: Option<Ball> = None;
    let mut agreed = 0;
    for index in 0..POINTS {
        let point = |name: &str| names.iter().position(|n| n == name).map(|i| domain.point(index, i, name));
        let (Ok(x), Ok(y)) = (evaluate(f, &point, fuel), evaluate(g, &point, fuel)) else { continue };
        match (x.contains_zero(), y.contains_zero()) {
            (true, true) => continue,
            (false, false) => {}
            _ => return Equal::No,
        }
        let Ok(ratio) = x.div(&y) else { continue };
        if positive && (!ratio.is_real() || ratio.is_negative()) {
            return Equal::No;
        }
        match &first {
            None => first = Some(ratio),
            Some(before) => match before.same(&ratio) {
                Same::Yes => agreed += 1,
                Same::No => return Equal::No,
                Same::Unknown => {}
            },
        }
    }
    if agreed >= ENOUGH { Equal::Yes } else { Equal::Unknown }
}

/// Widest range of sizes of the values in an expression, in bits, for which agreement to 100 bits means equality: beside 10^50, a 1 under the root is lost.
const MAX_RANGE: i64 = 120;

fn of_same(same: Same, fuel: &Fuel) -> Equal {
    match same {
        Same::Yes if fuel.sizes.1 - fuel.sizes.0 > MAX_RANGE => Equal::Unknown,
        Same::Yes => Equal::Yes,
        Same::No => Equal::No,
        Same::Unknown => Equal::Unknown,
    }
}

pub(super) fn has_i(node: &Node) -> bool {
    node.any(&|n| matches!(n, Node::Const(Constant::I)))
}

/// Where variables take their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Domain {
    /// Variables of which something has a meaning for natural numbers only: `n!`, `(-1)^n`.
    naturals: Vec<String>,
    /// Something in the expression jumps: natural numbers and fractions in turn.
    steps: bool,
    /// Something has a corner: points far out as well.
    corners: bool,
    /// One side is a common divisor or multiple of bare variables and nothing else: these are polynomials without common factors, not integers.
    coprime: bool,
}

impl Domain {
    fn of(a: &Node, b: &Node) -> Self {
        let bare = |n: &Node| matches!(n, Node::Sym(_)) || matches!(n, Node::Neg(x) if matches!(**x, Node::Sym(_)));
        let whole = |n: &Node| matches!(n, Node::Call(Func::Gcd | Func::Lcm, args) if args.iter().all(bare));
        let none = |n: &Node| !n.any(&|m| matches!(m, Node::Call(Func::Gcd | Func::Lcm, _)));
        let mut domain = Self { coprime: (whole(a) && none(b)) || (whole(b) && none(a)), ..Self::default() };
        domain.look(a);
        domain.look(b);
        domain
    }

    fn look(&mut self, node: &Node) {
        let varies = |n: &Node| n.any(&|m| matches!(m, Node::Sym(_)));
        match node {
            Node::Call(Func::Factorial | Func::Binomial | Func::Mod | Func::Gcd | Func::Lcm, args) => {
                args.iter().for_each(|arg| self.naturals.extend(arg.symbols()));
            }
            Node::Pow(base, exponent)
                if varies(exponent)
                    && !varies(base)
                    && exact::value(base, &nowhere, &mut Fuel::new(1000)).is_ok_and(|v| v < RBig::ZERO) =>
            {
                self.naturals.extend(exponent.symbols());
            }
            Node::Call(Func::Floor | Func::Ceil, args) => {
                self.steps |= args.iter().any(varies);
                // By convention these letters count.
                self.naturals.extend(args.iter().flat_map(Node::symbols).filter(|s| matches!(s.as_str(), "n" | "m" | "k" | "N")));
            }
            Node::Call(Func::Abs | Func::Max | Func::Min | Func::Sqrt | Func::Root | Func::Ln | Func::Log, args) => {
                self.corners |= args.iter().any(varies)
            }
            _ => {}
        }
        node.children().into_iter().for_each(|child| self.look(child));
    }

    /// The value of a variable at point `index`, the `variable`-th of its expression: spread out, the same on every machine.
    fn point(&self, index: usize, variable: usize, name: &str) -> RBig {
        // Small and large, with and without common divisors.
        const NATURALS: [i64; POINTS] = [6, 4, 1, 9, 2, 3, 10, 5, 8, 25, 7, 12, 48, 1000];
        let hash = {
            let mut z = (index as u64 * 64 + variable as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z ^ (z >> 27)
        };
        if self.coprime {
            return RBig::from([2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43][(index * 5 + variable * 3) % POINTS]);
        }
        if self.naturals.iter().any(|n| n == name) {
            // Orders of size change from point to point, so that both n > k and k > n occur.
            return RBig::from(NATURALS[(index * (2 * variable + 1) + 5 * variable) % POINTS]);
        }
        if self.steps && index.is_multiple_of(2) {
            return RBig::from([4, 9, 1, 8, 16, 2, 7][(index / 2 + 3 * variable) % 7]);
        }
        let magnitude = RBig::from_parts((2 * (1 + (hash >> 11) as i64 % 200) + 1).into(), 97u8.into());
        let scale = match index % 4 {
            1 if self.corners || self.steps => 30,
            3 if self.corners || self.steps => 4000,
            _ => 1,
        };
        // First all positive, then every pattern of signs of three variables, and a mixture for more.
        let late = index >= POINTS / 2;
        let negative = late && if variable < 3 { ((index - POINTS / 2 + 1) >> variable) & 1 == 1 } else { (hash >> 40) & 1 == 1 };
        let value = magnitude * RBig::from(scale);
        if negative { -value } else { value }
    }
}

/// The value of a node in high precision; degrees count as radians times π/180.
///
/// # Errors
/// `Undefined`, `Unsupported`, `Fuel`, as for exact values.
pub(super) fn evaluate(node: &Node, at: exact::Point<'_>, fuel: &mut Fuel) -> Result<Ball, No> {
    fuel.spend(40)?;
    let value = of_node(node, at, fuel)?;
    if fuel.real && !value.is_real() {
        return Err(No::Unsupported);
    }
    if !value.contains_zero() {
        let size = value.size();
        fuel.sizes = (fuel.sizes.0.min(size), fuel.sizes.1.max(size));
    }
    Ok(value)
}

fn of_node(node: &Node, at: exact::Point<'_>, fuel: &mut Fuel) -> Result<Ball, No> {
    match node {
        Node::Num(n) => Ball::of_rational(&n.value),
        Node::Sym(name) => Ball::of_rational(&at(name).ok_or(No::Unsupported)?),
        Node::Const(Constant::Pi) => Ball::pi(),
        Node::Const(Constant::E) => Ball::e(),
        Node::Const(Constant::I) => Ok(Ball::i()),
        Node::Const(Constant::Infinity) => Err(No::Undefined),
        Node::Neg(a) => Ok(evaluate(a, at, fuel)?.neg()),
        Node::Percent(a) => evaluate(a, at, fuel)?.div(&Ball::integer(100)),
        Node::Degree(a) => evaluate(a, at, fuel)?.mul(&Ball::pi()?)?.div(&Ball::integer(180)),
        Node::Add(items) => {
            let mut sum = Ball::integer(0);
            for item in items {
                sum = sum.add(&evaluate(item, at, fuel)?)?;
            }
            Ok(sum)
        }
        Node::Mul(items) => {
            let mut product = Ball::integer(1);
            for item in items {
                product = product.mul(&evaluate(item, at, fuel)?)?;
            }
            Ok(product)
        }
        Node::Div(a, b) => evaluate(a, at, fuel)?.div(&evaluate(b, at, fuel)?),
        Node::Pow(a, b) => {
            let base = evaluate(a, at, fuel)?;
            match exact::value(b, at, fuel) {
                Ok(n) => {
                    let size = Ball::of_rational(&n)?.size();
                    if !n.is_zero() {
                        fuel.sizes = (fuel.sizes.0.min(size), fuel.sizes.1.max(size));
                    }
                    match exact::small(&n) {
                        Some(n) if n.abs() < 100_000 => base.powi(n),
                        Some(_) => Err(No::Fuel),
                        None => {
                            fuel.spend(4000)?;
                            base.pow(&Ball::of_rational(&n)?)
                        }
                    }
                }
                Err(No::Unsupported) => {
                    fuel.spend(4000)?;
                    let exponent = evaluate(b, at, fuel)?;
                    base.pow(&exponent)
                }
                Err(other) => Err(other),
            }
        }
        Node::Based(..) => Ball::of_rational(&exact::value(node, at, fuel)?),
        Node::Call(func, args) => call(*func, args, node, at, fuel),
        _ => Err(No::Unsupported),
    }
}

fn call(func: Func, args: &[Node], node: &Node, at: exact::Point<'_>, fuel: &mut Fuel) -> Result<Ball, No> {
    // A sine in 256 bits takes as long as some thousand visits to a node.
    let quick =
        matches!(func, Func::Sqrt | Func::Abs | Func::Floor | Func::Ceil | Func::Max | Func::Min | Func::Re | Func::Im | Func::Conj);
    fuel.spend(if quick { 150 } else { 2000 })?;
    if func == Func::Apply {
        return Err(No::Unsupported);
    }
    if matches!(func, Func::Factorial | Func::Binomial | Func::Gcd | Func::Mod) {
        return Ball::of_rational(&exact::value(node, at, fuel)?);
    }
    let values = args.iter().map(|arg| evaluate(arg, at, fuel)).collect::<Result<Vec<_>, _>>()?;
    let one = Ball::integer(1);
    match (func, values.as_slice()) {
        (Func::Sin, [x]) => Ok(x.sin_cos()?.0),
        (Func::Cos, [x]) => Ok(x.sin_cos()?.1),
        (Func::Tan, [x]) => {
            let (sin, cos) = x.sin_cos()?;
            sin.div(&cos)
        }
        (Func::Cot, [x]) => {
            let (sin, cos) = x.sin_cos()?;
            cos.div(&sin)
        }
        (Func::Sec, [x]) => one.div(&x.sin_cos()?.1),
        (Func::Csc, [x]) => one.div(&x.sin_cos()?.0),
        (Func::Asin, [x]) => x.asin(),
        (Func::Acos, [x]) => x.acos(),
        (Func::Atan, [x]) => x.atan(),
        (Func::Acot, [x]) => Ball::pi()?.div(&Ball::integer(2))?.sub(&x.atan()?),
        (Func::Asec, [x]) => one.div(x)?.acos(),
        (Func::Acsc, [x]) => one.div(x)?.asin(),
        (Func::Sinh | Func::Cosh | Func::Tanh | Func::Coth, [x]) => {
            let (up, down) = (x.exp()?, x.neg().exp()?);
            for part in [&up, &down] {
                fuel.sizes = (fuel.sizes.0.min(part.size()), fuel.sizes.1.max(part.size()));
            }
            let (sinh, cosh) = (up.sub(&down)?, up.add(&down)?);
            match func {
                Func::Sinh => sinh.div(&Ball::integer(2)),
                Func::Cosh => cosh.div(&Ball::integer(2)),
                Func::Tanh => sinh.div(&cosh),
                _ => cosh.div(&sinh),
            }
        }
        (Func::Asinh, [x]) => x.add(&x.mul(x)?.add(&one)?.sqrt()?)?.ln(),
        (Func::Acosh, [x]) => x.add(&x.add(&one)?.sqrt()?.mul(&x.sub(&one)?.sqrt()?)?)?.ln(),
        (Func::Atanh, [x]) => one.add(x)?.div(&one.sub(x)?)?.ln()?.div(&Ball::integer(2)),
        (Func::Exp, [x]) => x.exp(),
        (Func::Ln | Func::Log, [x]) => x.ln(),
        (Func::Log, [x, base]) => x.ln()?.div(&base.ln()?),
        (Func::Sqrt, [x]) => x.sqrt(),
        (Func::Root, [x, n]) => {
            // A real radicand has a real odd root.
            let odd = exact::value(&args[1], at, fuel).ok().and_then(|n| exact::small(&n)).is_some_and(|n| n % 2 != 0);
            if odd && x.is_real() && x.is_negative() {
                return Ok(x.neg().pow(&one.div(n)?)?.neg());
            }
            x.pow(&one.div(n)?)
        }
        (Func::Abs, [x]) => x.abs(),
        (Func::Floor, [x]) => match exact::value(node, at, fuel) {
            Ok(value) => Ball::of_rational(&value),
            Err(_) => x.floor(false),
        },
        (Func::Ceil, [x]) => match exact::value(node, at, fuel) {
            Ok(value) => Ball::of_rational(&value),
            Err(_) => x.floor(true),
        },
        (Func::Max | Func::Min, [first, rest @ ..]) => {
            let mut best = first.clone();
            for value in rest {
                let order = value.order(&best).ok_or(No::Unsupported)?;
                let better = if func == Func::Max { order.is_gt() } else { order.is_lt() };
                if better {
                    best = value.clone();
                }
            }
            Ok(best)
        }
        // The least common multiple of √3, √2 and 10, as of unrelated quantities.
        (Func::Lcm, values) => match exact::value(node, at, fuel) {
            Ok(value) => Ball::of_rational(&value),
            Err(No::Unsupported) => values.iter().try_fold(Ball::integer(1), |product, value| product.mul(value)),
            Err(other) => Err(other),
        },
        (Func::Re, [x]) => Ok(x.re()),
        (Func::Im, [x]) => Ok(x.im()),
        (Func::Conj, [x]) => Ok(x.conj()),
        (Func::Arg, [x]) => x.arg(),
        _ => Err(No::Unsupported),
    }
}

/// The order of two constant real quantities; `None` where it cannot be told.
pub(super) fn order(a: &Node, b: &Node, fuel: &mut Fuel) -> Option<std::cmp::Ordering> {
    use std::cmp::Ordering;
    match (infinities(a), infinities(b)) {
        (Some(x), Some(y)) if x != 0 && y != 0 => return Some(x.cmp(&y)),
        (Some(x), None) if x != 0 => return Some(if x > 0 { Ordering::Greater } else { Ordering::Less }),
        (None, Some(y)) if y != 0 => return Some(if y > 0 { Ordering::Less } else { Ordering::Greater }),
        (None, None) => {}
        _ => return None,
    }
    if let (Ok(x), Ok(y)) = (exact::value(a, &nowhere, fuel), exact::value(b, &nowhere, fuel)) {
        return Some(x.cmp(&y));
    }
    let (x, y) = (evaluate(a, &nowhere, fuel).ok()?, evaluate(b, &nowhere, fuel).ok()?);
    x.order(&y)
}
