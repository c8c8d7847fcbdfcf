//! The report of a run: `report.json`, `report.md` and what `distill run` prints at its end.
//!
//! Everything here is a pure function of the run directory: no clock, no machine, no network. `report.json` is complete, and the two texts are
//! views of it. It reads what stages published and knows neither how they made it nor what a recipe may contain.

mod compare;
mod curves;
mod examples;
mod figures;
mod forgetting;
mod judged;
mod limits;
mod markdown;
mod read;
mod terminal;
pub(crate) mod text;

pub use compare::ComparisonRow;
pub use curves::{Curve, Probes, Series};
pub use examples::Example;
pub use forgetting::{Finding, Forgetting};
pub use judged::Judged;
pub use markdown::markdown;
pub use read::{Evaluation, Model, Phase, Planted, Problems, Sample, Setup, Stage};
pub use terminal::terminal;
pub use text::harmless;

use crate::filter::Step;
use crate::publish;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// All that is known about a run: the content of `report.json`, whose keys are stable. What a run does not have is an empty list or `None`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the recipe.
    pub recipe: String,
    /// Of the program that wrote the report.
    pub version: String,
    pub setup: Setup,
    /// Finished stages in the order of the pipeline.
    pub stages: Vec<Stage>,
    /// How many traces each step of the filter left.
    pub funnel: Vec<Step>,
    /// A model's opinions beside the rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<Judged>,
    /// By task, then from base to student.
    pub evaluation: Vec<Evaluation>,
    pub comparison: Vec<ComparisonRow>,
    /// Of tasks that were not trained on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forgetting: Vec<Forgetting>,
    /// What the recipe allows a model to lose on these; `None` is no gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_drop: Option<f64>,
    pub curves: Vec<Curve>,
    /// A trace of the corpus and one that was dropped, of the same problem where there is one.
    pub kept: Option<Example>,
    pub dropped: Option<Example>,
}

impl Report {
    /// Reads a run directory. Parts that are missing are left out; a part that is damaged is an error that names the file.
    pub fn of(run: &Path) -> Result<Self> {
        let recipe = read::Recipe::load(run)?;
        let evaluated = read::evaluations(run, &recipe)?;
        let stages = read::stages(run, &recipe, &evaluated)?;
        let (kept, dropped) = examples::of(run)?;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").into(),
            comparison: compare::rows(&evaluated, recipe.setup.seed)?,
            forgetting: forgetting::rows(&evaluated, &recipe)?,
            max_drop: recipe.max_drop(),
            curves: curves::of(run, &stages)?,
            funnel: read::funnel(run)?,
            judge: judged::of(run)?,
            evaluation: evaluated.into_iter().map(|one| one.evaluation).collect(),
            recipe: recipe.name,
            setup: recipe.setup,
            stages,
            kept,
            dropped,
        })
    }

    /// An error where the recipe sets a gate for forgetting and it does not hold.
    pub fn gate(&self) -> Result<()> {
        forgetting::gate(&self.forgetting, self.max_drop)
    }

    /// Tasks in the order of the evaluations, each once.
    fn tasks(&self) -> Vec<&str> {
        let mut tasks: Vec<&str> = self.evaluation.iter().map(|e| e.task.as_str()).collect();
        tasks.dedup();
        tasks
    }

    fn evaluations_of(&self, task: &str) -> Vec<&Evaluation> {
        self.evaluation.iter().filter(|e| e.task == task).collect()
    }

    /// The comparison of the teacher with the most trained student there is, by metric.
    fn headline(&self, task: &str, metric: &str) -> Option<&ComparisonRow> {
        let of = |student: &str| {
            self.comparison
                .iter()
                .find(|row| row.task == task && row.metric == metric && row.teacher == "teacher" && row.student == student)
        };
        of("student").or_else(|| of("student-sft"))
    }
}

/// Writes `report.json` and `report.md` into the run directory and hands back what they say.
pub fn write(run: &Path) -> Result<Report> {
    let report = Report::of(run)?;
    publish::json(run.join("report.json"), &report)?;
    publish::file(run.join("report.md"), markdown(&report).as_bytes())?;
    Ok(report)
}

#[cfg(test)]
mod tests;
