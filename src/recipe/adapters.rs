//! `[student.lora]` and `[teacher.lora]`: the adapter that a model's phases train.

use super::table::Table;
use crate::model::{LoraSettings, Target};

/// An adapter: `r`, `alpha`, `targets`, `dropout`, `rslora`.
pub(super) fn read(t: &mut Table) -> LoraSettings {
    /// One name, or a list of them.
    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(untagged)]
    enum Names {
        One(String),
        Some(Vec<String>),
    }
    let names = match t.optional("targets") {
        None => vec!["all-linear".to_owned()],
        Some(Names::One(name)) => vec![name],
        Some(Names::Some(names)) => names,
    };
    let mut targets = Vec::new();
    for name in &names {
        match Target::named(name) {
            Some(target) => targets.push(target),
            None if name == "all-linear" => targets.extend(Target::ALL),
            None => t.check("targets", false, &format!("all-linear, or some of {}", Target::names().join(", ")), format!("{name:?}")),
        }
    }
    targets.sort();
    targets.dedup();
    t.check("targets", !names.is_empty(), "at least one projection", "none");
    let r = t.or("r", 16usize);
    let settings =
        LoraSettings { r, alpha: t.or("alpha", 2.0 * r as f64), targets, dropout: t.or("dropout", 0.0), rslora: t.or("rslora", false) };
    t.check("r", (1..=4096).contains(&r), "from 1 to 4096", r);
    t.check("alpha", settings.alpha > 0.0, "more than 0", settings.alpha);
    t.check("dropout", (0.0..1.0).contains(&settings.dropout), "in [0, 1)", settings.dropout);
    settings
}
