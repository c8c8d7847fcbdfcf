//! Which page of the cache belongs to whom: counted, shared, and found again by the tokens in it.
//!
//! A full page of a prompt stays findable after its last owner has gone, until its room is needed. It is known by its own tokens and the page before it, so a page
//! that is found stands behind the same tokens from the first on.

use std::collections::{BTreeMap, HashMap};

/// Tokens of a page.
pub(super) const PAGE: usize = crate::model::PagedCache::PAGE;

type Tokens = [u32; PAGE];

/// The pages of a cache.
#[derive(Debug)]
pub(super) struct PagePool {
    free: Vec<u32>,
    /// How many hold each page.
    holders: Vec<u32>,
    /// Pages by the page before them and their tokens.
    known: HashMap<(Option<u32>, Tokens), u32>,
    /// What each known page is known by.
    names: Vec<Option<(Option<u32>, Tokens)>>,
    /// Known pages that nobody holds, by the time when they were left: a page always after those that stand behind it.
    idle: BTreeMap<u64, u32>,
    left_at: Vec<u64>,
    clock: u64,
}

impl PagePool {
    pub fn new(pages: usize) -> Self {
        Self {
            free: (0..pages as u32).rev().collect(),
            holders: vec![0; pages],
            known: HashMap::new(),
            names: vec![None; pages],
            idle: BTreeMap::new(),
            left_at: vec![0; pages],
            clock: 0,
        }
    }

    /// Pages that can be taken.
    pub fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// A page for a new owner; what was known in it longest ago is forgotten where no other is free.
    pub fn take(&mut self) -> Option<u32> {
        let page = match self.free.pop() {
            Some(page) => page,
            None => {
                let (_, page) = self.idle.pop_first()?;
                self.forget(page);
                page
            }
        };
        self.holders[page as usize] = 1;
        Some(page)
    }

    fn forget(&mut self, page: u32) {
        if let Some(name) = self.names[page as usize].take() {
            self.known.remove(&name);
        }
    }

    /// One more owner of a page that is held or known.
    pub fn share(&mut self, page: u32) {
        let i = page as usize;
        if self.holders[i] == 0 {
            self.idle.remove(&self.left_at[i]);
        }
        self.holders[i] += 1;
    }

    /// One owner less of each of a sequence's pages.
    pub fn leave(&mut self, pages: Vec<u32>) {
        // From the last on, so that a page is never needed longer than the one that it stands behind.
        for page in pages.into_iter().rev() {
            let i = page as usize;
            self.holders[i] -= 1;
            if self.holders[i] > 0 {
                continue;
            }
            if self.names[i].is_some() {
                self.clock += 1;
                self.left_at[i] = self.clock;
                self.idle.insert(self.clock, page);
            } else {
                self.free.push(page);
            }
        }
    }

    /// Whether a page has one owner and cannot be found by others.
    #[cfg(test)]
    fn is_alone(&self, page: u32) -> bool {
        self.holders[page as usize] == 1 && self.names[page as usize].is_none()
    }

    /// Shares the known pages that hold the beginning of `tokens`, as many as there are, the last token left out: what follows it has to be computed.
    pub fn find(&mut self, tokens: &[u32]) -> Vec<u32> {
        let mut found = Vec::new();
        for page in tokens[..tokens.len().saturating_sub(1)].chunks_exact(PAGE) {
            let name = (found.last().copied(), page.try_into().expect("a chunk is as long as a page"));
            let Some(page) = self.known.get(&name) else { break };
            let page = *page;
            self.share(page);
            found.push(page);
        }
        found
    }

    /// Makes the full pages of a sequence findable by its tokens.
    pub fn publish(&mut self, tokens: &[u32], pages: &[u32]) {
        let mut before = None;
        for (tokens, page) in tokens.chunks_exact(PAGE).zip(pages) {
            let name = (before, tokens.try_into().expect("a chunk is as long as a page"));
            // Another page may have the same tokens behind the same ones: that one is found, and what stands behind this one would not be.
            match self.known.get(&name) {
                Some(known) if known != page => return,
                Some(_) => {}
                None => {
                    self.known.insert(name, *page);
                    self.names[*page as usize] = Some(name);
                }
            }
            before = Some(*page);
        }
    }

    /// Nothing is found any more: the weights have changed. What is held stays held.
    pub fn forget_all(&mut self) {
        self.known.clear();
        self.names.iter_mut().for_each(|name| *name = None);
        self.free.extend(std::mem::take(&mut self.idle).into_values());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    fn tokens(pages: &[u32]) -> Vec<u32> {
        pages.iter().flat_map(|p| (0..PAGE as u32).map(move |i| 100 * p + i)).collect()
    }

    fn hold(pool: &mut PagePool, n: usize) -> Vec<u32> {
        (0..n).map(|_| pool.take().unwrap()).collect()
    }

    #[test]
    fn what_was_left_is_found_by_its_tokens_until_its_room_is_needed() {
        let mut pool = PagePool::new(5);
        let text = tokens(&[1, 2, 3]);
        let own = hold(&mut pool, 3);
        pool.publish(&text, &own);
        pool.leave(own.clone());
        assert_eq!(pool.available(), 5);
        assert_eq!(pool.find(&[&text[..], &[7]].concat()), own);
        assert_eq!(pool.available(), 2);
        // The last token's page is left out, since its logits are wanted; another beginning is nobody's.
        assert_eq!(pool.find(&text), own[..2]);
        assert_eq!(pool.find(&tokens(&[1, 3, 2])), own[..1]);
        assert!(pool.find(&tokens(&[2, 3])).is_empty() && pool.find(&[]).is_empty() && pool.find(&[1]).is_empty());
        for pages in [own.clone(), own[..2].to_vec(), own[..1].to_vec()] {
            pool.leave(pages);
        }
        // Three can be taken before a page with a page behind it goes.
        let taken = hold(&mut pool, 3);
        assert!(taken.contains(&own[2]) && !taken.contains(&own[0]) && !taken.contains(&own[1]));
        assert_eq!(pool.find(&[&text[..], &[7]].concat()), own[..2]);
        pool.forget_all();
        assert!(pool.find(&text).is_empty());
    }

    #[test]
    fn equal_pages_of_two_sequences_are_known_once() {
        let mut pool = PagePool::new(8);
        let text = tokens(&[1, 2]);
        let (one, two) = (hold(&mut pool, 2), hold(&mut pool, 2));
        pool.publish(&text, &one);
        pool.publish(&text, &two);
        assert!(two.iter().all(|page| pool.is_alone(*page)));
        pool.leave(one.clone());
        pool.leave(two);
        assert_eq!(pool.find(&[&text[..], &[0]].concat()), one);
    }

    /// Against a model that remembers for each page who holds it and what was written in it.
    #[test]
    fn no_page_is_ever_lost_given_twice_or_found_with_other_tokens() {
        let mut draw = Key::new(5, "pages").stream();
        for round in 0..40 {
            let pages = 4 + draw.below(20) as usize;
            let mut pool = PagePool::new(pages);
            let mut written: Vec<Vec<u32>> = vec![Vec::new(); pages];
            let mut held: Vec<Vec<u32>> = Vec::new();
            for _ in 0..400 {
                match draw.below(8) {
                    0..=4 => {
                        // A new sequence of a few pages over few different texts.
                        let text = tokens(&(0..1 + draw.below(4)).map(|_| draw.below(3)).collect::<Vec<_>>());
                        let mut own = pool.find(&text);
                        for (i, page) in own.iter().enumerate() {
                            assert_eq!(
                                written[*page as usize],
                                text[..(i + 1) * PAGE],
                                "round {round}: what is found stands behind the same tokens"
                            );
                        }
                        let found = own.len();
                        while own.len() * PAGE < text.len() {
                            let Some(page) = pool.take() else { break };
                            assert!(!held.iter().flatten().chain(&own).any(|p| *p == page), "round {round}: page {page} was held");
                            own.push(page);
                            written[page as usize] = text[..own.len() * PAGE].to_vec();
                        }
                        assert!(own[found..].iter().all(|page| pool.is_alone(*page)));
                        if own.len() * PAGE == text.len() {
                            pool.publish(&text, &own);
                        }
                        held.push(own);
                    }
                    5 | 6 if !held.is_empty() => pool.leave(held.swap_remove(draw.below(held.len() as u32) as usize)),
                    7 if draw.below(20) == 0 => pool.forget_all(),
                    _ => {}
                }
                let mut in_use: Vec<u32> = held.iter().flatten().copied().collect();
                in_use.sort_unstable();
                in_use.dedup();
                assert_eq!(pool.available(), pages - in_use.len(), "round {round}");
            }
        }
    }
}
