//! Which models stand side by side, and the rows that say how they differ.

use super::read::Evaluated;
use super::text;
use crate::key::Key;
use crate::metric;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// Two models on the same problems of one task. `teacher` and `student` are the first and the second, whatever they are called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComparisonRow {
    pub teacher: String,
    pub student: String,
    pub task: String,
    /// `sampled` or `greedy`.
    pub metric: String,
    /// The second's rate - the first's, and its paired 95 % interval.
    pub difference: f64,
    pub difference_ci95: [f64; 2],
    /// The second's rate / the first's; `None` where the first one's interval touches 0.
    pub recovery: Option<f64>,
    pub ci95: Option<[f64; 2]>,
    /// Problems (expected ones with several attempts each) that both solve, one of them, none.
    pub both: f64,
    pub teacher_only: f64,
    pub student_only: f64,
    pub neither: f64,
    /// Two-sided, of no difference.
    pub p_value: f64,
}

impl ComparisonRow {
    /// Whether the second model is above or below the first; `None` unless interval and test both say so.
    pub(super) fn shown(&self) -> Option<Ordering> {
        let [low, high] = self.difference_ci95;
        let side = if low > 0.0 { Some(Ordering::Greater) } else { (high < 0.0).then_some(Ordering::Less) };
        side.filter(|_| self.p_value < 0.05)
    }
}

/// The rows of every task: for each pair the sampled and the greedy comparison.
pub(super) fn rows(evaluated: &[Evaluated], seed: u64) -> Result<Vec<ComparisonRow>> {
    let mut rows = Vec::new();
    for models in evaluated.chunk_by(|a, b| a.evaluation.task == b.evaluation.task) {
        for (first, second) in pairs(models) {
            rows.extend(compare(first, second, seed)?);
        }
    }
    Ok(rows)
}

/// The pairs that answer a question: how close, gained by what, and what for.
fn pairs(models: &[Evaluated]) -> Vec<(&Evaluated, &Evaluated)> {
    let find = |name: &str| models.iter().find(|one| one.evaluation.model == name);
    // A student with one phase has no model between the first training and the last.
    let trained = find("student-sft").or_else(|| find("student"));
    let known = ["base", "teacher", "student-base", "student-sft", "student"];
    let controls = models.iter().filter(|one| !known.contains(&one.evaluation.model.as_str()));
    let mut pairs = vec![
        (find("teacher"), find("student")),
        (find("teacher"), find("student-sft")),
        (find("base"), find("teacher")),
        (find("student-base"), trained),
    ];
    pairs.extend(controls.map(|control| (Some(control), trained)));
    pairs.extend([(find("student-sft"), find("student")), (find("teacher"), find("student-base"))]);
    pairs.into_iter().filter_map(|(first, second)| first.zip(second)).collect()
}

/// Sampled and greedy, as far as both were measured.
pub(super) fn compare(first: &Evaluated, second: &Evaluated, seed: u64) -> Result<Vec<ComparisonRow>> {
    let (a, b) = (&first.evaluation, &second.evaluation);
    if let Some(key) = first.protocol.iter().find_map(|(key, value)| second.protocol.get(key).is_some_and(|v| v != value).then_some(key)) {
        bail!(
            "{} and {} cannot be compared: they were not measured alike, {key} is {} there and {} here; evaluate one of them again",
            first.folder.display(),
            second.folder.display(),
            text::plain_json(&first.protocol[key]),
            text::plain_json(&second.protocol[key])
        );
    }
    let key = Key::new(seed, "report").name(&a.task).name(&format!("{} {}", a.model, b.model));
    let metrics = [("sampled", &first.sampled, &second.sampled), ("greedy", &first.greedy, &second.greedy)];
    let measured = metrics.into_iter().filter(|(_, first, second)| !first.is_empty() && !second.is_empty());
    measured
        .map(|(name, of_first, of_second)| {
            let found = metric::compare(of_first, of_second, key.name(name))
                .with_context(|| format!("cannot compare {} with {}", first.folder.display(), second.folder.display()))?;
            Ok(ComparisonRow {
                teacher: a.model.clone(),
                student: b.model.clone(),
                task: a.task.clone(),
                metric: name.into(),
                difference: found.difference,
                difference_ci95: found.difference_ci95,
                recovery: found.recovery,
                ci95: found.ci95,
                both: found.both,
                teacher_only: found.teacher_only,
                student_only: found.student_only,
                neither: found.neither,
                p_value: found.p_value,
            })
        })
        .collect()
}
