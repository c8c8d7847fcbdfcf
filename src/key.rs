//! The one source of randomness: a counter-based generator (Philox4x32-10) under named keys.
//!
//! A draw depends on what it is for (run seed, stream, step, problem, attempt, position, purpose), never on how many draws came before it
//! elsewhere. So batch size, order, number of workers, kill and resume do not change any draw. Candle's and `rand`'s generators are not used.
//! Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).

use sha2::{Digest, Sha256};

/// A name in the tree of randomness. Cheap to copy; deriving children is how draws get independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key([u32; 2]);

/// Third counter of the words that are read by random access; `Stream` has another.
const PURPOSE: u32 = 0x1d15_7111;

impl Key {
    /// The root of one stream of a run, such as `Key::new(seed, "sample")`.
    pub fn new(seed: u64, stream: &str) -> Self {
        Self::digest(&[b"distill", &seed.to_le_bytes(), stream.as_bytes()])
    }

    /// The child named by a number: a step, a round, an attempt.
    pub fn number(self, n: u64) -> Self {
        Self::digest(&[&self.bytes(), b"n", &n.to_le_bytes()])
    }

    /// The child named by a text: a problem id, a phase, a purpose.
    pub fn name(self, text: &str) -> Self {
        Self::digest(&[&self.bytes(), b"s", text.as_bytes()])
    }

    /// Sequential draws under this key.
    pub fn stream(self) -> Stream {
        Stream { key: self, block: 0, buffer: [0; 4], used: 4 }
    }

    /// Four uniform words at (`position`, `block`), by random access.
    pub fn block(self, position: u32, block: u32) -> [u32; 4] {
        philox([block, position, PURPOSE, 0], self.0)
    }

    /// `block` for 16 blocks from `first` on, end to end: the word of a token id `i` is word `i - 4 first`.
    pub fn blocks(self, position: u32, first: u32) -> [u32; 64] {
        let mut counters = [[0u32; 16]; 4];
        for (lane, c) in counters[0].iter_mut().enumerate() {
            *c = first.wrapping_add(lane as u32);
        }
        (counters[1], counters[2]) = ([position; 16], [PURPOSE; 16]);
        philox_lanes(&mut counters, self.0);
        let mut words = [0; 64];
        for (lane, words) in words.chunks_exact_mut(4).enumerate() {
            for (word, counters) in words.iter_mut().zip(&counters) {
                *word = counters[lane];
            }
        }
        words
    }

    fn bytes(self) -> [u8; 8] {
        (u64::from(self.0[0]) | u64::from(self.0[1]) << 32).to_le_bytes()
    }

    /// Length-prefixed, so that no two lists of parts have the same bytes.
    fn digest(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let d = hash.finalize();
        Self([u32::from_le_bytes([d[0], d[1], d[2], d[3]]), u32::from_le_bytes([d[4], d[5], d[6], d[7]])])
    }
}

/// One standard Gumbel number, -ln(-ln(1 - u)) with u = (word + 1/2) / 2^32.
///
/// Taking u from the small end keeps the upper tail fine: the largest value is 22.9 and its neighbours are 0.69 and 1.1 below.
pub fn gumbel(word: u32) -> f32 {
    let u = ((f64::from(word) + 0.5) * (1.0 / 4_294_967_296.0)) as f32;
    let exponential = -(-u.min(0.999_999_94)).ln_1p();
    -exponential.ln()
}

/// `gumbel(word)` is not above this, and seldom 0.7 below it: -ln(-ln(1 - u)) < -ln u, and the leading zeros of a word bound its logarithm.
#[inline(always)]
pub fn gumbel_bound(word: u32) -> f32 {
    (word.leading_zeros() + 1) as f32 * 0.693_2 + 1e-4
}

/// No Gumbel number is larger.
pub const GUMBEL_MAX: f32 = 22.9;

/// Sequential draws under one key.
#[derive(Clone, Debug)]
pub struct Stream {
    key: Key,
    block: u64,
    buffer: [u32; 4],
    used: usize,
}

impl Stream {
    pub fn word(&mut self) -> u32 {
        if self.used == 4 {
            self.buffer = philox([self.block as u32, (self.block >> 32) as u32, 0x5eed_0000, 1], self.key.0);
            self.block += 1;
            self.used = 0;
        }
        self.used += 1;
        self.buffer[self.used - 1]
    }

    /// Uniform in [0, 1) with 53 bits.
    pub fn unit(&mut self) -> f64 {
        let bits = u64::from(self.word()) << 32 | u64::from(self.word());
        (bits >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in 0..n, without bias. `n` must not be 0.
    pub fn below(&mut self, n: u32) -> u32 {
        assert!(n > 0, "cannot draw below 0");
        let limit = u32::MAX - u32::MAX % n;
        loop {
            let word = self.word();
            if word < limit {
                return word % n;
            }
        }
    }

    /// Uniform in `low..=high`.
    pub fn range(&mut self, low: i64, high: i64) -> i64 {
        let width = u32::try_from(high - low + 1).expect("ranges drawn from are narrow");
        low + i64::from(self.below(width))
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// One of `items`. Panics on an empty slice.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u32) as usize]
    }

    /// Standard normal (Box and Muller, one of the pair).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Fisher and Yates.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u32 + 1) as usize);
        }
    }
}

/// Philox4x32 with 10 rounds.
#[inline]
fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let mut lanes = counter.map(|word| [word]);
    philox_lanes(&mut lanes, key);
    lanes.map(|[word]| word)
}

/// `philox` of N counters at once, in loops that become vector code.
fn philox_lanes<const N: usize>(counters: &mut [[u32; N]; 4], mut key: [u32; 2]) {
    let [c0, c1, c2, c3] = counters;
    for _ in 0..10 {
        for i in 0..N {
            let a = u64::from(c0[i]) * 0xD251_1F53;
            let b = u64::from(c2[i]) * 0xCD9E_8D57;
            (c0[i], c2[i]) = ((b >> 32) as u32 ^ c1[i] ^ key[0], (a >> 32) as u32 ^ c3[i] ^ key[1]);
            (c1[i], c3[i]) = (b as u32, a as u32);
        }
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_blocks_at_once_are_the_blocks_one_by_one() {
        let key = Key::new(4, "blocks");
        for (position, first) in [(0, 0), (7, 12), (u32::MAX, u32::MAX - 3)] {
            let one_by_one: Vec<u32> = (0..16).flat_map(|lane| key.block(position, first.wrapping_add(lane))).collect();
            assert_eq!(key.blocks(position, first)[..], one_by_one);
        }
    }

    #[test]
    fn no_gumbel_number_is_above_its_bound() {
        let words = (0..32).flat_map(|bit| [1u32 << bit, (1 << bit) - 1, (1 << bit) + 1]).chain([u32::MAX]);
        for word in words.chain((0..100_000u32).map(|i| i.wrapping_mul(2_654_435_761))) {
            assert!(gumbel(word) <= gumbel_bound(word), "{word}");
            assert!(gumbel_bound(word) <= GUMBEL_MAX + 0.1);
        }
    }

    /// Known-answer rows of the Random123 distribution (`kat_vectors`, philox4x32 10).
    #[test]
    fn philox_gives_the_published_words() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        assert_eq!(
            philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
        );
    }

    #[test]
    fn keys_with_different_names_differ() {
        let root = Key::new(1, "sample");
        let keys = [
            root,
            Key::new(2, "sample"),
            Key::new(1, "eval"),
            root.number(1),
            root.name("1"),
            root.number(1).number(2),
            root.number(2).number(1),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[..i].iter().all(|b| a != b), "{i}");
        }
    }

    #[test]
    fn draws_have_the_right_moments() {
        let mut stream = Key::new(7, "moments").stream();
        let n = 40_000;
        let normal: Vec<f64> = (0..n).map(|_| stream.normal()).collect();
        let mean = normal.iter().sum::<f64>() / f64::from(n);
        let var = normal.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
        assert!(mean.abs() < 0.02 && (var - 1.0).abs() < 0.03, "{mean} {var}");
        let mut counts = [0u32; 7];
        (0..n).for_each(|_| counts[stream.below(7) as usize] += 1);
        assert!(counts.iter().all(|c| (f64::from(*c) - 5714.0).abs() < 300.0), "{counts:?}");
        let gumbel: Vec<f64> = (0..n).map(|_| f64::from(gumbel(stream.word()))).collect();
        let mean = gumbel.iter().sum::<f64>() / f64::from(n);
        let var = gumbel.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
        assert!((mean - 0.5772).abs() < 0.03 && (var - 1.6449).abs() < 0.06, "{mean} {var}");
    }

    #[test]
    fn gumbel_is_finite_and_bounded_at_both_ends() {
        for word in [0, 1, 2, u32::MAX / 2, u32::MAX - 1, u32::MAX] {
            assert!(gumbel(word).is_finite() && gumbel(word) <= GUMBEL_MAX, "{word}: {}", gumbel(word));
        }
    }
}
