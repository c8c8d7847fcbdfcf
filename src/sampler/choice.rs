//! The next token from a row of logits.
//!
//! The token is argmax(logit / T + Gumbel(position, id)) over the kept set, ties by id: an exact draw from the softmax that needs no sum and
//! no order. The kept set is vLLM's: min-p, then top-k, then top-p over what is left. Temperature 0 is argmax.

use crate::key::{GUMBEL_MAX, Key, gumbel};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// How tokens are chosen; names and meanings as in vLLM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SamplingParams {
    /// 0 is greedy, and so is what is nearly 0.
    #[serde(serialize_with = "shortest")]
    pub temperature: f32,
    /// Smallest set of most likely tokens whose probability reaches this; 1 keeps all.
    #[serde(serialize_with = "shortest")]
    pub top_p: f32,
    /// This many most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Tokens at least this likely relative to the most likely one; 0 keeps all.
    #[serde(serialize_with = "shortest")]
    pub min_p: f32,
    /// New tokens at most.
    pub max_tokens: usize,
    /// Strings that end an attempt, kept in its text.
    pub stop: Vec<String>,
}

/// Writes a number as a person has written it: 0.7, not 0.699999988079071.
fn shortest<S: serde::Serializer>(x: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(x.to_string().parse().unwrap_or(f64::from(*x)))
}

/// Below this a temperature is greedy, as in vLLM.
const LEAST_TEMPERATURE: f32 = 1e-5;

impl SamplingParams {
    /// Plain sampling at a temperature.
    pub fn at(temperature: f32, max_tokens: usize) -> Self {
        Self { temperature, top_p: 1.0, top_k: 0, min_p: 0.0, max_tokens, stop: Vec::new() }
    }

    /// Whether some tokens can be cut away, so that log-probabilities are not those of what is sampled.
    pub fn truncates(&self) -> bool {
        self.top_p < 1.0 || self.top_k > 0 || self.min_p > 0.0
    }

    /// The first value out of range, under the given table's name.
    pub fn check(&self, table: &str) -> Result<()> {
        let Self { temperature, top_p, min_p, max_tokens, .. } = self;
        ensure!(temperature.is_finite() && *temperature >= 0.0, "{table}.temperature must be 0 (greedy) or more, got {temperature}");
        ensure!(*top_p > 0.0 && *top_p <= 1.0, "{table}.top_p must be in (0, 1], got {top_p}");
        ensure!((0.0..=1.0).contains(min_p), "{table}.min_p must be in [0, 1], got {min_p}");
        ensure!(*max_tokens > 0, "{table}.max_tokens must be at least 1, got 0");
        ensure!(self.stop.iter().all(|s| !s.is_empty()), "{table}.stop holds an empty string, which would end every attempt at once");
        Ok(())
    }
}

/// A chosen token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    pub token: u32,
    /// Log-probability at the temperature (1 where it is 0), of the untruncated distribution.
    pub logprob: f32,
}

/// Chooses the token at `position` of the attempt that `key` names. `None` where a logit is NaN or all are -inf: the model is damaged.
pub fn choose(logits: &[f32], params: &SamplingParams, key: Key, position: u32) -> Option<Choice> {
    let top = argmax(logits)?;
    let greedy = params.temperature < LEAST_TEMPERATURE;
    let scale = if greedy { 1.0 } else { 1.0 / params.temperature };
    let token = if greedy {
        top
    } else if params.truncates() {
        draw(logits, scale, key, position, top, kept(logits, scale, params).into_iter())
    } else {
        draw(logits, scale, key, position, top, 0..logits.len())
    };
    let peak = logits[top];
    let sum: f64 = logits.iter().map(|z| f64::from(((z - peak) * scale).exp())).sum();
    let logprob = f64::from((logits[token] - peak) * scale) - sum.ln();
    Some(Choice { token: token as u32, logprob: logprob as f32 })
}

/// Index of the largest logit, the first among equals.
fn argmax(logits: &[f32]) -> Option<usize> {
    let mut top = None;
    for (i, z) in logits.iter().enumerate() {
        if z.is_nan() {
            return None;
        }
        if top.is_none_or(|t: usize| *z > logits[t]) {
            top = Some(i);
        }
    }
    top.filter(|t| logits[*t].is_finite())
}

/// argmax of logit * scale + Gumbel over `kept`, which is in the order of ids.
///
/// A token so unlikely that the largest Gumbel number could not lift it over the best so far is passed over without drawing; the result is the same.
fn draw(logits: &[f32], scale: f32, key: Key, position: u32, top: usize, kept: impl Iterator<Item = usize>) -> usize {
    let noise = |id: usize, block: &mut (usize, [u32; 4])| {
        if block.0 != id / 4 {
            *block = (id / 4, key.block(position, (id / 4) as u32));
        }
        gumbel(block.1[id % 4])
    };
    let mut block = (usize::MAX, [0; 4]);
    let mut best = (top, logits[top] * scale + noise(top, &mut block));
    for id in kept {
        let z = logits[id] * scale;
        if z + GUMBEL_MAX < best.1 {
            continue;
        }
        let value = z + noise(id, &mut block);
        if value > best.1 || value == best.1 && id < best.0 {
            best = (id, value);
        }
    }
    best.0
}

/// Ids that min-p, top-k and top-p leave, in their order.
fn kept(logits: &[f32], scale: f32, params: &SamplingParams) -> Vec<usize> {
    let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |id: usize| ((logits[id] - peak) * scale).exp();
    let mut ids: Vec<usize> = (0..logits.len()).filter(|id| weight(*id) >= params.min_p).collect();
    let order = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
    if params.top_k > 0 && params.top_k < ids.len() {
        ids.select_nth_unstable_by(params.top_k - 1, order);
        ids.truncate(params.top_k);
    }
    if params.top_p < 1.0 {
        ids.sort_unstable_by(order);
        let total: f64 = ids.iter().map(|id| f64::from(weight(*id))).sum();
        let mut mass = 0.0;
        let count = ids.iter().take_while(|id| {
            let before = mass;
            mass += f64::from(weight(**id));
            before < f64::from(params.top_p) * total
        });
        let count = count.count().max(1);
        ids.truncate(count);
    }
    ids.sort_unstable();
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frequencies(logits: &[f32], params: &SamplingParams) -> Vec<f64> {
        let n = 20_000;
        let mut counts = vec![0.0; logits.len()];
        for attempt in 0..n {
            let choice = choose(logits, params, Key::new(3, "choice").number(attempt), 5).unwrap();
            counts[choice.token as usize] += 1.0 / n as f64;
        }
        counts
    }

    fn softmax(logits: &[f32], t: f32) -> Vec<f64> {
        let e: Vec<f64> = logits.iter().map(|z| f64::from(z / t).exp()).collect();
        let sum: f64 = e.iter().sum();
        e.iter().map(|x| x / sum).collect()
    }

    #[test]
    fn frequencies_are_the_softmax_at_the_temperature() {
        let logits = [1.0, -0.5, 0.3, 2.0, -3.0];
        for t in [0.5, 1.0, 2.0] {
            let expected = softmax(&logits, t);
            for (f, p) in frequencies(&logits, &SamplingParams::at(t, 1)).iter().zip(expected) {
                assert!((f - p).abs() < 4.0 * (p * (1.0 - p) / 20_000.0).sqrt() + 1e-3, "{f} {p}");
            }
        }
    }

    #[test]
    fn truncation_keeps_the_documented_sets() {
        let logits: Vec<f32> = [0.4f32, 0.3, 0.2, 0.06, 0.04].iter().map(|p| p.ln()).collect();
        let kept = |top_k, top_p, min_p| kept(&logits, 1.0, &SamplingParams { top_k, top_p, min_p, ..SamplingParams::at(1.0, 1) });
        assert_eq!(kept(2, 1.0, 0.0), [0, 1]);
        assert_eq!(kept(0, 0.69, 0.0), [0, 1]);
        assert_eq!(kept(0, 0.71, 0.0), [0, 1, 2]);
        assert_eq!(kept(0, 1e-6, 0.0), [0]);
        assert_eq!(kept(0, 1.0, 0.4), [0, 1, 2]);
        assert_eq!(kept(3, 0.5, 0.0), [0, 1], "top-p is over what top-k left: 0.4 / 0.9 < 0.5");
        let drawn = frequencies(&logits, &SamplingParams { top_k: 2, ..SamplingParams::at(1.0, 1) });
        assert!(drawn[2..].iter().all(|f| *f == 0.0) && (drawn[0] - 4.0 / 7.0).abs() < 0.02, "{drawn:?}");
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest_and_reports_its_logprob_at_temperature_one() {
        let choice = choose(&[0.0, 2.0, 2.0], &SamplingParams::at(0.0, 1), Key::new(0, ""), 0).unwrap();
        assert_eq!(choice.token, 1);
        assert!((choice.logprob - (-(2.0f32 + (-2.0f32).exp()).ln())).abs() < 1e-6);
    }

    #[test]
    fn passing_over_hopeless_tokens_changes_nothing() {
        let logits: Vec<f32> = (0..400).map(|i| ((i * 37) % 101) as f32 * 0.4).collect();
        for position in 0..200 {
            let key = Key::new(9, "skip");
            let fast = choose(&logits, &SamplingParams::at(1.0, 1), key, position).unwrap().token;
            let slow = (0..400usize).map(|id| (id, logits[id] + gumbel(key.block(position, (id / 4) as u32)[id % 4])));
            let slow = slow.fold((0, f32::NEG_INFINITY), |best, x| if x.1 > best.1 { x } else { best });
            assert_eq!(fast as usize, slow.0);
        }
    }

    #[test]
    fn damaged_logits_are_noticed() {
        for logits in [vec![0.0, f32::NAN], vec![f32::NEG_INFINITY; 3], vec![f32::INFINITY, 0.0], vec![]] {
            assert_eq!(choose(&logits, &SamplingParams::at(1.0, 1), Key::new(0, ""), 0), None, "{logits:?}");
        }
    }
}
