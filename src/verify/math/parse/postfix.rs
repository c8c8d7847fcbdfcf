//! What binds to a value from the right: exponents, subscripts, signs behind it, and its unit.

use super::{Parsed, Parser, power_of};
use crate::verify::math::Fail;
use crate::verify::math::lex::{Bracket, Tok};
use crate::verify::math::node::{Constant, Func, Join, NamedSet, Node, Number, Rel};

impl Parser<'_> {
    /// An atom with everything that binds to it from the right.
    pub(super) fn power(&mut self) -> Parsed {
        let mut base = self.atom()?;
        loop {
            match self.peek() {
                Some(Tok::Caret) => {
                    self.at += 1;
                    base = self.raised(base)?;
                }
                Some(Tok::Under) => {
                    self.at += 1;
                    let sub = self.subscript()?;
                    base = subscripted(base, &sub)?;
                }
                Some(Tok::Bang) => {
                    self.at += 1;
                    if self.peek() == Some(&Tok::Bang) {
                        return Err(Fail::Unknown); // a double factorial
                    }
                    base = Node::Call(Func::Factorial, vec![base]);
                }
                Some(Tok::Percent) => {
                    self.at += 1;
                    if matches!(base, Node::Percent(_)) {
                        return Err(Fail::Unknown);
                    }
                    base = Node::Percent(Box::new(base));
                }
                Some(Tok::Degree) => {
                    self.at += 1;
                    base = Node::Degree(Box::new(base));
                }
                Some(Tok::Prime) => {
                    self.at += 1;
                    match base {
                        Node::Sym(name) => base = Node::Sym(name + "'"),
                        other => base = Node::Unit(Box::new(other), "'".into()),
                    }
                }
                Some(Tok::Word(_)) if is_value(&base) => base = self.unit(base),
                Some(Tok::Currency(unit)) if is_value(&base) => {
                    let unit = (*unit).to_owned();
                    self.at += 1;
                    base = Node::Unit(Box::new(base), unit);
                }
                _ => return Ok(base),
            }
        }
    }

    /// `base ^ …`; `^\circ` is degrees and `^{th}` only makes an ordinal.
    pub(super) fn raised(&mut self, base: Node) -> Parsed {
        if self.take(&Tok::Degree) {
            return Ok(Node::Degree(Box::new(base)));
        }
        // `\mathbb{R}^+`
        if base == Node::Named(NamedSet::Reals) && matches!(self.peek(), Some(Tok::Plus | Tok::Minus)) {
            let positive = self.take(&Tok::Plus);
            self.at += usize::from(!positive);
            let infinity = Node::Const(Constant::Infinity);
            let items = if positive { vec![Node::int(0), infinity] } else { vec![Node::Neg(Box::new(infinity)), Node::int(0)] };
            return Ok(Node::Group { open_closed: false, close_closed: false, items });
        }
        if self.peek() == Some(&Tok::Open(Bracket::Brace)) {
            match (self.peek_at(1), self.peek_at(2)) {
                (Some(Tok::Degree), Some(Tok::Close(Bracket::Brace))) => {
                    self.at += 3;
                    return Ok(Node::Degree(Box::new(base)));
                }
                (Some(Tok::Word(word)), Some(Tok::Close(Bracket::Brace))) if is_ordinal(word) => {
                    self.at += 3;
                    return Ok(base);
                }
                (Some(Tok::Prime), _) => {
                    let mut primes = 0;
                    while self.peek_at(1 + primes) == Some(&Tok::Prime) {
                        primes += 1;
                    }
                    if self.peek_at(1 + primes) == Some(&Tok::Close(Bracket::Brace)) {
                        self.at += 2 + primes;
                        return match base {
                            Node::Sym(name) => Ok(Node::Sym(name + &"'".repeat(primes))),
                            _ => Err(Fail::Unknown),
                        };
                    }
                }
                _ => {}
            }
        }
        if matches!(self.peek(), Some(Tok::Word(word)) if is_ordinal(word)) {
            self.at += 1;
            return Ok(base);
        }
        if self.take(&Tok::Prime) {
            return match base {
                Node::Sym(name) => Ok(Node::Sym(name + "'")),
                _ => Err(Fail::Unknown),
            };
        }
        let exponent = self.deeper(self.bar_closes, |p| match p.peek() {
            // `2^-3`
            Some(Tok::Minus | Tok::Plus) => p.unary(),
            // `2^{3}^…` does not exist, but `2^3^2` is read from the right.
            _ => {
                let atom = p.atom()?;
                if p.take(&Tok::Caret) { p.raised(atom) } else { Ok(atom) }
            }
        })?;
        // `x^{2}_{i}` is `x_i^2`.
        if self.peek() == Some(&Tok::Under) && matches!(base, Node::Sym(_)) {
            self.at += 1;
            let sub = self.subscript()?;
            return Ok(power_of(subscripted(base, &sub)?, exponent));
        }
        Ok(power_of(base, exponent))
    }

    /// The text of a subscript, without its braces and spaces.
    pub(super) fn subscript(&mut self) -> Result<String, Fail> {
        if !self.take(&Tok::Open(Bracket::Brace)) {
            let tok = self.peek().cloned().ok_or(Fail::Unknown)?;
            self.at += 1;
            return spell(&tok);
        }
        let mut text = String::new();
        let mut depth = 1;
        while let Some(tok) = self.peek().cloned() {
            self.at += 1;
            match tok {
                Tok::Open(Bracket::Brace) => depth += 1,
                Tok::Close(Bracket::Brace) => {
                    depth -= 1;
                    if depth == 0 {
                        return Ok(text);
                    }
                }
                tok => text.push_str(&spell(&tok)?),
            }
        }
        Err(Fail::Unknown)
    }

    /// The words behind a value: its unit. Words that would change the value are none.
    pub(super) fn unit(&mut self, value: Node) -> Node {
        let mut words: Vec<String> = Vec::new();
        loop {
            match (self.peek(), self.peek_at(1)) {
                (Some(Tok::Word(word)), _) => {
                    words.push(word.clone());
                    self.at += 1;
                }
                // Exponents and quotients of units: `cm^2`, `km/h`.
                (Some(Tok::Caret), Some(Tok::Num(n))) if !words.is_empty() => {
                    let exponent = n.value.to_string();
                    if let Some(last) = words.last_mut() {
                        last.push('^');
                        last.push_str(&exponent);
                    }
                    self.at += 2;
                }
                (Some(Tok::Caret), Some(Tok::Open(Bracket::Brace))) if !words.is_empty() => {
                    let Some(Tok::Num(n)) = self.peek_at(2) else { break };
                    if self.peek_at(3) != Some(&Tok::Close(Bracket::Brace)) {
                        break;
                    }
                    let exponent = n.value.to_string();
                    if let Some(last) = words.last_mut() {
                        last.push('^');
                        last.push_str(&exponent);
                    }
                    self.at += 4;
                }
                (Some(Tok::Divide), Some(Tok::Word(word))) if !words.is_empty() => {
                    words.push("/".into());
                    words.push(word.clone());
                    self.at += 2;
                }
                (Some(Tok::Divide), Some(Tok::Sym(letter))) if !words.is_empty() => {
                    words.push("/".into());
                    words.push(letter.clone());
                    self.at += 2;
                }
                _ => break,
            }
        }
        // `15th day`
        if words.first().is_some_and(|w| is_ordinal(w)) {
            words.remove(0);
        }
        let unit = words.join(" ").replace(" / ", "/");
        if unit.is_empty() { value } else { Node::Unit(Box::new(value), unit) }
    }
}

/// A symbol with its subscript, or digits with their base.
fn subscripted(base: Node, sub: &str) -> Parsed {
    match base {
        Node::Sym(name) => Ok(Node::Sym(format!("{name}_{sub}"))),
        Node::Num(n) if n.value.is_int() => match sub.parse::<u32>() {
            Ok(b @ 2..=36) => Ok(Node::Based(n.value.to_string(), b)),
            _ => Err(Fail::Unknown),
        },
        Node::Mul(items) if items.len() == 1 => subscripted(items.into_iter().next().ok_or(Fail::Unknown)?, sub),
        _ => Err(Fail::Unknown),
    }
}

/// A token as it stands in a name.
fn spell(tok: &Tok) -> Result<String, Fail> {
    Ok(match tok {
        Tok::Num(Number { value, .. }) => value.to_string(),
        Tok::Sym(name) | Tok::Word(name) => name.clone(),
        Tok::Const(Constant::E) => "e".into(),
        Tok::Const(Constant::I) => "i".into(),
        Tok::Const(Constant::Pi) => "pi".into(),
        Tok::Const(Constant::Infinity) => "infinity".into(),
        Tok::Func(func) => format!("{func:?}").to_lowercase(),
        Tok::Plus => "+".into(),
        Tok::Minus => "-".into(),
        Tok::Join(Join::Comma) => ",".into(),
        Tok::Prime => "'".into(),
        Tok::Times | Tok::Open(_) | Tok::Close(_) => String::new(),
        Tok::Rel(Rel::Eq) => "=".into(),
        _ => return Err(Fail::Unknown),
    })
}

fn is_ordinal(word: &str) -> bool {
    matches!(word, "st" | "nd" | "rd" | "th")
}

/// Whether a word behind this is a unit rather than a factor.
fn is_value(node: &Node) -> bool {
    match node {
        Node::Num(_)
        | Node::Percent(_)
        | Node::Degree(_)
        | Node::Const(_)
        | Node::Call(..)
        | Node::Div(..)
        | Node::Pow(..)
        | Node::Mul(_) => true,
        Node::Add(_) | Node::Group { .. } | Node::Unit(..) => true,
        Node::Sym(name) => name.chars().count() == 1,
        _ => false,
    }
}
