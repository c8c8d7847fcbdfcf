//! Tokens to a tree, by recursive descent. From loose to tight: lists, relations, set operations, ratios, sums, products, powers.
//!
//! Nesting is bounded, so no text can exhaust the stack; what is not understood is a `Fail`, never a guess.

use super::lex::{Bracket, Tok, Token};
use super::node::{Constant, Func, Join, NamedSet, Node, Number, Rel};
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

    /// An atom with everything that binds to it from the right.
    fn power(&mut self) -> Parsed {
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
    fn raised(&mut self, base: Node) -> Parsed {
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
    fn subscript(&mut self) -> Result<String, Fail> {
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
    fn unit(&mut self, value: Node) -> Node {
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

    fn atom(&mut self) -> Parsed {
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
    fn is_application(&self, name: &str) -> bool {
        if self.peek_at(1) != Some(&Tok::Open(Bracket::Round)) {
            return false;
        }
        let bare = matches!(self.peek_at(2), Some(Tok::Num(_) | Tok::Sym(_))) && self.peek_at(3) == Some(&Tok::Close(Bracket::Round));
        matches!(name, "f" | "F") || (bare && matches!(name, "g" | "h" | "G" | "H"))
    }

    fn unary_power(&mut self) -> Parsed {
        if self.take(&Tok::Minus) {
            return Ok(Node::Neg(Box::new(self.power()?)));
        }
        self.power()
    }

    fn root(&mut self) -> Parsed {
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
    fn function(&mut self, func: Func) -> Parsed {
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
    fn arguments(&mut self, func: Func) -> Result<Vec<Node>, Fail> {
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

    /// What is inside of a bracket, up to its closing partner; intervals may close with the other kind.
    fn group(&mut self, bracket: Bracket) -> Parsed {
        if bracket == Bracket::Curly || bracket == Bracket::Brace {
            return self.braces(bracket);
        }
        if let Some(Tok::Close(Bracket::Round | Bracket::Square)) = self.peek() {
            return Err(Fail::Unknown);
        }
        let inner = self.deeper(bracket == Bracket::Bar, |p| p.list(Level::Semicolon))?;
        let Some(Tok::Close(close)) = self.peek().cloned() else { return Err(Fail::Unknown) };
        self.at += 1;
        let mixed = matches!((bracket, close), (Bracket::Round, Bracket::Square) | (Bracket::Square, Bracket::Round));
        // Brackets of two kinds are an interval's.
        if mixed && !matches!(&inner, Node::List(_, items) if items.len() == 2) {
            return Err(Fail::Unknown);
        }
        if bracket != close && !mixed {
            return Err(Fail::Unknown);
        }
        match (bracket, inner) {
            (Bracket::Bar, inner) => Ok(Node::Call(Func::Abs, vec![inner])),
            (Bracket::Floor, inner) => Ok(Node::Call(Func::Floor, vec![inner])),
            (Bracket::Ceil, inner) => Ok(Node::Call(Func::Ceil, vec![inner])),
            (_, Node::List(Join::Comma | Join::And | Join::Semicolon, items)) => {
                Ok(Node::Group { open_closed: bracket == Bracket::Square, close_closed: close == Bracket::Square, items })
            }
            (_, one) if !mixed => Ok(one),
            _ => Err(Fail::Unknown),
        }
    }

    /// `{…}` as a set or as a group, with `|` or `:` of a set builder.
    fn braces(&mut self, bracket: Bracket) -> Parsed {
        if self.take(&Tok::Close(bracket)) {
            return match bracket {
                Bracket::Curly => Ok(Node::Named(NamedSet::Empty)),
                _ if self.starts_factor() => self.power(), // `{}x`
                _ => Err(Fail::Unknown),
            };
        }
        let inner = self.deeper(bracket == Bracket::Curly, |p| p.list(Level::Semicolon))?;
        if bracket == Bracket::Curly && (self.take(&Tok::Bar) || self.take(&Tok::Colon)) {
            let condition = self.deeper(false, |p| p.list(Level::Semicolon))?;
            self.close_brace(bracket)?;
            return Ok(Node::Builder(Box::new(inner), Box::new(condition)));
        }
        if bracket == Bracket::Brace {
            // `{a \over b}`, `{n \choose k}`
            for (tok, choose) in [(Tok::Over, false), (Tok::Choose, true)] {
                if self.take(&tok) {
                    let below = self.list(Level::Semicolon)?;
                    self.close_brace(bracket)?;
                    return Ok(if choose {
                        Node::Call(Func::Binomial, vec![inner, below])
                    } else {
                        Node::Div(Box::new(inner), Box::new(below))
                    });
                }
            }
        }
        self.close_brace(bracket)?;
        Ok(match (bracket, inner) {
            (Bracket::Curly, Node::List(_, items)) => Node::Set(items),
            (Bracket::Curly, one) => Node::Set(vec![one]),
            (_, inner) => inner,
        })
    }

    fn close_brace(&mut self, bracket: Bracket) -> Result<(), Fail> {
        if self.take(&Tok::Close(bracket)) { Ok(()) } else { Err(Fail::Unknown) }
    }

    /// A matrix, the lines of an aligned block, or cases.
    fn environment(&mut self, env: &str) -> Parsed {
        let matrix = env.ends_with("matrix") || env == "array" || env == "tabular";
        let cases = env == "cases";
        let mut rows: Vec<Vec<Node>> = vec![Vec::new()];
        loop {
            match self.peek() {
                None => return Err(Fail::Unknown),
                Some(Tok::End) => {
                    self.at += 1;
                    break;
                }
                Some(Tok::Row) => {
                    self.at += 1;
                    rows.push(Vec::new());
                }
                Some(Tok::Amp) => self.at += 1,
                Some(Tok::Join(_)) if !matrix => self.at += 1,
                // `\text{if } x > 0`
                Some(Tok::Word(word)) if cases && matches!(word.as_str(), "if" | "for" | "when" | "where") => self.at += 1,
                _ => {
                    let cell = if matrix { self.list(Level::Or)? } else { self.list(Level::Comma)? };
                    rows.last_mut().ok_or(Fail::Unknown)?.push(cell);
                }
            }
        }
        rows.retain(|row| !row.is_empty());
        // Each case is a value with its condition; their order does not count.
        if cases && rows.iter().any(|row| row.len() > 1) {
            let rows = rows.into_iter().map(|items| Node::Group { open_closed: false, close_closed: false, items });
            return Ok(Node::Set(rows.collect()));
        }
        if !matrix {
            let items: Vec<Node> = rows.into_iter().flatten().collect();
            return match items.len() {
                0 => Err(Fail::Unknown),
                1 => items.into_iter().next().ok_or(Fail::Unknown),
                _ => Ok(Node::List(Join::Comma, items)),
            };
        }
        let width = rows.first().map_or(0, Vec::len);
        if width == 0 || rows.iter().any(|row| row.len() != width) {
            return Err(Fail::Unknown);
        }
        // A column of relations is a system.
        if env == "array" && width == 1 && rows.iter().flatten().any(|cell| matches!(cell, Node::Chain(..))) {
            return Ok(Node::List(Join::Comma, rows.into_iter().flatten().collect()));
        }
        let node = Node::Matrix(rows);
        if env == "vmatrix" {
            return super::matrix::determinant(&node).ok_or(Fail::TooLarge);
        }
        Ok(node)
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
