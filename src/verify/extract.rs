//! Where in a response the answer stands. It does not know whether the answer is right.

use super::{excerpt, math, number};
use crate::problem::is_han;
use crate::response::Response;
use crate::trace::Reason;
use serde::{Deserialize, Serialize};

/// Longest answer that is looked at, in bytes; beyond that it counts as none.
const MAX_ANSWER: usize = 4096;

/// How hard to look for an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Extraction {
    /// Only an answer that is marked as one: the last `\boxed{…}`, else the last `<answer>…</answer>`, else the last `#### number`.
    #[default]
    Strict,
    /// After those: what follows `the answer is` and its like, an answer part that is nothing but an answer, the last mathematics, the last number.
    Flexible,
}

/// The rule by which an answer was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RuleUsed {
    Boxed,
    AnswerTag,
    Hashes,
    /// Behind words such as `the answer is`.
    Stated,
    LastMath,
    LastNumber,
    /// The whole answer part, for answers that are sentences or nothing but the answer.
    AnswerPart,
}

/// An answer as it stands in the response, trimmed and not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extracted<'a> {
    pub text: &'a str,
    pub by: RuleUsed,
    /// Byte range of `text` in the response.
    pub span: (usize, usize),
}

/// The answer that is marked by a box, else by an answer tag; the error is the reason why there is none.
pub(super) fn explicit<'a>(response: &Response<'a>) -> Result<Extracted<'a>, Reason> {
    marked(response)?.ok_or_else(|| Reason::rule("no_answer"))
}

/// As `explicit`; without a mark, flexible extraction takes the whole answer part.
pub(super) fn explicit_or_all<'a>(response: &Response<'a>, extraction: Extraction) -> Result<Extracted<'a>, Reason> {
    match (marked(response)?, extraction) {
        (Some(found), _) => Ok(found),
        (None, Extraction::Strict) => Err(Reason::rule("no_answer")),
        (None, Extraction::Flexible) => extracted(response, response.answer, RuleUsed::AnswerPart),
    }
}

/// Where an answer that is a text may stand: at the mark alone, or without one (flexible) what is stated in words, and the whole answer part.
pub(super) fn text<'a>(response: &Response<'a>, extraction: Extraction) -> Result<Vec<Extracted<'a>>, Reason> {
    if let Some(found) = marked(response)? {
        return Ok(vec![found]);
    }
    if extraction == Extraction::Strict {
        return Err(Reason::rule("no_answer"));
    }
    let stated = stated_sentence(response.answer).and_then(|text| extracted(response, text, RuleUsed::Stated).ok());
    match (stated, extracted(response, response.answer, RuleUsed::AnswerPart)) {
        (Some(stated), whole) => Ok([Some(stated), whole.ok()].into_iter().flatten().collect()),
        (None, whole) => Ok(vec![whole?]),
    }
}

/// The answer to a question for a number or an expression: marked, after `####`, or (flexible) stated in words, the last mathematics, the last number.
pub(super) fn expression<'a>(response: &Response<'a>, extraction: Extraction) -> Result<Extracted<'a>, Reason> {
    if let Some(found) = marked(response)? {
        return Ok(found);
    }
    if let Some(text) = hashes(response.answer) {
        return extracted(response, text, RuleUsed::Hashes);
    }
    if extraction == Extraction::Strict {
        return Err(Reason::rule("no_answer"));
    }
    let text = response.answer;
    let found = stated(text)
        .map(|found| (found, RuleUsed::Stated))
        .or_else(|| Some((whole(text)?, RuleUsed::AnswerPart)))
        .or_else(|| Some((last_math(text)?, RuleUsed::LastMath)))
        .or_else(|| Some((last_number(text)?, RuleUsed::LastNumber)));
    match found {
        Some((found, by)) => extracted(response, found, by),
        None => Err(Reason::rule("no_answer")),
    }
}

/// The insides of the last `boxes` of a text that belong together, with commas between them; `None` if the last box stands alone.
///
/// Boxes belong together if little stands between them: a connective, a name, marks of mathematics, but no end of a sentence and no second thought.
pub(super) fn joined_boxes(text: &str, boxes: &[(usize, usize)]) -> Option<String> {
    let (mut start, end) = *boxes.last()?;
    let mut parts = vec![&text[start..end]];
    for (from, to) in boxes.iter().rev().skip(1) {
        let between = text.get(to + 1..start).unwrap_or("");
        let between = between.rfind('\\').map_or(between, |at| &between[..at]);
        if *to >= start || !is_joint(between) || parts.len() > 32 {
            break;
        }
        parts.push(&text[*from..*to]);
        start = *from;
    }
    parts.reverse();
    (parts.len() > 1).then(|| parts.join(", "))
}

fn is_joint(between: &str) -> bool {
    let lower = between.to_lowercase();
    between.len() <= 60
        && !between.contains("\n\n")
        && ![". ", ".\n", "? ", "! ", "。"].iter().any(|end| between.contains(end))
        && !["wait", "no,", "not", "actually", "correct", "wrong", "but", "instead", "sorry"].iter().any(|word| lower.contains(word))
}

fn marked<'a>(response: &Response<'a>) -> Result<Option<Extracted<'a>>, Reason> {
    if response.think_open {
        return Err(Reason::rule("think_open"));
    }
    match (response.boxed(), response.tag("answer")) {
        (Some(text), _) => extracted(response, text, RuleUsed::Boxed).map(Some),
        (None, Some(text)) => extracted(response, text, RuleUsed::AnswerTag).map(Some),
        (None, None) => Ok(None),
    }
}

fn extracted<'a>(response: &Response<'a>, text: &'a str, by: RuleUsed) -> Result<Extracted<'a>, Reason> {
    let text = text.trim();
    // All parts of a response are slices of its text, so the distance between the two starts is the offset.
    let start = (text.as_ptr() as usize).saturating_sub(response.text.as_ptr() as usize);
    let span = (start, start + text.len());
    if text.is_empty() {
        return Err(Reason { span: Some(span), ..Reason::rule("empty_answer") });
    }
    if text.len() > MAX_ANSWER {
        return Err(Reason { span: Some(span), ..Reason::measured("answer_too_long", text.len(), MAX_ANSWER) });
    }
    Ok(Extracted { text, by, span })
}

/// What follows the last `####` of a line that ends in an answer with a digit: GSM8K's mark. Headings of Markdown have four hashes too, hence the test.
fn hashes(text: &str) -> Option<&str> {
    text.rsplit('\n').find_map(|line| {
        let rest = &line[line.rfind("####")? + 4..];
        let short = rest.len() <= MAX_ANSWER && rest.contains(|c: char| c.is_ascii_digit());
        (short && (number::plain(rest).is_some() || math::is_answer(rest, 3))).then_some(rest)
    })
}

/// Words that announce an answer, in lower case.
const ANNOUNCEMENTS: [&str; 22] = [
    "answer is",
    "answer:",
    "answer :",
    "answer is:",
    "answer =",
    "answers are",
    "答案是",
    "答案为",
    "答案：",
    "答案:",
    "答：",
    "réponse est",
    "réponse :",
    "réponse:",
    "respuesta es",
    "respuesta:",
    "antwort ist",
    "antwort:",
    "antwort lautet",
    "ответ:",
    "ответ —",
    "ответ -",
];

/// How far from the end of an answer part words that announce an answer are looked for, in bytes.
const TAIL: usize = 16 << 10;

/// The end of a long text.
fn tail(text: &str) -> &str {
    let start = text.len().saturating_sub(TAIL);
    let start = (start..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    &text[start..]
}

/// The longest sentence behind an announcement, in bytes.
const MAX_STATED: usize = 400;

/// What is stated behind the last announcement: the sentence as far as it is an answer, or what it says that something is; else its mathematics, else its first number.
fn stated(text: &str) -> Option<&str> {
    let text = tail(text);
    let lower = text.to_lowercase();
    // Lower case may change lengths; then the positions would not fit.
    let lower = if lower.len() == text.len() { lower } else { text.to_ascii_lowercase() };
    let at = ANNOUNCEMENTS.iter().filter_map(|mark| lower.rfind(mark).map(|at| at + mark.len())).max()?;
    let rest = text.get(at..)?.trim_start_matches([':', ' ', '：', '*', '\n']);
    let rest = &rest[..floor(rest, MAX_STATED)];
    let alone = |inside: &str| {
        let behind =
            rest[inside.as_ptr() as usize - rest.as_ptr() as usize + inside.len()..].trim_start_matches(['$', '\\', ')', ']', ' ', '*']);
        !["or ", "and ", ", ", "; "].iter().any(|joint| behind.starts_with(joint))
    };
    if let Some((_, inside)) =
        first_math(rest).filter(|(before, inside)| before.trim().is_empty() && math::is_answer(inside, 2) && alone(inside))
    {
        return Some(inside);
    }
    let line = rest.split('\n').next()?;
    let sentence = [". ", "。", " because", " since"].iter().filter_map(|end| line.find(end)).min().map_or(line, |end| &line[..end]);
    let sentence = sentence.trim().trim_end_matches(['.', '*', '!', '。']).trim_start_matches('*');
    if math::is_answer(sentence, 2) {
        return Some(sentence);
    }
    if is_hedged(sentence) {
        return Some(sentence);
    }
    if let Some(said) = [" is ", " are ", " be ", "是", "为"].iter().filter_map(|verb| sentence.rfind(verb).map(|at| at + verb.len())).max()
    {
        let said = sentence[said..].trim();
        if math::is_answer(said, 2) {
            return Some(said);
        }
    }
    first_math(sentence)
        .map(|(_, inside)| inside)
        .filter(|inside| math::is_answer(inside, 2))
        .map(|inside| with_words_before(sentence, inside))
        .or_else(|| first_number(sentence))
}

/// Whether a sentence gives its value under conditions, among others, or not at all.
fn is_hedged(sentence: &str) -> bool {
    sentence.split(|c: char| !c.is_alphabetic()).any(|word| {
        let word = word.to_lowercase();
        matches!(word.as_str(), "if" | "or" | "either" | "unless") || math::is_uncertain(&word)
    })
}

/// Places where words that answer a question may stand alone: the last mathematics, the last words in bold, the first clause.
pub(super) fn word_places(text: &str) -> Vec<&str> {
    let between = |open: &str, close: &str| -> Option<&str> {
        let end = text.rfind(close)?;
        let start = text[..end].rfind(open)? + open.len();
        text.get(start..end)
    };
    let first = text.trim_start().split([',', '.', '\n', '!']).next();
    let marked = [("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**")];
    marked.iter().filter_map(|(open, close)| between(open, close)).chain(first).filter(|place| place.len() <= 100).collect()
}

/// The sentence behind the last announcement, without marks of mathematics around it.
pub(super) fn stated_sentence(text: &str) -> Option<&str> {
    let text = tail(text);
    let lower = text.to_ascii_lowercase();
    let at = ANNOUNCEMENTS.iter().filter_map(|mark| lower.rfind(mark).map(|at| at + mark.len())).max()?;
    let rest = &text[at..];
    let rest = &rest[..floor(rest, MAX_STATED)];
    let line = rest.trim_start_matches([':', ' ', '：', '*', '\n']).split('\n').next()?;
    let end = [". ", "。", "; "].iter().filter_map(|end| line.find(end)).min().unwrap_or(line.len());
    let mut sentence = line[..end].trim().trim_end_matches(['.', '*', '!', '。', '$']).trim_start_matches(['*', '$']);
    sentence = sentence.strip_prefix("\\(").unwrap_or(sentence);
    Some(sentence.strip_suffix("\\)").unwrap_or(sentence).trim())
}

/// At most `limit` bytes, at a boundary of characters.
fn floor(text: &str, limit: usize) -> usize {
    (0..=limit.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The text before the first mathematics, and its inside.
fn first_math(text: &str) -> Option<(&str, &str)> {
    let (at, open, close) = [("\\(", "\\)"), ("\\[", "\\]"), ("$$", "$$"), ("$", "$")]
        .iter()
        .filter_map(|(open, close)| text.find(open).map(|at| (at, *open, *close)))
        .min_by_key(|(at, open, _)| (*at, std::cmp::Reverse(open.len())))?;
    let inside = &text[at + open.len()..];
    Some((&text[..at], &inside[..inside.find(close)?]))
}

/// The first word with a digit in it; `5th` is none.
fn first_number(text: &str) -> Option<&str> {
    let at = first_digit(text)?;
    let start = text[..at]
        .rfind(|c: char| !matches!(c, '-' | '−' | '$' | '.'))
        .map_or(0, |i| i + text[i..].chars().next().map_or(1, char::len_utf8));
    let end = at + text[at..].find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | ',' | '/' | '%' | ':'))).unwrap_or(text.len() - at);
    let end = at + text[at..end].trim_end_matches(['.', ',', ':']).len();
    Some(with_words_before(text, listed(text, start, end)))
}

/// Where the first run of digits begins that is no ordinal.
fn first_digit(text: &str) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + text[from..].find(|c: char| c.is_ascii_digit())?;
        let end = at + text[at..].find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len() - at);
        if !["st", "nd", "rd", "th"].iter().any(|ending| starts_with_word(&text[end..], ending)) {
            return Some(at);
        }
        from = end;
    }
}

/// `found`, or with the words directly before it that make another value of it: `not 5`, `minus 5`, `half of 10`.
fn with_words_before<'a>(text: &'a str, found: &'a str) -> &'a str {
    let start = found.as_ptr() as usize - text.as_ptr() as usize;
    let before = text[..start].trim_end();
    let mut words = before.rsplit(|c: char| !(c.is_alphabetic() || c == '\'')).filter(|w| !w.is_empty()).take(3);
    let changing = |word: &str| {
        matches!(
            word.to_lowercase().as_str(),
            "not"
                | "isn't"
                | "cannot"
                | "can't"
                | "couldn't"
                | "isn"
                | "never"
                | "over"
                | "divided"
                | "minus"
                | "negative"
                | "least"
                | "most"
                | "than"
                | "except"
                | "half"
                | "third"
                | "quarter"
                | "cube"
                | "square"
                | "twice"
                | "double"
                | "triple"
                | "root"
        )
    };
    // `> 5` is no value, and `5 is not the answer` none either.
    let sign = before.chars().next_back().filter(|c| matches!(c, '<' | '>' | '≤' | '≥' | '≠' | '~'));
    if let Some(sign) = sign {
        return &text[before.len() - sign.len_utf8()..start + found.len()];
    }
    let behind = &text[start + found.len()..];
    let sentence = &behind[..behind.find(['.', '\n', ';']).unwrap_or(behind.len()).min(floor(behind, 60))];
    if [" not ", " wrong", " incorrect", "n't "].iter().any(|no| sentence.contains(no)) {
        return &text[start..start + found.len() + sentence.len()];
    }
    let near = before.len().saturating_sub(30);
    let Some(word) = words.find(|word| changing(word)) else { return found };
    let at = word.as_ptr() as usize - text.as_ptr() as usize;
    // Only within the same sentence, and close by.
    if at < near || text[at..start].contains(['.', '\n', ';', '=']) { found } else { &text[at..start + found.len()] }
}

/// A number with those that stand in one list with it: `10, 11, 12`, `12 or 13`.
fn listed(text: &str, mut start: usize, mut end: usize) -> &str {
    let numeric = |word: &str| number::plain(word).is_some();
    for _ in 0..64 {
        let before = text[..start].trim_end_matches(' ');
        let Some(rest) = [",", " or", " and", " oder", " ou", "、", "或"].iter().find_map(|mark| before.strip_suffix(mark)) else {
            break;
        };
        let rest = rest.trim_end_matches([' ', ',']);
        let from = word_start(rest, rest.len());
        if !numeric(&rest[from..]) {
            break;
        }
        start = from;
    }
    for _ in 0..64 {
        let rest = &text[end..];
        let Some(after) = [", or ", ", and ", ", ", " or ", " and ", "、", "或", ","].iter().find_map(|mark| rest.strip_prefix(mark))
        else {
            break;
        };
        let word = &after[..after.find(|c: char| is_break(c) || matches!(c, ',' | '、')).unwrap_or(after.len())];
        if !numeric(word.trim_end_matches('.')) {
            break;
        }
        end = text.len() - after.len() + word.trim_end_matches('.').len();
    }
    &text[start..end]
}

/// The answer part, if it is nothing but an answer.
fn whole(text: &str) -> Option<&str> {
    let text = text.trim();
    (text.len() <= MAX_STATED && math::is_answer(text, 0)).then_some(text)
}

/// The inside of the last mathematics that is an answer by itself; only the last few are looked at.
fn last_math(text: &str) -> Option<&str> {
    let mut end = text.len();
    for _ in 0..4 {
        let (close, mark) =
            [("\\)", "\\("), ("\\]", "\\["), ("$", "$")].iter().filter_map(|(c, o)| text[..end].rfind(c).map(|at| (at, *o))).max()?;
        let inner = text[..close].trim_end_matches('$');
        // A dollar sign that opened nothing is a sign of money.
        let open = inner.rfind(mark)?;
        let inside = &inner[open + mark.len()..];
        // Between two sums of money is no mathematics: `$60 = $400`.
        let money = mark == "$"
            && (inside.starts_with(' ') != inside.ends_with(' ')
                || text[close + 1..].starts_with(|c: char| c.is_ascii_digit() || c == '<'));
        if inside.len() <= MAX_STATED && !money && math::is_answer(inside, 2) {
            return Some(with_words_before(text, inside));
        }
        end = if mark == "$" { text[..open].trim_end_matches('$').len() } else { open };
    }
    None
}

/// The last mathematics together with that before it, where only a connective stands between: `$x = 1$ and $x = 2$`. `None` where the last stands alone.
pub(super) fn joined_math(text: &str) -> Option<&str> {
    let last = last_math(text)?;
    let begin = last.as_ptr() as usize - text.as_ptr() as usize;
    let mut start = begin;
    for _ in 0..32 {
        let before = text[..start].trim_end_matches(['$', '(', '[', '\\']).trim_end();
        let Some(rest) = [" and", " or", ", and", ", or", ","].iter().find_map(|joint| before.strip_suffix(joint)) else { break };
        let rest = rest.trim_end_matches(',').trim_end();
        let Some(inner) = rest.strip_suffix("\\)").or_else(|| rest.strip_suffix('$')) else { break };
        let Some(open) = (if rest.ends_with('$') { inner.rfind('$').map(|at| at + 1) } else { inner.rfind("\\(").map(|at| at + 2) }) else {
            break;
        };
        if inner.len() - open > MAX_STATED {
            break;
        }
        start = open;
    }
    (start < begin).then(|| &text[start..begin + last.len()])
}

/// The letter of a multiple choice in a sentence: behind an announcement, in brackets, or the first that stands alone.
pub(super) fn choice(text: &str) -> Option<char> {
    let text = tail(text);
    let lower = text.to_ascii_lowercase();
    let from = ANNOUNCEMENTS.iter().filter_map(|mark| lower.rfind(mark).map(|at| at + mark.len())).max().unwrap_or(0);
    let letters = |text: &str| -> Vec<(char, bool)> {
        let chars: Vec<char> = text.chars().take(2000).collect();
        let alone = |i: usize| {
            let apart = |c: Option<&char>| c.is_none_or(|c| !c.is_alphanumeric() || !c.is_ascii());
            apart(i.checked_sub(1).and_then(|j| chars.get(j))) && apart(chars.get(i + 1)) && chars.get(i + 1) != Some(&'\'')
        };
        let bracketed = |i: usize| i > 0 && chars[i - 1] == '(' && chars.get(i + 1) == Some(&')');
        (0..chars.len()).filter(|i| ('A'..='J').contains(&chars[*i]) && alone(*i)).map(|i| (chars[i], bracketed(i))).collect()
    };
    let found = letters(text.get(from..)?);
    // "I" is mostly a person and "A" mostly an article, unless the text begins with it.
    let bracketed = found.iter().rfind(|(_, b)| *b).map(|(c, _)| *c);
    let first = found.iter().find(|(c, _)| *c != 'I').map(|(c, _)| *c);
    let chosen = if from > 0 { first } else { bracketed.or(first) }?;
    // `C or D`, `C/D`, `not C` choose nothing.
    let (before, behind) = text[from..].split_once(chosen).unwrap_or(("", ""));
    let behind = behind.trim_start_matches([')', ' ', ',', '*', '(', '/', '?', '&', ';']);
    let other =
        ["or ", "and ", "nor ", "or(", "and(", "No, ", "no, "].iter().find_map(|joint| behind.strip_prefix(joint)).unwrap_or(behind);
    let other = other.trim_start_matches(['(', ' ', '*']);
    let another =
        other.starts_with(|c: char| ('A'..='J').contains(&c)) && !other[1..].starts_with(|c: char| c.is_alphanumeric() || c == '\'');
    let denied = before.split(|c: char| !(c.is_alphabetic() || c == '\'')).rev().filter(|w| !w.is_empty()).take(4).any(|word| {
        matches!(
            word.to_lowercase().as_str(),
            "not" | "neither" | "cannot" | "can't" | "isn't" | "exclude" | "except" | "never" | "eliminate" | "unlike"
        )
    });
    let hedged = another || denied;
    (!hedged).then_some(chosen)
}

/// The last word with a digit in it, together with what belongs to its value: an operand before it, a percent sign or a scale after it.
///
/// So the last number of `1/2`, `10 - 5` or `5 million` is not taken out of its expression; the number rule then leaves the whole undecided.
fn last_number(text: &str) -> Option<&str> {
    let digit = text.rfind(|c: char| c.is_ascii_digit())?;
    let end = digit + text[digit..].find(is_break).unwrap_or(text.len() - digit);
    let after = text[end..].trim_start_matches(' ');
    // The 5th root of something is not 5.
    let scale = number::SCALES.iter().chain(&["root", "power"]).find(|scale| starts_with_word(after, scale));
    let end = scale.map_or(end, |scale| text.len() - after.len() + scale.len());
    let start = with_operand(text, word_start(text, digit));
    let word = text[start..end].trim_matches(|c| "\"'*_`()[],;:!?".contains(c)).trim_end_matches(['.', '*']);
    let at = word.as_ptr() as usize - text.as_ptr() as usize;
    let word = listed(text, at, at + word.len());
    let word = with_words_before(text, word);
    match word.rsplit_once('=') {
        Some((left, value)) if !left.ends_with(['<', '>', '!']) => Some(value),
        _ => Some(word),
    }
}

/// `start`, or where the operand before it begins if an operator on the same line joins the two; a list's bullet is no operator.
fn with_operand(text: &str, start: usize) -> usize {
    let before = text[..start].trim_end_matches(' ');
    let word = &before[word_start(before, before.len())..];
    let left = before[..before.len() - word.len()].trim_end_matches(' ');
    let bullet = matches!(word, "-" | "*" | "+") && (left.is_empty() || left.ends_with('\n'));
    let joined = word
        .strip_suffix(|c| "+-−*/×÷·:".contains(c))
        .is_some_and(|w| w.is_empty() || w.ends_with(|c: char| c.is_ascii_digit() || c == ')'));
    let latex = word.starts_with('\\') || word.ends_with(['{', '^', '_']);
    if !bullet && (joined || latex) { word_start(left, left.len()) } else { start }
}

/// Where the word that ends at or goes through `at` begins.
fn word_start(text: &str, at: usize) -> usize {
    text[..at].char_indices().rev().find(|(_, c)| is_break(*c)).map_or(0, |(i, c)| i + c.len_utf8())
}

/// White space, Han characters, and the punctuation used with them.
fn is_break(c: char) -> bool {
    c.is_whitespace() || is_han(c) || matches!(c, '\u{3000}'..='\u{303f}' | '\u{ff00}'..='\u{ffef}')
}

/// Whether `text` opens with `word`, case ignored, and no letter goes on from it.
fn starts_with_word(text: &str, word: &str) -> bool {
    let opens = text.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word));
    opens && (!word.is_ascii() || !text[word.len()..].starts_with(|c: char| c.is_ascii_alphabetic()))
}

impl Extracted<'_> {
    /// `reason` with the place of this answer.
    pub(super) fn points(&self, reason: Reason) -> Reason {
        Reason { span: Some(self.span), ..reason }
    }

    /// A short copy for verdicts.
    pub(super) fn excerpt(&self) -> String {
        excerpt(self.text)
    }
}
