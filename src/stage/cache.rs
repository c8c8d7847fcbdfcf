//! How large a sampler's cache is: as the recipe says, or enough for all its slots, and never more than there is.

use super::doctor::free_memory;
use super::run::config;
use crate::model::{Config, PagedCache};
use crate::recipe::Execution;
use crate::report::text::{size, thousands};
use crate::sampler::LocalSampler;
use anyhow::{Result, anyhow};

/// Bytes of the cache for attempts of `room` tokens each, their prompts included: of `execution.cache_tokens`, or of all slots at their longest, at most half of the
/// memory that is free. Two attempts have room in any case.
pub(super) fn bytes(execution: &Execution, model: &Config, room: usize, free: Option<usize>) -> usize {
    pages(execution, model, room, free).saturating_mul(PagedCache::page_bytes(model))
}

fn pages(execution: &Execution, model: &Config, room: usize, free: Option<usize>) -> usize {
    let all = LocalSampler::cache_pages(execution.slots, room);
    let wanted = match execution.cache_tokens {
        0 => free.map_or(all, |free| free / 2 / PagedCache::page_bytes(model).max(1)),
        tokens => PagedCache::pages_for(tokens),
    };
    wanted.min(all).max(LocalSampler::cache_pages(1, room))
}

/// With the cache that the recipe and this machine's memory give it.
///
/// # Errors
/// A cache that this machine has no memory for at all: the allocation that fails later would end the program.
pub(super) fn sized(sampler: LocalSampler, execution: &Execution, model: &Config) -> Result<LocalSampler> {
    let room = sampler.capacity();
    let pages = pages(execution, model, room, free_memory());
    let (bytes, memory) = (pages.saturating_mul(PagedCache::page_bytes(model)), memory().unwrap_or(isize::MAX as usize));
    config(if bytes <= memory {
        Ok(())
    } else {
        Err(anyhow!(
            "a cache of {} tokens takes {}, and this machine has {} of memory; lower {}",
            thousands(pages * PagedCache::PAGE),
            size(bytes),
            size(memory),
            if execution.cache_tokens > 0 { "execution.cache_tokens" } else { "max_tokens: two attempts must have room" }
        ))
    })?;
    Ok(sampler.with_cache_tokens(pages * PagedCache::PAGE))
}

/// Bytes of memory that this machine has, where it tells.
fn memory() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("MemTotal:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Shape;

    #[test]
    fn the_cache_is_what_was_asked_for_and_what_there_is() {
        let shape = Shape { hidden_size: 64, layers: 3, heads: 4, kv_heads: 2, intermediate_size: 128, positions: 4096 };
        let config = Config::fresh(&shape, 100, 0, 0).unwrap();
        let page = PagedCache::page_bytes(&config);
        assert_eq!(page, 2 * 3 * 2 * 16 * 16 * 4, "keys and values, 3 layers, 2 heads of 16, 16 positions, 4 bytes");
        let of = |slots, cache_tokens, free| {
            let execution = Execution { slots, cache_tokens, ..Execution::default() };
            bytes(&execution, &config, 100, free) / page
        };
        assert_eq!(of(10, 0, None), 11 * 7, "100 tokens take 7 pages, and a shared prompt has room too");
        assert_eq!(of(10, 320, None), 20);
        assert_eq!(of(10, 1 << 40, None), 77, "never more than the slots could fill");
        assert_eq!(of(10, 0, Some(100 * page)), 50, "half of what is free");
        assert_eq!((of(10, 0, Some(0)), of(10, 1, None), of(1, 0, None)), (14, 14, 14), "two attempts in any case");
    }
}
