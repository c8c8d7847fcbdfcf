//! Sampling's path: pieces of many sequences, each over pages of its own, in one step.
//!
//! A piece is one new token, a part of a prompt, or a sequence that is computed again; a step may hold all three. Which pieces share a step and where a prompt
//! is cut changes no bit of a result: products, attention and everything else are one chain of operations for each row.

use super::super::config::Config;
use super::super::ops::{self, Pages, Span};
use super::Decoder;
use crate::lanes;
use anyhow::{Result, ensure};
use std::sync::Arc;

/// Keys and values of running sequences in pages, allocated once. Which page belongs to whom is not known here.
#[derive(Debug)]
pub struct PagedCache {
    layers: Vec<Pages>,
    pages: usize,
    /// For each page the number of the piece, from 1, that writes to it in the step that is being checked.
    writers: Vec<u32>,
}

impl PagedCache {
    /// Positions of a page.
    pub const PAGE: usize = ops::PAGE;

    /// A cache of `pages` pages, which cost memory as they are used.
    pub fn new(config: &Config, pages: usize) -> Self {
        let shape = super::attention_shape(config);
        Self { layers: (0..config.layers).map(|_| Pages::new(pages, shape)).collect(), pages, writers: vec![0; pages] }
    }

    /// Bytes that a page takes, over all layers.
    pub fn page_bytes(config: &Config) -> usize {
        config.layers * Pages::numbers(super::attention_shape(config)) * size_of::<f32>()
    }

    /// Pages that so many tokens take.
    pub fn pages_for(tokens: usize) -> usize {
        tokens.div_ceil(Self::PAGE)
    }

    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Copies a page with all its layers.
    pub fn copy(&mut self, from: u32, to: u32) -> Result<()> {
        ensure!((from.max(to) as usize) < self.pages, "pages {from} and {to} of {}", self.pages);
        self.layers.iter_mut().for_each(|layer| layer.copy(from, to));
        Ok(())
    }

    /// Sees to it that each piece has pages for its tokens, and that nobody else has those that it writes to.
    fn check(&mut self, pieces: &[&Piece]) -> Result<()> {
        let written = |piece: &Piece| piece.start / Self::PAGE..Self::pages_for(piece.start + piece.tokens.len());
        for (i, piece) in pieces.iter().enumerate() {
            ensure!(!piece.tokens.is_empty(), "piece {i} of a step has no tokens");
            ensure!(
                piece.pages.len() >= written(piece).end,
                "piece {i} of a step ends at position {} and has {} pages",
                piece.start + piece.tokens.len(),
                piece.pages.len()
            );
            if let Some(page) = piece.pages.iter().find(|page| **page as usize >= self.pages) {
                anyhow::bail!("page {page} of {}", self.pages);
            }
        }
        let mut clash = None;
        for (i, piece) in pieces.iter().enumerate() {
            for page in &piece.pages[written(piece)] {
                let writer = &mut self.writers[*page as usize];
                clash = if *writer == 0 { clash } else { Some(*page) };
                *writer = i as u32 + 1;
            }
        }
        for (i, piece) in pieces.iter().enumerate() {
            let used = &piece.pages[..written(piece).end];
            clash = clash.or(used.iter().copied().find(|page| ![0, i as u32 + 1].contains(&self.writers[*page as usize])));
        }
        for piece in pieces {
            piece.pages[written(piece)].iter().for_each(|page| self.writers[*page as usize] = 0);
        }
        ensure!(clash.is_none(), "page {} belongs to two pieces of a step, one of which writes to it", clash.unwrap_or_default());
        Ok(())
    }
}

/// Tokens of one sequence that are computed in a step.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    pub tokens: &'a [u32],
    /// Position of the first of them; what stands before it was computed already.
    pub start: usize,
    /// Pages of the sequence from position 0 on, to the last token's at least. Those that the tokens are written to belong to this piece alone.
    pub pages: &'a [u32],
    /// Whether the logits of what follows the last token are wanted.
    pub wants_logits: bool,
}

impl Decoder {
    /// Computes pieces of sequences without gradients, where they come in several shares each share on one thread. `then` gets a share's number and
    /// the logits that its pieces want, row after row of V numbers, in the order of the pieces.
    ///
    /// # Errors
    /// A piece without tokens or with too few pages, a page that is none, a position beyond the model's, and a page that is written to and is another piece's too.
    pub fn advance<R: Send>(
        &self,
        cache: &mut PagedCache,
        of_share: &[Vec<Piece>],
        then: impl Fn(usize, &[f32]) -> R + Sync,
    ) -> Result<Vec<R>> {
        cache.check(&of_share.iter().flatten().collect::<Vec<_>>())?;
        let cache = &*cache;
        let one = |(share, pieces): (usize, &Vec<Piece>)| -> Result<R> {
            if pieces.is_empty() {
                return Ok(then(share, &[]));
            }
            // SAFETY: `check` has found each page that is written to in one piece only, and the cache is borrowed mutably for all shares together.
            match unsafe { self.compute(cache, pieces) }? {
                Some(logits) => Ok(ops::with_numbers(&logits, |logits| then(share, logits))?),
                None => Ok(then(share, &[])),
            }
        };
        lanes::map(of_share.iter().enumerate().collect(), one).into_iter().collect()
    }

    /// Logits that the pieces want, (W, V); `None` where none wants any.
    ///
    /// # Safety
    /// Each page that a piece writes to belongs to it alone, and nobody else writes to the others meanwhile.
    unsafe fn compute(&self, cache: &PagedCache, pieces: &[Piece]) -> Result<Option<candle_core::Tensor>> {
        let rows = pieces.iter().map(|piece| piece.tokens.len()).sum();
        let (mut tokens, mut positions, mut spans) = (Vec::with_capacity(rows), Vec::with_capacity(rows), Vec::with_capacity(pieces.len()));
        let mut last = Vec::new();
        for piece in pieces {
            let first = tokens.len();
            tokens.extend_from_slice(piece.tokens);
            positions.extend((piece.start..piece.start + piece.tokens.len()).map(|p| p as u32));
            spans.push(Span { rows: first..tokens.len(), start: piece.start, pages: piece.pages });
            last.extend(piece.wants_logits.then_some(tokens.len() as u32 - 1));
        }
        let hidden = self.walk(self.embedded(&Arc::new(tokens))?, &Arc::new(positions), |layer, qkv| {
            // SAFETY: as promised to this function.
            Ok(unsafe { ops::attention_over_pages(qkv, &cache.layers[layer], &spans, self.shape()) }?)
        })?;
        if last.is_empty() {
            return Ok(None);
        }
        let wanted = if last.len() == rows { hidden } else { self.select(&hidden, last)? };
        Ok(Some(self.logits(&wanted)?))
    }
}
