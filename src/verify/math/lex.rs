//! Answer text cut into tokens: LaTeX, plain text and Unicode spellings of one thing become one token.
//!
//! It drops what only sets type (`\left`, `\displaystyle`, `$`, spaces of every width) and decides nothing about structure.

use super::commands::{self, Meaning};
use super::letters::{grown_together, is_product, is_symbol, superscript};
use super::node::{Constant, Func, Join, NamedSet, Number, Rel, SetOp};
use super::number;
use super::{Fail, MAX_TOKENS};

/// The kinds of brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bracket {
    Round,
    Square,
    /// `\{ \}`: a set.
    Curly,
    /// `{ }`: grouping only.
    Brace,
    Angle,
    Floor,
    Ceil,
    /// `\lvert \rvert`.
    Bar,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tok {
    Num(Number),
    Sym(String),
    Const(Constant),
    Func(Func),
    Rel(Rel),
    SetOp(SetOp),
    Named(NamedSet),
    Join(Join),
    Open(Bracket),
    Close(Bracket),
    Plus,
    Minus,
    /// `±` (false), `∓` (true).
    PlusMinus(bool),
    Times,
    Divide,
    Mod,
    Pmod,
    Caret,
    Under,
    Bang,
    Percent,
    Degree,
    Prime,
    /// `|`, which opens, closes, or stands in a set builder.
    Bar,
    Colon,
    Frac,
    Sqrt,
    Binom,
    Over,
    Choose,
    Overline,
    Begin(String),
    End,
    Amp,
    Row,
    Dots,
    /// A word, in lower case where that loses nothing.
    Word(String),
    Currency(&'static str),
}

/// A token, and whether white space stands before it.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub tok: Tok,
    pub space: bool,
}

/// Cuts `text` into tokens.
pub(super) fn lex(text: &str) -> Result<Vec<Token>, Fail> {
    let mut lexer = Lexer {
        text,
        at: 0,
        out: Vec::with_capacity(text.len() / 2 + 4),
        space: false,
        round: 0,
        words: false,
        after_value: false,
        one_dollar: one_dollar(text),
        tables: Vec::new(),
        nested: 0,
    };
    lexer.run()?;
    Ok(lexer.out)
}

/// Words of two or three letters that are no product of variables.
const SHORT_WORDS: [&str; 28] = [
    "sq", "cu", "per", "but", "the", "The", "is", "are", "of", "for", "For", "if", "not", "has", "was", "all", "any", "its", "that", "we",
    "We", "it", "It", "be", "so", "So", "by", "no",
];

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    out: Vec<Token>,
    space: bool,
    /// Round and square brackets and set braces that are open: inside of them a bare comma separates.
    round: i32,
    /// Inside of a text command: letters are words there.
    words: bool,
    /// What stands before the text is a value, so that a word may be its unit.
    after_value: bool,
    /// There is one `$` in the text that no backslash stands before.
    one_dollar: bool,
    /// The environments that are open: whether `&` parts their cells, or only lines up.
    tables: Vec<bool>,
    nested: u8,
}

impl Lexer<'_> {
    fn run(&mut self) -> Result<(), Fail> {
        while let Some(c) = self.rest().chars().next() {
            if self.out.len() > MAX_TOKENS {
                return Err(Fail::TooLarge);
            }
            match c {
                c if c.is_whitespace() || matches!(c, '~' | '\u{200b}' | '\u{feff}' | '\u{2061}' | '\u{2062}') => self.skip(c.len_utf8()),
                '\\' => self.command()?,
                '0'..='9' => self.number(),
                '.' if starts_decimal(&self.rest()[1..]) && !self.ends_number() => self.number(),
                '&' if self.tables.last() == Some(&false) => self.skip(1),
                c if c.is_alphabetic() && !is_symbol(c) => self.letters(),
                '$' => self.dollar(),
                _ => self.sign(c)?,
            }
        }
        Ok(())
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn skip(&mut self, n: usize) {
        self.at += n;
        self.space = true;
    }

    fn push(&mut self, tok: Tok, n: usize) {
        match tok {
            Tok::Open(Bracket::Round | Bracket::Square | Bracket::Curly | Bracket::Angle) => self.round += 1,
            Tok::Close(Bracket::Round | Bracket::Square | Bracket::Curly | Bracket::Angle) => self.round -= 1,
            _ => {}
        }
        self.out.push(Token { tok, space: std::mem::take(&mut self.space) });
        self.at += n;
    }

    fn after_value(&self) -> bool {
        match self.out.last() {
            Some(last) => matches!(last.tok, Tok::Num(_) | Tok::Close(_) | Tok::Percent | Tok::Degree | Tok::Currency(_) | Tok::Word(_)),
            None => self.after_value,
        }
    }

    /// Behind `°` or `^{\circ}`.
    fn behind_degree(&self) -> bool {
        match self.out.as_slice() {
            [.., last] if last.tok == Tok::Degree => true,
            [.., degree, close] => degree.tok == Tok::Degree && close.tok == Tok::Close(Bracket::Brace),
            _ => false,
        }
    }

    fn ends_number(&self) -> bool {
        !self.space && matches!(self.out.last().map(|t| &t.tok), Some(Tok::Num(_)))
    }

    /// `$` sets mathematics apart and is dropped; the only one of a text, before a number, is money.
    fn dollar(&mut self) {
        if self.one_dollar && self.rest()[1..].trim_start().starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            return self.push(Tok::Currency("dollar"), 1);
        }
        self.skip(1);
    }

    fn number(&mut self) {
        // `\frac12` and `\frac1 2`: each argument without braces is one digit.
        if self.wants_one_digit() {
            let digit = i64::from(self.rest().as_bytes()[0].wrapping_sub(b'0'));
            return self.push(Tok::Num(Number::integer(digit)), 1);
        }
        // `27,54,108`: what stands behind a number and a comma, without a space, is a member of a list.
        let listed = match self.out.as_slice() {
            [.., before, comma] => {
                matches!((&before.tok, &comma.tok), (Tok::Num(_), Tok::Join(Join::Comma))) && !comma.space && !self.space
            }
            _ => false,
        };
        match number::scan(self.rest(), self.round > 0 || listed) {
            Some((value, n)) => self.push(Tok::Num(value), n),
            None => self.skip(1),
        }
    }

    /// Whether the next token is an argument of `\frac` that has no braces.
    fn wants_one_digit(&self) -> bool {
        let last = self.out.len();
        let is_frac = |i: usize| matches!(self.out.get(i).map(|t| &t.tok), Some(Tok::Frac | Tok::Binom));
        let single = |i: usize| matches!(self.out.get(i).map(|t| &t.tok), Some(Tok::Num(_) | Tok::Sym(_) | Tok::Const(_)));
        (last >= 1 && is_frac(last - 1)) || (last >= 2 && is_frac(last - 2) && single(last - 1)) || self.behind_braced_numerator()
    }

    /// `\frac{11}2`: behind the closing brace of the first argument.
    fn behind_braced_numerator(&self) -> bool {
        if !matches!(self.out.last().map(|t| &t.tok), Some(Tok::Close(Bracket::Brace))) {
            return false;
        }
        let mut depth = 0;
        for (i, token) in self.out.iter().enumerate().rev() {
            match token.tok {
                Tok::Close(Bracket::Brace) => depth += 1,
                Tok::Open(Bracket::Brace) => {
                    depth -= 1;
                    if depth == 0 {
                        return i > 0 && matches!(self.out[i - 1].tok, Tok::Frac | Tok::Binom);
                    }
                }
                _ => {}
            }
        }
        false
    }

    /// A run of letters: a function, a constant, a word, or variables side by side.
    fn letters(&mut self) {
        let rest = self.rest();
        let n = rest.find(|c: char| !c.is_alphabetic() || is_symbol(c)).unwrap_or(rest.len());
        let mut run = &rest[..n];
        // `orW(x)`: a connective that grew together with a capital.
        for glued in ["and", "or"] {
            if run.strip_prefix(glued).is_some_and(|tail| tail.starts_with(|c: char| c.is_ascii_uppercase())) {
                run = &run[..glued.len()];
            }
        }
        let n = run.len();
        let after_number = self.out.last().map_or(self.after_value, |t| matches!(t.tok, Tok::Num(_) | Tok::Word(_)));
        if run == "min" && after_number {
            return self.push(Tok::Word("min".to_owned()), n);
        }
        match commands::word(run, self.words) {
            Some(Meaning::Tok(tok)) => return self.push(tok, n),
            Some(_) => return self.skip(n),
            None => {}
        }
        let count = run.chars().count();
        let after_value = self.after_value();
        let alone = n == rest.len()
            || rest[n..].trim_start().is_empty()
            || rest[n..].trim_start().starts_with(['/', '^', ',', '.', ';', '$', '\\']);
        let apart = self.words || self.space;
        let ordinal = matches!(run, "st" | "nd" | "rd" | "th") && after_number;
        // Behind a degree sign these are scales of temperature.
        if matches!(run, "C" | "F") && self.behind_degree() {
            return self.push(Tok::Word(if run == "C" { "celsius" } else { "fahrenheit" }.to_owned()), n);
        }
        let unit = ordinal
            || after_value
                && super::units::known(run)
                && match count {
                    1 => alone && apart && after_number,
                    2 if run == "in" => alone && apart,
                    2 | 3 => apart || super::units::is_symbol(run),
                    _ => true,
                };
        if unit && count <= 3 {
            let word = if super::units::has_prefix(run) { run.to_owned() } else { run.to_lowercase() };
            return self.push(Tok::Word(word), n);
        }
        // Variables side by side, in the order of the alphabet or without a vowel: `abcd`, `pqrs`.
        let variables = !self.words && !unit && is_product(run);
        if (count >= 4 && !variables && grown_together(run, &rest[n..]).is_none())
            || super::words::number(run).is_some()
            || unit
            || SHORT_WORDS.contains(&run)
            || (self.words && count >= 2)
            || !run.is_ascii() && count >= 2
        {
            let word = run.to_lowercase();
            return self.push(Tok::Word(word), n);
        }
        if let Some(parts) = grown_together(run, &rest[n..]) {
            for part in parts.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>() {
                let tok = match commands::word(&part, false) {
                    Some(Meaning::Tok(tok)) => tok,
                    _ if part == "e" => Tok::Const(Constant::E),
                    _ if part == "i" => Tok::Const(Constant::I),
                    _ => Tok::Sym(part.clone()),
                };
                self.push(tok, part.len());
            }
            return;
        }
        // `sinx`, `lnx`: a function that grew together with its argument.
        for (name, func) in [("sin", Func::Sin), ("cos", Func::Cos), ("tan", Func::Tan), ("log", Func::Log), ("ln", Func::Ln)] {
            if run.len() > name.len() && run.starts_with(name) {
                return self.push(Tok::Func(func), name.len());
            }
        }
        for c in run.to_owned().chars() {
            let tok = match c {
                'e' if !self.words => Tok::Const(Constant::E),
                'i' if !self.words || self.after_value() => Tok::Const(Constant::I),
                c => Tok::Sym(c.to_string()),
            };
            self.push(tok, c.len_utf8());
        }
    }

    fn sign(&mut self, c: char) -> Result<(), Fail> {
        let rest = self.rest();
        for (text, tok) in commands::SIGNS {
            if rest.starts_with(text) {
                let (tok, n) = (tok.clone(), text.len());
                // `x + -3`: a sign of its own, unless it opens.
                if *text == "+-" && !matches!(self.out.last().map(|t| &t.tok), None | Some(Tok::Open(_) | Tok::Join(_) | Tok::Rel(_))) {
                    self.push(Tok::Plus, 1);
                    return Ok(());
                }
                // Asterisks that open are emphasis.
                if matches!(tok, Tok::Caret) && *text == "**" && self.out.is_empty() {
                    self.skip(2);
                    return Ok(());
                }
                self.push(tok, n);
                return Ok(());
            }
        }
        if superscript(c).is_some() {
            return self.superscripts();
        }
        if let Some((value, n)) = number::vulgar_fraction(c) {
            self.push(Tok::Num(value), n);
            return Ok(());
        }
        match c {
            // Marks of emphasis and quotation, and a full stop that ends a sentence.
            '.' if rest.starts_with("...") => self.push(Tok::Dots, 3),
            '.' | '。' | '．' | '?' | '"' | '“' | '”' | '`' | '#' | '\u{fe0f}' | '「' | '」' => self.skip(c.len_utf8()),
            _ => return Err(Fail::Unknown),
        }
        Ok(())
    }

    /// `²`, `ⁿ⁺¹`: an exponent in braces.
    fn superscripts(&mut self) -> Result<(), Fail> {
        let rest = self.rest();
        let mapped: String = rest.chars().map_while(superscript).collect();
        let n: usize = rest.chars().take_while(|c| superscript(*c).is_some()).map(char::len_utf8).sum();
        if self.nested > 3 || self.out.is_empty() {
            return Err(Fail::Unknown);
        }
        self.push(Tok::Caret, 0);
        self.push(Tok::Open(Bracket::Brace), 0);
        self.inline(&mapped, false)?;
        self.push(Tok::Close(Bracket::Brace), n);
        Ok(())
    }

    /// Tokens of another text at this place.
    fn inline(&mut self, text: &str, words: bool) -> Result<(), Fail> {
        if self.nested > 3 {
            return Err(Fail::TooDeep);
        }
        let mut inner = Lexer {
            text,
            at: 0,
            out: Vec::new(),
            space: self.space,
            round: self.round,
            words,
            after_value: self.after_value(),
            one_dollar: one_dollar(text),
            tables: self.tables.clone(),
            nested: self.nested + 1,
        };
        inner.run()?;
        self.space = inner.space;
        self.out.append(&mut inner.out);
        Ok(())
    }

    fn command(&mut self) -> Result<(), Fail> {
        let rest = self.rest();
        let name_len = rest[1..].bytes().take_while(u8::is_ascii_alphabetic).count();
        if name_len == 0 {
            return self.control_symbol();
        }
        let name = &rest[1..=name_len];
        let n = 1 + name_len;
        if commands::TEXT.contains(&name) {
            return self.text_command(n);
        }
        match commands::command(name) {
            Some(Meaning::Tok(tok)) => self.push(tok, n),
            Some(Meaning::Space) => self.skip(n),
            Some(Meaning::Sized) => {
                // `\left.` and `\right.` stand for a bracket that is not there.
                let dot = rest[n..].trim_start().starts_with('.');
                let gap = rest[n..].len() - rest[n..].trim_start().len();
                // `\left\{ … \right.` only sets a brace before a system.
                let system = dot && name == "right";
                if system
                    && let Some(open) = self.out.iter().position(|t| t.tok == Tok::Open(Bracket::Curly))
                    && !self.out.iter().any(|t| t.tok == Tok::Close(Bracket::Curly))
                {
                    self.out.remove(open);
                    self.round -= 1;
                }
                self.skip(if dot { n + gap + 1 } else { n });
            }
            Some(Meaning::Splice) => {
                let gap = rest[n..].len() - rest[n..].trim_start().len();
                let Some((inside, m)) = braced(&rest[n + gap..]) else { return Err(Fail::Unknown) };
                let inside = inside.to_owned();
                self.inline(&inside, self.words)?;
                self.at += n + gap + m;
            }
            Some(Meaning::Unwrap) => {
                // The braces that follow group and are kept.
                self.skip(n);
            }
            Some(Meaning::Begin) => {
                let Some((env, m)) = braced(&rest[n..]) else { return Err(Fail::Unknown) };
                let env = env.trim_end_matches('*').to_owned();
                // The columns of an array are set by letters that mean nothing here.
                let columns = if env == "array" || env == "tabular" { braced(&rest[n + m..]).map_or(0, |(_, k)| k) } else { 0 };
                self.tables.push(env.ends_with("matrix") || columns > 0 || env == "array" || env == "cases");
                self.push(Tok::Begin(env), n + m + columns);
            }
            Some(Meaning::End) => {
                let m = braced(&rest[n..]).map_or(0, |(_, m)| m);
                self.tables.pop();
                self.push(Tok::End, n + m);
            }
            Some(Meaning::DropArgument) => {
                let m = braced(&rest[n..]).map_or(0, |(_, m)| m);
                self.skip(n + m);
            }
            Some(Meaning::Board) => {
                let (letter, m) = match braced(rest[n..].trim_start()) {
                    Some((letter, m)) => (letter.trim().to_owned(), m + rest[n..].len() - rest[n..].trim_start().len()),
                    None => (rest[n..].trim_start().chars().take(1).collect(), 1 + rest[n..].len() - rest[n..].trim_start().len()),
                };
                let set = match letter.as_str() {
                    "R" => NamedSet::Reals,
                    "Q" => NamedSet::Rationals,
                    "Z" => NamedSet::Integers,
                    "N" => NamedSet::Naturals,
                    "C" => NamedSet::Complex,
                    _ => return Err(Fail::Unknown),
                };
                if n + m > rest.len() {
                    return Err(Fail::Unknown);
                }
                self.push(Tok::Named(set), n + m);
            }
            // `\sinx`, `\lvertx`: a command that grew together with a letter behind it.
            None => {
                let known = (1..name_len).rev().find_map(|k| match commands::command(&name[..k]) {
                    Some(Meaning::Tok(tok)) if k >= 2 => Some((tok, k)),
                    _ => None,
                });
                match known {
                    Some((tok, k)) => self.push(tok, 1 + k),
                    None => return Err(Fail::Unknown),
                }
            }
        }
        Ok(())
    }

    /// A backslash with a sign behind it.
    fn control_symbol(&mut self) -> Result<(), Fail> {
        let rest = self.rest();
        let Some(c) = rest[1..].chars().next() else {
            self.skip(1);
            return Ok(());
        };
        match c {
            '{' => self.push(Tok::Open(Bracket::Curly), 2),
            '}' => self.push(Tok::Close(Bracket::Curly), 2),
            '\\' => {
                // `\\frac`: a backslash that was escaped once too often, unless it ends a row.
                let name: String = rest[2..].chars().take_while(char::is_ascii_alphabetic).collect();
                let in_rows = self.out.iter().any(|t| matches!(t.tok, Tok::Begin(_)));
                if !in_rows && (commands::command(&name).is_some() || commands::TEXT.contains(&name.as_str())) {
                    self.at += 1;
                } else {
                    // `\\\\[4pt]` asks for space between rows.
                    let spacing = rest[2..]
                        .strip_prefix('[')
                        .and_then(|r| r.find(']').filter(|end| r[..*end].ends_with(|c: char| c.is_ascii_alphabetic()) && *end < 12));
                    self.push(Tok::Row, 2 + spacing.map_or(0, |end| end + 2));
                }
            }
            '%' => self.push(Tok::Percent, 2),
            '$' => self.push(Tok::Currency("dollar"), 2),
            '|' => self.push(Tok::Bar, 2),
            '&' => self.push(Tok::Join(Join::And), 2),
            '#' | '_' | '(' | ')' | '[' | ']' | ',' | ';' | ':' | '!' | ' ' | '>' | '/' | '\n' | '*' | '-' | '.' | '"' | '\'' | '~'
            | '=' => self.skip(2),
            _ => return Err(Fail::Unknown),
        }
        Ok(())
    }

    /// `\text{…}` and its like: what is inside is words, numbers and signs.
    fn text_command(&mut self, n: usize) -> Result<(), Fail> {
        let rest = self.rest();
        let gap = rest[n..].len() - rest[n..].trim_start().len();
        let Some((inside, m)) = braced(&rest[n + gap..]) else {
            self.skip(n);
            return Ok(());
        };
        let (inside, m) = (inside.trim().to_owned(), m);
        // A roman e is Euler's number, in mathematics as in text; a roman d or C is a letter like any other.
        let upright = rest[1..n].starts_with("math") || rest[1..n].starts_with("operator");
        self.space = true;
        let single = inside.chars().count() == 1;
        // `\mathrm{AB}`: points.
        let points = upright && inside.len() <= 4 && inside.bytes().all(|b| b.is_ascii_uppercase()) && !super::units::known(&inside);
        self.inline(&inside, !(upright && single || points))?;
        self.at += n + gap + m;
        self.space = true;
        Ok(())
    }
}

fn one_dollar(text: &str) -> bool {
    text.matches('$').count() - text.matches("\\$").count() == 1
}

/// Whether digits, or a cycle of digits, come next.
fn starts_decimal(rest: &str) -> bool {
    rest.starts_with(|c: char| c.is_ascii_digit()) || ["\\overline{", "\\bar{", "\\dot{"].iter().any(|line| rest.starts_with(line))
}

/// The inside of a braced argument at the start of `text`, and the length with its braces.
fn braced(text: &str) -> Option<(&str, usize)> {
    if !text.starts_with('{') {
        return None;
    }
    let mut depth = 0usize;
    let mut escaped = false;
    for (i, b) in text.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some((&text[1..i], i + 1));
                }
            }
            _ => {}
        }
    }
    None
}
