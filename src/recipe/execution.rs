//! `[execution]`: keys that change how fast a run is and what it keeps beside its results, not what comes out of it.

use super::Execution;
use super::table::Table;

impl Default for Execution {
    fn default() -> Self {
        Self {
            slots: 128,
            cache_tokens: 0,
            micro_batch_tokens: 4096,
            recompute: None,
            requests: 32,
            request_seconds: 1800,
            patience_seconds: 300,
            save_steps: 100,
            grpo_save_steps: 20,
            checkpoints: 0,
            checkpoint_steps: None,
        }
    }
}

pub(super) fn read(t: &mut Table) -> Execution {
    let d = Execution::default();
    let execution = Execution {
        slots: t.or("slots", d.slots),
        cache_tokens: t.optional("cache_tokens").unwrap_or(d.cache_tokens),
        micro_batch_tokens: t.or("micro_batch_tokens", d.micro_batch_tokens),
        recompute: t.optional("recompute"),
        requests: t.optional("requests").unwrap_or(d.requests),
        request_seconds: t.optional("request_seconds").unwrap_or(d.request_seconds),
        patience_seconds: t.optional("patience_seconds").unwrap_or(d.patience_seconds),
        save_steps: t.or("save_steps", d.save_steps),
        grpo_save_steps: t.or("grpo_save_steps", d.grpo_save_steps),
        checkpoints: t.optional("checkpoints").unwrap_or(d.checkpoints),
        checkpoint_steps: t.optional("checkpoint_steps"),
    };
    for (key, value) in [
        ("micro_batch_tokens", execution.micro_batch_tokens),
        ("save_steps", execution.save_steps),
        ("grpo_save_steps", execution.grpo_save_steps),
    ] {
        t.check(key, value > 0, "at least 1", value);
    }
    t.check("slots", (1..=65_536).contains(&execution.slots), "from 1 to 65536", execution.slots);
    t.check("checkpoint_steps", execution.checkpoint_steps != Some(0), "at least 1", 0);
    let (requests, seconds) = (execution.requests, [execution.request_seconds, execution.patience_seconds]);
    t.check("requests", (1..=1024).contains(&requests), "from 1 to 1024", requests);
    for (key, value) in ["request_seconds", "patience_seconds"].into_iter().zip(seconds) {
        t.check(key, (1..=604_800).contains(&value), "from 1 to 604800, a week", value);
    }
    execution
}
