//! MinHash signatures in bands: which texts may be alike, in 128 bytes each.
//!
//! A signature is `BANDS` bands of r minima, each the least value of one hash function over a text's shingles; two texts share a minimum with probability s, their
//! Jaccard similarity, and are candidates where all r of a band agree: with probability 1 - (1 - s^r)^BANDS. Only a hash of each band is kept.
//! Source: Broder, "On the resemblance and containment of documents" (1997); Leskovec, Rajaraman, Ullman, "Mining of massive datasets", section 3.4.

use super::shingles::mix;
use crate::key::Key;

/// Bands of a signature.
pub const BANDS: usize = 16;
/// A pair at the threshold is a candidate with at least this probability.
const RECALL: f64 = 0.989;

/// Probability that a pair of Jaccard similarity `s` is a candidate with bands of `rows` minima.
pub fn probability(s: f64, rows: usize) -> f64 {
    1.0 - (1.0 - s.powi(rows as i32)).powi(BANDS as i32)
}

/// Minima per band: the most with which a pair at the threshold is still found, so that the fewest pairs below it are compared.
pub fn rows_for(threshold: f64) -> usize {
    (1..=64).take_while(|rows| probability(threshold, *rows) >= RECALL).last().unwrap_or(1)
}

/// The hash functions of a signature: x -> a x + b modulo 2^32, over the upper half of a shingle's 64 well-mixed bits.
#[derive(Clone, Debug)]
pub struct MinHash {
    a: Vec<u32>,
    b: Vec<u32>,
    rows: usize,
}

impl MinHash {
    pub fn new(key: Key, threshold: f64) -> Self {
        let rows = rows_for(threshold);
        let words: Vec<[u32; 4]> = (0..(BANDS * rows) as u32).map(|i| key.block(i, 1)).collect();
        Self { a: words.iter().map(|w| w[0] | 1).collect(), b: words.iter().map(|w| w[1]).collect(), rows }
    }

    /// A hash of each band; `None` for a text without words. Shingles may come twice.
    pub fn bands(&self, shingles: &[u64]) -> Option<[u64; BANDS]> {
        let minima = self.minima(shingles)?;
        let mut bands = [0; BANDS];
        for (i, (band, minima)) in bands.iter_mut().zip(minima.chunks_exact(self.rows)).enumerate() {
            *band = minima.iter().fold(mix(i as u64 + 1), |hash, minimum| mix(hash ^ u64::from(*minimum)));
        }
        Some(bands)
    }

    fn minima(&self, shingles: &[u64]) -> Option<Vec<u32>> {
        if shingles.is_empty() {
            return None;
        }
        let mut minima = vec![u32::MAX; self.a.len()];
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            unsafe { self.lower_avx2(shingles, &mut minima) };
            return Some(minima);
        }
        self.lower(shingles, &mut minima);
        Some(minima)
    }

    #[inline(always)]
    fn lower(&self, shingles: &[u64], minima: &mut [u32]) {
        for block in shingles.chunks(8) {
            // A short block is filled up with its first shingle, which changes no minimum.
            let xs: [u32; 8] = std::array::from_fn(|i| (block.get(i).unwrap_or(&block[0]) >> 32) as u32);
            for ((minimum, a), b) in minima.iter_mut().zip(&self.a).zip(&self.b) {
                *minimum = xs.iter().fold(*minimum, |least, x| least.min(x.wrapping_mul(*a).wrapping_add(*b)));
            }
        }
    }

    /// The same loop, compiled for vectors of eight.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn lower_avx2(&self, shingles: &[u64], minima: &mut [u32]) {
        self.lower(shingles, minima);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_is_steep_around_the_threshold() {
        for (threshold, rows) in [(0.5, 2), (0.7, 3), (0.8, 6), (0.85, 8), (0.9, 13), (0.95, 27)] {
            assert_eq!(rows_for(threshold), rows, "{threshold}");
            assert!(probability(threshold, rows) >= RECALL);
        }
        let curve = [0.5, 0.6, 0.7, 0.8, 0.85, 0.9].map(|s| (1000.0 * probability(s, 8)).round() / 1000.0);
        assert_eq!(curve, [0.061, 0.237, 0.613, 0.947, 0.994, 1.0]);
    }

    /// Pairs of sets with a known similarity, 2,000 at each: the rate at which they are candidates is the curve's, within four standard errors.
    #[test]
    fn pairs_are_candidates_at_the_rate_of_the_curve() {
        let signature = MinHash::new(Key::new(3, "near"), 0.85);
        for (shared, own) in [(100, 50), (140, 30), (170, 15), (185, 8)] {
            let s = f64::from(shared) / f64::from(shared + 2 * own);
            let mut draw = Key::new(5, "pairs").number(shared as u64).stream();
            let pairs = 2000;
            let mut found = 0;
            for _ in 0..pairs {
                let mut set = |n: u32| (0..n).map(|_| u64::from(draw.word()) << 32 | u64::from(draw.word())).collect::<Vec<u64>>();
                let (common, left, right) = (set(shared), set(own), set(own));
                let bands = |own: &[u64]| signature.bands(&[&common[..], own].concat()).expect("not empty");
                let (a, b) = (bands(&left), bands(&right));
                found += usize::from(a.iter().zip(&b).any(|(a, b)| a == b));
            }
            let (expected, rate) = (probability(s, 8), found as f64 / f64::from(pairs));
            let error = (expected * (1.0 - expected) / f64::from(pairs)).sqrt();
            assert!((rate - expected).abs() < 4.0 * error + 1e-3, "similarity {s}: {rate}, expected {expected}");
        }
    }

    #[test]
    fn the_plain_loop_gives_what_the_vector_loop_gives() {
        let signature = MinHash::new(Key::new(3, "near"), 0.85);
        let shingles: Vec<u64> = (0..300u64).map(mix).collect();
        let mut plain = vec![u32::MAX; signature.a.len()];
        signature.lower(&shingles, &mut plain);
        assert_eq!(signature.minima(&shingles), Some(plain));
        assert_eq!(signature.bands(&[]), None);
    }
}
