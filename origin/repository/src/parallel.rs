//! Work on many files at a time: small ones by several workers, large ones one after another, because hashing or decoding
//! a large one uses all cores and its memory.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use crate::limits;

/// Runs `work` on every item and hands each result to `done` on the calling thread, in no particular order, until `done`
/// breaks. `bytes` says how large an item is.
pub(crate) fn each<T: Sync, R: Send>(
    items: &[T],
    bytes: impl Fn(&T) -> u64,
    work: impl Fn(&T) -> R + Sync,
    mut done: impl FnMut(&T, R) -> ControlFlow<()>,
) {
    let (small, large): (Vec<&T>, Vec<&T>) =
        items.iter().partition(|item| bytes(item) <= limits::PARALLEL_BLOB_BYTES_MAX);
    let workers = usize::try_from(limits::WORKERS_MAX).unwrap_or(1).min(small.len());
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (sender, results) = mpsc::sync_channel(workers.max(1));
        for _ in 0..workers {
            let (sender, small, next, stop, work) = (sender.clone(), &small, &next, &stop, &work);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let Some(item) = small.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                    if sender.send((*item, work(item))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (item, result) in results {
            if !stop.load(Ordering::Relaxed) && done(item, result).is_break() {
                stop.store(true, Ordering::Relaxed);
            }
        }
    });
    for item in large {
        if stop.load(Ordering::Relaxed) || done(item, work(item)).is_break() {
            return;
        }
    }
}
