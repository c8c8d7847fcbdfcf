//! How far one's own distribution p is from a reference's q, both given by their logarithms, and its slope by one's own logits.
//!
//! For a function D of p alone, dD/dz_j = p_j (g_j - sum_i p_i g_i) with g = dD/dp. So KL(p || q) has the slope p (log p - log q - KL), KL(q || p) has p - q,
//! and a Jensen-Shannon divergence with the mixture m = b q + (1 - b) p has g = (1 - b) (log p - log m): what q adds to g cancels.

use super::{exp, zip_sum};

/// Which divergence. The generalised Jensen-Shannon divergence of GKD (Agarwal et al., 2024, eq. 1), in which q is the teacher and p the student, is
/// b KL(q || m) + (1 - b) KL(p || m). At its ends, where that is 0, the plain ones stand, as in TRL: what it tends to there, over b and over 1 - b.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Divergence {
    /// KL(q || p), which wants p to cover all that q does.
    Forward,
    /// KL(p || q), which wants p to keep to what q does.
    Reverse,
    /// With this b, between 0 and 1.
    JensenShannon(f32),
}

impl Divergence {
    /// That of TRL's `beta`: 0 is forward, 1 is reverse.
    pub fn of_beta(beta: f64) -> Self {
        match beta {
            0.0 => Self::Forward,
            1.0 => Self::Reverse,
            beta => Self::JensenShannon(beta as f32),
        }
    }

    /// Its value; `p` and `q` are log-probabilities.
    pub(super) fn of(self, p: &[f32], q: &[f32]) -> f32 {
        match self {
            Self::Forward => zip_sum(p, q, |p, q| exp(q) * (q - p)),
            Self::Reverse => zip_sum(p, q, |p, q| exp(p) * (p - q)),
            Self::JensenShannon(b) => {
                let mixture = Mixture::new(b);
                zip_sum(p, q, |p, q| {
                    let m = mixture.of(p, q);
                    b * exp(q) * (q - m) + (1.0 - b) * exp(p) * (p - m)
                })
            }
        }
    }

    /// Puts `f(log-probability, slope)` in the place of each of one's own log-probabilities `p`; `value` is what `of` gave.
    pub(super) fn backward(self, p: &mut [f32], q: &[f32], value: f32, f: impl Fn(f32, f32) -> f32) {
        match self {
            Self::Forward => p.iter_mut().zip(q).for_each(|(p, q)| *p = f(*p, exp(*p) - exp(*q))),
            Self::Reverse => p.iter_mut().zip(q).for_each(|(p, q)| *p = f(*p, exp(*p) * (*p - q - value))),
            Self::JensenShannon(b) => {
                let mixture = Mixture::new(b);
                let mean = zip_sum(p, q, |p, q| exp(p) * (p - mixture.of(p, q)));
                p.iter_mut().zip(q).for_each(|(p, q)| *p = f(*p, (1.0 - b) * exp(*p) * (*p - mixture.of(*p, *q) - mean)));
            }
        }
    }
}

/// The logarithm of b q + (1 - b) p.
#[derive(Clone, Copy)]
struct Mixture {
    of_q: f32,
    of_p: f32,
}

impl Mixture {
    fn new(b: f32) -> Self {
        Self { of_q: b.ln(), of_p: (-b).ln_1p() }
    }

    #[inline(always)]
    fn of(self, p: f32, q: f32) -> f32 {
        let (p, q) = (p + self.of_p, q + self.of_q);
        let (high, low) = (p.max(q), p.min(q));
        high + ln_1p(exp(low - high))
    }
}

/// ln(1 + x) for x in [0, 1], in plain arithmetic, so that loops over it become vector code: 2 artanh(x / (2 + x)), of which the first term left out is below 1e-7.
#[inline(always)]
fn ln_1p(x: f32) -> f32 {
    let t = x / (2.0 + x);
    let s = t * t;
    let series = [11.0, 9.0, 7.0, 5.0, 3.0].into_iter().fold(1.0 / 13.0, |sum: f32, n: f32| sum.mul_add(s, 1.0 / n));
    2.0 * t * series.mul_add(s, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_that_of_f64() {
        for i in 0..=10_000u32 {
            let x = i as f32 / 10_000.0;
            let exact = f64::from(x).ln_1p();
            assert!((f64::from(ln_1p(x)) - exact).abs() <= 4e-7 * exact, "{x}: {} and {exact}", ln_1p(x));
        }
    }

    #[test]
    fn the_ends_of_beta_are_the_plain_divergences() {
        assert_eq!(Divergence::of_beta(0.0), Divergence::Forward);
        assert_eq!(Divergence::of_beta(1.0), Divergence::Reverse);
        assert_eq!(Divergence::of_beta(0.5), Divergence::JensenShannon(0.5));
    }

    /// A token that one of the two holds impossible has no logarithm of its own that could spoil the sum.
    #[test]
    fn what_one_side_holds_impossible_is_finite() {
        let (p, q) = ([-1e-6, -200.0, -14.0], [-200.0, -1e-6, -14.0]);
        for divergence in [Divergence::Forward, Divergence::Reverse, Divergence::JensenShannon(0.1)] {
            let value = divergence.of(&p, &q);
            assert!(value.is_finite() && value > 0.0, "{divergence:?}: {value}");
            let mut slope = p;
            divergence.backward(&mut slope, &q, value, |_, slope| slope);
            assert!(slope.iter().all(|slope| slope.is_finite()), "{divergence:?}: {slope:?}");
        }
        // It is bounded by the entropy of the choice between the two.
        let b = 0.1f32;
        let bound = -b * b.ln() - (1.0 - b) * (1.0 - b).ln();
        let value = Divergence::JensenShannon(b).of(&p, &q);
        assert!((value - bound).abs() < 1e-4, "{value} of {bound}");
    }
}
