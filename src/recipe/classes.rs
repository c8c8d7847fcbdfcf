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
/// Keys of a phase that look at what it makes or learns from, and change nothing of it.
const GUARDS: [&str; 3] = ["collapse", "probes", "too_long"];
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
    } else if EXECUTION.iter().any(|p| under(p)) || is_guard(key) {
        Class::Execution
    } else if EXTENSION.iter().any(|p| under(p)) {
        Class::Extension
    } else {
        Class::Meaning
    }
}

/// Whether a key is such as `teacher.phase[1].collapse.drop`.
fn is_guard(key: &str) -> bool {
    let mut parts = key.split('.').skip(1);
    parts.next().is_some_and(|part| part.starts_with("phase[")) && parts.next().is_some_and(|part| GUARDS.contains(&part))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_ends_a_phase_is_free_to_change() {
        let parse = |text: &str| text.parse::<toml::Table>().unwrap();
        let before =
            parse("[[teacher.phase]]\nsteps = 9\ncollapse = { window = 20, drop = 0.5 }\n[collapse]\nx = 1\n[execution]\nslots = 3\n");
        let after =
            parse("[[teacher.phase]]\nsteps = 8\ncollapse = { window = 20, drop = 0.9 }\n[collapse]\nx = 2\n[execution]\nslots = 4\n");
        let found: Vec<(String, Class)> = changes(&before, &after).into_iter().map(|change| (change.key, change.class)).collect();
        let expected = [
            ("collapse.x", Class::Meaning),
            ("execution.slots", Class::Execution),
            ("teacher.phase[0].collapse.drop", Class::Execution),
            ("teacher.phase[0].steps", Class::Meaning),
        ];
        assert_eq!(found, expected.map(|(key, class)| (key.to_owned(), class)));
        let gone = changes(&before, &parse("[[teacher.phase]]\nsteps = 9\n[collapse]\nx = 1\n[execution]\nslots = 3\n"));
        assert!(gone.len() == 2 && gone.iter().all(|change| change.class == Class::Execution), "{gone:?}");
    }
}
