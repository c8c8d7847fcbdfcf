//! How long attempts get, from those that have ended: what may be admitted to a cache without much being computed twice.

/// Attempts that the mean goes back over.
const WINDOW: f64 = 256.0;

/// Lengths of finished attempts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lengths {
    seen: f64,
    mean: f64,
}

impl Lengths {
    /// An attempt has ended with so many tokens.
    pub fn add(&mut self, tokens: usize) {
        self.seen = (self.seen + 1.0).min(WINDOW);
        self.mean += (tokens as f64 - self.mean) / self.seen;
    }

    /// Tokens that an attempt of `sampled` is expected to get yet, a few at least where it may: as long as the mean, and a quarter of `max_tokens` while nothing is known.
    pub fn left(&self, sampled: usize, max_tokens: usize) -> usize {
        let usual = if self.seen == 0.0 { max_tokens / 4 } else { self.mean.ceil() as usize };
        usual.saturating_sub(sampled).max(super::PAGE).min(max_tokens.saturating_sub(sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_follows_what_was_seen() {
        let mut lengths = Lengths::default();
        assert_eq!((lengths.left(0, 400), lengths.left(90, 400), lengths.left(395, 400), lengths.left(400, 400)), (100, 16, 5, 0));
        lengths.add(200);
        lengths.add(100);
        assert_eq!((lengths.left(0, 400), lengths.left(100, 400), lengths.left(149, 400)), (150, 50, 16));
        (0..2000).for_each(|_| lengths.add(30));
        assert_eq!(lengths.left(0, 400), 31, "what was long ago counts no more");
    }
}
