//! Single values: numbers, symbols, fractions, roots, and functions with what they are applied to.

use super::{Level, Parsed, Parser, power_of, times};
use crate::verify::math::Fail;
use crate::verify::math::lex::{Bracket, Tok};
use crate::verify::math::node::{Constant, Func, Node};

impl Parser<'_> {
    pub(super) fn atom(&mut self) -> Parsed {
        let Some(tok) = self.peek().cloned() else { return Err(Fail::Unknown) };
        match tok {
            Tok::Num(n) => {
                self.at += 1;
                Ok(Node::Num(n))
            }
            // `f(x)`
            Tok::Sym(name) if self.is_application(&name) => {
                self.at += 1;
                let mut args = vec![Node::Sym(name)];
                match self.deeper(self.bar_closes, Self::atom)? {
                    Node::Group { items, .. } => args.extend(items),
                    one => args.push(one),
                }
                Ok(Node::Call(Func::Apply, args))
            }
            Tok::Sym(name) => {
                self.at += 1;
                Ok(Node::Sym(name))
            }
            Tok::Word(word) => {
                self.at += 1;
                Ok(Node::Sym(word))
            }
            Tok::Const(c) => {
                self.at += 1;
                Ok(Node::Const(c))
            }
            Tok::Named(set) => {
                self.at += 1;
                Ok(Node::Named(set))
            }
            Tok::Dots => {
                self.at += 1;
                Ok(Node::Sym("…".into()))
            }
            Tok::Currency(unit) => {
                self.at += 1;
                if self.ends() {
                    return Err(Fail::Unknown);
                }
                let value = self.deeper(self.bar_closes, Self::unary_power)?;
                Ok(Node::Unit(Box::new(value), unit.to_owned()))
            }
            Tok::Minus | Tok::Plus | Tok::PlusMinus(_) => self.deeper(self.bar_closes, Self::unary),
            Tok::Func(func) => {
                self.at += 1;
                self.deeper(self.bar_closes, |p| p.function(func))
            }
            Tok::Frac => {
                self.at += 1;
                self.deeper(self.bar_closes, |p| {
                    let a = p.atom()?;
                    let b = p.atom()?;
                    // `\frac{dy}{dx}`: the letters d do not cancel.
                    let differential = |n: &Node| match n {
                        Node::Mul(items) => items.len() == 2 && items[0] == Node::Sym("d".into()),
                        n => *n == Node::Sym("d".into()),
                    };
                    if differential(&a) && matches!(b, Node::Mul(_)) && differential(&b) {
                        return Ok(Node::Call(Func::Apply, vec![Node::Sym("d/d".into()), a, b]));
                    }
                    Ok(Node::Div(Box::new(a), Box::new(b)))
                })
            }
            Tok::Binom => {
                self.at += 1;
                self.deeper(self.bar_closes, |p| Ok(Node::Call(Func::Binomial, vec![p.atom()?, p.atom()?])))
            }
            Tok::Sqrt => {
                self.at += 1;
                self.deeper(self.bar_closes, Self::root)
            }
            // A line over a name: a segment or a mean. Over digits it was a part of the number.
            Tok::Overline => {
                self.at += 1;
                let inner = self.deeper(self.bar_closes, Self::atom)?;
                match &inner {
                    Node::Sym(name) if name.chars().count() == 1 => Ok(Node::Sym(format!("{name}\u{304}"))),
                    Node::Mul(_) => Ok(inner),
                    _ => Ok(Node::Call(Func::Conj, vec![inner])),
                }
            }
            Tok::Open(bracket) => {
                self.at += 1;
                self.deeper(false, |p| p.group(bracket))
            }
            Tok::Bar => {
                self.at += 1;
                let inner = self.deeper(true, |p| p.list(Level::Semicolon))?;
                if !self.take(&Tok::Bar) {
                    return Err(Fail::Unknown);
                }
                Ok(Node::Call(Func::Abs, vec![inner]))
            }
            Tok::Begin(env) => {
                self.at += 1;
                self.deeper(false, |p| p.environment(&env))
            }
            _ => Err(Fail::Unknown),
        }
    }

    /// Whether a letter before a bracket names a function: f always, h and its like (heights, gravity) only before a bare variable or number.
    pub(super) fn is_application(&self, name: &str) -> bool {
        if self.peek_at(1) != Some(&Tok::Open(Bracket::Round)) {
            return false;
        }
        let bare = matches!(self.peek_at(2), Some(Tok::Num(_) | Tok::Sym(_))) && self.peek_at(3) == Some(&Tok::Close(Bracket::Round));
        matches!(name, "f" | "F") || (bare && matches!(name, "g" | "h" | "G" | "H"))
    }

    pub(super) fn unary_power(&mut self) -> Parsed {
        if self.take(&Tok::Minus) {
            return Ok(Node::Neg(Box::new(self.power()?)));
        }
        self.power()
    }

    pub(super) fn root(&mut self) -> Parsed {
        // `\sqrt[3]{x}`
        if self.peek() == Some(&Tok::Open(Bracket::Square)) {
            self.at += 1;
            let degree = self.list(Level::Semicolon)?;
            if !self.take(&Tok::Close(Bracket::Square)) {
                return Err(Fail::Unknown);
            }
            if self.ends() || matches!(self.peek(), Some(Tok::Plus | Tok::Minus | Tok::Join(_))) {
                return Ok(Node::Call(Func::Sqrt, vec![degree])); // `\sqrt[5]`: brackets used as braces
            }
            let value = self.atom()?;
            return Ok(Node::Call(Func::Root, vec![value, degree]));
        }
        let value = self.atom()?;
        Ok(Node::Call(Func::Sqrt, vec![value]))
    }

    /// A function with its exponent, its base, and what it is applied to.
    pub(super) fn function(&mut self, func: Func) -> Parsed {
        let mut exponent = None;
        let mut base = None;
        // `log10(5)`, `log2(5)`
        if let (Func::Log, Some(Tok::Num(n)), Some(Tok::Open(Bracket::Round))) = (func, self.peek(), self.peek_at(1)) {
            base = Some(Node::Num(n.clone()));
            self.at += 1;
        }
        loop {
            match self.peek() {
                Some(Tok::Caret) if exponent.is_none() => {
                    self.at += 1;
                    exponent = Some(match self.peek() {
                        Some(Tok::Minus) => self.unary()?,
                        _ => self.atom()?,
                    });
                }
                Some(Tok::Under) if base.is_none() => {
                    self.at += 1;
                    base = Some(self.atom()?);
                }
                _ => break,
            }
        }
        let args = self.arguments(func)?;
        let inverse = exponent.as_ref().is_some_and(|e| matches!(e, Node::Neg(one) if **one == Node::int(1)));
        let func_applied = match (inverse, inverse_of(func)) {
            (true, Some(inverse)) => {
                exponent = None;
                inverse
            }
            _ => func,
        };
        let call = match (func_applied, base, args) {
            (Func::Log, Some(base), mut args) if args.len() == 1 => {
                args.push(base);
                Node::Call(Func::Log, args)
            }
            // `∛x`
            (Func::Root, None, mut args) if args.len() == 1 => {
                args.push(Node::int(3));
                Node::Call(Func::Root, args)
            }
            (Func::Exp, None, mut args) if args.len() == 1 => {
                Node::Pow(Box::new(Node::Const(Constant::E)), Box::new(args.pop().ok_or(Fail::Unknown)?))
            }
            (func, None, args) => Node::Call(func, args),
            _ => return Err(Fail::Unknown),
        };
        Ok(match exponent {
            Some(exponent) => power_of(call, exponent),
            None => call,
        })
    }

    /// One bracket with its members, or the factors that follow up to the next sign or function.
    pub(super) fn arguments(&mut self, func: Func) -> Result<Vec<Node>, Fail> {
        if let Some(Tok::Open(Bracket::Round | Bracket::Brace | Bracket::Square | Bracket::Curly)) = self.peek() {
            let group = self.atom()?;
            let many = matches!(func, Func::Gcd | Func::Lcm | Func::Max | Func::Min | Func::Log | Func::Root);
            return Ok(match group {
                Node::Group { items, .. } | Node::List(_, items) | Node::Set(items) if many => items,
                // `\sin{x}^2`-like postfixes bind to the call.
                Node::Set(one) if one.len() == 1 => one,
                Node::Group { .. } | Node::List(..) | Node::Set(_) => return Err(Fail::Unknown),
                one => vec![one],
            });
        }
        if let Some(Tok::Minus) = self.peek() {
            return Ok(vec![self.unary()?]);
        }
        let mut product = self.power()?;
        while self.starts_factor()
            && !matches!(
                self.peek(),
                Some(Tok::Func(_) | Tok::Word(_) | Tok::Open(Bracket::Round | Bracket::Square | Bracket::Curly) | Tok::Bar | Tok::Begin(_))
            )
        {
            let right = self.power()?;
            product = times(product, right);
        }
        Ok(vec![product])
    }
}

fn inverse_of(func: Func) -> Option<Func> {
    Some(match func {
        Func::Sin => Func::Asin,
        Func::Cos => Func::Acos,
        Func::Tan => Func::Atan,
        Func::Cot => Func::Acot,
        Func::Sec => Func::Asec,
        Func::Csc => Func::Acsc,
        Func::Sinh => Func::Asinh,
        Func::Cosh => Func::Acosh,
        Func::Tanh => Func::Atanh,
        _ => return None,
    })
}
