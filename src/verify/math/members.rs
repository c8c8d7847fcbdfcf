//! Lists, sets and tuples: their members, with the names they were given, compared in order or as a set.

use super::Fuel;
use super::compare::same;
use super::fingerprint::residue;
use super::node::{Join, Node, SetOp};
use super::numeric::Equal;
use super::relation::assignment;

/// Most members that are compared as a set.
const MAX_MEMBERS: usize = 256;
/// Most signs that `±` expands to.
const MAX_SIGNS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `1, 2`: without an order unless its members have names.
    Bare,
    /// `{1, 2}`: without order, repeats do not count.
    Set,
    /// `(1, 2)`.
    Ordered,
}

#[derive(Clone, Debug)]
pub(super) struct Members {
    pub kind: Kind,
    pub values: Vec<Node>,
    /// As long as `values`.
    pub names: Vec<Option<Node>>,
    /// As long as `values`: name and value of a function with its variables named by place.
    pub by_place: Vec<Option<(Node, Node)>>,
}

impl Members {
    /// Members without names.
    pub(super) fn plain(kind: Kind, values: Vec<Node>) -> Self {
        Self { kind, names: vec![None; values.len()], by_place: vec![None; values.len()], values }
    }

    /// Whether each member has a name of its own.
    pub(super) fn has_different_names(&self) -> bool {
        let names: Vec<&Node> = self.names.iter().flatten().collect();
        names.len() == self.values.len() && names.iter().enumerate().all(|(i, n)| !names[..i].contains(n))
    }

    fn push(&mut self, name: Option<Node>, by_place: Option<(Node, Node)>, value: Node) {
        self.names.push(name);
        self.by_place.push(by_place);
        self.values.push(value);
    }
}

/// The members of a list, a set, a tuple, or of what `±` stands for; `None` for a single value.
pub(super) fn members(node: &Node) -> Option<Members> {
    let (kind, items) = match node {
        Node::List(Join::Semicolon | Join::Or, items) if items.iter().all(|i| matches!(i, Node::List(..))) => {
            (Kind::Bare, items.iter().map(tuple).collect::<Vec<_>>())
        }
        Node::List(_, items) => (Kind::Bare, items.clone()),
        Node::Set(items) => (Kind::Set, items.clone()),
        Node::Group { items, .. } if !has_signs(node) => (Kind::Ordered, items.clone()),
        node if has_signs(node) => (Kind::Bare, vec![node.clone()]),
        _ => return None,
    };
    let mut found = Members::plain(kind, Vec::new());
    let named = |item: &Node| match assignment(item) {
        Some(a) => (a.names.first().cloned(), a.by_place, a.value),
        None => (None, None, item.clone()),
    };
    for item in &items {
        let (name, by_place, value) = named(item);
        let expanded = if kind == Kind::Ordered { vec![value] } else { expand(&value) };
        for value in expanded {
            // A list among the members of a list is a part of it: `1 or 2, 3`.
            match &value {
                Node::List(_, inner) if kind != Kind::Ordered => {
                    for inner in inner {
                        for value in expand(inner) {
                            let (inner_name, by_place, value) = named(&value);
                            found.push(inner_name.or(name.clone()), by_place, value);
                        }
                    }
                }
                _ => found.push(name.clone(), by_place.clone(), value),
            }
        }
    }
    Some(found)
}

/// The members of a finite set that operations on finite sets make, each once; `None` for anything else.
pub(super) fn finite(node: &Node, fuel: &mut Fuel) -> Option<Vec<Node>> {
    let found = match node {
        Node::Set(items) | Node::List(Join::Comma, items) => items.clone(),
        Node::SetOp(op, a, b) => {
            let (a, b) = (finite(a, fuel)?, finite(b, fuel)?);
            let within = |x: &Node, side: &[Node], fuel: &mut Fuel| side.iter().any(|y| same(x, y, fuel) == Equal::Yes);
            match op {
                SetOp::Union => a.into_iter().chain(b).collect(),
                SetOp::Intersection => a.into_iter().filter(|x| within(x, &b, fuel)).collect(),
                SetOp::Difference => a.into_iter().filter(|x| !within(x, &b, fuel)).collect(),
            }
        }
        _ => return None,
    };
    // Repeats do not matter here: they are left to the comparison.
    (found.len() <= MAX_MEMBERS).then_some(found)
}

/// `p = 5, q = 2` between semicolons is one tuple.
fn tuple(node: &Node) -> Node {
    let items = match node {
        Node::List(_, items) => items.iter().map(|i| assignment(i).map_or_else(|| i.clone(), |a| a.value)).collect(),
        other => vec![other.clone()],
    };
    Node::Group { open_closed: false, close_closed: false, items }
}

pub(super) fn has_signs(node: &Node) -> bool {
    node.any(&|n| matches!(n, Node::PlusMinus(..)))
}

/// How many `±` and `∓` there are.
pub(super) fn signs(node: &Node) -> usize {
    let (mut count, mut tied) = (0, false);
    count_signs(node, &mut count, &mut tied);
    count
}

/// Whether more signs meet in one value than are expanded.
pub(super) fn too_many_signs(node: &Node) -> bool {
    match node {
        Node::List(_, items) | Node::Set(items) => items.iter().any(|item| signs(item) > MAX_SIGNS),
        other => signs(other) > MAX_SIGNS,
    }
}

/// Each value that `±` and `∓` stand for. With both of them in one expression their signs are tied; otherwise each is free.
pub(super) fn expand(node: &Node) -> Vec<Node> {
    let mut count = 0;
    let mut tied = false;
    count_signs(node, &mut count, &mut tied);
    if count == 0 || count > MAX_SIGNS {
        return vec![node.clone()];
    }
    let variants = if tied { 2 } else { 1 << count };
    (0..variants).map(|bits: u32| with_signs(node, if tied { if bits == 0 { 0 } else { u32::MAX } } else { bits }, &mut 0)).collect()
}

fn count_signs(node: &Node, count: &mut usize, tied: &mut bool) {
    if let Node::PlusMinus(minus, _) = node {
        *count += 1;
        *tied |= *minus;
    }
    node.children().into_iter().for_each(|child| count_signs(child, count, tied));
}

fn with_signs(node: &Node, bits: u32, next: &mut u32) -> Node {
    match node {
        Node::PlusMinus(minus, inner) => {
            let negative = ((bits >> (*next).min(31)) & 1 == 1) != *minus;
            *next += 1;
            let inner = with_signs(inner, bits, next);
            match inner {
                // `±(1, 2)`
                Node::Group { open_closed, close_closed, items } if negative => {
                    let items = items.into_iter().map(|item| Node::Neg(Box::new(item))).collect();
                    Node::Group { open_closed, close_closed, items }
                }
                inner if negative => Node::Neg(Box::new(inner)),
                inner => inner,
            }
        }
        other => other.map(&mut |child| with_signs(child, bits, next)),
    }
}

/// Compares two collections.
pub(super) fn same_members(gold: &Members, found: &Members, fuel: &mut Fuel) -> Equal {
    let set = gold.kind == Kind::Set || found.kind == Kind::Set;
    let ordered = gold.kind == Kind::Ordered || found.kind == Kind::Ordered;
    if set && ordered {
        return Equal::No;
    }
    if ordered {
        // A bare list with names beside a tuple: in the order of the alphabet it is the tuple, in another one nobody knows.
        for side in [gold, found] {
            let names: Vec<String> = side.names.iter().flatten().map(|n| format!("{n:?}")).collect();
            if side.kind == Kind::Bare && !names.is_empty() && (names.len() < side.values.len() || names.windows(2).any(|w| w[0] > w[1])) {
                return Equal::Unknown;
            }
        }
        return in_order(&gold.values, &found.values, fuel);
    }
    let named = |m: &Members| m.names.iter().all(Option::is_some);
    let placed = |m: &Members| m.by_place.iter().all(Option::is_some);
    if placed(gold) && placed(found) {
        let pair = |m: &Members| -> Vec<(Option<Node>, Node)> {
            m.by_place.iter().flatten().map(|(name, value)| (Some(name.clone()), value.clone())).collect()
        };
        return matching(&pair(gold), &pair(found), fuel);
    }
    match (named(gold), named(found)) {
        (true, true) if gold.names.iter().flatten().any(|g| found.names.iter().flatten().any(|f| f == g)) => {
            let pair = |m: &Members| -> Vec<(Option<Node>, Node)> { m.names.iter().cloned().zip(m.values.iter().cloned()).collect() };
            matching(&pair(gold), &pair(found), fuel)
        }
        (true, true) => Equal::No,
        (true, false) | (false, true) if [gold, found].iter().any(|m| !named(m) && m.names.iter().any(Option::is_some)) => Equal::Unknown,
        (true, false) | (false, true) if !set && distinct(if named(gold) { &gold.names } else { &found.names }) => {
            in_order(&gold.values, &found.values, fuel)
        }
        _ => {
            let plain = |values: &[Node]| -> Vec<(Option<Node>, Node)> { values.iter().map(|v| (None, v.clone())).collect() };
            if set {
                let (a, b) = (without_repeats(&gold.values, fuel), without_repeats(&found.values, fuel));
                return matching(&plain(&a), &plain(&b), fuel);
            }
            matching(&plain(&gold.values), &plain(&found.values), fuel)
        }
    }
}

/// Whether names are of different things: `a, b`, not `x_1, x_2`, of which either order is the same answer.
fn distinct(names: &[Option<Node>]) -> bool {
    let base = |name: &Node| match name {
        Node::Sym(s) => s.split('_').next().map(str::to_owned),
        other => Some(format!("{other:?}")),
    };
    let mut bases: Vec<String> = names.iter().flatten().filter_map(base).collect();
    let all = bases.len();
    bases.sort();
    bases.dedup();
    all > 1 && bases.len() == all
}

fn in_order(a: &[Node], b: &[Node], fuel: &mut Fuel) -> Equal {
    if a.len() != b.len() {
        return Equal::No;
    }
    let mut result = Equal::Yes;
    for (x, y) in a.iter().zip(b) {
        result = result.and(|| same(x, y, fuel));
        if result == Equal::No {
            break;
        }
    }
    result
}

fn without_repeats(values: &[Node], fuel: &mut Fuel) -> Vec<Node> {
    let mut kept: Vec<Node> = Vec::new();
    for value in values {
        if kept.len() > MAX_MEMBERS || !kept.iter().any(|k| same(k, value, fuel) == Equal::Yes) {
            kept.push(value.clone());
        }
    }
    kept
}

/// Whether each member of one side has a partner of its own on the other.
fn matching(a: &[(Option<Node>, Node)], b: &[(Option<Node>, Node)], fuel: &mut Fuel) -> Equal {
    if a.len() != b.len() {
        return Equal::No;
    }
    if a.len() > MAX_MEMBERS {
        return Equal::Unknown;
    }
    let fingerprints = |side: &[(Option<Node>, Node)], fuel: &mut Fuel| -> Vec<Option<u64>> {
        side.iter().map(|(_, v)| residue(v, 7, fuel).ok().filter(|r| r.rational).map(|r| r.value)).collect()
    };
    let (fa, fb) = (fingerprints(a, fuel), fingerprints(b, fuel));
    let decimal = a.iter().any(|(_, v)| {
        v.any(&|n| matches!(n, Node::Num(n) if n.decimals.is_some()) || matches!(n, Node::Percent(_) | Node::Degree(_) | Node::Unit(..)))
    });
    let mut taken = vec![false; b.len()];
    let mut result = Equal::Yes;
    for (i, (name, value)) in a.iter().enumerate() {
        let mut best = Equal::No;
        // Exact partners first, so that a rounded one does not take their place.
        let candidates: Vec<usize> = (0..b.len()).filter(|j| !taken[*j] && b[*j].0 == *name).collect();
        let (exact, others): (Vec<usize>, Vec<usize>) = candidates.into_iter().partition(|j| fa[i].is_some() && fa[i] == fb[*j]);
        let others = others.into_iter().filter(|j| {
            decimal
                || fa[i].is_none()
                || fb[*j].is_none()
                || b[*j].1.any(&|n| matches!(n, Node::Percent(_) | Node::Degree(_) | Node::Unit(..)))
        });
        for j in exact.into_iter().chain(others) {
            match same(value, &b[j].1, fuel) {
                Equal::Yes => {
                    taken[j] = true;
                    best = Equal::Yes;
                    break;
                }
                Equal::Unknown => best = Equal::Unknown,
                Equal::No => {}
            }
        }
        match best {
            Equal::Yes => {}
            Equal::No => return Equal::No,
            Equal::Unknown => result = Equal::Unknown,
        }
    }
    result
}
