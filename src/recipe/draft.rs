//! `Draft`: the text of a recipe with the pairs of `--set` over it, read into a `Recipe` or into every problem that it has.
//!
//! What a key means is not known here, only where it was written.

use super::table::{self, Table};
use super::{Recipe, read};
use anyhow::{Context, Result, anyhow, bail};
use std::cell::RefCell;
use std::rc::Rc;

/// A recipe as somebody wrote it, and how to speak of its parts.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    pub text: String,
    /// The file, for messages; empty where there is none.
    pub name: String,
    /// Keys that were given by flags, each with its flag.
    pub flags: &'static [(&'static str, &'static str)],
}

impl Draft {
    /// Reads it with `key=value` pairs over it.
    ///
    /// # Errors
    /// All problems at once, each with its key and where that was written: the file, a flag, or `--set`.
    pub fn parse(&self, overrides: &[String]) -> Result<Recipe> {
        let name = if self.name.is_empty() { "the recipe" } else { &self.name };
        let mut root: toml::Table = self.text.parse().with_context(|| format!("{name} is not valid TOML"))?;
        for pair in overrides {
            set(&mut root, pair)?;
        }
        let problems = Rc::new(RefCell::new(Vec::new()));
        let mut table = Table::root(root, problems.clone());
        let recipe = read(&mut table);
        let resolved = table.finish();
        let problems = table::root_causes(problems.take());
        let lines: Vec<String> = problems.iter().map(|p| format!("{}{}", self.place(p, overrides), p.text)).collect();
        match lines.len() {
            0 => Ok(Recipe { resolved, ..recipe }),
            1 if self.name.is_empty() || lines[0] != problems[0].text => bail!("{}", lines[0]),
            1 => bail!("{name}: {}", lines[0]),
            n => bail!("{name} has {n} problems:\n  {}", lines.join("\n  ")),
        }
    }

    /// Where the key of a problem was written, with a colon, if not in the file.
    fn place(&self, problem: &table::Problem, overrides: &[String]) -> String {
        let key = |pair: &String| pair.split('=').next().unwrap_or_default().trim().to_owned();
        let said = |given: &str| problem.is_under(given) || given.starts_with(&format!("{}.", problem.key));
        if let Some(pair) = overrides.iter().rfind(|pair| said(&key(pair))) {
            let key = key(pair);
            return if problem.text.starts_with(&key) { "--set ".into() } else { format!("--set {key}: ") };
        }
        self.flags.iter().find(|(key, _)| said(key)).map_or(String::new(), |(_, flag)| format!("{flag}: "))
    }
}

/// A step of a key path: a name, and a place in a list.
type Step<'a> = (&'a str, Option<usize>);

/// The steps of `teacher.phase[0].steps`.
///
/// # Errors
/// Where it is no path, in a sentence.
fn steps(path: &str) -> Result<Vec<Step<'_>>, String> {
    let step = |part| match str::split_once(part, '[') {
        _ if part.is_empty() => Err(format!("{path:?} is not a key")),
        None => Ok((part, None)),
        Some((name, rest)) => match rest.strip_suffix(']').and_then(|n| n.parse().ok()) {
            Some(place) if !name.is_empty() => Ok((name, Some(place))),
            _ => Err(format!("{part} is not a list place such as phase[0]")),
        },
    };
    path.split('.').map(step).collect()
}

/// Whether a `key=value` pair has that form; what its key and its value mean only the recipe knows.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn check_pair(pair: &str) -> Result<(), String> {
    let (path, _) = pair.split_once('=').ok_or("it wants KEY=VALUE, such as sample.n=8")?;
    let steps = steps(path.trim())?;
    if steps.last().is_some_and(|(_, place)| place.is_some()) {
        Err(format!("{path} is a whole table; set one of its keys"))
    } else {
        Ok(())
    }
}

/// Applies one `key=value`: the value is TOML, or a plain string where it is not.
fn set(root: &mut toml::Table, pair: &str) -> Result<()> {
    check_pair(pair).map_err(|reason| anyhow!("--set {pair}: {reason}"))?;
    let (path, text) = pair.split_once('=').unwrap_or_default();
    let (path, text) = (path.trim(), text.trim());
    let parsed = format!("x = {text}").parse::<toml::Table>().ok().and_then(|mut t| t.remove("x"));
    let value = parsed.unwrap_or_else(|| toml::Value::String(text.to_owned()));
    let mut steps = steps(path).map_err(|reason| anyhow!("--set {path}: {reason}"))?;
    let Some((last, _)) = steps.pop() else { bail!("--set {path} names no key") };
    let mut place = root;
    for (name, index) in steps {
        let entry = place.entry(name.to_owned()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        place = match (entry, index) {
            (toml::Value::Table(table), None) => table,
            (toml::Value::Array(items), Some(index)) => {
                let len = items.len();
                match items.get_mut(index) {
                    Some(toml::Value::Table(table)) => table,
                    _ => bail!("--set {path}: {name} has {len} entries, counted from 0"),
                }
            }
            (toml::Value::Array(_), None) => bail!("--set {path}: {name} is a list in the recipe; say which entry, such as {name}[0]"),
            _ => bail!("--set {path}: {name} is not a {} in the recipe", if index.is_some() { "list" } else { "table" }),
        };
    }
    place.insert(last.to_owned(), value);
    Ok(())
}
