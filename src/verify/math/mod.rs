//! Mathematical equivalence: whether an answer means the same as the reference, and why not.
//!
//! Text is cut into tokens (`lex`), read into a tree (`parse`), and compared by shape (`compare`) down to quantities (`numeric`): exactly
//! where both are rational, by identity in two finite fields, then in high precision with error bounds. All work is counted in fuel, never timed, so
//! a verdict is the same on every machine; what cannot be decided within the fuel is `Undecided`, never equal. The decisions on what counts as equal
//! are listed in `verify/README.md`.

mod ball;
mod commands;
mod compare;
mod exact;
mod fingerprint;
mod letters;
mod lex;
mod matrix;
mod members;
mod node;
mod number;
mod numeric;
mod parse;
mod quantity;
mod read;
mod region;
mod relation;
mod units;
mod words;

pub(super) use words::is_uncertain;

use read::choice;

use node::Node;

/// Longest text that is read, in bytes.
pub(super) const MAX_TEXT: usize = 8192;
/// Most tokens of an answer.
const MAX_TOKENS: usize = 4096;
/// Deepest nesting of brackets and arguments.
const MAX_DEPTH: usize = 160;
/// Deepest tree; chains of signs (`1/1/1/…`) are deep without nesting.
const MAX_NODE_DEPTH: usize = 400;
/// Work that one comparison may take; a node visited costs 1 or more.
const FUEL: u64 = 300_000;

/// Why a text has no tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fail {
    Empty,
    TooLarge,
    TooDeep,
    Unknown,
}

impl Fail {
    fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooLarge => "too_large",
            Self::TooDeep => "too_deep",
            Self::Unknown => "not_understood",
        }
    }
}

/// Why an expression has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum No {
    /// 1/0, ln 0, ∞ - ∞.
    Undefined,
    /// Not of this kind.
    Unsupported,
    /// Too large.
    Fuel,
}

/// Work that is left.
struct Fuel {
    left: u64,
    /// How many comparisons are open inside of each other.
    level: u32,
    /// The smallest and the largest size (power of 2) of the values that evaluation met.
    sizes: (i64, i64),
    /// A value that is not real ends an evaluation: the point is outside of the domain.
    real: bool,
}

impl Fuel {
    fn new(amount: u64) -> Self {
        Self { left: amount, level: 0, sizes: (0, 0), real: false }
    }

    fn spend(&mut self, amount: u64) -> Result<(), No> {
        match self.left.checked_sub(amount) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.left = 0;
                Err(No::Fuel)
            }
        }
    }
}

/// How an answer compares with the reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Equal,
    /// Why they differ, as a rule's name.
    Different(&'static str),
    /// Why that could not be told.
    Undecided(&'static str),
}

/// A reference, read once.
#[derive(Clone, Debug)]
pub struct Reference {
    text: String,
    /// The readings that count as the reference, the first one as written.
    readings: Vec<Node>,
    fail: Option<Fail>,
}

impl Reference {
    /// Reads a reference: the text of an answer as data sets write it, with or without `$` and `\boxed{}`.
    pub fn read(text: &str) -> Self {
        let inside = boxed(text, true);
        let (readings, fail) = match readings(&inside, true) {
            Ok(readings) => (readings, None),
            Err(fail) => (Vec::new(), Some(fail)),
        };
        Self { text: inside, readings, fail }
    }

    /// Why the reference could not be read; such a reference matches its own text only.
    pub fn unreadable(&self) -> Option<&'static str> {
        self.fail.map(Fail::name)
    }

    /// Whether the reference is words.
    pub fn is_words(&self) -> bool {
        matches!(self.readings.first(), Some(Node::Text(_)))
    }

    /// The letter, if the reference is one of a multiple choice.
    pub fn choice(&self) -> Option<char> {
        choice(&self.text).map(|(letter, _)| letter)
    }

    /// Compares an answer with the reference.
    pub fn compare(&self, answer: &str) -> Outcome {
        let answer = boxed(answer, false);
        let chosen = choice(&self.text).filter(|_| self.text.contains(|c: char| c.is_ascii_uppercase()));
        if let (Some((gold, value)), Some((found, own))) = (chosen, choice(&answer)) {
            // With values on both sides, the values are compared as well.
            let one_bare = value.is_empty() || own.is_empty();
            if gold == found && (one_bare || Self::read(value).compare(own) == Outcome::Equal) {
                return Outcome::Equal;
            }
            if gold != found && one_bare {
                return Outcome::Different("different_choice");
            }
        }
        if self.fail.is_some() {
            return match plain(&self.text) == plain(&answer) && !plain(&answer).is_empty() {
                true => Outcome::Equal,
                false => Outcome::Undecided("reference_not_understood"),
            };
        }
        let mut found = match readings(&answer, false) {
            Ok(found) => found,
            Err(_) if plain(&self.text) == plain(&answer) => return Outcome::Equal,
            Err(Fail::Empty) => return Outcome::Different("empty_answer"),
            Err(fail) => return Outcome::Undecided(fail.name()),
        };
        let mut fuel = Fuel::new(FUEL);
        let mut result = Outcome::Undecided("cannot_decide");
        if let (Some(gold), Some(pred)) = (self.readings.first(), found.first())
            && let Some(renamed) = compare::with_parameter_of(gold, pred)
        {
            found.push(renamed);
        }
        for (i, gold) in self.readings.iter().enumerate() {
            for (j, pred) in found.iter().enumerate() {
                match compare::same(gold, pred, &mut fuel) {
                    numeric::Equal::Yes => return Outcome::Equal,
                    numeric::Equal::No if i == 0 && j == 0 => result = Outcome::Different(compare::why(gold, pred)),
                    numeric::Equal::No | numeric::Equal::Unknown => {}
                }
            }
        }
        // A value behind the letter of a choice counts as well: `(C) 42` against 42.
        if let Some((_, value)) = choice(&answer)
            && !value.is_empty()
            && self.choice().is_none()
            && value.len() < answer.len()
        {
            return self.compare(value);
        }
        result
    }
}

/// Whether a text can be read as an answer with at most `words` words in it that belong to no mathematics.
pub(super) fn is_answer(text: &str, words: usize) -> bool {
    let text = text.trim();
    !text.is_empty() && read::words_in_place(text, words) && read::read(text).is_ok_and(|node| !matches!(node, Node::Text(_)))
}

/// What is inside of the last box, or of the last boxes that belong together; the text itself where there is none. `cut`: a box need not close.
fn boxed(text: &str, cut: bool) -> String {
    let boxes = crate::response::boxes(text);
    if let Some(joined) = super::extract::joined_boxes(text, &boxes) {
        return joined;
    }
    let inside = match boxes.last() {
        Some((start, end)) => &text[*start..*end],
        // A box that was cut off.
        None if cut => text.trim().trim_start_matches('\\').strip_prefix("boxed{").unwrap_or(text),
        None => text,
    };
    inside.trim().to_owned()
}

/// All readings of a text; a reference is also met by the approximations that it gives itself.
fn readings(text: &str, reference: bool) -> Result<Vec<Node>, Fail> {
    let first = read::read(text);
    let mut readings: Vec<Node> = Vec::new();
    let mut fail = Fail::Unknown;
    match first {
        Ok(node) => {
            readings.push(compare::settled(&node));
            if reference {
                readings.extend(compare::approximations(&node));
            }
        }
        Err(e) => fail = e,
    }
    readings.extend(read::decimal_comma(text));
    if readings.is_empty() { Err(fail) } else { Ok(readings) }
}

/// A text without spaces and typesetting, for equality of what cannot be read.
fn plain(text: &str) -> String {
    let text = text
        .replace("\\left", "")
        .replace("\\right", "")
        .replace("\\dfrac", "\\frac")
        .replace("\\tfrac", "\\frac")
        .replace("\\displaystyle", "");
    let text = ["\\,", "\\!", "\\;", "\\ ", "\\:", "$", "\\quad"].iter().fold(text, |t, mark| t.replace(mark, ""));
    text.chars().filter(|c| !c.is_whitespace()).collect::<String>().trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests;
