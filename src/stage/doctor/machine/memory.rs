//! Memory: how much there is and is free, what a control group leaves of it, swap, and whether the system gives out large pages.
//!
//! What a recipe needs is not known here (`--plan` says it): sizes of models are plain quotients of bytes.

use super::super::finding::Finding;
use super::cgroup::{self, Room};
use super::{field, read};
use crate::report::text::size;
use std::path::Path;

/// Less is not enough for anything: the tiny recipe takes 0.3 GB.
const SCARCE: u64 = 1_000_000_000;
/// Bytes that a parameter takes: its weight in f32, as in sampling and beneath an adapter; with gradient and two moments, as in full fine-tuning.
const WEIGHT: u64 = 4;
const TRAINED: u64 = 16;

/// `/proc/meminfo`, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Memory {
    total: u64,
    available: u64,
    swap: u64,
    swap_free: u64,
}

/// How much there is; a second finding where swap is in use.
pub fn memory() -> Vec<Finding> {
    let room = cgroup::memory(Path::new(cgroup::ROOT), &read(cgroup::GROUPS));
    match meminfo(&read("/proc/meminfo")) {
        Some(memory) => std::iter::once(fitting(&memory, room)).chain(swapped(&memory)).collect(),
        None => vec![Finding::note("memory", "how much there is, is not known here")],
    }
}

/// Bytes that this process may still take: what the machine has left, or its control groups, whichever is less.
pub fn free() -> Option<usize> {
    let room = cgroup::memory(Path::new(cgroup::ROOT), &read(cgroup::GROUPS)).map(|room| room.free);
    let machine = meminfo(&read("/proc/meminfo")).map(|memory| memory.available);
    machine.into_iter().chain(room).min().and_then(|bytes| usize::try_from(bytes).ok())
}

fn meminfo(text: &str) -> Option<Memory> {
    let bytes = |name: &str| Some(field(text, name)?.split(' ').next()?.parse::<u64>().ok()?.saturating_mul(1024));
    let swap = |name: &str| bytes(name).unwrap_or(0);
    Some(Memory { total: bytes("MemTotal")?, available: bytes("MemAvailable")?, swap: swap("SwapTotal"), swap_free: swap("SwapFree") })
}

fn fitting(memory: &Memory, room: Option<Room>) -> Finding {
    let (free, whole) = match room.filter(|room| room.limit < memory.total) {
        Some(room) => {
            let outside = format!("the {} of its control group (the machine has {})", shown(room.limit), shown(memory.total));
            (room.free.min(memory.available), outside)
        }
        None => (memory.available, shown(memory.total)),
    };
    let there = format!("{} free of {whole}", shown(free));
    if free < SCARCE {
        return Finding::warning(
            "memory",
            there,
            "end other programs, or raise the limit: the tiny recipe takes 0.3 GB, models that are worth anything more",
        );
    }
    let (weights, trained) = (parameters(free / WEIGHT), parameters(free / TRAINED));
    Finding::good(
        "memory",
        format!(
            "{there}: room for the weights of {weights} parameters to sample from or train an adapter on ({WEIGHT} bytes each), or {trained} to train in \
             full ({TRAINED} bytes each), before activations and caches"
        ),
    )
}

fn swapped(memory: &Memory) -> Option<Finding> {
    let used = memory.swap.saturating_sub(memory.swap_free);
    (used > 0)
        .then(|| Finding::note("swap", format!("{} of {} in use; what lies there is read back slowly", shown(used), shown(memory.swap))))
}

fn shown(bytes: u64) -> String {
    size(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// `1.3B`, `430M`.
fn parameters(n: u64) -> String {
    if n >= 1_000_000_000 { format!("{:.1}B", n as f64 / 1e9) } else { format!("{}M", n / 1_000_000) }
}

/// Whether weights may lie in large pages (`memory.rs`).
pub fn pages() -> Finding {
    large(&read("/sys/kernel/mm/transparent_hugepage/enabled"))
}

/// Of a line such as `always [madvise] never`.
fn large(text: &str) -> Finding {
    match text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']')) {
        Some("never") => Finding::warning(
            "pages",
            "large pages are switched off: a large model's weights are read at about two thirds of the speed",
            "as root: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        ),
        Some(mode) => Finding::good("pages", format!("large pages are to be had ({mode})")),
        None => Finding::note("pages", "whether large pages are to be had is not known here"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::State;
    use super::*;

    const MEMINFO: &str = "MemTotal:       24683656 kB\nMemFree:        20466040 kB\nMemAvailable:   24182744 kB\nBuffers:           25668 kB\n\
        SwapCached:            0 kB\nSwapTotal:       2097148 kB\nSwapFree:        1572860 kB\nHugePages_Total:       0\n";

    #[test]
    fn what_the_kernel_says_of_memory_is_read() {
        let memory = meminfo(MEMINFO).expect("it is all there");
        let kib = |n: u64| n * 1024;
        assert_eq!(memory, Memory { total: kib(24683656), available: kib(24182744), swap: kib(2097148), swap_free: kib(1572860) });
        assert_eq!(meminfo("MemTotal: 1 kB\nMemAvailable: 1 kB\n"), Some(Memory { total: 1024, available: 1024, swap: 0, swap_free: 0 }));
        for text in ["", "MemTotal: 1 kB\n", "MemTotal: x kB\nMemAvailable: 1 kB\n"] {
            assert_eq!(meminfo(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_free_part_is_that_of_the_machine_or_of_a_lower_limit() {
        let memory = Memory { total: 32_000_000_000, available: 24_000_000_000, ..Memory::default() };
        let says = |room: Option<Room>| fitting(&memory, room).says;
        let machine = "24.0 GB free of 32.0 GB: room for the weights of 6.0B parameters to sample from or train an adapter on (4 bytes each), or 1.5B to \
                       train in full (16 bytes each), before activations and caches";
        assert_eq!(says(None), machine);
        assert_eq!(says(Some(Room { limit: 64_000_000_000, free: 1 })), machine);
        let limited = says(Some(Room { limit: 8_000_000_000, free: 6_400_000_000 }));
        assert!(limited.starts_with("6.4 GB free of the 8.0 GB of its control group (the machine has 32.0 GB): "), "{limited}");
        assert!(limited.contains("1.6B parameters") && limited.contains("or 400M to train"), "{limited}");
        let scarce = fitting(&memory, Some(Room { limit: 8_000_000_000, free: 200_000_000 }));
        assert_eq!(scarce.state, State::Warning);
    }

    #[test]
    fn swap_is_told_where_it_is_in_use() {
        let memory = meminfo(MEMINFO).expect("it is all there");
        assert_eq!(swapped(&memory).expect("it is used").says, "537 MB of 2.1 GB in use; what lies there is read back slowly");
        assert_eq!(swapped(&Memory { swap_free: memory.swap, ..memory }), None);
    }

    #[test]
    fn large_pages_that_are_switched_off_are_noticed() {
        for (text, state) in [
            ("always [madvise] never\n", State::Good),
            ("[always] madvise never\n", State::Good),
            ("always madvise [never]\n", State::Warning),
            ("", State::Note),
            ("always madvise never", State::Note),
        ] {
            assert_eq!(large(text).state, state, "{text}");
        }
    }
}
