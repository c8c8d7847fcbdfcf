//! Reading a TOML table key by key: every problem is collected with its key path, every value that was used is written down.
//!
//! The keys that were asked for are the schema, so a suggestion for an unknown key can only name one that works, and the resolved recipe
//! holds exactly what the program will use.

use super::value::{self, Fault, What};
use serde::{Serialize, de::DeserializeOwned};
use std::cell::RefCell;
use std::rc::Rc;
use toml::Value;

/// The problems found so far, shared by all tables of one recipe.
pub(super) type Problems = Rc<RefCell<Vec<Problem>>>;

/// One problem of a recipe.
pub(super) struct Problem {
    /// Full path of the key that is to blame.
    pub key: String,
    /// A sentence that opens with the key.
    pub text: String,
    /// Of a key that is none: the full path of the one that was probably meant.
    meant: Option<String>,
}

impl Problem {
    /// Whether it is about `key` or something below it.
    pub fn is_under(&self, key: &str) -> bool {
        let under = |own: &str| own == key || own.strip_prefix(key).is_some_and(|rest| rest.starts_with(['.', '[']));
        under(&self.key) || self.meant.as_deref().is_some_and(under)
    }
}

/// Leaves out what only follows from another problem: a key that is missing because it was misspelt.
pub(super) fn root_causes(problems: Vec<Problem>) -> Vec<Problem> {
    let meant: Vec<String> = problems.iter().filter_map(|p| p.meant.clone()).collect();
    let follows = |p: &Problem| p.text.contains(" is missing") && meant.contains(&p.key);
    problems.into_iter().filter(|p| !follows(p)).collect()
}

/// A table being read.
pub(super) struct Table {
    path: String,
    left: toml::Table,
    resolved: toml::Table,
    asked: Vec<&'static str>,
    problems: Problems,
}

impl Table {
    pub fn root(table: toml::Table, problems: Problems) -> Self {
        Self { path: String::new(), left: table, resolved: toml::Table::new(), asked: Vec::new(), problems }
    }

    /// Key path of `key` in this table.
    pub fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Notes a problem; its text opens with the full path of the key that is to blame, or with `[table]`.
    pub fn problem(&self, text: String) {
        let name = |text: &str, ends: &[char]| text.split(ends).next().unwrap_or_default().to_owned();
        let key = text.strip_prefix('[').map_or_else(|| name(&text, &[' ', ':']), |table| name(table, &[']']));
        self.problems.borrow_mut().push(Problem { key, text, meant: None });
    }

    /// A table without keys at the same path, whose problems nobody hears of.
    pub fn blank(&self) -> Table {
        Table { path: self.path.clone(), ..Table::root(toml::Table::new(), Problems::default()) }
    }

    /// Whether no problem is known about this key of the table, so that what follows from its value is worth a word.
    pub fn is_sound(&self, key: &str) -> bool {
        let path = self.path(key);
        !self.problems.borrow().iter().any(|p| p.is_under(&path))
    }

    /// Passes over the keys that are left: what they mean hangs on a value that is wrong.
    pub fn pass_over(&mut self, which: impl Fn(&str, &Value) -> bool) {
        self.left.retain(|key, value| !which(key, value));
    }

    /// The keys that are left and hold tables.
    pub fn tables_left(&self) -> Vec<String> {
        self.left.iter().filter(|(_, value)| value.is_table()).map(|(key, _)| key.clone()).collect()
    }

    /// Whether `key` is given and not read yet.
    pub fn has(&self, key: &str) -> bool {
        self.left.contains_key(key)
    }

    /// Whether `key` is given, not read yet, and a list.
    pub fn has_list(&self, key: &str) -> bool {
        self.left.get(key).is_some_and(Value::is_array)
    }

    /// The value of `key`; `None` where it is absent or of the wrong type, which is a problem.
    pub fn optional<T: DeserializeOwned + Serialize>(&mut self, key: &'static str) -> Option<T> {
        self.asked.push(key);
        let value = self.left.remove(key)?;
        match value::read::<T>(value) {
            Ok(parsed) => {
                self.write(key, &parsed);
                Some(parsed)
            }
            Err(fault) => {
                self.fault(key, fault);
                None
            }
        }
    }

    fn fault(&self, key: &str, Fault { below, found, what }: Fault) {
        let path = self.path(key) + &below;
        let got = found.map_or(String::new(), |found| format!(", got {found}"));
        match what {
            What::Wanted(wanted) => self.problem(format!("{path} must be {wanted}{got}")),
            What::OneOf(known) => self.problem(format!("{path} must be one of {}{got}", known.join(", "))),
            What::MissingKey(missing) => self.problem(format!("{path}.{missing} is missing")),
            What::UnknownKey { key, known } => self.unknown(&path, &key, known),
            What::Other(text) => self.problem(format!("{path}: {text}")),
        }
    }

    /// The value of `key`, or `default`.
    pub fn or<T: DeserializeOwned + Serialize>(&mut self, key: &'static str, default: T) -> T {
        let value = self.optional(key).unwrap_or(default);
        self.write(key, &value);
        value
    }

    /// The value of `key`, or a problem.
    pub fn required<T: DeserializeOwned + Serialize + Default>(&mut self, key: &'static str, what: &str) -> T {
        if !self.left.contains_key(key) {
            self.asked.push(key);
            self.problem(format!("{} is missing: {what}", self.path(key)));
            return T::default();
        }
        self.optional(key).unwrap_or_default()
    }

    /// A value under a condition, as a problem where it does not hold.
    pub fn check(&self, key: &str, holds: bool, must: &str, got: impl std::fmt::Display) {
        if !holds {
            self.problem(format!("{} must be {must}, got {got}", self.path(key)));
        }
    }

    /// Notes an error, whose text opens with the key that is to blame, as a problem.
    pub fn note(&self, result: anyhow::Result<()>) {
        if let Err(error) = result {
            self.problem(format!("{error:#}"));
        }
    }

    /// Reads the table under `key` if there is one.
    pub fn table<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Table) -> T) -> Option<T> {
        self.asked.push(key);
        match self.left.remove(key)? {
            Value::Table(table) => {
                let (value, resolved) = self.child(&self.path(key), table, read);
                self.resolved.insert(key.to_owned(), Value::Table(resolved));
                Some(value)
            }
            other => {
                self.problem(format!("{} must be a table, got {}", self.path(key), value::shown(&other)));
                None
            }
        }
    }

    /// Reads each table of the array under `key`.
    pub fn tables<T>(&mut self, key: &'static str, mut read: impl FnMut(&mut Table) -> T) -> Vec<T> {
        self.asked.push(key);
        let Some(value) = self.left.remove(key) else { return Vec::new() };
        let Value::Array(items) = value else {
            self.problem(format!("{} must be a list of tables ([[{}]])", self.path(key), self.path(key)));
            return Vec::new();
        };
        let (mut values, mut written) = (Vec::new(), Vec::new());
        for (i, item) in items.into_iter().enumerate() {
            let path = format!("{}[{i}]", self.path(key));
            let Value::Table(table) = item else {
                self.problem(format!("{path} must be a table"));
                continue;
            };
            let (value, resolved) = self.child(&path, table, &mut read);
            values.push(value);
            written.push(Value::Table(resolved));
        }
        self.resolved.insert(key.to_owned(), Value::Array(written));
        values
    }

    /// Reads tables under keys that the recipe names itself, such as one per evaluation task.
    pub fn named<T>(&mut self, keys: &[String], mut read: impl FnMut(&str, &mut Table) -> T) -> Vec<T> {
        keys.iter()
            .map(|key| {
                let table = match self.left.remove(key) {
                    None => toml::Table::new(),
                    Some(Value::Table(table)) => table,
                    Some(other) => {
                        self.problem(format!("{} must be a table, got {}", self.path(key), value::shown(&other)));
                        toml::Table::new()
                    }
                };
                let (value, resolved) = self.child(&self.path(key), table, |t| read(key, t));
                self.resolved.insert(key.clone(), Value::Table(resolved));
                value
            })
            .collect()
    }

    fn child<T>(&self, path: &str, table: toml::Table, read: impl FnOnce(&mut Table) -> T) -> (T, toml::Table) {
        let mut child =
            Table { path: path.to_owned(), left: table, resolved: toml::Table::new(), asked: Vec::new(), problems: self.problems.clone() };
        let value = read(&mut child);
        (value, child.finish())
    }

    fn write(&mut self, key: &str, value: &impl Serialize) {
        match Value::try_from(value) {
            // A number that is used in f32 is written as a person writes it: 0.9, not 0.8999999761581421.
            Ok(Value::Float(x)) => _ = self.resolved.insert(key.to_owned(), Value::Float(shortest(x))),
            Ok(value) => _ = self.resolved.insert(key.to_owned(), value),
            Err(_) => {}
        }
    }

    /// Turns what nobody asked for into problems.
    pub fn refuse_unknown(&mut self) {
        for (key, _) in std::mem::take(&mut self.left) {
            self.unknown(&self.path, &key, &self.asked);
        }
    }

    fn unknown(&self, table: &str, key: &str, known: &[&'static str]) {
        let within = |key: &str| if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
        let near = known.iter().map(|name| (strsim::damerau_levenshtein(key, name), name)).min();
        let near = near.filter(|(distance, _)| *distance <= 2.max(key.len() / 3) && *distance < key.len()).map(|(_, name)| *name);
        let advice = match near {
            Some(name) => format!(", did you mean {name}?"),
            None if known.is_empty() => String::new(),
            None => format!("; known here: {}", known.join(", ")),
        };
        let problem = Problem { key: within(key), text: format!("{} is not a key{advice}", within(key)), meant: near.map(within) };
        self.problems.borrow_mut().push(problem);
    }

    /// Turns what nobody asked for into problems, and gives what was used.
    pub fn finish(mut self) -> toml::Table {
        self.refuse_unknown();
        self.resolved
    }
}

/// The shortest decimal of a value that is one of f32; any other value as it is.
fn shortest(x: f64) -> f64 {
    let narrow = x as f32;
    if f64::from(narrow) == x { narrow.to_string().parse().unwrap_or(x) } else { x }
}
