//! Frames that were decompressed, as many as fit a bound, for rows that are read in another order than they lie in.
//!
//! The one that was used longest ago goes first. What a frame holds and where it comes from is not known here.

use anyhow::Result;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Raw bytes of the frames that are kept at most; one larger frame is kept alone.
const BYTES: usize = 128 << 20;

/// Frames by where they lie.
pub(super) struct Cache<K> {
    frames: HashMap<K, Kept>,
    /// Keys by the moment of their last use.
    used: BTreeMap<u64, K>,
    clock: u64,
    bytes: usize,
    limit: usize,
}

struct Kept {
    raw: Vec<u8>,
    used: u64,
}

impl<K: Copy + Eq + Hash> Cache<K> {
    pub(super) fn new() -> Self {
        Self::with_limit(BYTES)
    }

    fn with_limit(limit: usize) -> Self {
        Self { frames: HashMap::new(), used: BTreeMap::new(), clock: 0, bytes: 0, limit }
    }

    /// The raw bytes of the frame at `key`, from `read` where they are not kept.
    pub(super) fn get(&mut self, key: K, read: impl FnOnce() -> Result<Vec<u8>>) -> Result<&[u8]> {
        self.clock += 1;
        match self.frames.get_mut(&key) {
            Some(kept) => {
                self.used.remove(&std::mem::replace(&mut kept.used, self.clock));
            }
            None => {
                let raw = read()?;
                self.make_room(raw.len());
                self.bytes += raw.len();
                self.frames.insert(key, Kept { raw, used: self.clock });
            }
        }
        self.used.insert(self.clock, key);
        Ok(self.frames.get(&key).map_or(&[], |kept| &kept.raw))
    }

    pub(super) fn clear(&mut self) {
        *self = Self::with_limit(self.limit);
    }

    fn make_room(&mut self, bytes: usize) {
        while self.bytes + bytes > self.limit
            && let Some((_, key)) = self.used.pop_first()
        {
            self.bytes -= self.frames.remove(&key).map_or(0, |kept| kept.raw.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_once_while_they_fit_and_the_oldest_goes_first() {
        let mut cache = Cache::with_limit(30);
        let mut reads = Vec::new();
        let mut get = |key: u8, n: usize| {
            let raw = cache.get(key, || {
                reads.push(key);
                Ok(vec![key; n])
            });
            assert_eq!(raw.unwrap(), vec![key; n]);
            assert!(cache.bytes <= 30.max(n) && cache.used.len() == cache.frames.len());
        };
        for key in [1, 2, 3, 1, 2, 3, 1] {
            get(key, 10);
        }
        get(4, 10); // 2 was used longest ago
        for key in [1, 3, 4, 2] {
            get(key, 10);
        }
        get(9, 50); // more than all room: alone
        get(2, 10);
        assert_eq!(reads, [1, 2, 3, 4, 2, 9, 2]);
        assert!(cache.get(7, || anyhow::bail!("damaged")).is_err());
        assert_eq!(cache.get(7, || Ok(vec![7])).unwrap(), [7], "what could not be read is not kept");
        cache.clear();
        assert_eq!(cache.bytes, 0);
        cache.get(7, || Ok(vec![8])).unwrap();
    }
}
