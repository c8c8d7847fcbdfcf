//! What a change of the recipe means for a run that has begun.

use crate::sampler::is_url;
use std::collections::BTreeMap;
use toml::Value;

/// A key whose value differs between two resolved recipes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Path such as `sample.n`.
    pub key: String,
    pub before: String,
    pub after: String,
    pub class: Class,
}

/// What may be done about a changed key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Free to change: it does not reach any result.
    Execution,
    /// Only the difference is done; what exists stays as it is.
    Extension,
    /// What exists would no longer be what the recipe says.
    Meaning,
}

const EXECUTION: [&str; 1] = ["execution"];
const EXTENSION: [&str; 3] = ["sample.n", "sample.problems", "evaluate"];

/// The keys that differ between two resolved recipes, in the order of their paths.
///
/// The size of a micro-batch is execution, save where a phase has `loss_type = "bnpo"`: its denominators are those of the micro-batches.
pub fn changes(before: &toml::Table, after: &toml::Table) -> Vec<Change> {
    let (before, after) = (flat(before), flat(after));
    let bnpo = before.iter().any(|(key, value)| key.ends_with(".loss_type") && value == "\"bnpo\"");
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    keys.into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| {
            let show = |side: &BTreeMap<String, String>| side.get(key).cloned().unwrap_or_else(|| "absent".to_owned());
            let (before, after) = (show(&before), show(&after));
            // Where a server stands says nothing about its model, which has a name of its own.
            let has_moved = ["teacher.model", "judge.model"].contains(&key.as_str())
                && [&before, &after].iter().all(|address| is_url(address.trim_matches('"')));
            let class = if has_moved { Class::Execution } else { class(key, bnpo) };
            Change { key: key.clone(), before, after, class }
        })
        .collect()
}

fn class(key: &str, bnpo: bool) -> Class {
    let under = |prefix: &str| key == prefix || key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(['.', '[']));
    if bnpo && key == "execution.micro_batch_tokens" {
        Class::Meaning
    } else if EXECUTION.iter().any(|p| under(p)) {
        Class::Execution
    } else if EXTENSION.iter().any(|p| under(p)) {
        Class::Extension
    } else {
        Class::Meaning
    }
}

/// Leaves of a table by path.
fn flat(table: &toml::Table) -> BTreeMap<String, String> {
    fn walk(path: String, value: &Value, out: &mut BTreeMap<String, String>) {
        match value {
            Value::Table(table) => table.iter().for_each(|(key, value)| {
                walk(if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, value, out);
            }),
            Value::Array(items) if items.iter().any(Value::is_table) => {
                items.iter().enumerate().for_each(|(i, item)| walk(format!("{path}[{i}]"), item, out));
            }
            leaf => {
                out.insert(path, leaf.to_string());
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(String::new(), &Value::Table(table.clone()), &mut out);
    out
}
