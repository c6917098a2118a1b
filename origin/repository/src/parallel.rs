//! Work on many blobs at a time: while some wait for the disk, others compress. Large ones come first, so that all cores have
//! work to the end, and only so many bytes are worked on at a time, because a blob is held in memory.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};

use crate::limits;

/// Runs `work` on every item and hands each result to `done` on the calling thread, in no particular order, until `done`
/// breaks. `bytes` says how large an item is.
pub(crate) fn each<T: Sync, R: Send>(
    items: &[T],
    bytes: impl Fn(&T) -> u64,
    work: impl Fn(&T) -> R + Sync,
    mut done: impl FnMut(&T, R) -> ControlFlow<()>,
) {
    let mut waiting: Vec<(u64, &T)> = items.iter().map(|item| (bytes(item), item)).collect();
    waiting.sort_by_key(|(bytes, _)| *bytes);
    let workers = usize::try_from(limits::WORKERS_MAX).unwrap_or(1).min(waiting.len());
    let queue = Queue { state: Mutex::new(State { waiting, in_work_bytes: 0 }), finished: Condvar::new() };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Deep, so that work goes on while `done` is busy; the bytes of what waits are bounded by the queue.
        let (sender, results) = mpsc::sync_channel(limits::RESULTS_WAITING_MAX);
        for _ in 0..workers {
            let (sender, queue, stop, work) = (sender.clone(), &queue, &stop, &work);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let Some(taken) = queue.take() else { break };
                    let result = work(taken.item);
                    if sender.send((taken, result)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (taken, result) in results {
            if !stop.load(Ordering::Relaxed) && done(taken.item, result).is_break() {
                stop.store(true, Ordering::Relaxed);
            }
        }
    });
}

/// What is not begun yet, the largest last.
struct Queue<'a, T> {
    state: Mutex<State<'a, T>>,
    finished: Condvar,
}

struct State<'a, T> {
    waiting: Vec<(u64, &'a T)>,
    in_work_bytes: u64,
}

/// An item that is being worked on; it counts until `done` has heard of it.
struct Taken<'q, 'a, T> {
    queue: &'q Queue<'a, T>,
    item: &'a T,
    bytes: u64,
}

impl<'a, T> Queue<'a, T> {
    fn state(&self) -> MutexGuard<'_, State<'a, T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next item, once there is room for it; one that is larger than all room comes alone.
    fn take(&self) -> Option<Taken<'_, 'a, T>> {
        let mut state = self.state();
        loop {
            let (bytes, item) = *state.waiting.last()?;
            if state.in_work_bytes == 0 || state.in_work_bytes.saturating_add(bytes) <= limits::IN_WORK_BYTES_MAX {
                state.waiting.pop();
                state.in_work_bytes = state.in_work_bytes.saturating_add(bytes);
                return Some(Taken { queue: self, item, bytes });
            }
            state = self.finished.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Drop for Taken<'_, '_, T> {
    fn drop(&mut self) {
        self.queue.state().in_work_bytes -= self.bytes;
        self.queue.finished.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn all_is_done_once_and_only_so_many_bytes_at_a_time() {
        let most = limits::IN_WORK_BYTES_MAX;
        let mut items: Vec<u64> = (0..200).map(|index| index * most / 400).collect();
        items.extend([most * 3, u64::MAX]);
        let (now, peak, count) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let mut sum = 0_u128;
        let work = |bytes: &u64| {
            let bytes = (*bytes).min(most);
            peak.fetch_max(now.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
            std::thread::yield_now();
            now.fetch_sub(bytes, Ordering::SeqCst);
            count.fetch_add(1, Ordering::SeqCst)
        };
        each(
            &items,
            |bytes| *bytes,
            work,
            |bytes, _| {
                sum += u128::from(*bytes);
                ControlFlow::Continue(())
            },
        );
        assert_eq!((count.into_inner(), sum), (202, items.iter().copied().map(u128::from).sum()));
        assert!(peak.into_inner() <= most);
    }

    #[test]
    fn breaking_ends_it_and_nothing_is_no_work() {
        let items: Vec<u64> = (0..10_000).collect();
        let (mut heard, begun) = (0, AtomicU64::new(0));
        each(
            &items,
            |_| 1,
            |_| begun.fetch_add(1, Ordering::SeqCst),
            |_, _| {
                heard += 1;
                ControlFlow::Break(())
            },
        );
        assert_eq!(heard, 1);
        assert!(begun.into_inner() < 10_000);
        each(&[(); 0], |()| 1, |()| (), |(), ()| unreachable!("there is nothing"));
    }
}
