//! Sets of real numbers as unions of intervals: inequalities, interval notation and set builders meet here.

use super::node::{Func, Join, NamedSet, Node, Rel, SetOp};
use super::numeric::{Equal, equal, infinities, order};
use super::{Fuel, exact};
use dashu_ratio::RBig;
use std::cmp::Ordering;

/// Most intervals of a set.
const MAX_INTERVALS: usize = 64;

#[derive(Clone, Debug)]
struct Interval {
    low: Node,
    low_closed: bool,
    high: Node,
    high_closed: bool,
}

/// A set of real numbers, and the variable it is written for.
#[derive(Clone, Debug)]
pub(super) struct Region {
    pub variable: Option<String>,
    parts: Vec<Interval>,
}

fn infinity(negative: bool) -> Node {
    let node = Node::Const(super::node::Constant::Infinity);
    if negative { Node::Neg(Box::new(node)) } else { node }
}

/// The set that a node describes; `None` if it is not a set of reals with ends that can be put in order.
pub(super) fn read(node: &Node, fuel: &mut Fuel) -> Option<Region> {
    let region = build(node, fuel)?;
    Some(Region { variable: region.variable, parts: merge(region.parts, fuel)? })
}

fn build(node: &Node, fuel: &mut Fuel) -> Option<Region> {
    fuel.spend(20).ok()?;
    match node {
        Node::Group { open_closed, close_closed, items } => {
            let [low, high] = items.as_slice() else { return None };
            (order(low, high, fuel)? == Ordering::Less).then(|| Region {
                variable: None,
                parts: vec![Interval { low: low.clone(), low_closed: *open_closed, high: high.clone(), high_closed: *close_closed }],
            })
        }
        Node::Named(NamedSet::Reals) => Some(all()),
        Node::Named(NamedSet::Empty) => Some(Region { variable: None, parts: Vec::new() }),
        Node::Set(items) => {
            let parts = items.iter().map(|item| order(item, item, fuel).map(|_| point(item))).collect::<Option<Vec<_>>>()?;
            Some(Region { variable: None, parts })
        }
        Node::SetOp(op, a, b) => {
            let (a, b) = (read(a, fuel)?, read(b, fuel)?);
            combine(*op, a, b, fuel)
        }
        // `{x | x < 3} - {1}`
        Node::Add(items) => {
            let mut items = items.iter();
            let mut region = read(items.next()?, fuel)?;
            for item in items {
                let Node::Neg(item) = item else { return None };
                let removed = read(item, fuel)?;
                region = combine(SetOp::Difference, region, removed, fuel)?;
            }
            Some(region)
        }
        Node::Builder(collected, condition) => {
            let region = read(condition, fuel)?;
            let name = match &**collected {
                Node::Sym(name) => name,
                Node::Chain(items, rels) if rels == &[Rel::In] && items[1] == Node::Named(NamedSet::Reals) => match &items[0] {
                    Node::Sym(name) => name,
                    _ => return None,
                },
                _ => return None,
            };
            (region.variable.as_ref() == Some(name)).then_some(Region { variable: None, ..region })
        }
        Node::Chain(items, rels) => chain(items, rels, fuel),
        Node::List(join, items) => {
            let relation = |n: &Node| matches!(n, Node::Chain(_, rels) if rels.iter().all(|r| r.is_order() || *r == Rel::Ne || *r == Rel::In || *r == Rel::Eq));
            if !items.iter().all(relation) && *join != Join::Or {
                return None;
            }
            let mut regions = items.iter().map(|item| read(item, fuel)).collect::<Option<Vec<_>>>()?.into_iter();
            let first = regions.next()?;
            let rest: Vec<Region> = regions.collect();
            let mut joined = |op: SetOp| rest.iter().cloned().try_fold(first.clone(), |a, b| combine(op, a, b, fuel));
            if *join == Join::Or {
                return joined(SetOp::Union);
            }
            // `x < 2, x > 3` cannot both hold: what is meant is either.
            joined(SetOp::Intersection).filter(|r| !r.parts.is_empty()).or_else(|| joined(SetOp::Union))
        }
        _ => None,
    }
}

fn all() -> Region {
    Region { variable: None, parts: vec![Interval { low: infinity(true), low_closed: false, high: infinity(false), high_closed: false }] }
}

fn point(node: &Node) -> Interval {
    Interval { low: node.clone(), low_closed: true, high: node.clone(), high_closed: true }
}

/// `a < x <= b`, `x != 2`, `x in S`, `2x + 1 > 3`.
fn chain(items: &[Node], rels: &[Rel], fuel: &mut Fuel) -> Option<Region> {
    if let ([Node::Sym(name), set], [Rel::In]) = (items, rels) {
        let region = read(set, fuel)?;
        return Some(Region { variable: Some(name.clone()), ..region });
    }
    let mut region: Option<Region> = None;
    for (pair, rel) in items.windows(2).zip(rels) {
        if !rel.is_order() && *rel != Rel::Ne && *rel != Rel::Eq {
            return None;
        }
        let part = inequality(&pair[0], *rel, &pair[1], fuel)?;
        region = Some(match region {
            None => part,
            Some(before) => combine(SetOp::Intersection, before, part, fuel)?,
        });
    }
    region
}

/// A relation between two sides that is linear in one variable.
fn inequality(left: &Node, rel: Rel, right: &Node, fuel: &mut Fuel) -> Option<Region> {
    let difference = Node::Add(vec![left.clone(), Node::Neg(Box::new(right.clone()))]);
    let names = difference.symbols();
    let [name] = names.as_slice() else { return None };
    if let Some(region) = absolute(left, rel, right, fuel).or_else(|| absolute(right, rel.flipped(), left, fuel)) {
        return Some(region);
    }
    // a x + b, from the values at 0, 1 and 2; a constant bound may be irrational, so it is kept as an expression.
    let (bound, rel) = if let Node::Sym(_) = left {
        (right.clone(), rel)
    } else if let Node::Sym(_) = right {
        (left.clone(), rel.flipped())
    } else {
        if let Some(region) = around_absolute(&difference, rel, fuel) {
            return Some(region);
        }
        // Values in line prove nothing of what is no polynomial.
        let bends = |n: &Node| match n {
            Node::Call(_, args) => args.iter().any(|a| !a.symbols().is_empty()),
            Node::Div(_, b) | Node::Pow(_, b) => !b.symbols().is_empty(),
            _ => false,
        };
        if difference.any(&bends) {
            return None;
        }
        let mut at = |x: i64| exact::value(&difference, &|n: &str| (n == name).then(|| RBig::from(x)), fuel).ok();
        let (f0, f1, f2) = (at(0)?, at(1)?, at(2)?);
        let slope = &f1 - &f0;
        let on_line = |x: i64, value: &RBig| *value == &f0 + &slope * RBig::from(x);
        if slope.is_zero() || !on_line(2, &f2) || !on_line(7, &at(7)?) || !on_line(-5, &at(-5)?) {
            let far = [(3, at(3)?), (7, at(7)?), (-5, at(-5)?)];
            return quadratic(name, [f0, f1, f2], &far, rel, fuel);
        }
        let rel = if slope < RBig::ZERO { rel.flipped() } else { rel };
        (Node::rational(-f0 / slope), rel)
    };
    if bound.any(&|n| matches!(n, Node::Sym(_))) || !bound.is_scalar() {
        return None;
    }
    order(&bound, &bound, fuel)?;
    let ray_below = |closed| Interval { low: infinity(true), low_closed: false, high: bound.clone(), high_closed: closed };
    let ray_above = |closed| Interval { low: bound.clone(), low_closed: closed, high: infinity(false), high_closed: false };
    let parts = match rel {
        Rel::Lt => vec![ray_below(false)],
        Rel::Le => vec![ray_below(infinities(&bound).is_none())],
        Rel::Gt => vec![ray_above(false)],
        Rel::Ge => vec![ray_above(infinities(&bound).is_none())],
        Rel::Ne => vec![ray_below(false), ray_above(false)],
        Rel::Eq => vec![point(&bound)],
        _ => return None,
    };
    Some(Region { variable: Some(name.clone()), parts })
}

/// `|u| <= c` as `-c <= u <= c`, `|u| > c` as `u < -c or u > c`.
fn absolute(left: &Node, rel: Rel, right: &Node, fuel: &mut Fuel) -> Option<Region> {
    let Node::Call(Func::Abs, args) = left else { return None };
    let [inner] = args.as_slice() else { return None };
    if !right.symbols().is_empty() || order(right, &Node::int(0), fuel)? != Ordering::Greater {
        return None;
    }
    let minus = Node::Neg(Box::new(right.clone()));
    let op = match rel {
        Rel::Lt | Rel::Le => SetOp::Intersection,
        Rel::Gt | Rel::Ge => SetOp::Union,
        _ => return None,
    };
    let (a, b) = (inequality(inner, rel, right, fuel)?, inequality(inner, rel.flipped(), &minus, fuel)?);
    combine(op, a, b, fuel)
}

/// `2|u| - 6 < 0`: solved for the one absolute value in it, then for what is inside.
fn around_absolute(difference: &Node, rel: Rel, fuel: &mut Fuel) -> Option<Region> {
    let mut found = None;
    let outer = replaced(difference, &mut found)?;
    let inner = found?;
    if outer.symbols() != ["|u|"] {
        return None;
    }
    let mut at = |x: i64| exact::value(&outer, &|n: &str| (n == "|u|").then(|| RBig::from(x)), fuel).ok();
    let (f0, f1, f2) = (at(0)?, at(1)?, at(2)?);
    let slope = &f1 - &f0;
    if slope.is_zero() || &f2 - &f1 != slope {
        return None;
    }
    let rel = if slope < RBig::ZERO { rel.flipped() } else { rel };
    absolute(&Node::Call(Func::Abs, vec![inner]), rel, &Node::rational(-f0 / slope), fuel)
}

/// The tree with its one absolute value as a variable; `None` if there are several different ones.
fn replaced(node: &Node, found: &mut Option<Node>) -> Option<Node> {
    match node {
        Node::Call(Func::Abs, args) if args.len() == 1 && !args[0].symbols().is_empty() => {
            if found.as_ref().is_some_and(|f| *f != args[0]) {
                return None;
            }
            *found = Some(args[0].clone());
            Some(Node::Sym("|u|".into()))
        }
        other => {
            let mut fine = true;
            let new = other.map(&mut |child| {
                replaced(child, found).unwrap_or_else(|| {
                    fine = false;
                    child.clone()
                })
            });
            fine.then_some(new)
        }
    }
}

/// A quadratic inequality against 0, from the values of its left side at 0, 1 and 2; those at other points must fit.
fn quadratic(name: &str, at: [RBig; 3], far: &[(i64, RBig)], rel: Rel, fuel: &mut Fuel) -> Option<Region> {
    let [f0, f1, f2] = at;
    let two = RBig::from(2);
    let a = (&f2 - &f1 - &f1 + &f0) / &two;
    let b = &f1 - &f0 - &a;
    let fits = |(x, value): &(i64, RBig)| &a * RBig::from(x * x) + &b * RBig::from(*x) + &f0 == *value;
    if a.is_zero() || !far.iter().all(fits) {
        return None;
    }
    let discriminant = &b * &b - RBig::from(4) * &a * &f0;
    if discriminant <= RBig::ZERO {
        return None;
    }
    let (rel, a_abs) = if a < RBig::ZERO { (rel.flipped(), -&a) } else { (rel, a.clone()) };
    let b = if a < RBig::ZERO { -b } else { b };
    let root = Node::Call(Func::Sqrt, vec![Node::rational(discriminant)]);
    let end = |sign: Node| Node::Div(Box::new(Node::Add(vec![Node::rational(-&b), sign])), Box::new(Node::rational(&two * &a_abs)));
    let (low, high) = (end(Node::Neg(Box::new(root.clone()))), end(root));
    let closed = matches!(rel, Rel::Le | Rel::Ge);
    let parts = match rel {
        Rel::Lt | Rel::Le => vec![Interval { low, low_closed: closed, high, high_closed: closed }],
        Rel::Gt | Rel::Ge => vec![
            Interval { low: infinity(true), low_closed: false, high: low, high_closed: closed },
            Interval { low: high, low_closed: closed, high: infinity(false), high_closed: false },
        ],
        _ => return None,
    };
    Some(Region { variable: Some(name.to_owned()), parts: merge(parts, fuel)? })
}

fn combine(op: SetOp, a: Region, b: Region, fuel: &mut Fuel) -> Option<Region> {
    let variable = match (&a.variable, &b.variable) {
        (Some(x), Some(y)) if x != y => return None,
        (x, y) => x.clone().or(y.clone()),
    };
    let parts = match op {
        SetOp::Union => a.parts.into_iter().chain(b.parts).collect(),
        SetOp::Intersection => intersect(&a.parts, &b.parts, fuel)?,
        SetOp::Difference => intersect(&a.parts, &complement(&merge(b.parts, fuel)?), fuel)?,
    };
    Some(Region { variable, parts: merge(parts, fuel)? })
}

fn intersect(a: &[Interval], b: &[Interval], fuel: &mut Fuel) -> Option<Vec<Interval>> {
    let mut parts = Vec::new();
    for x in a {
        for y in b {
            let (low, low_closed) = match order(&x.low, &y.low, fuel)? {
                Ordering::Less => (&y.low, y.low_closed),
                Ordering::Greater => (&x.low, x.low_closed),
                Ordering::Equal => (&x.low, x.low_closed && y.low_closed),
            };
            let (high, high_closed) = match order(&x.high, &y.high, fuel)? {
                Ordering::Less => (&x.high, x.high_closed),
                Ordering::Greater => (&y.high, y.high_closed),
                Ordering::Equal => (&x.high, x.high_closed && y.high_closed),
            };
            let keep = match order(low, high, fuel)? {
                Ordering::Less => true,
                Ordering::Equal => low_closed && high_closed,
                Ordering::Greater => false,
            };
            if keep {
                parts.push(Interval { low: low.clone(), low_closed, high: high.clone(), high_closed });
            }
            if parts.len() > MAX_INTERVALS {
                return None;
            }
        }
    }
    Some(parts)
}

/// Of merged parts.
fn complement(parts: &[Interval]) -> Vec<Interval> {
    let mut gaps = Vec::new();
    let (mut low, mut low_closed) = (infinity(true), false);
    for part in parts {
        if infinities(&part.low) != Some(-1) {
            gaps.push(Interval { low, low_closed, high: part.low.clone(), high_closed: !part.low_closed });
        }
        (low, low_closed) = (part.high.clone(), !part.high_closed);
        if infinities(&part.high) == Some(1) {
            return gaps;
        }
    }
    gaps.push(Interval { low, low_closed, high: infinity(false), high_closed: false });
    gaps
}

/// Sorted, with parts that touch made one.
fn merge(mut parts: Vec<Interval>, fuel: &mut Fuel) -> Option<Vec<Interval>> {
    if parts.len() > MAX_INTERVALS {
        return None;
    }
    // Insertion sort, so that an order that cannot be told ends it.
    for i in 1..parts.len() {
        let mut j = i;
        while j > 0 {
            let before = match order(&parts[j - 1].low, &parts[j].low, fuel)? {
                Ordering::Less => break,
                Ordering::Equal => parts[j - 1].low_closed || !parts[j].low_closed,
                Ordering::Greater => false,
            };
            if before {
                break;
            }
            parts.swap(j - 1, j);
            j -= 1;
        }
    }
    let mut merged: Vec<Interval> = Vec::new();
    for part in parts {
        let Some(last) = merged.last_mut() else {
            merged.push(part);
            continue;
        };
        let touches = match order(&part.low, &last.high, fuel)? {
            Ordering::Less => true,
            Ordering::Equal => part.low_closed || last.high_closed,
            Ordering::Greater => false,
        };
        if !touches {
            merged.push(part);
            continue;
        }
        match order(&part.high, &last.high, fuel)? {
            Ordering::Greater => (last.high, last.high_closed) = (part.high, part.high_closed),
            Ordering::Equal => last.high_closed |= part.high_closed,
            Ordering::Less => {}
        }
    }
    Some(merged)
}

/// Whether two sets are the same; sets written for different variables are not.
pub(super) fn same(a: &Region, b: &Region, fuel: &mut Fuel) -> Equal {
    if let (Some(x), Some(y)) = (&a.variable, &b.variable)
        && x != y
    {
        return Equal::No;
    }
    if a.parts.len() != b.parts.len() {
        return Equal::No;
    }
    let mut result = Equal::Yes;
    for (x, y) in a.parts.iter().zip(&b.parts) {
        if x.low_closed != y.low_closed || x.high_closed != y.high_closed {
            return Equal::No;
        }
        result = result.and(|| equal(&x.low, &y.low, fuel)).and(|| equal(&x.high, &y.high, fuel));
    }
    result
}
