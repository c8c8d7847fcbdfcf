//! Stretches of 64 bytes that stood before, wherever they are: about twelve English words or twenty Chinese characters.
//!
//! A rolling hash over 64 bytes is taken at every byte; of these grams one in 32 is looked up, chosen by its own hash, so that the same text is
//! sampled at the same places. Where no gram was chosen for 256 bytes, as in a loop of a few letters, the next one is.

use crate::measure::bytes::{GEAR, Hashes, fold};

/// How much of a text stood before.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Grams {
    /// Sampled grams.
    pub sampled: usize,
    /// Share of these that are equal to an earlier one, in [0, 1].
    pub share: f64,
    /// How often the most frequent one stands.
    pub times: usize,
    /// Byte range of the last time.
    pub span: (usize, usize),
}

impl Grams {
    /// Whether the sample is large enough for its share to mean something: a text of about 2,000 bytes.
    pub(super) fn counts(&self) -> bool {
        self.sampled >= 64
    }
}

const WIDTH: usize = 64;
const GAP: usize = 256;

pub(super) fn measure(bytes: &[u8]) -> Grams {
    let mut grams = Grams::default();
    if bytes.len() < WIDTH {
        return grams;
    }
    let mut counts: Hashes<u32> = Hashes::with_capacity_and_hasher(bytes.len() / 32 + 1, Default::default());
    let (mut hash, mut again) = (0u64, 0usize);
    for byte in &bytes[..WIDTH - 1] {
        hash = (hash << 1).wrapping_add(GEAR[usize::from(*byte)]);
    }
    let mut at = WIDTH - 1;
    while at < bytes.len() {
        // A byte is shifted out after 64 steps, so the hash is that of the last 64 bytes; its upper bits depend on all of them.
        let stretch = &bytes[at..bytes.len().min(at + GAP)];
        // In a variable of its own, so that it stays in a register.
        let mut rolling = hash;
        for byte in stretch {
            rolling = (rolling << 1).wrapping_add(GEAR[usize::from(*byte)]);
            at += 1;
            if rolling >> 59 == 0 {
                break;
            }
        }
        hash = rolling;
        grams.sampled += 1;
        let count = counts.entry(fold(hash, GEAR[0] | 1)).or_insert(0);
        *count += 1;
        again += usize::from(*count > 1);
        if *count as usize > grams.times {
            (grams.times, grams.span) = (*count as usize, (at - WIDTH, at));
        }
    }
    grams.share = if grams.sampled == 0 { 0.0 } else { again as f64 / grams.sampled as f64 };
    grams
}
