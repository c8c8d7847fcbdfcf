//! Tokens to a tree, by recursive descent. From loose to tight: lists, relations, set operations, ratios, sums, products, powers.
//!
//! `postfix.rs` has what binds to a value from the right, `atom.rs` single values and functions, `group.rs` brackets and environments. Nesting is bounded, so no text can exhaust the stack; what is not understood is a `Fail`, never a guess.

mod atom;
mod group;
mod postfix;

use super::lex::{Tok, Token};
use super::node::{Func, Join, Node, Rel};
use super::{Fail, MAX_DEPTH};

type Parsed = Result<Node, Fail>;

/// The tree of a whole answer.
pub(super) fn parse(tokens: &[Token]) -> Parsed {
    let mut parser = Parser { tokens, at: 0, depth: 0, bar_closes: false };
    // `= 42`: what stands before the sign is understood.
    while matches!(parser.peek(), Some(Tok::Rel(Rel::Eq | Rel::Approx | Rel::Other("=>" | "->")))) {
        parser.at += 1;
    }
    let mut node = parser.list(Level::Semicolon)?;
    // `1 \over 2`
    if parser.take(&Tok::Over) {
        node = Node::Div(Box::new(node), Box::new(parser.list(Level::Semicolon)?));
    }
    while matches!(parser.peek(), Some(Tok::Join(_) | Tok::Row | Tok::Colon | Tok::Amp)) {
        parser.at += 1;
    }
    match parser.peek() {
        None => Ok(node),
        Some(_) => Err(Fail::Unknown),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Semicolon,
    Or,
    Comma,
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
    /// A bar that follows a value closes (an absolute value, or the left part of a set builder).
    bar_closes: bool,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Tok> {
        self.tokens.get(self.at).map(|t| &t.tok)
    }

    fn peek_at(&self, ahead: usize) -> Option<&Tok> {
        self.tokens.get(self.at + ahead).map(|t| &t.tok)
    }

    fn take(&mut self, tok: &Tok) -> bool {
        let found = self.peek() == Some(tok);
        self.at += usize::from(found);
        found
    }

    fn deeper<T>(&mut self, bar_closes: bool, f: impl FnOnce(&mut Self) -> Result<T, Fail>) -> Result<T, Fail> {
        if self.depth >= MAX_DEPTH {
            return Err(Fail::TooDeep);
        }
        self.depth += 1;
        let before = std::mem::replace(&mut self.bar_closes, bar_closes);
        let result = f(self);
        self.bar_closes = before;
        self.depth -= 1;
        result
    }

    /// Members separated by semicolons, then by `or`, then by commas and `and`.
    fn list(&mut self, level: Level) -> Parsed {
        let next = |p: &mut Self| match level {
            Level::Semicolon => p.list(Level::Or),
            Level::Or => p.list(Level::Comma),
            Level::Comma => p.chain(),
        };
        let first = next(self)?;
        let mut items = vec![first];
        let mut join = None;
        while let Some(found) = self.separator(level) {
            join = join.or(Some(found));
            if self.ends() {
                break;
            }
            items.push(next(self)?);
        }
        match (join, items.len()) {
            (Some(join), 2..) => Ok(Node::List(join, items)),
            _ => items.pop().ok_or(Fail::Unknown),
        }
    }

    /// Steps over a separator of this level; `, and` is one.
    fn separator(&mut self, level: Level) -> Option<Join> {
        let of_level = |tok: Option<&Tok>| match (level, tok) {
            (Level::Semicolon, Some(Tok::Join(Join::Semicolon) | Tok::Row)) => Some(Join::Semicolon),
            (Level::Or, Some(Tok::Join(Join::Or))) => Some(Join::Or),
            (Level::Comma, Some(Tok::Join(join @ (Join::Comma | Join::And)))) => Some(*join),
            _ => None,
        };
        // `1, 2, or 3`: the comma before a connective belongs to it.
        if self.peek() == Some(&Tok::Join(Join::Comma)) && matches!(self.peek_at(1), Some(Tok::Join(Join::Or))) {
            if level != Level::Or {
                return None;
            }
            self.at += 1;
        }
        let found = of_level(self.peek())?;
        self.at += 1;
        while level == Level::Comma && matches!(self.peek(), Some(Tok::Join(Join::Comma | Join::And))) {
            self.at += 1;
        }
        Some(found)
    }

    fn ends(&self) -> bool {
        matches!(self.peek(), None | Some(Tok::Close(_) | Tok::End | Tok::Bar | Tok::Amp | Tok::Row))
    }

    /// `a < b = c`.
    fn chain(&mut self) -> Parsed {
        let mut items = Vec::new();
        let mut rels = Vec::new();
        // `\angle A`, `\triangle ABC`: a mark of what is named, without value.
        while let Some(Tok::Rel(Rel::Other("angle" | "triangle"))) = self.peek() {
            self.at += 1;
        }
        items.push(self.sets()?);
        while let Some(Tok::Rel(rel)) = self.peek() {
            let rel = *rel;
            self.at += 1;
            while let Some(Tok::Rel(Rel::Other("angle" | "triangle"))) = self.peek() {
                self.at += 1;
            }
            if rel == Rel::Eq && self.ends() {
                break; // `x =`
            }
            rels.push(rel);
            items.push(self.sets()?);
        }
        let mut node = if rels.is_empty() { items.pop().ok_or(Fail::Unknown)? } else { Node::Chain(items, rels) };
        if self.take(&Tok::Pmod) {
            let modulus = self.atom()?;
            node = Node::Call(Func::Pmod, vec![node, modulus]);
        }
        Ok(node)
    }

    fn sets(&mut self) -> Parsed {
        let mut left = self.ratio()?;
        while let Some(Tok::SetOp(op)) = self.peek() {
            let op = *op;
            self.at += 1;
            let right = self.ratio()?;
            left = Node::SetOp(op, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn ratio(&mut self) -> Parsed {
        let first = self.sum()?;
        if self.peek() != Some(&Tok::Colon) || self.bar_closes {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.peek() == Some(&Tok::Colon) && !self.bar_closes {
            self.at += 1;
            if self.ends() {
                break;
            }
            items.push(self.sum()?);
        }
        Ok(if items.len() == 1 { items.remove(0) } else { Node::Ratio(items) })
    }

    fn sum(&mut self) -> Parsed {
        let mut items = vec![self.product()?];
        loop {
            match self.peek() {
                Some(Tok::Plus) => {
                    self.at += 1;
                    items.push(self.product()?);
                }
                Some(Tok::Minus) => {
                    self.at += 1;
                    let right = self.product()?;
                    items.push(Node::Neg(Box::new(right)));
                }
                Some(Tok::PlusMinus(minus)) => {
                    let minus = *minus;
                    self.at += 1;
                    let right = self.product()?;
                    items.push(Node::PlusMinus(minus, Box::new(right)));
                }
                _ => break,
            }
        }
        Ok(if items.len() == 1 { items.remove(0) } else { Node::Add(items) })
    }

    /// Products and quotients, also of factors that stand side by side.
    fn product(&mut self) -> Parsed {
        let mut left = self.unary()?;
        loop {
            match self.peek() {
                Some(Tok::Times) => {
                    self.at += 1;
                    let right = self.unary()?;
                    left = times(left, right);
                }
                Some(Tok::Divide) => {
                    self.at += 1;
                    let right = self.unary()?;
                    left = match right {
                        // `11/15 days`: the unit is that of the fraction.
                        Node::Unit(below, unit) if matches!((&left, &*below), (Node::Num(_), Node::Num(_))) => {
                            Node::Unit(Box::new(Node::Div(Box::new(left), below)), unit)
                        }
                        right => Node::Div(Box::new(left), Box::new(right)),
                    };
                }
                Some(Tok::Mod) => {
                    self.at += 1;
                    let right = self.unary()?;
                    left = Node::Call(Func::Mod, vec![left, right]);
                }
                _ if self.starts_factor() => {
                    let right = self.factor_beside(&left)?;
                    left = beside(left, right);
                }
                _ => break,
            }
        }
        Ok(left)
    }

    /// The factor that follows without a sign. A number behind a number is the fraction of a mixed number (`3 1/2`) or a mistake.
    fn factor_beside(&mut self, left: &Node) -> Parsed {
        if let (Some(Tok::Num(above)), Node::Num(_) | Node::Neg(_)) = (self.peek(), left) {
            let (Some(Tok::Divide), Some(Tok::Num(below))) = (self.peek_at(1), self.peek_at(2)) else {
                return if above.decimals.is_none() && !above.value.is_int() { self.power() } else { Err(Fail::Unknown) };
            };
            let fraction = Node::Div(Box::new(Node::Num(above.clone())), Box::new(Node::Num(below.clone())));
            self.at += 3;
            return Ok(if matches!(self.peek(), Some(Tok::Word(_))) { self.unit(fraction) } else { fraction });
        }
        self.power()
    }

    /// Whether the next token begins a factor that needs no sign before it.
    fn starts_factor(&self) -> bool {
        match self.peek() {
            Some(
                Tok::Num(_)
                | Tok::Sym(_)
                | Tok::Const(_)
                | Tok::Func(_)
                | Tok::Open(_)
                | Tok::Frac
                | Tok::Sqrt
                | Tok::Binom
                | Tok::Begin(_)
                | Tok::Overline
                | Tok::Dots
                | Tok::Currency(_)
                | Tok::Word(_)
                | Tok::Named(_),
            ) => true,
            Some(Tok::Bar) => !self.bar_closes,
            _ => false,
        }
    }

    fn unary(&mut self) -> Parsed {
        match self.peek() {
            Some(Tok::Minus) => {
                self.at += 1;
                let inner = self.deeper(self.bar_closes, Self::unary)?;
                Ok(Node::Neg(Box::new(inner)))
            }
            Some(Tok::Plus) => {
                self.at += 1;
                self.deeper(self.bar_closes, Self::unary)
            }
            Some(Tok::PlusMinus(minus)) => {
                let minus = *minus;
                self.at += 1;
                let inner = self.deeper(self.bar_closes, Self::unary)?;
                Ok(Node::PlusMinus(minus, Box::new(inner)))
            }
            _ => self.power(),
        }
    }
}

fn times(left: Node, right: Node) -> Node {
    match left {
        Node::Mul(mut items) => {
            items.push(right);
            Node::Mul(items)
        }
        left => Node::Mul(vec![left, right]),
    }
}

/// Two factors side by side: an integer and a plain fraction are a mixed number, a sum; amounts of one kind add up (`2 hours 5 minutes`).
fn beside(left: Node, right: Node) -> Node {
    let whole = |n: &Node| matches!(n, Node::Num(n) if n.value.is_int() && n.decimals.is_none());
    let below_one = |n: &Node| match n {
        Node::Div(a, b) => match (&**a, &**b) {
            (Node::Num(a), Node::Num(b)) => a.value.is_int() && b.value.is_int() && a.value < b.value,
            _ => false,
        },
        Node::Num(n) => !n.value.is_int() && n.decimals.is_none(),
        _ => false,
    };
    let grouped = |n: Node| match n {
        // `\{a+b\}\{c+d\}`: braces used as brackets.
        Node::Set(mut one) if one.len() == 1 => one.remove(0),
        n => n,
    };
    if matches!((&left, &right), (Node::Set(a), Node::Set(b)) if a.len() == 1 && b.len() == 1) {
        return times(grouped(left), grouped(right));
    }
    // `33\frac{1}{3}\%`: the sign belongs to the whole number.
    let right = match right {
        Node::Percent(part) if whole(&left) && below_one(&part) => return Node::Percent(Box::new(Node::Add(vec![left, *part]))),
        Node::Degree(part) if whole(&left) && below_one(&part) => return Node::Degree(Box::new(Node::Add(vec![left, *part]))),
        Node::Unit(part, unit) if whole(&left) && below_one(&part) => return Node::Unit(Box::new(Node::Add(vec![left, *part])), unit),
        right => right,
    };
    match left {
        left if whole(&left) && below_one(&right) => Node::Add(vec![left, right]),
        Node::Neg(inner) if whole(&inner) && below_one(&right) => Node::Neg(Box::new(Node::Add(vec![*inner, right]))),
        Node::Unit(..) if matches!(right, Node::Unit(..)) => Node::Add(vec![left, right]),
        left => times(left, right),
    }
}

fn power_of(base: Node, exponent: Node) -> Node {
    Node::Pow(Box::new(base), Box::new(exponent))
}
