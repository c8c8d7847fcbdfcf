//! `[judge]`: which model gives opinions on traces, how many on each, and on how many traces.

use super::table::Table;
use super::{Model, read_model, read_params};
use crate::sampler::SamplingParams;

/// A model as judge.
#[derive(Clone, Debug)]
pub struct JudgeSettings {
    pub model: Model,
    /// Opinions on each trace.
    pub votes: u32,
    /// Traces at most, a random part of them; 0 is all.
    pub traces: usize,
    pub params: SamplingParams,
}

pub(super) fn read(t: &mut Table) -> JudgeSettings {
    let settings = JudgeSettings {
        model: read_model(t),
        votes: t.or("votes", 3),
        traces: t.or("traces", 200),
        params: read_params(t, SamplingParams::at(0.7, 1024)),
    };
    t.check("votes", (1..=100).contains(&settings.votes), "from 1 to 100", settings.votes);
    if !settings.model.phases.is_empty() {
        t.problem(format!("{}: a judge is used as it is", t.path("phase")));
    }
    settings
}
