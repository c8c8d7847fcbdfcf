//! Reading a TOML table key by key: every problem is collected with its key path, every value that was used is written down.
//!
//! The keys that were asked for are the schema, so a suggestion for an unknown key can only name one that works, and the resolved recipe
//! holds exactly what the program will use.

use serde::{Serialize, de::DeserializeOwned};
use std::cell::RefCell;
use std::rc::Rc;
use toml::Value;

/// The problems found so far, shared by all tables of one recipe.
pub(super) type Problems = Rc<RefCell<Vec<String>>>;

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

    pub fn problem(&self, text: String) {
        self.problems.borrow_mut().push(text);
    }

    /// Whether `key` is given and not read yet.
    pub fn has(&self, key: &str) -> bool {
        self.left.contains_key(key)
    }

    /// The value of `key`; `None` where it is absent or of the wrong type, which is a problem.
    pub fn optional<T: DeserializeOwned + Serialize>(&mut self, key: &'static str) -> Option<T> {
        self.asked.push(key);
        let value = self.left.remove(key)?;
        match value.clone().try_into::<T>() {
            Ok(parsed) => {
                self.write(key, &parsed);
                Some(parsed)
            }
            Err(error) => {
                let shown: String = value.to_string().chars().take(60).collect();
                self.problem(format!("{}: {} (got {shown})", self.path(key), first_line(&error.to_string())));
                None
            }
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

    /// Notes the first line of an error as a problem of this table.
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
                self.problem(format!("{} must be a table, got {}", self.path(key), other.type_str()));
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
                        self.problem(format!("{} must be a table, got {}", self.path(key), other.type_str()));
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

    /// Turns what nobody asked for into problems, and gives what was used.
    pub fn finish(self) -> toml::Table {
        for key in self.left.keys() {
            let near = self.asked.iter().map(|a| (strsim::damerau_levenshtein(key, a), a)).min();
            let advice = match near {
                Some((distance, name)) if distance <= 2.max(key.len() / 3) && distance < key.len() => format!(", did you mean {name}?"),
                _ if self.asked.is_empty() => String::new(),
                _ => format!("; known here: {}", self.asked.join(", ")),
            };
            self.problem(format!("{} is not a key{advice}", self.path(key)));
        }
        self.resolved
    }
}

/// The shortest decimal of a value that is one of f32; any other value as it is.
fn shortest(x: f64) -> f64 {
    let narrow = x as f32;
    if f64::from(narrow) == x { narrow.to_string().parse().unwrap_or(x) } else { x }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
