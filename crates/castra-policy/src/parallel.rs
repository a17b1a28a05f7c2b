//! Work on many things at once, for loading: with 100,000 policies it takes seconds, and a gate that
//! starts, or takes over changed policies, should not use one core of many for it.

use std::{
    num::NonZero,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// Applies `f` to each item, on as many threads as there are processors to use. The results are in
/// the order of the items.
pub(crate) fn map<T: Sync, R: Send>(items: &[T], f: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(items.len());
    let next = AtomicUsize::new(0);
    // Whoever is free takes the next item, since items are of unlike size.
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return done };
            done.push((at, f(item)));
        }
    };
    let mut all = thread::scope(|scope| {
        // A machine that gives no further threads leaves the work to this one.
        let spawn = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
        let others: Vec<_> = (1..threads).filter_map(spawn).collect();
        let mut all = work();
        for other in others {
            all.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        all
    });
    all.sort_unstable_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order() {
        for count in [0, 1, 2, 1000] {
            let items: Vec<usize> = (0..count).collect();
            let slow_first =
                |n: &usize| (0..(count - n) * 10).fold(*n, |a, b| a ^ std::hint::black_box(b) ^ b);
            assert_eq!(map(&items, slow_first), items);
        }
    }
}
