//! Relations: `x = 5` as a name and a value, equations up to rearrangement, inequalities up to a positive factor.

use super::fingerprint;
use super::node::{Func, Join, Node, Rel};
use super::numeric::{self, Equal};
use super::{Fuel, No};

/// Letters that name functions when a bracket with variables follows.
const FUNCTIONS: &str = "fghFGHPQWRTpq";

/// `name = value`, `name ∈ set`, `x = y = value`.
#[derive(Clone, Debug)]
pub(super) struct Assignment {
    pub names: Vec<Node>,
    pub value: Node,
    /// The value with the variables of a function under the names of their places: `f(x) = …` and `f(t) = …` are one function.
    pub by_place: Option<(Node, Node)>,
}

/// The assignment that a node is, if what stands on its left only names something.
pub(super) fn assignment(node: &Node) -> Option<Assignment> {
    assignment_to(node, &is_name)
}

/// As `assignment`; a sum of names counts as well (`a + b = 7`), as an answer to the question what it is.
pub(super) fn loose_assignment(node: &Node) -> Option<Assignment> {
    assignment_to(node, &|n| {
        is_name(n) || matches!(n, Node::Add(items) if items.iter().all(|i| is_name(i) || matches!(i, Node::Neg(n) if is_name(n))))
    })
}

fn assignment_to(node: &Node, is_name: &dyn Fn(&Node) -> bool) -> Option<Assignment> {
    let Node::Chain(items, rels) = node else { return None };
    if rels.iter().any(|rel| !matches!(rel, Rel::Eq | Rel::In)) {
        return None;
    }
    let named = items.iter().take_while(|item| is_name(item)).count();
    let last = items.last()?;
    // `N = n`: the value is a name as well.
    let named = named.min(items.len() - 1);
    if named == 0 {
        return None;
    }
    let names = items[..named].to_vec();
    let symbols = last.symbols();
    if names.iter().any(|name| matches!(name, Node::Sym(s) if symbols.contains(s)) || name == last) {
        return None; // `x = x` says nothing, and `x = x^2` is an equation
    }
    // What stands between is a way to the value: `x = 1 + 1 = 2`.
    let value = agreed(&items[named..])?;
    let by_place = by_place(&names, &value);
    Some(Assignment { names, value, by_place })
}

/// The value of `3/2 = 1.5`: all members are equal, or one is the rounded form of another, which then does not count; `None` if they contradict.
pub(super) fn agreed(items: &[Node]) -> Option<Node> {
    let mut fuel = Fuel::new(100_000);
    let (mut best, rest) = items.split_last()?;
    for item in rest.iter().rev() {
        if !item.is_scalar() || !best.is_scalar() {
            continue;
        }
        // `x = 2 + y = 3` is two equations.
        if item.symbols() != best.symbols() {
            return None;
        }
        match super::compare::same(best, item, &mut fuel) {
            Equal::Yes => {
                // A decimal stands for the exact value before it.
                let exact = |n: &Node| !n.any(&|m| matches!(m, Node::Num(n) if n.decimals.is_some()));
                if exact(item) && !exact(best) {
                    best = item;
                }
            }
            Equal::Unknown => {}
            Equal::No => return None,
        }
    }
    Some(best.clone())
}

/// The name and the value of a function with its variables named by place; `None` for what is no function of variables.
fn by_place(names: &[Node], value: &Node) -> Option<(Node, Node)> {
    let (f, argument) = match names {
        [Node::Mul(factors)] => match factors.as_slice() {
            [Node::Sym(f), argument] if f.starts_with(|c| FUNCTIONS.contains(c)) => (f, std::slice::from_ref(argument)),
            _ => return None,
        },
        [Node::Call(Func::Apply, args)] => match args.as_slice() {
            [Node::Sym(f), arguments @ ..] => (f, arguments),
            _ => return None,
        },
        _ => return None,
    };
    let arguments = match argument {
        [Node::Group { items, .. }] => items.as_slice(),
        several => several,
    };
    let variables = arguments.iter().map(|i| if let Node::Sym(x) = i { Some(x.clone()) } else { None }).collect::<Option<Vec<_>>>()?;
    // A value that does not depend on what is in the brackets is that of an event or a point: `P(A) = 1/2` is not `P(B) = 1/2`.
    let used = value.symbols();
    let variable = |x: &String| used.contains(x) || x.starts_with(|c: char| c.is_lowercase() && !('a'..='d').contains(&c));
    if !variables.iter().all(variable) {
        return None;
    }
    Some((Node::Sym(format!("{f}({})", variables.len())), with_places(value, &variables)))
}

fn with_places(node: &Node, variables: &[String]) -> Node {
    match node {
        Node::Sym(name) => match variables.iter().position(|v| v == name) {
            Some(i) => Node::Sym(format!("#{i}")),
            None => node.clone(),
        },
        other => other.map(&mut |child| with_places(child, variables)),
    }
}

/// Whether a node only names something: a symbol, `f(2)`, `AB`, `NO/BO`, `(x, y)`, `a : b`, `\cos A`.
pub(super) fn is_name(node: &Node) -> bool {
    match node {
        Node::Sym(_) | Node::Call(Func::Apply, _) => true,
        // `AB`, `P(X = 1)`, `W(2)`
        Node::Mul(items) => match items.as_slice() {
            [Node::Sym(f), argument] if f.starts_with(|c| FUNCTIONS.contains(c)) => {
                is_name(argument) || matches!(argument, Node::Num(_) | Node::Group { .. } | Node::Chain(..) | Node::Neg(_) | Node::Div(..))
            }
            items => items.iter().all(is_name),
        },
        Node::Group { items, .. } | Node::Ratio(items) | Node::List(Join::Comma, items) => items.iter().all(is_name),
        Node::Div(a, b) => is_name(a) && is_name(b),
        // `|AB|`, `\cos A`: of points and angles, not of an unknown that is still to be found.
        Node::Call(Func::Abs | Func::Sin | Func::Cos | Func::Tan | Func::Conj, args) => {
            args.iter().all(|arg| is_name(arg) && !matches!(arg, Node::Sym(x) if matches!(x.as_str(), "x" | "y" | "z" | "t" | "u" | "w")))
        }
        _ => false,
    }
}

/// Whether two equations have the same solutions because one is the other, rearranged and multiplied by a constant.
pub(super) fn same_equation(a: (&Node, &Node), b: (&Node, &Node), fuel: &mut Fuel) -> Equal {
    let side = |(l, r): (&Node, &Node)| Node::Add(vec![l.clone(), Node::Neg(Box::new(r.clone()))]);
    if !a.0.is_scalar() || !a.1.is_scalar() || !b.0.is_scalar() || !b.1.is_scalar() {
        return super::compare::same(a.0, b.0, fuel).and(|| super::compare::same(a.1, b.1, fuel));
    }
    proportional(&side(a), &side(b), false, fuel)
}

/// `f = c g` for a constant c that is not 0, positive if asked for; neither of them is 0 everywhere.
pub(super) fn proportional(f: &Node, g: &Node, positive: bool, fuel: &mut Fuel) -> Equal {
    if f.symbols() != g.symbols() {
        return Equal::No;
    }
    let mut ratio = None;
    let mut rational = true;
    let mut agreed = 0;
    for seed in [2, 4, 6, 8] {
        match (fingerprint::residue(f, seed, fuel), fingerprint::residue(g, seed, fuel)) {
            (Ok(x), Ok(y)) => {
                rational &= x.rational && y.rational;
                if x.value == 0 || y.value == 0 {
                    if x.value != y.value && rational {
                        return Equal::No;
                    }
                    continue;
                }
                let quotient = fingerprint::quotient(x.value, y.value, seed);
                match ratio {
                    None => ratio = Some(quotient),
                    Some(before) if before == quotient => agreed += 1,
                    Some(_) if rational => return Equal::No,
                    Some(_) => {
                        agreed = 0;
                        break;
                    }
                }
            }
            (Err(No::Undefined), _) | (_, Err(No::Undefined)) => {}
            _ => break,
        }
    }
    if agreed >= 2 && !positive && !numeric::has_i(f) && !numeric::has_i(g) {
        return Equal::Yes;
    }
    numeric::proportional(f, g, positive, fuel)
}
