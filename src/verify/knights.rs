//! Knights and Knaves: who is said to be what. The parsing rule is Logic-RL's (its `kk.py`): one role per person, as `X is a knight`.

use super::extract::Extracted;
use crate::trace::{Reason, Verdict};

/// Judges a full assignment; an answer that does not give every person exactly one role is none.
///
/// Names and roles are matched without regard to case; emphasis marks between the words are ignored.
pub(super) fn judge(names: &[String], knights: &[bool], found: &Extracted) -> Result<Verdict, Reason> {
    let text = found.text.to_lowercase();
    let words: Vec<&str> = words(&text).collect();
    let roles = words.iter().filter(|word| role(word).is_some()).count();
    if roles != names.len() {
        return Err(found.points(Reason::measured("roles_stated", roles, names.len())));
    }
    let claims: Option<Vec<bool>> = names.iter().map(|name| claim(&words, &name.to_lowercase())).collect();
    let Some(claims) = claims else {
        return Err(found.points(Reason::rule("person_without_role")));
    };
    let answer = crate::problem::Answer::Knights { names: names.to_vec(), knights: claims.clone() }.gold();
    let right = claims.iter().zip(knights).filter(|(claim, knight)| claim == knight).count();
    Ok(if right == names.len() && right == knights.len() {
        Verdict::Correct { answer }
    } else {
        Verdict::Wrong { answer, reason: found.points(Reason::measured("roles_right", right, names.len())) }
    })
}

/// Whether `name` is said to be a knight, from the first `name is a …`.
fn claim(words: &[&str], name: &str) -> Option<bool> {
    let name: Vec<&str> = self::words(name).collect();
    let says = |at: &[&str]| matches!(at, [is, a, role, ..] if *is == "is" && *a == "a" && matches!(*role, "knight" | "knave"));
    let at = (0..words.len()).find(|i| words[*i..].starts_with(&name) && says(&words[i + name.len()..]))?;
    role(words[at + name.len() + 2])
}

fn role(word: &str) -> Option<bool> {
    match word {
        "knight" | "knights" => Some(true),
        "knave" | "knaves" => Some(false),
        _ => None,
    }
}

/// Runs of letters and digits, and every other visible character but emphasis marks as a word of its own, so that `X, is a` is no claim.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '\'' || c == '-';
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '*' | '_'));
        let first = rest.chars().next()?;
        let length = if is_word(first) { rest.find(|c| !is_word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (word, tail) = rest.split_at(length);
        rest = tail;
        Some(word)
    })
}
