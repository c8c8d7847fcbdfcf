//! Training metrics, averaged over windows of steps.

use super::read::{self, Stage};
use crate::trace::Trace;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Windows that the steps of a phase are cut into, as equal as they can be.
const WINDOWS: usize = 8;
/// What is followed, as far as a phase records it; the first one present is the phase's curve. `reward` is the component `total`.
const MEASURES: [&str; 11] =
    ["accuracy", "loss", "reward", "entropy", "kl", "length", "truncated", "language", "without_spread", "mismatch_mean", "grad_norm"];

/// How a training phase went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Folder of the phase.
    pub stage: String,
    pub steps: usize,
    pub series: Vec<Series>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<Probes>,
}

/// Held-out problems that a phase answered greedily again and again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probes {
    pub problems: usize,
    /// Optimiser steps before each time.
    pub steps: Vec<u64>,
    /// How many were solved then.
    pub solved: Vec<usize>,
}

/// Means of one measure over at most 8 windows of equally many steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    pub measure: String,
    pub windows: Vec<f64>,
}

impl Curve {
    pub(super) fn series(&self, measure: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.measure == measure)
    }
}

/// The curve of every finished stage that recorded metrics.
pub(super) fn of(run: &Path, stages: &[Stage]) -> Result<Vec<Curve>> {
    let mut curves = Vec::new();
    for stage in stages {
        let path = run.join(&stage.name).join("metrics.jsonl");
        if !path.exists() {
            continue;
        }
        let records: Vec<Value> = read::rows(&path)?.into_iter().map(|(_, record)| record).collect();
        let series: Vec<Series> = MEASURES.iter().filter_map(|measure| series(measure, &records)).collect();
        if !series.is_empty() {
            let probes = probes(&run.join(&stage.name).join("probes.jsonl"))?;
            curves.push(Curve { stage: stage.name.clone(), steps: records.len(), series, probes });
        }
    }
    Ok(curves)
}

/// `None` where a phase had no probes.
fn probes(path: &Path) -> Result<Option<Probes>> {
    #[derive(Deserialize)]
    struct Row {
        step: u64,
        trace: Trace,
    }
    if !path.exists() {
        return Ok(None);
    }
    let mut by_step: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
    for (_, Row { step, trace }) in read::rows::<Row>(path)? {
        let (asked, solved) = by_step.entry(step).or_default();
        *asked += 1;
        *solved += usize::from(trace.is_correct());
    }
    let problems = by_step.values().map(|(asked, _)| *asked).max();
    Ok(problems.map(|problems| {
        let (steps, solved) = by_step.into_iter().map(|(step, (_, solved))| (step, solved)).unzip();
        Probes { problems, steps, solved }
    }))
}

/// `None` where no step recorded the measure. Windows in which none did are left out.
fn series(measure: &str, records: &[Value]) -> Option<Series> {
    let value = |record: &Value| match measure {
        "reward" => record["reward"]["total"][0].as_f64(),
        name => record[name].as_f64(),
    };
    let count = records.len().min(WINDOWS);
    let windows: Vec<f64> = (0..count)
        .filter_map(|i| {
            let window = &records[i * records.len() / count..(i + 1) * records.len() / count];
            crate::metric::mean(&window.iter().filter_map(value).collect::<Vec<_>>())
        })
        .collect();
    (!windows.is_empty()).then(|| Series { measure: measure.into(), windows })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn windows_hold_every_step_once() {
        for steps in [1, 3, 8, 9, 65, 80] {
            let records: Vec<Value> = (0..steps).map(|step| json!({"step": step, "loss": step})).collect();
            let windows = series("loss", &records).unwrap().windows;
            assert_eq!(windows.len(), usize::min(steps, 8), "{steps}");
            assert!(windows.is_sorted() && windows[0] < (steps as f64 / 8.0).max(1.0), "{steps}: {windows:?}");
        }
        let even: Vec<Value> = (0..16).map(|step| json!({"loss": step})).collect();
        assert_eq!(series("loss", &even).unwrap().windows, [0.5, 2.5, 4.5, 6.5, 8.5, 10.5, 12.5, 14.5]);
    }

    #[test]
    fn measures_that_are_not_numbers_are_left_out() {
        for (record, measure, expected) in [
            (json!({"accuracy": 0.5}), "accuracy", Some(vec![0.5])),
            (json!({"accuracy": null}), "accuracy", None),
            (json!({"reward": {"total": [0.25, 0.1], "format": [1.0, 0.0]}}), "reward", Some(vec![0.25])),
            (json!({"reward": {}}), "reward", None),
            (json!([]), "loss", None),
        ] {
            assert_eq!(series(measure, &[record]).map(|s| s.windows), expected, "{measure}");
        }
        assert_eq!(series("loss", &[]), None);
    }
}
