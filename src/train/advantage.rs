//! Advantages: how much better an attempt is than its group.
//!
//! All in f64: eight equal f32 rewards of 0.7 have a standard deviation that is not 0, and an advantage that is noise. A group without
//! spread is recognised by max == min and has no advantage.

use serde::{Deserialize, Serialize};

/// The baseline and scale of a group's rewards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Advantage {
    /// (r - mean) / (std + 1e-4) with the sample standard deviation: GRPO as TRL computes it.
    #[default]
    GroupStd,
    /// r - mean: Dr. GRPO ("Understanding R1-Zero-like training", 2025).
    GroupMean,
    /// r minus the mean of the others: RLOO ("Back to basics", 2024).
    LeaveOneOut,
    /// (r - mean of the others) / (std of the others + 1e-8), clamped to [-2, 2]: Reinforce-Lite.
    ReinforceLite,
    /// r itself.
    None,
}

impl Advantage {
    /// Attempts that a group needs for this to have a value.
    pub fn smallest_group(self) -> usize {
        match self {
            Self::None => 1,
            Self::GroupStd | Self::GroupMean | Self::LeaveOneOut => 2,
            Self::ReinforceLite => 3,
        }
    }

    /// One advantage per reward of a group.
    pub fn of(self, rewards: &[f64]) -> Vec<f64> {
        if self == Self::None {
            return rewards.to_vec();
        }
        if !has_spread(rewards) {
            return vec![0.0; rewards.len()];
        }
        let mean = mean(rewards);
        match self {
            Self::None => rewards.to_vec(),
            Self::GroupMean => rewards.iter().map(|r| r - mean).collect(),
            Self::GroupStd => {
                let std = sample_std(rewards);
                rewards.iter().map(|r| (r - mean) / (std + 1e-4)).collect()
            }
            Self::LeaveOneOut => each_with_others(rewards, |r, others| r - self::mean(others)),
            Self::ReinforceLite => {
                each_with_others(rewards, |r, others| ((r - self::mean(others)) / (sample_std(others) + 1e-8)).clamp(-2.0, 2.0))
            }
        }
    }
}

/// Whether a group's rewards differ at all.
pub fn has_spread(rewards: &[f64]) -> bool {
    rewards.windows(2).any(|w| w[0] != w[1])
}

fn each_with_others(rewards: &[f64], f: impl Fn(f64, &[f64]) -> f64) -> Vec<f64> {
    (0..rewards.len())
        .map(|i| {
            let others: Vec<f64> = rewards.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, r)| *r).collect();
            f(rewards[i], &others)
        })
        .collect()
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

fn sample_std(x: &[f64]) -> f64 {
    let m = mean(x);
    (x.iter().map(|v| (v - m).powi(2)).sum::<f64>() / (x.len() as f64 - 1.0)).sqrt()
}
