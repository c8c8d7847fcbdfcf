//! The learning rate over the steps of a phase.

use serde::{Deserialize, Serialize};

/// How the rate falls after warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    Constant,
    Linear,
    Cosine,
}

/// Linear warm-up to `peak`, and `decay` to `floor * peak`.
///
/// For step t of T, counted from 0, with W steps of warm-up and floor f:
/// - constant: peak min(1, (t + 1) / W).
/// - linear: peak min(1, (t + 1) / W) (1 - (1 - f) t / T); it falls from the first step on, during the warm-up too. Source: the student's GRPO phase
///   of the tiny recipe, as it was found by experiment.
/// - cosine: after the warm-up peak (f + (1 - f) (1 + cos(pi p)) / 2), where p rises from 0 to 1 at the last step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    pub peak: f64,
    pub warmup_steps: usize,
    pub steps: usize,
    pub decay: Decay,
    /// Share of the peak that is left at the end.
    pub floor: f64,
}

impl Schedule {
    /// The rate of step `step`, counted from 0.
    pub fn rate(&self, step: usize) -> f64 {
        let done = step + 1;
        let warming = done <= self.warmup_steps;
        let warm = if warming { self.peak * done as f64 / self.warmup_steps as f64 } else { self.peak };
        match self.decay {
            Decay::Constant => warm,
            Decay::Linear => warm * (1.0 - (1.0 - self.floor) * step as f64 / self.steps.max(done) as f64),
            Decay::Cosine if warming => warm,
            Decay::Cosine => {
                let progress = (done - self.warmup_steps) as f64 / (self.steps.max(done) - self.warmup_steps) as f64;
                warm * (self.floor + (1.0 - self.floor) * ((1.0 + (std::f64::consts::PI * progress).cos()) / 2.0))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_at_the_ends_and_in_the_middle() {
        let check = |decay, warmup_steps, step, expected: f64| {
            let rate = Schedule { peak: 2.0, warmup_steps, steps: 12, decay, floor: 0.1 }.rate(step);
            assert!((rate - expected).abs() < 1e-12, "{decay:?} {warmup_steps} {step}: {rate}");
        };
        check(Decay::Cosine, 2, 0, 1.0);
        check(Decay::Cosine, 2, 1, 2.0);
        check(Decay::Cosine, 2, 6, 2.0 * (0.1 + 0.9 * 0.5));
        check(Decay::Cosine, 2, 11, 0.2);
        check(Decay::Linear, 2, 6, 2.0 * (0.1 + 0.9 * 0.5));
        check(Decay::Linear, 0, 11, 2.0 * (0.1 + 0.9 / 12.0));
        check(Decay::Constant, 4, 11, 2.0);
        check(Decay::Constant, 4, 1, 1.0);
        check(Decay::Cosine, 0, 50, 0.2);
    }

    /// lr*min(1,(t+1)/5)*(1-.9 t/65) with lr 4e-4, as the tiny recipe was tuned.
    #[test]
    fn the_linear_rate_is_the_one_the_tiny_recipe_was_tuned_with() {
        let schedule = Schedule { peak: 4e-4, warmup_steps: 5, steps: 65, decay: Decay::Linear, floor: 0.1 };
        // python3 -c 'for t in (0, 2, 4, 5, 32, 64): print(4e-4*min(1,(t+1)/5)*(1-.9*t/65))'
        for (step, expected) in [
            (0, 8e-05),
            (2, 0.0002333538461538462),
            (4, 0.00037784615384615385),
            (5, 0.0003723076923076923),
            (32, 0.00022276923076923078),
            (64, 4.5538461538461546e-05),
        ] {
            assert!((schedule.rate(step) - expected).abs() < 1e-15, "{step}: {}", schedule.rate(step));
        }
    }
}
