//! Single quantities: percent signs, degrees and units taken off, then values compared exactly or rounded to the digits of the reference.

use super::exact::{self, nowhere};
use super::node::{Func, Node, Number};
use super::numeric::{Equal, equal, evaluate};
use super::{Fuel, No, units};
use dashu_base::Abs;
use dashu_ratio::RBig;

/// A quantity with its percent sign, degree sign and unit taken off.
#[derive(Debug)]
pub(super) struct Pulled {
    value: Node,
    percent: bool,
    degree: bool,
    pub unit: Option<String>,
}

pub(super) fn pulled(node: &Node) -> Pulled {
    let bare = |value: Node| Pulled { value, percent: false, degree: false, unit: None };
    match node {
        Node::Percent(a) => Pulled { percent: true, ..pulled(a) },
        Node::Degree(a) => Pulled { degree: true, ..pulled(a) },
        Node::Unit(a, unit) => {
            let inner = pulled(a);
            let unit = match inner.unit {
                Some(inner) => format!("{inner} {unit}"),
                None => unit.clone(),
            };
            Pulled { unit: Some(unit), ..inner }
        }
        Node::Neg(a) => {
            let inner = pulled(a);
            Pulled { value: Node::Neg(Box::new(inner.value)), ..inner }
        }
        Node::Mul(items) => {
            let mut whole = bare(Node::Mul(Vec::new()));
            let mut values = Vec::new();
            for item in items {
                let inner = pulled(item);
                // `50% · 10` is 5, and no percentage.
                if inner.percent {
                    return bare(node.clone());
                }
                if (inner.degree || inner.unit.is_some()) && (whole.degree || whole.unit.is_some()) {
                    return bare(node.clone());
                }
                whole.degree |= inner.degree;
                whole.unit = whole.unit.or(inner.unit);
                values.push(inner.value);
            }
            Pulled { value: Node::Mul(values), ..whole }
        }
        Node::Div(a, b) => {
            let above = pulled(a);
            Pulled { value: Node::Div(Box::new(above.value), b.clone()), ..above }
        }
        Node::Add(items) => sum_of_amounts(items).unwrap_or_else(|| bare(node.clone())),
        other => bare(other.clone()),
    }
}

/// `2 hours 30 minutes`, `3\% + 4\%`: amounts of one kind as one amount, in the unit of the first.
fn sum_of_amounts(items: &[Node]) -> Option<Pulled> {
    let parts: Vec<Pulled> = items.iter().map(pulled).collect();
    let first = parts.first()?;
    if parts.iter().all(|p| p.percent) || parts.iter().all(|p| p.degree && p.unit.is_none()) {
        let (percent, degree) = (first.percent, first.degree);
        return Some(Pulled { value: Node::Add(parts.into_iter().map(|p| p.value).collect()), percent, degree, unit: None });
    }
    // A unit behind the last term stands for all: `3 + 2\sqrt{2} \text{ cm}`.
    if let Some((last, before)) = parts.split_last()
        && before.iter().all(|p| p.unit.is_none() && !p.percent && !p.degree)
        && last.unit.is_some()
    {
        let unit = last.unit.clone();
        return Some(Pulled { value: Node::Add(parts.into_iter().map(|p| p.value).collect()), percent: false, degree: false, unit });
    }
    let unit = first.unit.clone()?;
    let base = units::read(&unit)?;
    let mut values = Vec::new();
    for part in parts {
        let own = units::read(&part.unit?)?;
        if own.dimension != base.dimension {
            return None;
        }
        values.push(Node::Mul(vec![part.value, Node::rational(own.factor / &base.factor)]));
    }
    Some(Pulled { value: Node::Add(values), percent: false, degree: false, unit: Some(unit) })
}

/// Two single quantities.
pub(super) fn quantities(gold: &Node, found: &Node, fuel: &mut Fuel) -> Equal {
    let (g, p) = (pulled(gold), pulled(found));
    let hundredth = |n: &Node| Node::Div(Box::new(n.clone()), Box::new(Node::int(100)));
    let hundredfold = |n: &Node| Node::Mul(vec![n.clone(), Node::int(100)]);
    match (g.percent, p.percent) {
        (false, false) => {}
        (true, true) => return numbers(&g.value, &p.value, fuel),
        // 50% is 0.5, and a reference of 50% is also meant by an answer of 50.
        (true, false) if p.unit.is_some() || p.degree => return Equal::No,
        (true, false) => return numbers(&g.value, &p.value, fuel).or(|| numbers(&g.value, &hundredfold(&p.value), fuel)),
        (false, true) if g.unit.is_some() || g.degree => return Equal::No,
        // A reference of 50 is also meant by 50%; one of 0.5 is not meant by 0.5%.
        (false, true) => {
            let as_written = numbers(&g.value, &hundredth(&p.value), fuel);
            let large = exact::value(&g.value, &nowhere, fuel).is_ok_and(|v| v.abs() > RBig::ONE);
            return if large { as_written.or(|| numbers(&g.value, &p.value, fuel)) } else { as_written };
        }
    }
    let radians = |p: &Pulled| matches!(p.unit.as_deref(), Some("radian" | "radians" | "rad"));
    match (g.degree, p.degree) {
        (true, false) if radians(&p) => return equal(gold, &p.value, fuel),
        (false, true) if radians(&g) => return equal(&g.value, found, fuel),
        (true, false) | (false, true) if [&g, &p].iter().any(|q| !q.degree && q.unit.as_deref().and_then(units::read).is_some()) => {
            return Equal::No;
        }
        (true, false) | (false, true) => {
            let dropped = numbers(&g.value, &p.value, fuel);
            return dropped.or(|| equal(gold, found, fuel));
        }
        _ => {}
    }
    // Words behind a variable are a condition (`n even`), not a unit to drop.
    let condition = |q: &Pulled| q.unit.as_deref().is_some_and(|u| units::read(u).is_none()) && matches!(q.value, Node::Sym(_));
    if (condition(&g) || condition(&p)) && g.unit != p.unit {
        return Equal::No;
    }
    if let (Some(a), Some(b)) = (&g.unit, &p.unit) {
        let (known_a, known_b) = (units::read(a), units::read(b));
        if (known_a.is_none() || known_b.is_none()) && !is_one_kind(a, b) {
            return Equal::No;
        }
        if let (Some(a), Some(b)) = (known_a, known_b) {
            if a.dimension != b.dimension {
                return Equal::No;
            }
            if a.factor != b.factor {
                let converted = Node::Mul(vec![p.value, Node::rational(b.factor / a.factor)]);
                return numbers(&g.value, &converted, fuel);
            }
        }
        return numbers(&g.value, &p.value, fuel);
    }
    // `5 m` against `5m`, where the letter could be a variable.
    if let (Some(unit), other) | (other, Some(unit)) = (&g.unit, &p.unit)
        && other.is_none()
        && unit.chars().count() == 1
    {
        let as_factor = |n: &Node| match n {
            Node::Unit(v, u) => Node::Mul(vec![(**v).clone(), Node::Sym(u.clone())]),
            n => n.clone(),
        };
        if equal(&as_factor(gold), &as_factor(found), fuel) == Equal::Yes {
            return Equal::Yes;
        }
    }
    numbers(&g.value, &p.value, fuel)
}

/// Whether one of two phrases only says more than the other (`apples`, `green apples`); `lines` and `circles` are different things.
fn is_one_kind(a: &str, b: &str) -> bool {
    let words = |phrase: &str| -> Vec<String> { phrase.split([' ', '/']).map(|w| w.trim_end_matches('s').to_owned()).collect() };
    let (a, b) = (words(a), words(b));
    a.iter().all(|w| b.contains(w)) || b.iter().all(|w| a.contains(w))
}

/// Two values without units: exactly, or rounded to the digits of a reference that is a decimal.
fn numbers(gold: &Node, found: &Node, fuel: &mut Fuel) -> Equal {
    let exactly = with_logs(gold, found, fuel);
    if exactly == Equal::Yes {
        return exactly;
    }
    match decimal(gold) {
        Some((value, half)) => rounds_to(&value, &half, found, fuel).unwrap_or(exactly),
        None => exactly,
    }
}

/// Equality where a logarithm without a base is either natural or decimal, on both sides alike.
fn with_logs(gold: &Node, found: &Node, fuel: &mut Fuel) -> Equal {
    let natural = equal(gold, found, fuel);
    let bare = |n: &Node| n.any(&|n| matches!(n, Node::Call(Func::Log, args) if args.len() == 1));
    if natural == Equal::Yes || !(bare(gold) || bare(found)) {
        return natural;
    }
    equal(&decimal_logs(gold), &decimal_logs(found), fuel).or(|| natural)
}

fn decimal_logs(node: &Node) -> Node {
    match node.map(&mut decimal_logs) {
        Node::Call(Func::Log, mut args) if args.len() == 1 => {
            args.push(Node::int(10));
            Node::Call(Func::Log, args)
        }
        other => other,
    }
}

/// The value of a reference that is written as a decimal (times a power of ten), and half a unit of its last digit.
fn decimal(node: &Node) -> Option<(RBig, RBig)> {
    match node {
        // One decimal and no more than two digits is taken for exact: .3 is not a third.
        Node::Num(Number { value, decimals: Some(d) }) if *d > 0 && *d < 100 && (*d > 1 || value.clone().abs() >= RBig::from(10)) => {
            let unit = super::number::power_of_ten(-i64::from(*d))?;
            Some((value.clone(), unit / RBig::from(2)))
        }
        Node::Neg(a) => decimal(a).map(|(v, h)| (-v, h)),
        Node::Mul(items) => {
            let [mantissa, power] = items.as_slice() else {
                return if items.len() == 1 { decimal(&items[0]) } else { None };
            };
            let (value, half) = decimal(mantissa)?;
            let Node::Pow(base, _) = power else { return None };
            if **base != Node::int(10) {
                return None;
            }
            let scale = exact::value(power, &nowhere, &mut Fuel::new(1000)).ok()?;
            Some((value * &scale, half * scale))
        }
        _ => None,
    }
}

/// Whether an answer that is more precise than the reference rounds to it; `None` if it is not more precise.
fn rounds_to(gold: &RBig, half: &RBig, found: &Node, fuel: &mut Fuel) -> Option<Equal> {
    // A decimal with fewer digits than the reference is another number.
    if let Some((_, own)) = decimal(found)
        && own > *half
    {
        return None;
    }
    if let Node::Num(n) = found
        && n.value.is_int()
    {
        return None;
    }
    match exact::value(found, &nowhere, fuel) {
        Ok(value) => {
            // Halves are rounded away from zero.
            let distance = (value.clone() - gold).abs();
            Some(Equal::of(distance < *half || (distance == *half && value.abs() < gold.clone().abs())))
        }
        Err(No::Unsupported) => {
            let value = evaluate(found, &nowhere, fuel).ok()?;
            let low = super::ball::Ball::of_rational(&(gold - half)).ok()?;
            let high = super::ball::Ball::of_rational(&(gold + half)).ok()?;
            Some(Equal::of(value.order(&low)?.is_ge() && value.order(&high)?.is_le()))
        }
        Err(_) => None,
    }
}
