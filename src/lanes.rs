//! Independent pieces of work, each on one thread from its beginning to its end.
//!
//! Splitting every short loop over threads costs more in waking and waiting than it gains. Where the pieces are independent, a lane takes whole
//! ones: inside it a parallel loop finds one thread only and runs through. What a piece computes does not depend on the lane, nor on how many there are.

use rayon::ThreadPool;
use rayon::prelude::*;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Lanes that can work at once: the threads that the program was given.
pub fn count() -> usize {
    rayon::current_num_threads()
}

/// `f` of each item, in the order of the items; a lane that is free takes the next one.
pub fn map<T: Send, R: Send>(items: Vec<T>, f: impl Fn(T) -> R + Sync) -> Vec<R> {
    let lanes = lanes();
    if items.len() < 2 || lanes.len() < 2 {
        return items.into_iter().map(f).collect();
    }
    let n = items.len();
    let waiting = Mutex::new(items.into_iter().enumerate());
    let take = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || std::iter::from_fn(take).map(|(i, item)| (i, f(item))).collect();
    let done: Vec<Vec<(usize, R)>> = lanes[..lanes.len().min(n)].par_iter().with_max_len(1).map(|lane| lane.install(work)).collect();
    let mut results: Vec<Option<R>> = (0..n).map(|_| None).collect();
    for (i, result) in done.into_iter().flatten() {
        results[i] = Some(result);
    }
    results.into_iter().map(|r| r.expect("every item was taken by one lane")).collect()
}

/// One pool of one thread per lane, started at the first use; none where the threads cannot be had, and then everything runs where it is called.
fn lanes() -> &'static [ThreadPool] {
    static LANES: OnceLock<Vec<ThreadPool>> = OnceLock::new();
    // Inside a lane there is one thread, and pieces are not cut further.
    if count() < 2 {
        return &[];
    }
    LANES.get_or_init(|| {
        let pool = || rayon::ThreadPoolBuilder::new().num_threads(1).stack_size(8 << 20).build();
        (0..count()).map(|_| pool()).collect::<Result<_, _>>().unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_stand_in_the_order_of_the_items_and_lanes_do_not_nest() {
        for n in [0, 1, 2, 7, 100] {
            let nested = map((0..n).collect(), |i: usize| map(vec![i, i + 1], |j| 2 * j));
            assert_eq!(nested, (0..n).map(|i| vec![2 * i, 2 * i + 2]).collect::<Vec<_>>());
        }
    }

    /// Each of two pieces waits for a word from the other, which only comes if both are under way at once.
    #[test]
    fn pieces_are_worked_on_at_the_same_time() {
        use std::sync::mpsc::channel;
        let ((to_b, from_a), (to_a, from_b)) = (channel(), channel());
        let meets = |(to, from): (std::sync::mpsc::Sender<()>, std::sync::mpsc::Receiver<()>)| {
            to.send(()).is_ok() && from.recv_timeout(std::time::Duration::from_secs(20)).is_ok()
        };
        let two = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        assert_eq!(two.install(|| map(vec![(to_b, from_b), (to_a, from_a)], meets)), [true, true]);
    }
}
