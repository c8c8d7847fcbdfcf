//! Brackets of all kinds, set builders, matrices, cases.

use super::{Level, Parsed, Parser};
use crate::verify::math::lex::{Bracket, Tok};
use crate::verify::math::node::{Func, Join, NamedSet, Node};
use crate::verify::math::{Fail, matrix};

impl Parser<'_> {
    /// What is inside of a bracket, up to its closing partner; intervals may close with the other kind.
    pub(super) fn group(&mut self, bracket: Bracket) -> Parsed {
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
    pub(super) fn braces(&mut self, bracket: Bracket) -> Parsed {
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

    pub(super) fn close_brace(&mut self, bracket: Bracket) -> Result<(), Fail> {
        if self.take(&Tok::Close(bracket)) { Ok(()) } else { Err(Fail::Unknown) }
    }

    /// A matrix, the lines of an aligned block, or cases.
    pub(super) fn environment(&mut self, env: &str) -> Parsed {
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
            return matrix::determinant(&node).ok_or(Fail::TooLarge);
        }
        Ok(node)
    }
}
