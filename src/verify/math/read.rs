//! The text of an answer to a tree: Unicode spellings folded, words sorted out, then parsed.

use super::lex::{Tok, Token, lex};
use super::node::{Join, NamedSet, Node, Number, Rel};
use super::parse::parse;
use super::{Fail, MAX_NODE_DEPTH, MAX_TEXT, words};
use dashu_ratio::RBig;
use unicode_normalization::UnicodeNormalization;

/// The tree of an answer, or why it has none.
pub(super) fn read(text: &str) -> Result<Node, Fail> {
    if text.len() > MAX_TEXT {
        return Err(Fail::TooLarge);
    }
    let folded = fold(text);
    if let Some(label) = label(&folded) {
        return Ok(Node::Text(label));
    }
    if let Some(phrase) = phrase(&folded).or_else(|| time(&folded)) {
        return Ok(match phrase.as_str() {
            "integers" | "all integers" => Node::Named(NamedSet::Integers),
            "all real numbers" | "all reals" | "real numbers" => Node::Named(NamedSet::Reals),
            "no solution" | "no solutions" | "no real solution" | "no real solutions" | "none" | "empty set" => {
                Node::Named(NamedSet::Empty)
            }
            _ => Node::Text(phrase),
        });
    }
    if let Some(based) = based(&folded) {
        return Ok(based);
    }
    let mut tokens = lex(&folded)?;
    if tokens.is_empty() {
        return Err(Fail::Empty);
    }
    tokens = number_words(tokens);
    tokens = without_remarks(tokens)?;
    let node = parse(&tokens)?;
    if node.depth() > MAX_NODE_DEPTH { Err(Fail::TooDeep) } else { Ok(node) }
}

/// Whether every word of a text is a unit, a number, or one of at most `limit` others behind a value, where units stand.
pub(super) fn words_in_place(text: &str, limit: usize) -> bool {
    if text.len() > MAX_TEXT {
        return false;
    }
    let Ok(tokens) = lex(&fold(text)) else { return false };
    let (mut foreign, mut behind_value) = (0, false);
    for token in &tokens {
        match &token.tok {
            Tok::Word(word) if super::units::known(word) || words::number(word).is_some() || words::scale(word).is_some() => {
                behind_value = true
            }
            Tok::Word(_) if behind_value => foreign += 1,
            Tok::Word(_) => return false,
            Tok::Num(_) | Tok::Sym(_) | Tok::Const(_) | Tok::Close(_) | Tok::Percent | Tok::Degree | Tok::Currency(_) => {
                behind_value = true
            }
            _ => behind_value = false,
        }
    }
    foreign <= limit
}

/// Compatibility forms (full-width digits, mathematical alphabets) as what they stand for, decimal digits of other scripts as ASCII. Letters that only look alike stay different.
fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut lowered = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let before = std::mem::replace(&mut lowered, subscript(c).is_some());
        match c {
            // These have a meaning of their own that the compatibility form loses.
            '½'..='¾' | '⅐'..='⅞' | '…' | 'º' | 'ª' | '⁄' | '°' | 'µ' => out.push(c),
            c if super::letters::superscript(c).is_some() => out.push(c),
            c if subscript(c).is_some() => {
                if !before {
                    out.push_str("_{");
                }
                out.extend(subscript(c));
                if chars.peek().is_none_or(|next| subscript(*next).is_none()) {
                    out.push('}');
                }
            }
            '٠'..='٩' => out.push(char::from(b'0' + (c as u32 - '٠' as u32) as u8)),
            '۰'..='۹' => out.push(char::from(b'0' + (c as u32 - '۰' as u32) as u8)),
            '०'..='९' => out.push(char::from(b'0' + (c as u32 - '०' as u32) as u8)),
            '。' => out.push('.'),
            '，' => out.push(','),
            '√' | 'π' | '∞' => out.push(c),
            c if c.is_ascii() => out.push(c),
            // A form that stands for several characters (`⒊`) is not one of a digit.
            c => {
                let mut forms = std::iter::once(c).nfkc();
                match (forms.next(), forms.next()) {
                    (Some(form), None) => out.push(form),
                    _ => out.push(c),
                }
            }
        }
    }
    out
}

/// The character that a subscript stands for.
fn subscript(c: char) -> Option<char> {
    Some(match c {
        '₀'..='₉' => char::from(b'0' + (c as u32 - '₀' as u32) as u8),
        '₊' => '+',
        '₋' => '-',
        'ₐ' => 'a',
        'ₑ' => 'e',
        'ₒ' => 'o',
        'ₓ' => 'x',
        'ₕ' => 'h',
        'ₖ' => 'k',
        'ₗ' => 'l',
        'ₘ' => 'm',
        'ₙ' => 'n',
        'ₚ' => 'p',
        'ₛ' => 's',
        'ₜ' => 't',
        'ᵢ' => 'i',
        'ⱼ' => 'j',
        'ᵣ' => 'r',
        'ᵤ' => 'u',
        'ᵥ' => 'v',
        _ => return None,
    })
}

/// The words of an answer that is nothing but words, in lower case without marks around them; `None` if there is anything else in it.
fn phrase(text: &str) -> Option<String> {
    let mut plain = text.trim().trim_matches(|c: char| c == '$' || c.is_whitespace());
    let mut set_as_text = false;
    loop {
        let before = plain.len();
        plain = plain.trim().trim_matches('$').trim_end_matches(['.', '!', '。']).trim();
        for command in [
            "\\text",
            "\\textbf",
            "\\textit",
            "\\textrm",
            "\\mathrm",
            "\\mbox",
            "\\textnormal",
            "\\operatorname",
            "\\mathbf",
            "\\emph",
            "\\texttt",
            "\\mathit",
            "\\textsf",
        ] {
            if let Some(inside) =
                plain.strip_prefix(command).and_then(|r| r.trim_start().strip_prefix('{')).and_then(|r| r.strip_suffix('}'))
                && !inside.contains(['{', '}'])
            {
                plain = inside;
                set_as_text = true;
            }
        }
        if let Some(inside) = plain.strip_prefix("**").and_then(|r| r.strip_suffix("**")) {
            plain = inside;
        }
        if plain.len() == before {
            break;
        }
    }
    let normal = plain.replace("\\ ", " ").replace("\\,", " ").replace('~', " ").replace(['"', '“', '”', '`', '\''], "");
    let normal = normal.trim();
    let letters = normal.chars().filter(|c| c.is_alphabetic()).count();
    let others = normal.chars().any(|c| !(c.is_alphabetic() || c.is_whitespace() || matches!(c, '-' | '.' | ',')));
    if others || letters < 2 || normal.contains("--") {
        return None;
    }
    let lower = normal.to_lowercase();
    let first_word = lower.split_whitespace().next()?;
    let single = !normal.contains(char::is_whitespace);
    // One run of letters may be variables side by side (`xy`), a constant, or a number spelled out.
    // Variables side by side, signs between them, letters of the Greek alphabet: mathematics, unless it is set as text.
    let plain_word = |w: &str| {
        matches!(w.to_lowercase().as_str(), "no" | "yes")
            || w.chars().count() >= 3
                && !super::letters::is_product(w)
                && super::commands::word(w, false).is_none()
                && !super::letters::is_formula(w)
    };
    let words: Vec<&str> = normal.split(|c: char| !c.is_alphabetic()).filter(|w| !w.is_empty()).collect();
    if !set_as_text
        && (normal.starts_with('-')
            || !words.iter().any(|w| plain_word(w))
            || (normal.contains('-') && !words.iter().all(|w| plain_word(w))))
    {
        return None;
    }
    if single
        && !set_as_text
        && letters < 4
        && normal.is_ascii()
        && !matches!(lower.as_str(), "yes" | "no" | "odd" | "red" | "sun" | "mon" | "tue" | "wed" | "thu" | "fri" | "sat")
    {
        return None;
    }
    if lower.split([' ', '-']).any(|w| words::number(w).is_some() || words::scale(w).is_some()) {
        return None;
    }
    if single && super::commands::word(normal, false).is_some() {
        return None;
    }
    // `a and b`, `x or y`: a list of letters. `none of these and those` is words.
    if lower.split([' ', ',']).filter(|w| !w.is_empty()).all(|w| w.chars().count() == 1 || matches!(w, "and" | "or")) {
        return None;
    }
    let without_article = if matches!(first_word, "the" | "a" | "an") { lower[first_word.len()..].trim_start() } else { lower.as_str() };
    let mut out = String::new();
    for word in without_article.split(|c: char| c.is_whitespace() || matches!(c, '.' | ',' | '-')).filter(|w| !w.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    (!out.is_empty()).then_some(out)
}

/// Capitals alone, which name points or people rather than factors: their order counts.
fn label(text: &str) -> Option<String> {
    let mut plain = text.trim().trim_matches('$').trim();
    for command in ["\\text{", "\\mathrm{", "\\textbf{", "\\overline{"] {
        plain = plain.strip_prefix(command).and_then(|p| p.strip_suffix('}')).map_or(plain, str::trim);
    }
    let capitals = (2..=6).contains(&plain.len()) && plain.bytes().all(|b| b.is_ascii_uppercase());
    capitals.then(|| plain.to_lowercase())
}

/// A time of day: `9 a.m.`, `9:00 AM`.
fn time(text: &str) -> Option<String> {
    if text.len() > 60 {
        return None;
    }
    let plain = text.replace("\\text", "").replace("\\mathrm", "").replace("\\,", "").replace("\\ ", "");
    let plain: String = plain.chars().filter(|c| !(c.is_whitespace() || matches!(c, '{' | '}' | '$' | '.' | '~' | '\\'))).collect();
    let lower = plain.to_lowercase();
    let (clock, half) = ["am", "pm"].iter().find_map(|half| Some((lower.strip_suffix(half)?, *half)))?;
    let (hours, minutes) = clock.split_once(':').unwrap_or((clock, "00"));
    let (hours, full): (u8, bool) = (hours.parse().ok()?, minutes.len() == 2 && minutes.bytes().all(|b| b.is_ascii_digit()));
    (full && (1..=12).contains(&hours)).then(|| format!("{hours}:{minutes} {half}"))
}

/// A number with letters among its digits and its base below: `(152A)_{11}`.
fn based(text: &str) -> Option<Node> {
    let text = text.trim().trim_matches('$').trim();
    // `N = 1010_2`
    let text = text.split_once('=').filter(|(name, _)| name.trim().chars().count() == 1).map_or(text, |(_, value)| value.trim());
    let plain: String = text.chars().filter(|c| !matches!(c, '{' | '}' | '(' | ')')).collect();
    let plain = plain.replace("\\text", "").replace("\\mathrm", "").replace("\\left", "").replace("\\right", "");
    let (digits, base) = plain.trim_end_matches('.').split_once('_')?;
    let base: u32 = base.parse().ok().filter(|b| (2..=36).contains(b))?;
    let upper = digits.to_ascii_uppercase();
    let fits = upper.chars().all(|c| c == '.' || c.to_digit(36).is_some_and(|d| d < base));
    (fits && upper.starts_with(|c: char| c.is_ascii_digit()) && upper.len() <= 200)
        .then(|| Node::Based(upper.trim_start_matches('0').to_owned(), base))
}

/// Numbers and operations spelled out: `twenty-five`, `3 million`, `two thirds`, `half`, `5 plus 3`, `3 squared`.
fn number_words(tokens: Vec<Token>) -> Vec<Token> {
    let mut out: Vec<Token> = Vec::with_capacity(tokens.len());
    let mut iter = tokens.into_iter().peekable();
    while let Some(token) = iter.next() {
        let Tok::Word(word) = &token.tok else {
            out.push(token);
            continue;
        };
        if let [.., Token { tok: Tok::Num(_), .. }, Token { tok: Tok::Minus, .. }] = out.as_slice()
            && words::fraction(word).is_some()
        {
            out.pop();
        }
        let number = match out.last().map(|t| &t.tok) {
            Some(Tok::Num(n)) => Some(n.value.clone()),
            _ => None,
        };
        let replace = |tok: Tok| Token { tok, space: token.space };
        if let Some(factor) = words::scale(word)
            && number.is_none()
            && matches!(out.last().map(|t| &t.tok), Some(Tok::Close(_) | Tok::Const(_) | Tok::Sym(_) | Tok::Percent))
        {
            out.push(replace(Tok::Times));
            out.push(replace(Tok::Num(Number::integer(factor))));
        } else if let Some(factor) = words::scale(word)
            && let Some(value) = &number
        {
            out.pop();
            out.push(replace(Tok::Num(Number { value: value * RBig::from(factor), decimals: None })));
        } else if let Some(parts) = words::fraction(word)
            && (number.is_some() || word == "half")
        {
            // `a half`, `2 thirds`, `one-half`; `third` alone is an ordinal.
            let value = number.unwrap_or(RBig::ONE) / RBig::from(parts);
            if matches!(out.last().map(|t| &t.tok), Some(Tok::Num(_))) {
                out.pop();
            }
            out.push(replace(Tok::Num(Number { value, decimals: None })));
        } else if let Some(tok) = operation(word) {
            if word == "divided" && iter.peek().is_some_and(|t| matches!(&t.tok, Tok::Word(w) if w == "by")) {
                iter.next();
            }
            out.push(replace(tok));
        } else if let Some(exponent) = [("squared", 2), ("cubed", 3)].iter().find(|(w, _)| w == word).map(|(_, e)| *e) {
            out.push(replace(Tok::Caret));
            out.push(replace(Tok::Num(Number::integer(exponent))));
        } else if words::number(word).is_some() {
            // `one hundred and twenty-five`: as far as words, hyphens and `and` spell one number.
            let mut spelled = vec![word.clone()];
            let mut value = words::spelled(&[word.as_str()]).unwrap_or(0);
            let mut ahead = iter.clone();
            while let Some(next) = ahead.next() {
                match &next.tok {
                    Tok::Word(w) => spelled.push(w.clone()),
                    Tok::Minus | Tok::Join(Join::And) => continue,
                    _ => break,
                }
                let all: Vec<&str> = spelled.iter().map(String::as_str).collect();
                let Some(larger) = words::spelled(&all) else { break };
                value = larger;
                iter = ahead.clone();
            }
            out.push(replace(Tok::Num(Number::integer(value))));
        } else {
            out.push(token);
        }
    }
    out
}

/// The sign that a word stands for.
fn operation(word: &str) -> Option<Tok> {
    Some(match word {
        "plus" => Tok::Plus,
        "minus" | "negative" => Tok::Minus,
        "times" => Tok::Times,
        "over" | "divided" => Tok::Divide,
        _ => return None,
    })
}

/// Without words that do not belong to the value: a lead-in (`only`, `the answer is`, anything up to a colon), and a remark behind it (`for all x`).
fn without_remarks(mut tokens: Vec<Token>) -> Result<Vec<Token>, Fail> {
    // `x = 5 \text{ is even}` and other sentences are not for this reader.
    if tokens.iter().any(|t| matches!(&t.tok, Tok::Word(w) if words::changes_meaning(w))) {
        return Err(Fail::Unknown);
    }
    // `Area: 5`, `面积=5`, but not `2:3`.
    if let Some(colon) = tokens.iter().position(|t| t.tok == Tok::Colon) {
        let head = &tokens[..colon];
        if !head.is_empty()
            && head.iter().any(|t| matches!(t.tok, Tok::Word(_)))
            && head.iter().all(|t| matches!(t.tok, Tok::Word(_) | Tok::Sym(_)))
        {
            tokens.drain(..=colon);
        }
    }
    let lead = tokens.iter().take_while(|t| matches!(&t.tok, Tok::Word(w) if words::is_noise(w))).count();
    if lead > 0 && lead < tokens.len() {
        tokens.drain(..lead);
    }
    // What is left is a value, not a sentence about one.
    if tokens.iter().any(|t| matches!(&t.tok, Tok::Word(w) if matches!(w.as_str(), "is" | "are" | "was" | "be" | "has" | "we" | "it"))) {
        return Err(Fail::Unknown);
    }
    // A remark about the whole answer begins with one of its words outside of all brackets, and nothing but the remark follows.
    let mut depth = 0usize;
    let mut cut = None;
    for (i, token) in tokens.iter().enumerate() {
        match &token.tok {
            Tok::Open(_) | Tok::Begin(_) => depth += 1,
            Tok::Close(_) | Tok::End => depth = depth.saturating_sub(1),
            Tok::Word(word) if depth == 0 && i > 0 && words::begins_remark(word) => {
                cut = Some(i);
                break;
            }
            _ => {}
        }
    }
    if let Some(mut i) = cut {
        let rest = &tokens[i + 1..];
        let goes_on = rest.iter().any(|t| {
            matches!(&t.tok, Tok::Join(_) | Tok::Row | Tok::Rel(Rel::Eq))
                || matches!(&t.tok, Tok::Word(w) if words::begins_remark(w) || words::is_case(w))
        });
        if goes_on {
            return Err(Fail::Unknown);
        }
        // `5, where x > 0`: the comma goes too.
        while i > 0 && matches!(tokens[i - 1].tok, Tok::Join(_)) {
            i -= 1;
        }
        if i > 0 {
            tokens.truncate(i);
        }
    }
    Ok(tokens)
}

/// The letter of a multiple-choice answer, and what stands behind it: `C`, `(C)`, `\textbf{(C)}\ 42`, `C. 42`, `C) 42`.
pub(super) fn choice(text: &str) -> Option<(char, &str)> {
    let mut rest = text.trim().trim_start_matches(['$', '*', ' ', '{']);
    let mut braces = 0;
    loop {
        let before = rest.len();
        rest = rest.trim_start();
        for command in ["\\textbf", "\\text", "\\mathrm", "\\mathbf", "\\textrm", "\\mbox", "\\textit", "\\left", "\\boxed"] {
            if let Some(r) = rest.strip_prefix(command)
                && r.trim_start().starts_with(['{', '('])
            {
                rest = r.trim_start();
            }
        }
        if let Some(r) = rest.strip_prefix('{') {
            rest = r;
            braces += 1;
        }
        if rest.len() == before {
            break;
        }
    }
    for name in ["Option ", "option ", "Choice ", "choice ", "Answer ", "选项"] {
        rest = rest.strip_prefix(name).unwrap_or(rest).trim_start();
    }
    let inside = rest.strip_prefix('(').map(str::trim_start);
    let letter = inside.unwrap_or(rest).chars().next().filter(|c| ('A'..='J').contains(&c.to_ascii_uppercase()))?;
    let small = letter.is_ascii_lowercase();
    let mut behind = &inside.unwrap_or(rest)[1..];
    behind = behind.trim_start().strip_prefix("\\right").unwrap_or(behind);
    let marked = match inside {
        Some(_) => {
            behind = behind.trim_start().strip_prefix(')')?;
            true
        }
        None => match behind.strip_prefix('}').filter(|_| braces > 0).unwrap_or(behind).strip_prefix([')', '.', '：', '、', '。']) {
            Some(b) => {
                behind = b;
                true
            }
            None => false,
        },
    };
    for _ in 0..braces {
        behind = behind.trim_start().strip_prefix('}').unwrap_or(behind);
    }
    // `C: 12`, but `a:b` is a ratio.
    let marked = marked || behind.starts_with(": ");
    let behind = behind.trim_matches(|c: char| c.is_whitespace() || matches!(c, '$' | '.' | '*' | '}' | '\\' | ':' | '~'));
    // A bare letter with something behind it is an expression, unless a mark says that it is a choice; so is a small one in brackets.
    let expression = behind.starts_with(['+', '-', '−', '*', '^', '/', '=', '!', '_', '\'', '<', '>', '(', '|', '·', '×', '{'])
        || (small && !behind.is_empty());
    let more = behind.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '&' | '('));
    let more = ["or ", "and ", "or(", "and("].iter().find_map(|w| more.strip_prefix(w)).unwrap_or(more);
    // `(C) or (D)` chooses nothing.
    let another = more.trim_start_matches([' ', '(']).chars().next().is_some_and(|c| ('A'..='J').contains(&c))
        && !more.trim_start_matches([' ', '(']).chars().nth(1).is_some_and(char::is_alphanumeric);
    ((marked && !expression && !another) || behind.is_empty()).then_some((letter.to_ascii_uppercase(), behind))
}

/// A reading of `1,22` as a decimal with a comma, where the text is nothing else.
pub(super) fn decimal_comma(text: &str) -> Option<Node> {
    let plain = text.trim().trim_matches('$').trim();
    let (whole, fraction) = plain.split_once(',')?;
    let (sign, whole) = whole.strip_prefix('-').map_or((1, whole), |w| (-1, w));
    let digits = |s: &str| !s.is_empty() && s.len() < 30 && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (fraction.len() == 3 && !whole.starts_with('0')) || (fraction.len() == 1 && whole != "0") {
        return None;
    }
    let all: dashu_int::IBig = format!("{whole}{fraction}").parse().ok()?;
    let value = RBig::from_parts(all * sign, dashu_int::UBig::from(10u8).pow(fraction.len()));
    Some(Node::rational(value))
}
