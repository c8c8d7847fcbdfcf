//! What the figures do not say, in sentences: which of them apply depends on the run alone.

use super::read::Planted;
use super::text::{setting, thousands};
use super::{ComparisonRow, Report};
use std::cmp::Ordering;

/// What a reader could take from the figures and should not; nothing where there are none.
pub fn of(report: &Report) -> Vec<String> {
    if report.evaluation.is_empty() {
        return Vec::new();
    }
    let mut points = vec![format!(
        "This is one run with one seed ({}). The intervals say how much the choice of problems matters, not how much another seed would.",
        report.setup.seed
    )];
    points.extend(report.setup.cold_start.as_ref().map(planted));
    points.extend(above_the_teacher(report));
    points.extend(control(report));
    if report.comparison.len() > 1 {
        points.push(format!(
            "{} comparisons stand above. The p-values are not corrected for their number, and the rows share models, so they are not independent.",
            report.comparison.len()
        ));
    }
    if report.evaluation.iter().any(|e| e.ci95[0] == e.ci95[1] || e.greedy_ci95[0] == e.greedy_ci95[1]) {
        points.push(
            "An interval without width (all problems solved, or none) is a limit of the bootstrap, not certainty: of n problems without an \
             exception the exact 95 % interval still reaches about 3.7 / n from the end."
                .into(),
        );
    }
    if report.evaluation.iter().any(|e| e.truncated > 0.02) {
        points.push(
            "An attempt cut off at `max_tokens` is judged by what it had written; where the truncated share is high, the limit is measured, too.".into(),
        );
    }
    let most = report.evaluation.iter().max_by(|a, b| a.undecided.total_cmp(&b.undecided)).filter(|e| e.undecided > 0.0);
    if let Some(e) = most {
        points.push(format!(
            "Up to {} of the answers ({} on {}) are in a form that no rule here decides, such as LaTeX that is not a plain number. They count as not \
             solved, so the true rates are higher, and published figures are no measure for these.",
            setting(e.undecided),
            e.model,
            e.task
        ));
    }
    points
}

fn planted(planted: &Planted) -> String {
    format!(
        "The demonstration is planted. In {} of its {} traces the cold start works from left to right on purpose, which is wrong wherever precedence \
         matters{}. The right order is in the other {}. GRPO amplifies that strategy, which is \
         there already; it does not discover arithmetic. Slips ({}), steps left out ({}) and mixed languages ({}) are planted \
         too. The low start is by construction.",
        setting(planted.left_to_right),
        thousands(planted.traces as usize),
        if planted.left_to_right > 0.5 { ", so that the wrong strategy is what a model learns to prefer" } else { "" },
        setting(1.0 - planted.left_to_right),
        setting(planted.slip),
        setting(planted.skip),
        setting(planted.mixed_language)
    )
}

fn above_the_teacher(report: &Report) -> Option<String> {
    let tasks = report.tasks();
    let above = |row: &ComparisonRow| row.shown() == Some(Ordering::Greater);
    let found = tasks.iter().any(|task| ["sampled", "greedy"].iter().any(|metric| report.headline(task, metric).is_some_and(above)));
    let has = |method: &str| report.setup.student.as_ref().is_some_and(|student| student.phases.iter().any(|phase| phase.method == method));
    let why = match (has("grpo"), has("kd")) {
        (true, true) => "It learnt its teacher's distributions and was then reinforced on attempts of its own",
        (true, false) => "It was trained on its teacher's checked traces and then reinforced on attempts of its own",
        (false, true) => "It learnt its teacher's distributions on text that was checked or its own",
        (false, false) => "It was trained on its teacher's checked traces, not on all of them",
    };
    found.then(|| format!("The student is above its teacher here. {why}; that students surpass teachers in general is not claimed."))
}

fn control(report: &Report) -> Option<String> {
    let unfiltered = report.evaluation.iter().any(|e| e.model == "student-unfiltered");
    let deduplicated = report.funnel.iter().any(|step| step.step == "exact_duplicate");
    (unfiltered && deduplicated).then(|| {
        "`student-unfiltered` was trained on as many traces as the corpus has, but duplicates were taken out of the corpus only: the control saw \
         fewer distinct traces, and a part of the difference may be that."
            .into()
    })
}
