//! The next token from a row of logits.
//!
//! The token is argmax(logit / T + Gumbel(position, id)) over the kept set, ties by id: an exact draw from the softmax that needs no sum and
//! no order. The kept set is vLLM's: min-p, then top-k, then top-p over what is left. Temperature 0 is argmax.

use super::params::SamplingParams;
use crate::key::{GUMBEL_MAX, Key, gumbel, gumbel_bound};
use crate::model::kernels::{exp, max, zip_sum};

/// Below this a temperature is greedy, as in vLLM.
const LEAST_TEMPERATURE: f32 = 1e-5;

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
        draw_of(logits, scale, key, position, top, kept(logits, scale, params).into_iter())
    } else {
        draw(logits, scale, key, position, top)
    };
    let peak = logits[top];
    let sum: f64 = logits.chunks(1024).map(|z| f64::from(zip_sum(z, z, |z, _| exp((z - peak) * scale)))).sum();
    let logprob = f64::from((logits[token] - peak) * scale) - sum.ln();
    Some(Choice { token: token as u32, logprob: logprob as f32 })
}

/// Index of the largest logit, the first among equals.
fn argmax(logits: &[f32]) -> Option<usize> {
    let top = Some(max(logits)).filter(|z| z.is_finite())?;
    let chunk = logits.chunks(64).position(|z| z.iter().fold(false, |found, z| found | (*z == top)))?;
    logits[chunk * 64..].iter().position(|z| *z == top).map(|i| chunk * 64 + i)
}

/// argmax of logit * scale + Gumbel over all ids.
///
/// Only where the bound of a token's Gumbel number reaches the best value so far is the number itself computed: a few times per draw; the result is the same.
fn draw(logits: &[f32], scale: f32, key: Key, position: u32, top: usize) -> usize {
    let first = logits[top] * scale + gumbel(key.block(position, (top / 4) as u32)[top % 4]);
    let mut best = (top, first);
    for (i, logits) in logits.chunks(64).enumerate() {
        let words = key.blocks(position, 16 * i as u32);
        let may_win = |z: &f32, word: &u32, best: f32| z * scale + gumbel_bound(*word) >= best;
        if !logits.iter().zip(&words).fold(false, |any, (z, word)| any | may_win(z, word, best.1)) {
            continue;
        }
        for (lane, (z, word)) in logits.iter().zip(&words).enumerate() {
            if may_win(z, word, best.1) {
                best = better(best, (64 * i + lane, z * scale + gumbel(*word)));
            }
        }
    }
    best.0
}

/// `draw` over the ids that `kept` gives in their order.
fn draw_of(logits: &[f32], scale: f32, key: Key, position: u32, top: usize, kept: impl Iterator<Item = usize>) -> usize {
    let value = |id: usize| logits[id] * scale + gumbel(key.block(position, (id / 4) as u32)[id % 4]);
    kept.fold((top, value(top)), |best, id| if logits[id] * scale + GUMBEL_MAX < best.1 { best } else { better(best, (id, value(id))) }).0
}

/// The id of the larger value, the smaller id among equals.
fn better(a: (usize, f32), b: (usize, f32)) -> (usize, f32) {
    if b.1 > a.1 || b.1 == a.1 && b.0 < a.0 { b } else { a }
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
        // Wide, flat and constant logits; 400 and 127 are no multiples of what is looked at together.
        for (spread, n) in [(0.4, 400), (0.02, 127), (0.0, 64), (3.0, 1000)] {
            let logits: Vec<f32> = (0..n).map(|i| ((i * 37) % 101) as f32 * spread).collect();
            for position in 0..200 {
                let (key, params) = (Key::new(9, "skip"), SamplingParams::at(0.8, 1));
                let fast = choose(&logits, &params, key, position).unwrap().token;
                let value = |id: usize| (id, logits[id] * (1.0 / 0.8) + gumbel(key.block(position, (id / 4) as u32)[id % 4]));
                let slow = (0..n).map(value).fold((0, f32::NEG_INFINITY), |best, x| if x.1 > best.1 { x } else { best });
                assert_eq!(fast as usize, slow.0);
                let all = draw_of(&logits, 1.0 / 0.8, key, position, argmax(&logits).unwrap(), 0..n);
                assert_eq!(all, slow.0);
            }
        }
    }

    #[test]
    fn damaged_logits_are_noticed() {
        for logits in [vec![0.0, f32::NAN], vec![f32::NEG_INFINITY; 3], vec![f32::INFINITY, 0.0], vec![]] {
            assert_eq!(choose(&logits, &SamplingParams::at(1.0, 1), Key::new(0, ""), 0), None, "{logits:?}");
        }
    }
}
