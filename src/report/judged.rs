//! What a model as judge has cost, and how far it agrees with the rules.

use super::read::done;
use super::text::{share, thousands};
use crate::judge::{Agreement, Cost};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A run's opinions on its traces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// That were judged.
    pub traces: u64,
    pub cost: Cost,
    pub agreement: Found,
}

/// Judge and rules on the traces that rules have decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    pub counts: Agreement,
    pub share: Option<f64>,
    pub kappa: Option<f64>,
}

pub(super) fn of(run: &Path) -> Result<Option<Judged>> {
    #[derive(Deserialize)]
    struct Done {
        counts: Judged,
    }
    Ok(done::<Done>(&run.join("judged"))?.map(|done| done.counts))
}

pub(super) fn markdown(judged: Option<&Judged>) -> String {
    let Some(Judged { traces, cost, agreement }) = judged else { return String::new() };
    let n = |n: u64| thousands(usize::try_from(n).unwrap_or(usize::MAX));
    let c = &agreement.counts;
    let mut out = format!(
        "- {} traces judged, {} requests, {} tokens of prompts and {} of replies\n",
        n(*traces),
        thousands(cost.requests),
        thousands(cost.prompt_tokens),
        thousands(cost.completion_tokens)
    );
    if let Some(agrees) = agreement.share {
        let kappa = agreement.kappa.map_or("not defined, as one of the two always says the same".to_owned(), |kappa| format!("{kappa:.2}"));
        let trials = c.both_correct + c.both_wrong + c.judge_only + c.rules_only;
        out += &format!(
            "- where both decide: the same verdict in {} (Cohen's kappa {kappa}): both correct {}, both wrong {}, only the judge says correct {}, only the rules {}; the judge \
             had no majority on {}\n",
            share(agrees, trials as usize),
            n(c.both_correct),
            n(c.both_wrong),
            n(c.judge_only),
            n(c.rules_only),
            n(c.no_majority)
        );
    }
    out
}
