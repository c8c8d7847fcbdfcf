//! GRPO's objective on plain numbers: surrogate, KL estimators, aggregation, and their derivatives by each token's log-probability.
//!
//! The formulas of the field, each once. `train/grpo.rs` brings the numbers and turns the derivatives into gradients.

use serde::{Deserialize, Serialize};

/// How token losses become one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossType {
    /// Mean over sequences of each sequence's token mean ("DeepSeekMath").
    #[default]
    Grpo,
    /// Sum over tokens / tokens of the global batch ("DAPO").
    Dapo,
    /// The same within each micro-batch, and the mean over micro-batches.
    Bnpo,
    /// Sum over tokens / (sequences * longest completion allowed) ("Understanding R1-Zero-like training").
    DrGrpo,
}

impl LossType {
    /// Weight of a token of a sequence in the loss.
    pub fn weight(self, counts: &Counts, sequence_tokens: usize) -> f64 {
        match self {
            Self::Grpo => 1.0 / (counts.sequences * sequence_tokens.max(1)) as f64,
            Self::Dapo => 1.0 / counts.tokens.max(1) as f64,
            Self::Bnpo => 1.0 / (counts.micro_batches * counts.micro_batch_tokens.max(1)) as f64,
            Self::DrGrpo => 1.0 / (counts.sequences * counts.max_tokens) as f64,
        }
    }
}

/// The denominators of the loss types. Sequences whose advantage is 0 and that are not computed still count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Sequences of the global batch.
    pub sequences: usize,
    /// Tokens with a loss of the global batch.
    pub tokens: usize,
    /// Longest completion allowed.
    pub max_tokens: usize,
    /// Micro-batches of the global batch.
    pub micro_batches: usize,
    /// Tokens with a loss of this micro-batch.
    pub micro_batch_tokens: usize,
}

/// Clipping of the probability ratio to [1 - low, 1 + high].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    pub low: f64,
    pub high: f64,
}

/// Which side of the clip cut a token's gradient off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clipped {
    Low,
    High,
}

/// `min(rho A, clip(rho) A)` with rho = exp(lp - old), its derivative by lp, and whether it was clipped ("PPO", 2017, eq. 7).
pub fn surrogate(lp: f64, old: f64, advantage: f64, clip: Clip) -> (f64, f64, Option<Clipped>) {
    let ratio = (lp - old).exp();
    let clamped = ratio.clamp(1.0 - clip.low, 1.0 + clip.high);
    if ratio * advantage <= clamped * advantage {
        return (ratio * advantage, ratio * advantage, None);
    }
    (clamped * advantage, 0.0, Some(if ratio < clamped { Clipped::Low } else { Clipped::High }))
}

/// How the divergence from the reference policy is estimated; d = lp_ref - lp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KlEstimator {
    /// -d. As a loss its gradient has expectation 0: it does not regularise. Meant for the reward.
    K1,
    /// |d|
    Abs,
    /// d^2 / 2, whose gradient in the loss is that of KL(policy || reference).
    K2,
    /// exp(d) - d - 1, never negative; its gradient in the loss is that of KL(reference || policy) (Schulman, "Approximating KL divergence", 2020).
    #[default]
    K3,
    /// The sum over the whole vocabulary, exact.
    Full,
}

/// Bound on k3, as verl has it, so that one token cannot take over a batch. Beyond it the derivative is 0.
const MAX_K3: f64 = 10.0;

impl KlEstimator {
    /// Estimate and its derivative by lp from a sampled token. `Full` has no estimate from a sampled token: (0, 0).
    pub fn estimate(self, lp: f64, reference: f64) -> (f64, f64) {
        let d = reference - lp;
        match self {
            Self::K1 => (-d, 1.0),
            Self::Abs => (d.abs(), if d == 0.0 { 0.0 } else { -d.signum() }),
            Self::K2 => (d * d / 2.0, -d),
            Self::K3 => {
                let value = d.exp() - d - 1.0;
                if value > MAX_K3 { (MAX_K3, 0.0) } else { (value, 1.0 - d.exp()) }
            }
            Self::Full => (0.0, 0.0),
        }
    }
}

/// Where the divergence is charged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KlPlacement {
    /// Added to the loss, token by token.
    #[default]
    Loss,
    /// Taken from the reward, summed over the completion.
    Reward,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::advantage::Advantage;
    use serde_json::Value;

    /// Rows computed with PyTorch by benches/peer/grpo_goldens.py.
    fn golden(table: &str) -> Vec<Value> {
        let all: Value = serde_json::from_str(include_str!("../../tests/golden/grpo.json")).unwrap();
        all[table].as_array().unwrap().clone()
    }

    fn number(row: &Value, key: &str) -> f64 {
        row[key].as_f64().unwrap_or_else(|| panic!("{row} has no {key}"))
    }

    fn numbers(value: &Value) -> Vec<f64> {
        value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    }

    fn close(what: &str, a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-9 * (1.0 + b.abs()), "{what}: {a}, golden {b}");
    }

    #[test]
    fn advantages_are_those_of_torch() {
        for row in golden("advantages") {
            let rewards = numbers(&row["rewards"]);
            for (name, advantage) in [
                ("group_std", Advantage::GroupStd),
                ("mean_only", Advantage::GroupMean),
                ("leave_one_out", Advantage::LeaveOneOut),
                ("reinforce_lite", Advantage::ReinforceLite),
                ("raw", Advantage::None),
            ] {
                if rewards.len() >= advantage.smallest_group() {
                    for (a, b) in advantage.of(&rewards).into_iter().zip(numbers(&row[name])) {
                        close(&format!("{name} of {rewards:?}"), a, b);
                    }
                }
            }
        }
        let worked: Vec<String> = Advantage::GroupStd.of(&[90.0, 80.0, 70.0, 60.0]).iter().map(|a| format!("{a:.3}")).collect();
        assert_eq!(worked, ["1.162", "0.387", "-0.387", "-1.162"]);
    }

    #[test]
    fn surrogate_and_its_gradient_are_those_of_torch() {
        for row in golden("surrogate") {
            let clip = Clip { low: number(&row, "eps_low"), high: number(&row, "eps_high") };
            let (value, grad, clipped) = surrogate(number(&row, "lp"), number(&row, "lp_old"), number(&row, "advantage"), clip);
            close(&row.to_string(), value, number(&row, "value"));
            close(&row.to_string(), grad, number(&row, "grad"));
            let name = clipped.map(|c| if c == Clipped::Low { "low" } else { "high" });
            assert_eq!(name, row["clipped"].as_str(), "{row}");
        }
    }

    #[test]
    fn kl_estimators_are_those_of_torch_within_their_bounds() {
        for row in golden("kl") {
            let d = number(&row, "d");
            for (name, estimator) in [("k1", KlEstimator::K1), ("abs", KlEstimator::Abs), ("k2", KlEstimator::K2), ("k3", KlEstimator::K3)]
            {
                let (value, grad) = estimator.estimate(-1.0, d - 1.0);
                let golden = number(&row[name], "value");
                if estimator == KlEstimator::K3 && golden > MAX_K3 {
                    assert_eq!((value, grad), (MAX_K3, 0.0));
                    continue;
                }
                close(&format!("{name} at {d}"), value, golden);
                close(&format!("{name}' at {d}"), grad, number(&row[name], "grad"));
            }
        }
    }

    #[test]
    fn token_weights_of_each_loss_type_are_those_of_torch() {
        for row in golden("aggregation") {
            let masks: Vec<Vec<f64>> = row["mask"].as_array().unwrap().iter().map(numbers).collect();
            let tokens = |m: &[f64]| m.iter().sum::<f64>() as usize;
            let batches: Vec<Vec<f64>> = row["batches"].as_array().unwrap().iter().map(numbers).collect();
            for (name, loss_type) in
                [("grpo", LossType::Grpo), ("dapo", LossType::Dapo), ("bnpo", LossType::Bnpo), ("dr_grpo", LossType::DrGrpo)]
            {
                for (i, mask) in masks.iter().enumerate() {
                    let batch = batches.iter().find(|b| b.contains(&(i as f64))).unwrap();
                    let counts = Counts {
                        sequences: masks.len(),
                        tokens: masks.iter().map(|m| tokens(m)).sum(),
                        max_tokens: number(&row, "max_length") as usize,
                        micro_batches: batches.len(),
                        micro_batch_tokens: batch.iter().map(|j| tokens(&masks[*j as usize])).sum(),
                    };
                    let grads = numbers(&row[name]["grad"][i]);
                    for (m, grad) in mask.iter().zip(grads) {
                        close(&format!("{name} sequence {i}"), loss_type.weight(&counts, tokens(mask)) * m, grad);
                    }
                }
            }
        }
    }

    /// In expectation over the policy, k1 and k3 are the KL itself.
    #[test]
    fn expected_values_of_k1_and_k3_are_the_kl() {
        let rows = golden("kl_full");
        for row in &rows {
            for (name, estimator) in [("k1", KlEstimator::K1), ("k3", KlEstimator::K3)] {
                let log_softmax = |z: &[f64]| {
                    let sum = z.iter().map(|x| x.exp()).sum::<f64>().ln();
                    z.iter().map(|x| x - sum).collect::<Vec<_>>()
                };
                let (lp, lq) = (log_softmax(&numbers(&row["logits"])), log_softmax(&numbers(&row["logits_ref"])));
                let estimates: Vec<f64> = lp.iter().zip(&lq).map(|(p, q)| estimator.estimate(*p, *q).0).collect();
                if estimates.contains(&MAX_K3) {
                    continue;
                }
                let expected: f64 = lp.iter().zip(&estimates).map(|(p, e)| p.exp() * e).sum();
                close(name, expected, number(&row["full"], "value"));
            }
        }
        assert!(!rows.is_empty());
    }

    /// In expectation over the policy: k1 in the loss has no gradient, k2's is that of KL(policy || reference), k3's that of KL(reference || policy).
    #[test]
    fn expected_gradients_of_the_estimators_are_what_their_documentation_says() {
        let mut compared = 0;
        for row in golden("kl_full") {
            let log_softmax = |z: &[f64]| {
                let sum = z.iter().map(|x| x.exp()).sum::<f64>().ln();
                z.iter().map(|x| x - sum).collect::<Vec<_>>()
            };
            let (lp, lq) = (log_softmax(&numbers(&row["logits"])), log_softmax(&numbers(&row["logits_ref"])));
            let expected = |estimator: KlEstimator| {
                let grads: Vec<f64> = lp.iter().zip(&lq).map(|(p, q)| estimator.estimate(*p, *q).1).collect();
                let mean: f64 = lp.iter().zip(&grads).map(|(p, g)| p.exp() * g).sum();
                lp.iter().zip(&grads).map(|(p, g)| p.exp() * (g - mean)).collect::<Vec<_>>()
            };
            for (estimator, golden) in [
                (KlEstimator::K1, vec![0.0; lp.len()]),
                (KlEstimator::K2, numbers(&row["full"]["grad"])),
                (KlEstimator::K3, numbers(&row["reverse"]["grad"])),
            ] {
                let bounded = |p: &f64, q: &f64| estimator == KlEstimator::K3 && estimator.estimate(*p, *q).0 == MAX_K3;
                if lp.iter().zip(&lq).any(|(p, q)| bounded(p, q)) {
                    continue;
                }
                compared += 1;
                for (a, b) in expected(estimator).into_iter().zip(golden) {
                    assert!((a - b).abs() < 1e-9, "{estimator:?}: {a}, golden {b}");
                }
            }
        }
        assert_eq!(compared, 5, "one of the two rows is outside k3's bound");
    }
}
