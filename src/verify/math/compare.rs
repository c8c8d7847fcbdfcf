//! Comparison by shape: names and values, lists, sets of reals, matrices, ratios, quantities with units; then numbers.
//!
//! The first argument is the reference: rounding and dropped units are judged from its side.

use super::exact::{self, nowhere};
use super::fingerprint::residue;
use super::matrix;
use super::members::{Kind, Members, expand, finite, has_signs, members, same_members, signs, too_many_signs};
use super::node::{Constant, Join, Node, Rel, SetOp};
use super::numeric::{Equal, equal};
use super::quantity::{pulled, quantities};
use super::relation::{Assignment, agreed, assignment, is_name, loose_assignment, proportional, same_equation};
use super::{Fuel, region, units};
use dashu_base::Gcd;
use dashu_ratio::RBig;

/// Deepest nesting of one comparison in another.
const MAX_LEVEL: u32 = 200;

/// A tree without what is only said beside the answer: approximations behind `≈`, the way to a value (`1 + 1 = 2`).
pub(super) fn settled(node: &Node) -> Node {
    match node {
        Node::Chain(items, rels) => {
            let items: Vec<Node> = items.iter().map(settled).collect();
            let mut rels = rels.clone();
            // `x ≈ 11` gives x its value; behind a value `≈` only describes it.
            let named = items.iter().take_while(|i| is_name(i)).count();
            for (i, rel) in rels.iter_mut().enumerate() {
                if *rel == Rel::Approx && i < named {
                    *rel = Rel::Eq;
                }
            }
            let cut = rels.iter().position(|rel| *rel == Rel::Approx).unwrap_or(rels.len());
            // `5 ≈ 7` is no approximation.
            let far = (cut..rels.len()).any(|i| rels[i] == Rel::Approx && !is_near(&items[cut], &items[i + 1]));
            if far {
                return Node::Chain(items, rels);
            }
            let (items, rels) = (items[..=cut].to_vec(), rels[..cut].to_vec());
            if rels.is_empty() {
                return items.into_iter().next().unwrap_or_else(|| node.clone());
            }
            // `6 · 7 = 42`
            if rels.iter().all(|r| *r == Rel::Eq) && items.iter().all(|i| i.is_scalar() && i.symbols().is_empty()) {
                // `1 = 1` says nothing.
                if items.len() > 1 && items.iter().all(|i| *i == items[0]) {
                    return Node::Chain(items, rels);
                }
                return agreed(&items).unwrap_or(Node::Chain(items, rels));
            }
            Node::Chain(items, rels)
        }
        // `1 hour and 30 minutes`
        Node::List(Join::And, items) if is_one_amount(items) => Node::Add(items.clone()),
        Node::List(join, items) => Node::List(*join, items.iter().map(settled).collect()),
        other => other.clone(),
    }
}

/// Whether two constants are within a twentieth of each other; true where they cannot be compared.
fn is_near(a: &Node, b: &Node) -> bool {
    let mut fuel = Fuel::new(100_000);
    let scaled = |n: &Node, by: i64| Node::Mul(vec![n.clone(), Node::rational(RBig::from_parts(by.into(), 20u8.into()))]);
    let mut order = |x: &Node, y: &Node| super::numeric::order(x, y, &mut fuel);
    let (low, high) = (order(&scaled(b, 19), a), order(&scaled(b, 21), a));
    match (low, high) {
        (Some(low), Some(high)) => low != high || low.is_eq(),
        _ => true,
    }
}

/// The approximate values that a reference gives itself, as further readings of it.
pub(super) fn approximations(node: &Node) -> Vec<Node> {
    match node {
        Node::Chain(items, rels) => {
            let named = items.iter().take_while(|i| is_name(i)).count();
            rels.iter().enumerate().filter(|(i, rel)| **rel == Rel::Approx && *i >= named).map(|(i, _)| items[i + 1].clone()).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether all are amounts of one dimension, in different units.
fn is_one_amount(items: &[Node]) -> bool {
    let read: Option<Vec<units::Unit>> = items.iter().map(|i| if let Node::Unit(_, u) = i { units::read(u) } else { None }).collect();
    read.is_some_and(|all| all.windows(2).all(|w| w[0].dimension == w[1].dimension && w[0].factor > w[1].factor))
}

/// The answer with its integer parameter under the name that the reference uses: `π/6 + nπ` for `π/6 + kπ`. `None` where there is no such parameter.
pub(super) fn with_parameter_of(gold: &Node, found: &Node) -> Option<Node> {
    let parameter = |node: &Node| -> Option<String> {
        let letters: Vec<String> = node.symbols().into_iter().filter(|s| matches!(s.as_str(), "k" | "n" | "m" | "l" | "j")).collect();
        letters.first().filter(|_| letters.len() == 1).cloned()
    };
    let (ours, theirs) = (parameter(gold)?, parameter(found)?);
    // Alone, `2πn` may be a value that depends on n; added to an angle it is a period.
    let angle = |node: &Node| node.any(&|n| matches!(n, Node::Const(Constant::Pi) | Node::Degree(_)));
    let periodic = |node: &Node, name: &str| {
        node.any(&|n| match n {
            Node::Add(terms) => terms.iter().any(|t| angle(t) && t.symbols() == [name]) && terms.iter().any(|t| t.symbols().is_empty()),
            _ => false,
        })
    };
    (ours != theirs && periodic(gold, &ours) && periodic(found, &theirs)).then(|| with_name(found, &theirs, &ours))
}

fn with_name(node: &Node, from: &str, to: &str) -> Node {
    match node {
        Node::Sym(name) if name == from => Node::Sym(to.to_owned()),
        other => other.map(&mut |child| with_name(child, from, to)),
    }
}

/// The name of the rule by which two answers differ.
pub(super) fn why(gold: &Node, found: &Node) -> &'static str {
    match (assignment(gold), assignment(found)) {
        (Some(g), Some(p)) if g.names != p.names && g.by_place.is_none() => return "different_name",
        (None, None) => {}
        (g, p) => {
            let (g, p) = (g.map_or_else(|| gold.clone(), |a| a.value), p.map_or_else(|| found.clone(), |a| a.value));
            return why(&g, &p);
        }
    }
    let (g, p) = (pulled(gold), pulled(found));
    if let (Some(a), Some(b)) = (g.unit.as_deref().and_then(units::read), p.unit.as_deref().and_then(units::read))
        && a.dimension != b.dimension
    {
        return "conflicting_units";
    }
    match (gold, found) {
        (Node::Text(_), _) | (_, Node::Text(_)) => "different_words",
        (Node::Based(_, a), Node::Based(_, b)) if a != b => "different_base",
        _ if members(gold).is_some() != members(found).is_some() => "different_shape",
        _ if gold.is_scalar() && found.is_scalar() => "different_value",
        _ => "different",
    }
}

/// Whether an answer means the same as a reference.
pub(super) fn same(gold: &Node, found: &Node, fuel: &mut Fuel) -> Equal {
    if fuel.spend(5).is_err() || fuel.level >= MAX_LEVEL {
        return Equal::Unknown;
    }
    fuel.level += 1;
    let result = same_shape(gold, found, fuel);
    fuel.level -= 1;
    result
}

fn same_shape(gold: &Node, found: &Node, fuel: &mut Fuel) -> Equal {
    match (gold, found) {
        (Node::Text(a), Node::Text(b)) => return Equal::of(a == b),
        (Node::Text(a), Node::Sym(b)) | (Node::Sym(b), Node::Text(a)) => return Equal::of(a == &b.to_lowercase()),
        (Node::Text(_), _) | (_, Node::Text(_)) => return Equal::No,
        (Node::Sym(a), Node::Sym(b)) if is_choice(a) && a.eq_ignore_ascii_case(b) => return Equal::Yes,
        (Node::Named(a), Node::Named(b)) => return Equal::of(a == b),
        (Node::Based(a, x), Node::Based(b, y)) => return Equal::of(a == b && x == y),
        (Node::Based(..), other) | (other, Node::Based(..)) if other.is_scalar() => return Equal::No,
        _ => {}
    }
    if let Some(decided) = assignments(gold, found, fuel) {
        return decided;
    }
    if let (Node::Set(one), other) | (other, Node::Set(one)) = (gold, found)
        && let ([one], true) = (one.as_slice(), other.is_scalar() && other.symbols().is_empty())
    {
        return if matches!(gold, Node::Set(_)) { same(one, found, fuel) } else { same(gold, one, fuel) };
    }
    // `P(1, 2)`: a point with its name.
    let point = |n: &Node| match n {
        Node::Mul(items) => match items.as_slice() {
            [Node::Sym(name), group @ Node::Group { .. }] if name.starts_with(|c: char| c.is_ascii_uppercase()) => Some(group.clone()),
            _ => None,
        },
        _ => None,
    };
    match (point(gold), point(found)) {
        (None, Some(p)) if matches!(gold, Node::Group { .. }) => return same(gold, &p, fuel),
        (Some(g), None) if matches!(found, Node::Group { .. }) => return same(&g, found, fuel),
        _ => {}
    }
    if let Some(decided) = matrices(gold, found, fuel) {
        return decided;
    }
    if let Some(decided) = ratios(gold, found, fuel) {
        return decided;
    }
    if let Some(decided) = relations(gold, found, fuel) {
        return decided;
    }
    if let Some(decided) = collections(gold, found, fuel) {
        return decided;
    }
    if gold.is_scalar() && found.is_scalar() {
        return quantities(gold, found, fuel);
    }
    Equal::of(gold == found).or(|| if gold.is_scalar() != found.is_scalar() { Equal::No } else { Equal::Unknown })
}

fn is_choice(name: &str) -> bool {
    name.len() == 1 && matches!(name.as_bytes()[0], b'A'..=b'J')
}

/// Where one side or both are `name = value`.
fn assignments(gold: &Node, found: &Node, fuel: &mut Fuel) -> Option<Equal> {
    match (assignment(gold), assignment(found)) {
        (Some(g), Some(p)) => {
            if let (Some((f, left)), Some((h, right))) = (&g.by_place, &p.by_place) {
                return Some(if f == h { same(left, right, fuel) } else { Equal::No });
            }
            let names = g.names.iter().any(|a| p.names.iter().any(|b| same_name(a, b)));
            let values = same(&g.value, &p.value, fuel);
            if names || values == Equal::No {
                return Some(if names { values.or(|| rearranged(gold, found, fuel)) } else { rearranged(gold, found, fuel) });
            }
            Some(Equal::No)
        }
        (Some(g), None) => Some(with_value(&g, gold, found, fuel, true)),
        (None, Some(p)) => Some(with_value(&p, found, gold, fuel, false)),
        (None, None) => {
            let p = loose_assignment(found).filter(|_| gold.is_scalar())?;
            Some(with_value(&p, found, gold, fuel, false))
        }
    }
}

/// One side is an assignment, the other is not.
fn with_value(assigned: &Assignment, whole: &Node, other: &Node, fuel: &mut Fuel, gold_assigned: bool) -> Equal {
    if let Node::Chain(_, rels) = other
        && rels.iter().all(|r| *r == Rel::Eq)
    {
        return if gold_assigned { rearranged(whole, other, fuel) } else { rearranged(other, whole, fuel) };
    }
    // `(x, y) = (1, 2)` against `x = 1, y = 2`.
    if let (Some(Node::Group { items: names, .. }), Node::Group { items: values, .. }, Node::List(..)) =
        (assigned.names.first(), &assigned.value, other)
        && names.len() == values.len()
    {
        let list = names.iter().zip(values).map(|(n, v)| Node::Chain(vec![n.clone(), v.clone()], vec![Rel::Eq])).collect();
        let list = Node::List(Join::Comma, list);
        let by_name = if gold_assigned { same(&list, other, fuel) } else { same(other, &list, fuel) };
        let all_named = matches!(other, Node::List(_, items) if items.iter().all(|i| assignment(i).is_some()));
        if by_name == Equal::Yes || all_named {
            return by_name;
        }
    }
    if gold_assigned { same(&assigned.value, other, fuel) } else { same(other, &assigned.value, fuel) }
}

/// `AB : CD` is `AB/CD`.
fn same_name(a: &Node, b: &Node) -> bool {
    match (a, b) {
        (Node::Ratio(r), Node::Div(x, y)) | (Node::Div(x, y), Node::Ratio(r)) => matches!(r.as_slice(), [p, q] if *p == **x && *q == **y),
        _ => a == b,
    }
}

/// Two equations that are one, written differently.
fn rearranged(gold: &Node, found: &Node, fuel: &mut Fuel) -> Equal {
    let (Node::Chain(g, gr), Node::Chain(p, pr)) = (gold, found) else { return Equal::No };
    match (g.as_slice(), gr.as_slice(), p.as_slice(), pr.as_slice()) {
        ([a, b], [Rel::Eq], [c, d], [Rel::Eq]) => same_equation((a, b), (c, d), fuel),
        _ => Equal::of(gold == found),
    }
}

fn matrices(gold: &Node, found: &Node, fuel: &mut Fuel) -> Option<Equal> {
    let (a, b) = match (matrix::rows(gold), matrix::rows(found)) {
        (None, None) => return None,
        (Some(a), Some(b)) => (a, b),
        // A vector may be written as a tuple.
        (Some(a), None) => (a, vector(found)?),
        (None, Some(b)) => (vector(gold)?, b),
    };
    let flat = |rows: &matrix::Rows| rows.len() == 1 || rows[0].len() == 1;
    let tuple = matrix::rows(gold).is_none() || matrix::rows(found).is_none();
    if tuple && (!flat(&a) || !flat(&b)) {
        return Some(Equal::No);
    }
    if !tuple && (a.len() != b.len() || a[0].len() != b[0].len()) {
        return Some(Equal::No);
    }
    let (a, b): (Vec<_>, Vec<_>) = (a.into_iter().flatten().collect(), b.into_iter().flatten().collect());
    if a.len() != b.len() {
        return Some(Equal::No);
    }
    let mut result = Equal::Yes;
    for (x, y) in a.iter().zip(&b) {
        result = result.and(|| same(x, y, fuel));
        if result == Equal::No {
            break;
        }
    }
    Some(result)
}

fn vector(node: &Node) -> Option<matrix::Rows> {
    match node {
        Node::Group { items, .. } | Node::List(Join::Comma, items) => Some(vec![items.clone()]),
        scalar if scalar.is_scalar() => Some(vec![vec![scalar.clone()]]),
        _ => None,
    }
}

fn ratios(gold: &Node, found: &Node, fuel: &mut Fuel) -> Option<Equal> {
    match (gold, found) {
        (Node::Ratio(a), Node::Ratio(b)) => {
            if a.len() != b.len() {
                return Some(Equal::No);
            }
            let each = a.iter().zip(b).fold(Equal::Yes, |r, (x, y)| r.and(|| same(x, y, fuel)));
            if each == Equal::Yes {
                return Some(each);
            }
            if !in_lowest_terms(a) {
                return Some(Equal::No);
            }
            // a_i b_0 = b_i a_0
            let crossed = (1..a.len()).fold(Equal::Yes, |r, i| {
                let (left, right) = (Node::Mul(vec![a[i].clone(), b[0].clone()]), Node::Mul(vec![b[i].clone(), a[0].clone()]));
                r.and(|| equal(&left, &right, fuel))
            });
            let zero = a.iter().chain(b).any(|n| exact::value(n, &nowhere, fuel).is_ok_and(|v| v.is_zero()));
            Some(if zero { Equal::No } else { crossed })
        }
        (Node::Ratio(r), other) | (other, Node::Ratio(r)) => {
            let [a, b] = r.as_slice() else { return Some(Equal::No) };
            if !other.is_scalar() || !in_lowest_terms(r) {
                return Some(Equal::No);
            }
            let quotient = Node::Div(Box::new(a.clone()), Box::new(b.clone()));
            Some(if matches!(gold, Node::Ratio(_)) { quantities(&quotient, other, fuel) } else { quantities(other, &quotient, fuel) })
        }
        _ => None,
    }
}

/// Whether a ratio of two whole numbers is in lowest terms; another may be a time of day (`9:30`), which is met as written only.
fn in_lowest_terms(ratio: &[Node]) -> bool {
    let whole = |n: &Node| exact::value(n, &nowhere, &mut Fuel::new(1000)).ok().filter(RBig::is_int);
    match ratio {
        [a, b] => match (whole(a), whole(b)) {
            (Some(a), Some(b)) if !a.is_zero() && !b.is_zero() => a.numerator().gcd(b.numerator()) == dashu_int::UBig::ONE,
            _ => true,
        },
        _ => true,
    }
}

/// Sets of reals, equations, and other relations.
fn relations(gold: &Node, found: &Node, fuel: &mut Fuel) -> Option<Equal> {
    let (g, p) = (is_region(gold), is_region(found));
    let ((Node::Chain(..), _) | (_, Node::Chain(..))) = (gold, found) else {
        if !g && !p {
            return None;
        }
        return Some(regions(gold, found, fuel));
    };
    match (gold, found) {
        (Node::Chain(a, ar), Node::Chain(b, br)) => {
            if let ([l, r], [Rel::Eq], [m, n], [Rel::Eq]) = (a.as_slice(), ar.as_slice(), b.as_slice(), br.as_slice()) {
                return Some(same_equation((l, r), (m, n), fuel));
            }
            let by_region = regions(gold, found, fuel);
            if by_region != Equal::Unknown {
                return Some(by_region);
            }
            Some(chains((a, ar), (b, br), fuel))
        }
        // `y + 1 = …` against the value of y.
        (Node::Chain(items, rels), other) | (other, Node::Chain(items, rels)) if rels == &[Rel::Eq] => {
            let Some(value) = solved(&items[0], &items[1]) else { return Some(Equal::No) };
            Some(if matches!(gold, Node::Chain(..)) { same(&value, other, fuel) } else { same(other, &value, fuel) })
        }
        _ => Some(regions(gold, found, fuel)),
    }
}

fn is_region(node: &Node) -> bool {
    match node {
        Node::Chain(_, rels) => rels.iter().any(|r| r.is_order() || *r == Rel::Ne || *r == Rel::In),
        Node::SetOp(..) | Node::Builder(..) | Node::Named(_) => true,
        Node::List(_, items) => {
            items.iter().any(|i| matches!(i, Node::Chain(_, rels) if rels.iter().any(|r| r.is_order() || *r == Rel::Ne)))
        }
        Node::Add(items) => items.iter().any(|i| matches!(i, Node::Builder(..) | Node::Set(_) | Node::Named(_))),
        _ => false,
    }
}

fn regions(gold: &Node, found: &Node, fuel: &mut Fuel) -> Equal {
    if let (Some(a), Some(b)) = (finite(gold, fuel), finite(found, fuel)) {
        return same_members(&Members::plain(Kind::Set, a), &Members::plain(Kind::Set, b), fuel);
    }
    match (region::read(gold, fuel), region::read(found, fuel)) {
        (Some(a), Some(b)) => region::same(&a, &b, fuel),
        (a, b) => {
            // Ends that cannot be put in order: unions are compared part by part.
            if let (Node::SetOp(SetOp::Union, ..), Node::SetOp(SetOp::Union, ..)) = (gold, found) {
                let side = |node: &Node| Members::plain(Kind::Set, parts(node));
                return same_members(&side(gold), &side(found), fuel);
            }
            if let (Node::SetOp(x, a, b), Node::SetOp(y, c, d)) = (gold, found) {
                let straight = Equal::of(x == y).and(|| same(a, c, fuel)).and(|| same(b, d, fuel));
                let either_way =
                    straight.or(|| Equal::of(x == y && *x != SetOp::Difference).and(|| same(a, d, fuel)).and(|| same(b, c, fuel)));
                return either_way.or(|| Equal::Unknown);
            }
            if let (Node::Builder(a, b), Node::Builder(c, d)) = (gold, found) {
                return same(a, c, fuel).and(|| same(b, d, fuel)).or(|| Equal::Unknown);
            }
            if (a.is_some() && (found.is_scalar() || members(found).is_some()))
                || (b.is_some() && (gold.is_scalar() || members(gold).is_some()))
            {
                return Equal::No;
            }
            Equal::Unknown
        }
    }
}

fn parts(node: &Node) -> Vec<Node> {
    match node {
        Node::SetOp(SetOp::Union, a, b) => parts(a).into_iter().chain(parts(b)).collect(),
        other => vec![other.clone()],
    }
}

/// Chains of relations that are no sets of reals: member by member, in either direction; a single inequality up to a positive factor.
fn chains(gold: (&[Node], &[Rel]), found: (&[Node], &[Rel]), fuel: &mut Fuel) -> Equal {
    if let ([a, b], [r], [c, d], [s]) = (gold.0, gold.1, found.0, found.1)
        && r.is_order()
        && s.is_order()
        && [a, b, c, d].iter().all(|n| n.is_scalar())
    {
        let above = |l: &Node, rel: Rel, r: &Node| {
            let (big, small) = if matches!(rel, Rel::Gt | Rel::Ge) { (l, r) } else { (r, l) };
            (Node::Add(vec![big.clone(), Node::Neg(Box::new(small.clone()))]), matches!(rel, Rel::Gt | Rel::Lt))
        };
        let ((f, strict_f), (g, strict_g)) = (above(a, *r, b), above(c, *s, d));
        return Equal::of(strict_f == strict_g).and(|| proportional(&f, &g, true, fuel));
    }
    let mut pairwise = |items: &[Node], rels: &[Rel]| {
        if rels != found.1 || items.len() != found.0.len() {
            return Equal::No;
        }
        items.iter().zip(found.0).fold(Equal::Yes, |r, (x, y)| r.and(|| same(x, y, fuel)))
    };
    let forward = pairwise(gold.0, gold.1);
    if forward == Equal::Yes {
        return forward;
    }
    let reversed: Vec<Node> = gold.0.iter().rev().cloned().collect();
    let flipped: Vec<Rel> = gold.1.iter().rev().map(|r| r.flipped()).collect();
    forward.or(|| pairwise(&reversed, &flipped))
}

/// The value of the one symbol that stands alone but for constants on the left side.
fn solved(left: &Node, right: &Node) -> Option<Node> {
    let Node::Add(items) = left else { return None };
    let mut symbol = None;
    let mut value = vec![right.clone()];
    for item in items {
        match item {
            Node::Sym(name) if symbol.is_none() => symbol = Some(name),
            constant if constant.symbols().is_empty() && constant.is_scalar() => value.push(Node::Neg(Box::new(constant.clone()))),
            _ => return None,
        }
    }
    let symbol = symbol?;
    (!right.symbols().contains(symbol) && right.is_scalar()).then_some(Node::Add(value))
}

fn collections(gold: &Node, found: &Node, fuel: &mut Fuel) -> Option<Equal> {
    if too_many_signs(gold) || too_many_signs(found) {
        return Some(if gold == found { Equal::Yes } else { Equal::Unknown });
    }
    // `a ± b` against the same, without expanding.
    if has_signs(gold) && has_signs(found) && gold.is_scalar() && found.is_scalar() && signs(gold) == 1 && signs(found) == 1 {
        let agree = (1..=2).all(|seed| match (residue(gold, seed, fuel), residue(found, seed, fuel)) {
            (Ok(x), Ok(y)) => x.value == y.value,
            _ => false,
        });
        if agree {
            return Some(Equal::Yes);
        }
    }
    match (members(gold), members(found)) {
        (None, None) => None,
        (Some(g), Some(p)) => {
            // Two tuples of two are two intervals if their brackets say so.
            if let (Node::Group { open_closed: a, close_closed: b, items }, Node::Group { open_closed: c, close_closed: d, items: others }) =
                (gold, found)
                && items.len() == 2
                && others.len() == 2
                && (a != c || b != d)
            {
                return Some(Equal::No);
            }
            // A closed interval is no pair of values.
            let closed = |n: &Node| matches!(n, Node::Group { open_closed, close_closed, items } if items.len() == 2 && (*open_closed || *close_closed));
            let bare = |n: &Node| matches!(n, Node::List(..));
            // `1 or 2` is no pair, and `x = 0 or y = 0` not both.
            let either = |n: &Node| matches!(n, Node::List(Join::Or, _));
            let pair = |n: &Node| matches!(n, Node::Group { .. });
            if (either(gold) && pair(found)) || (pair(gold) && either(found)) {
                return Some(Equal::No);
            }
            if either(gold) != either(found) && bare(gold) && bare(found) && g.has_different_names() && p.has_different_names() {
                return Some(Equal::No);
            }
            if (closed(gold) && bare(found)) || (bare(gold) && closed(found)) {
                return Some(Equal::No);
            }
            Some(same_members(&g, &p, fuel))
        }
        // `{x}` may be the fractional part.
        (Some(m), None) | (None, Some(m)) if m.kind == Kind::Set && m.values.len() == 1 && !m.values[0].symbols().is_empty() => {
            Some(Equal::No)
        }
        // A double root is a root.
        (Some(m), None) | (None, Some(m)) if m.kind == Kind::Bare && m.values.len() > 1 && m.values.windows(2).all(|w| w[0] == w[1]) => {
            Some(if members(gold).is_some() { same(&m.values[0], found, fuel) } else { same(gold, &m.values[0], fuel) })
        }
        // A collection of one member is no list.
        (Some(g), None) if g.values.len() == 1 && g.kind != Kind::Ordered => Some(same(&g.values[0], found, fuel)),
        (None, Some(p)) if p.values.len() == 1 && p.kind != Kind::Ordered => Some(same(gold, &p.values[0], fuel)),
        // A tuple whose members are `±`.
        (Some(_), None) | (None, Some(_)) if has_signs(gold) || has_signs(found) => {
            let side = |node: &Node| Members::plain(Kind::Bare, expand(node));
            Some(same_members(&side(gold), &side(found), fuel))
        }
        _ => Some(Equal::No),
    }
}
