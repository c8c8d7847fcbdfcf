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

/// Linear warm-up to `peak`, then `decay` to `floor * peak` at the last step.
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
        if done <= self.warmup_steps {
            return self.peak * done as f64 / self.warmup_steps as f64;
        }
        let progress = (done - self.warmup_steps) as f64 / (self.steps.max(done) - self.warmup_steps) as f64;
        let left = match self.decay {
            Decay::Constant => return self.peak,
            Decay::Linear => 1.0 - progress,
            Decay::Cosine => (1.0 + (std::f64::consts::PI * progress).cos()) / 2.0,
        };
        self.peak * (self.floor + (1.0 - self.floor) * left)
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
        check(Decay::Linear, 0, 11, 0.2);
        check(Decay::Constant, 4, 11, 2.0);
        check(Decay::Constant, 4, 1, 1.0);
        check(Decay::Cosine, 0, 50, 0.2);
    }
}
