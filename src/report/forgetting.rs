//! Forgetting: what training took from a model on tasks that it was not trained on, measured before and after on the same problems.
//!
//! A task counts as not trained on where it is not the task of the recipe's problems. What a mixture of corpora brought along is not known here.

use super::compare::compare;
use super::read::{Evaluated, Recipe};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// A model before and after its training, on a task that it was not trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forgetting {
    pub task: String,
    pub before: String,
    pub after: String,
    /// Rates of the sampled attempts, in [0, 1].
    pub rate_before: f64,
    pub rate_after: f64,
    /// After - before, and its paired 95 % interval over problems.
    pub difference: f64,
    pub difference_ci95: [f64; 2],
    pub finding: Finding,
}

/// What the interval says against the drop that the recipe allows (0 where it names none).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// It lies within what is allowed.
    Kept,
    /// It reaches beyond, but not as a whole: there are too few problems to tell.
    NotShown,
    /// It lies beyond as a whole.
    Forgotten,
}

impl Finding {
    fn of([low, high]: [f64; 2], max_drop: f64) -> Self {
        if high < -max_drop {
            Self::Forgotten
        } else if low < -max_drop {
            Self::NotShown
        } else {
            Self::Kept
        }
    }

    pub(super) fn in_words(self, max_drop: Option<f64>) -> &'static str {
        match (self, max_drop) {
            (Self::Kept, Some(_)) => "within the drop allowed",
            (Self::Kept, None) => "kept",
            (Self::NotShown, Some(_)) => "more than the drop allowed is not shown",
            (Self::NotShown, None) => "a loss is not shown",
            (Self::Forgotten, Some(_)) => "FORGOTTEN: beyond the drop allowed",
            (Self::Forgotten, None) => "FORGOTTEN",
        }
    }
}

/// The trainings that a report can look at: a name before, and the names after of which the last one that is there counts.
const TRAININGS: [(&str, &[&str]); 2] = [("base", &["teacher"]), ("student-base", &["student-sft", "student"])];

/// The rows of every task that was not trained on.
pub(super) fn rows(evaluated: &[Evaluated], recipe: &Recipe) -> Result<Vec<Forgetting>> {
    let trained = recipe.setup.problems.as_ref().map(|problems| problems.task.as_deref().unwrap_or("own"));
    let is_trained = |task: &str| trained == Some(task.strip_suffix("-sample").unwrap_or(task));
    let mut rows = Vec::new();
    for models in evaluated.chunk_by(|a, b| a.evaluation.task == b.evaluation.task) {
        let task = &models[0].evaluation.task;
        if is_trained(task) {
            continue;
        }
        let find = |name: &str| models.iter().find(|one| one.evaluation.model == name);
        for (before, after) in TRAININGS {
            let Some((before, after)) = find(before).zip(after.iter().rev().find_map(|name| find(name))) else { continue };
            let Some(row) = compare(before, after, recipe.setup.seed)?.into_iter().find(|row| row.metric == "sampled") else { continue };
            rows.push(Forgetting {
                task: task.clone(),
                before: row.teacher,
                after: row.student,
                rate_before: before.evaluation.pass_at_1,
                rate_after: after.evaluation.pass_at_1,
                difference: row.difference,
                difference_ci95: row.difference_ci95,
                finding: Finding::of(row.difference_ci95, recipe.max_drop().unwrap_or(0.0)),
            });
        }
    }
    Ok(rows)
}

/// An error where the recipe sets a gate and a task was forgotten.
pub(super) fn gate(rows: &[Forgetting], max_drop: Option<f64>) -> Result<()> {
    let Some(max_drop) = max_drop else { return Ok(()) };
    let lost: Vec<String> = rows
        .iter()
        .filter(|row| row.finding == Finding::Forgotten)
        .map(|row| format!("{} on {} ({} points)", row.after, row.task, super::text::difference(row.difference, row.difference_ci95)))
        .collect();
    ensure!(
        lost.is_empty(),
        "the forgetting gate does not hold: {} lost more than evaluate.max_drop = {max_drop} allows; everything is kept, and report.md has the figures. Mix general \
         data into the phase (data = [{{ from = \"corpus\" }}, {{ from = \"general.jsonl\" }}]), train fewer steps or at a lower rate, or train an adapter",
        lost.join(", ")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_interval_that_lies_beyond_the_drop_as_a_whole_is_forgetting() {
        for (ci95, max_drop, expected) in [
            ([-0.30, -0.10], 0.0, Finding::Forgotten),
            ([-0.30, -0.10], 0.05, Finding::Forgotten),
            ([-0.30, -0.10], 0.10, Finding::NotShown),
            ([-0.30, 0.02], 0.0, Finding::NotShown),
            ([-0.04, 0.02], 0.05, Finding::Kept),
            ([0.0, 0.0], 0.0, Finding::Kept),
            ([0.01, 0.2], 0.0, Finding::Kept),
        ] {
            assert_eq!(Finding::of(ci95, max_drop), expected, "{ci95:?} {max_drop}");
        }
    }
}
