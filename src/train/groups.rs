//! Attempts at the next problems of a phase, in the order of the problems: what GRPO and on-policy distillation learn from.

use super::learner::Example;
use crate::key::Key;
use crate::problem::Problem;
use crate::rollout::{Ask, Judged, Rollout};
use crate::sampler::LocalSampler;
use anyhow::Result;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The n-th problem of a phase, counted from 0 over all steps.
pub type Problems<'a> = dyn Fn(u64) -> Result<Arc<Problem>> + 'a;

/// Samples and judges `attempts` attempts at each of `problems`; a group for each, in their order.
///
/// A problem that a step asks again (where an epoch ends, or a round of dynamic sampling begins) makes a group of its own, with attempts numbered on from those
/// of its earlier groups: `occurrences` counts these.
pub fn groups(
    rollout: &Rollout,
    sampler: &mut LocalSampler,
    key: Key,
    problems: Vec<Arc<Problem>>,
    attempts: u32,
    occurrences: &mut BTreeMap<String, u32>,
) -> Result<Vec<Vec<Judged>>> {
    let number = |problem: Arc<Problem>| {
        let occurrence = occurrences.entry(problem.id.0.clone()).or_default();
        *occurrence += 1;
        (problem, *occurrence - 1)
    };
    let asked: Vec<(Arc<Problem>, u32)> = problems.into_iter().map(number).collect();
    let mut asks = asked.iter().flat_map(|(p, occurrence)| (0..attempts).map(move |a| (p.clone(), occurrence * attempts + a)));
    let mut finished: Vec<Judged> = Vec::with_capacity(asked.len() * attempts as usize);
    rollout.run(
        sampler,
        key,
        &mut || Ok(asks.next().map_or(Ask::End, |(problem, attempt)| Ask::Attempt { problem, attempt })),
        &mut |judged| {
            finished.push(judged);
            Ok(())
        },
    )?;
    let place: BTreeMap<(&str, u32), usize> = asked.iter().enumerate().map(|(i, (p, o))| ((p.id.0.as_str(), *o), i)).collect();
    let mut groups = vec![Vec::with_capacity(attempts as usize); asked.len()];
    finished.sort_by_key(|j| j.trace.attempt);
    for judged in finished {
        let group = place[&(judged.trace.problem.0.as_str(), judged.trace.attempt / attempts)];
        groups[group].push(judged);
    }
    Ok(groups)
}

/// Training rows of the attempts that have a token: prompt, then what was sampled.
pub fn examples<'a>(attempts: impl Iterator<Item = &'a Judged>) -> Vec<Example> {
    attempts
        .filter(|j| !j.completion.tokens.is_empty())
        .map(|j| Example { tokens: [&j.prompt[..], &j.completion.tokens].concat(), completion: j.prompt.len() })
        .collect()
}
