//! Knights and knaves: each person is a knight, whose statements are true, or a knave, whose statements are false. Generator, wording, proof.
//!
//! Every puzzle that leaves this file has exactly one solution, found by trying all assignments. How a response is judged is `verify/`'s.
//! The statement forms are those of the puzzles that Logic-RL trains on (arXiv 2502.14768), whose files store them as nested lists.

use crate::key::{Key, Stream};
use crate::problem::{Answer, Language, Problem, ProblemId};
use anyhow::{bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most people in a puzzle, stored ones included: all 2^n assignments are tried.
pub const MAX_PEOPLE: usize = 12;
/// Deepest nesting of a statement; a claim about one person has depth 1.
const MAX_DEPTH: usize = 8;
const TRIES: usize = 10_000;

const NAMES: [&str; 24] = [
    "Ada", "Boris", "Clara", "Dmitri", "Elena", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kira", "Leo", "Mara", "Nils", "Olga", "Pavel",
    "Quinn", "Rosa", "Stefan", "Tara", "Ulla", "Viktor", "Wanda", "Yusuf",
];

/// What one person says; people are indices into the puzzle's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    Knight(usize),
    Knave(usize),
    Not(Box<Statement>),
    And(Vec<Statement>),
    /// At least one of them.
    Or(Vec<Statement>),
    Implies(Box<Statement>, Box<Statement>),
    Iff(Box<Statement>, Box<Statement>),
}

impl Statement {
    /// Reads the stored form, such as `["and", ["telling-truth", 0], ["not", ["lying", 1]]]`, for a puzzle of `n_people`.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the statement.
    pub fn parse(value: &Value, n_people: usize) -> Result<Self, String> {
        Self::parse_at(value, n_people, MAX_DEPTH)
    }

    fn parse_at(value: &Value, n_people: usize, depth: usize) -> Result<Self, String> {
        let wrong = |what: &str| format!("statement {value} {what}");
        if depth == 0 {
            return Err(format!("a statement is nested deeper than {MAX_DEPTH}"));
        }
        let [Value::String(head), parts @ ..] = value.as_array().map(Vec::as_slice).unwrap_or_default() else {
            return Err(wrong("is not a list that opens with its form"));
        };
        if let "telling-truth" | "lying" = head.as_str() {
            let [person] = parts else { return Err(wrong("must name one person")) };
            let person = person.as_u64().and_then(|p| usize::try_from(p).ok()).filter(|p| *p < n_people);
            let person = person.ok_or_else(|| wrong("names a person that the puzzle does not have"))?;
            return Ok(if head == "lying" { Self::Knave(person) } else { Self::Knight(person) });
        }
        let parsed: Vec<Self> = parts.iter().map(|p| Self::parse_at(p, n_people, depth - 1)).collect::<Result<_, _>>()?;
        let two = |make: fn(Box<Self>, Box<Self>) -> Self| match <[Self; 2]>::try_from(parsed.clone()) {
            Ok([a, b]) => Ok(make(Box::new(a), Box::new(b))),
            Err(_) => Err(wrong("must have two parts")),
        };
        match head.as_str() {
            "not" => <[Self; 1]>::try_from(parsed).map(|[a]| Self::Not(Box::new(a))).map_err(|_| wrong("must have one part")),
            "and" | "or" if parsed.is_empty() => Err(wrong("has no parts")),
            "and" => Ok(Self::And(parsed)),
            "or" => Ok(Self::Or(parsed)),
            "->" => two(Self::Implies),
            "<=>" => two(Self::Iff),
            _ => Err(wrong("has a form that is none of telling-truth, lying, not, and, or, ->, <=>")),
        }
    }

    /// Truth under an assignment: bit `i` of `knights` says whether person `i` is a knight.
    fn holds(&self, knights: u32) -> bool {
        match self {
            Self::Knight(i) => knights >> i & 1 == 1,
            Self::Knave(i) => knights >> i & 1 == 0,
            Self::Not(a) => !a.holds(knights),
            Self::And(parts) => parts.iter().all(|p| p.holds(knights)),
            Self::Or(parts) => parts.iter().any(|p| p.holds(knights)),
            Self::Implies(a, b) => !a.holds(knights) || b.holds(knights),
            Self::Iff(a, b) => a.holds(knights) == b.holds(knights),
        }
    }

    /// The statement in English; nested forms stand in parentheses so that there is one reading.
    fn words(&self, names: &[String]) -> String {
        let part = |s: &Self| match s {
            Self::Knight(_) | Self::Knave(_) => s.words(names),
            Self::Not(inner) if matches!(**inner, Self::Knight(_) | Self::Knave(_)) => s.words(names),
            _ => format!("({})", s.words(names)),
        };
        let list = |parts: &[Self], word: &str| parts.iter().map(part).collect::<Vec<_>>().join(word);
        match self {
            Self::Knight(i) => format!("{} is a knight", names[*i]),
            Self::Knave(i) => format!("{} is a knave", names[*i]),
            Self::Not(a) => match **a {
                Self::Knight(i) => format!("{} is not a knight", names[i]),
                Self::Knave(i) => format!("{} is not a knave", names[i]),
                _ => format!("it is not true that {}", part(a)),
            },
            Self::And(parts) => list(parts, " and "),
            Self::Or(parts) => list(parts, " or "),
            Self::Implies(a, b) => format!("if {} then {}", part(a), part(b)),
            Self::Iff(a, b) => format!("{} if and only if {}", part(a), part(b)),
        }
    }
}

/// All assignments under which each knight's statement is true and each knave's is false; `statements[i]` is said by person `i`.
///
/// Empty for more than [`MAX_PEOPLE`] people, and for none.
pub fn solutions(statements: &[Statement]) -> Vec<Vec<bool>> {
    let n = statements.len();
    if n == 0 || n > MAX_PEOPLE {
        return Vec::new();
    }
    let agrees = |knights: u32| statements.iter().enumerate().all(|(i, s)| s.holds(knights) == (knights >> i & 1 == 1));
    (0..1u32 << n).filter(|k| agrees(*k)).map(|k| (0..n).map(|i| k >> i & 1 == 1).collect()).collect()
}

/// What the generator draws from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Count of people, which is the level: uniform between the two, within 2..=8.
    pub people: (usize, usize),
    /// Deepest nesting; 1 would allow only claims about one person, which never have a unique solution.
    pub depth: usize,
    /// Parts of an "and" or "or".
    pub width: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { people: (2, 8), depth: 2, width: 2 }
    }
}

impl Settings {
    /// # Errors
    /// When a value is outside its range.
    pub fn validate(&self) -> anyhow::Result<()> {
        let (low, high) = self.people;
        ensure!(2 <= low && low <= high && high <= 8, "people must be [low, high] within 2..=8, got [{low}, {high}]");
        ensure!((2..=4).contains(&self.depth), "depth must be in 2..=4, got {}", self.depth);
        ensure!((2..=4).contains(&self.width), "width must be in 2..=4, got {}", self.width);
        Ok(())
    }
}

/// Problem `index` under `key`, with id `knights/<prefix>/<index>`: statements drawn until they have exactly one solution.
///
/// # Errors
/// When the settings are invalid, or no draw has one solution.
pub fn problem(key: Key, prefix: &str, index: u64, settings: &Settings) -> anyhow::Result<Problem> {
    settings.validate()?;
    let mut stream = key.number(index).stream();
    let n = stream.range(settings.people.0 as i64, settings.people.1 as i64) as usize;
    let mut names: Vec<String> = NAMES.map(str::to_owned).to_vec();
    stream.shuffle(&mut names);
    names.truncate(n);
    for _ in 0..TRIES {
        let statements: Vec<Statement> = (0..n).map(|_| draw(&mut stream, n, settings.depth, settings.width)).collect();
        if let [knights] = solutions(&statements).as_slice() {
            return Ok(Problem {
                id: ProblemId(format!("knights/{prefix}/{index}")),
                task: "knights".to_owned(),
                question: question(&names, &statements),
                answer: Answer::Knights { names, knights: knights.clone() },
                language: Language::En,
                level: u8::try_from(n).ok(),
            });
        }
    }
    bail!("no puzzle of {n} people with a unique solution in {TRIES} draws; raise depth (now {})", settings.depth)
}

/// A statement of at most `depth`; all seven forms are equally likely where the depth allows them.
fn draw(stream: &mut Stream, n: usize, depth: usize, width: usize) -> Statement {
    let form = stream.below(if depth > 1 { 7 } else { 2 });
    if form < 2 {
        let person = stream.below(n as u32) as usize;
        return if form == 0 { Statement::Knight(person) } else { Statement::Knave(person) };
    }
    let mut part = || draw(stream, n, depth - 1, width);
    let first = part();
    if form == 2 {
        return Statement::Not(Box::new(first));
    }
    // Equal neighbours ("A is a knight or A is a knight") say less than they seem to; with 2 people and 2 forms another one soon comes.
    let mut other = |than: &Statement| loop {
        let next = part();
        if next != *than {
            return next;
        }
    };
    if form >= 5 {
        let second = Box::new(other(&first));
        return if form == 5 { Statement::Implies(Box::new(first), second) } else { Statement::Iff(Box::new(first), second) };
    }
    let mut parts = vec![first];
    while parts.len() < width {
        let next = other(&parts[parts.len() - 1]);
        parts.push(next);
    }
    if form == 3 { Statement::And(parts) } else { Statement::Or(parts) }
}

/// The puzzle in our own words.
pub fn question(names: &[String], statements: &[Statement]) -> String {
    let mut text = String::from(
        "In a village every person is either a knight or a knave. Whatever a knight says is true, and whatever a knave says is false. \
         \"A or B\" means that at least one of the two holds.",
    );
    for (name, statement) in names.iter().zip(statements) {
        text.push_str(&format!("\n{name} says: \"{}.\"", statement.words(names)));
    }
    text.push_str("\nFor each of them, tell whether they are a knight or a knave.");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statements(json: &str) -> Result<Vec<Statement>, String> {
        let values: Vec<Value> = serde_json::from_str(json).expect("json");
        values.iter().map(|v| Statement::parse(v, values.len())).collect()
    }

    /// Zoey (0) says "Oliver is not a knight"; Oliver (1) says the pair in three forms. As printed with "and" the puzzle has two solutions.
    #[test]
    fn zoey_and_oliver_are_unique_only_without_the_and() {
        let check = |form: &str, expect: &[&[bool]]| {
            let json = format!(r#"[["not",["telling-truth",1]],["{form}",["telling-truth",1],["lying",0]]]"#);
            assert_eq!(solutions(&statements(&json).expect("valid")), expect, "{form}");
        };
        check("and", &[&[true, false], &[false, true]]);
        check("<=>", &[&[false, true]]);
        check("->", &[&[false, true]]);
    }

    #[test]
    fn solutions_of_small_puzzles_are_known() {
        let check = |json: &str, expect: &[&[bool]]| assert_eq!(solutions(&statements(json).expect("valid")), expect, "{json}");
        check(r#"[["lying",0]]"#, &[]);
        check(r#"[["telling-truth",0]]"#, &[&[false], &[true]]);
        check(r#"[["and",["lying",0],["lying",1]],["lying",0]]"#, &[&[false, true]]);
        check(r#"[["or",["lying",0],["telling-truth",1]],["telling-truth",1]]"#, &[&[true, true]]);
        assert!(solutions(&[]).is_empty());
        assert!(solutions(&vec![Statement::Knight(0); 30]).is_empty(), "too many people to try");
    }

    #[test]
    fn malformed_statements_are_refused_with_a_reason() {
        let check = |json: &str, part: &str| {
            let error = statements(json).expect_err(json);
            assert!(error.contains(part), "{json}: {error}");
        };
        check(r#"["x"]"#, "is not a list");
        check(r#"[[]]"#, "is not a list");
        check(r#"[["xor",["lying",0],["lying",0]]]"#, "none of telling-truth");
        check(r#"[["lying",1]]"#, "does not have");
        check(r#"[["lying",-1]]"#, "does not have");
        check(r#"[["lying"]]"#, "one person");
        check(r#"[["not",["lying",0],["lying",0]]]"#, "one part");
        check(r#"[["<=>",["lying",0]]]"#, "two parts");
        check(r#"[["and"]]"#, "no parts");
        let deep = format!("[{}[\"lying\",0]{}]", "[\"not\",".repeat(20), "]".repeat(20));
        check(&deep, "deeper than 8");
    }

    #[test]
    fn generated_puzzles_have_one_solution_of_every_size() {
        let key = Key::new(1, "knights-test");
        let mut people = [0; 9];
        let mut knights_in_all = 0;
        for i in 0..350 {
            let p = problem(key, "t", i, &Settings::default()).expect("possible");
            let Answer::Knights { names, knights } = &p.answer else { panic!("{p:?}") };
            assert_eq!(names.len(), knights.len());
            assert!(names.iter().all(|n| p.question.contains(&format!("\n{n} says: "))), "{}", p.question);
            people[names.len()] += 1;
            knights_in_all += knights.iter().filter(|k| **k).count();
            assert_eq!(p.level.map(usize::from), Some(names.len()));
        }
        assert!(people[2..].iter().all(|n| *n > 25), "{people:?}");
        assert!(knights_in_all > 350, "both kinds occur: {knights_in_all}");
        assert_eq!(problem(key, "t", 3, &Settings::default()).ok(), problem(key, "t", 3, &Settings::default()).ok());
        for deep in [Settings { people: (4, 4), depth: 4, width: 3 }, Settings { people: (2, 2), depth: 2, width: 4 }] {
            assert!(problem(key, "deep", 0, &deep).is_ok(), "{deep:?}");
        }
    }

    #[test]
    fn words_have_one_reading() {
        let names = ["Ada".to_owned(), "Leo".to_owned()];
        let check = |json: &str, expect: &str| assert_eq!(statements(json).expect("valid")[0].words(&names), expect);
        check(r#"[["not",["lying",1]],["lying",0]]"#, "Leo is not a knave");
        check(r#"[["->",["telling-truth",0],["lying",1]],["lying",0]]"#, "if Ada is a knight then Leo is a knave");
        check(
            r#"[["or",["and",["lying",0],["lying",1]],["not",["telling-truth",1]]],["lying",0]]"#,
            "(Ada is a knave and Leo is a knave) or Leo is not a knight",
        );
        check(
            r#"[["not",["<=>",["lying",0],["lying",1]]],["lying",0]]"#,
            "it is not true that (Ada is a knave if and only if Leo is a knave)",
        );
    }

    #[test]
    fn impossible_settings_are_errors() {
        let error = |s: Settings| problem(Key::new(1, "e"), "t", 0, &s).expect_err("refused").to_string();
        let d = Settings::default();
        assert_eq!(error(Settings { people: (2, 9), ..d }), "people must be [low, high] within 2..=8, got [2, 9]");
        assert_eq!(error(Settings { depth: 1, ..d }), "depth must be in 2..=4, got 1");
    }
}
