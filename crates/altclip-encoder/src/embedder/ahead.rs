//! Works ahead on a separate thread.

use std::sync::Arc;

use crate::sync::Mutex;
use crate::sync::mpsc::{Receiver, sync_channel};
use crate::sync::thread::{Builder, JoinHandle};

/// Finished results that may wait. One more is being made.
const WAITING: usize = 1;

/// An iterator whose items are made on another thread, or on this one where threads are not available, as in
/// WebAssembly.
///
/// After it is dropped, the thread ends at its next item.
pub(super) struct Ahead<T>(State<T>);

enum State<T> {
    Running(Receiver<T>, JoinHandle<()>),
    Here(Box<dyn Iterator<Item = T> + Send>),
    Ended,
}

impl<T: Send + 'static> Ahead<T> {
    pub(super) fn new(items: impl Iterator<Item = T> + Send + 'static) -> Self {
        // If spawning fails, what was passed to the thread is lost.
        let items = Arc::new(Mutex::new(Some(items)));
        let items_there = Arc::clone(&items);
        let take = |items: &Mutex<Option<_>>| items.lock().ok().and_then(|mut items| items.take());
        let (sender, receiver) = sync_channel(WAITING);
        let worker = Builder::new().spawn(move || {
            for item in take(&items_there).into_iter().flatten() {
                if sender.send(item).is_err() {
                    break; // the receiver was dropped
                }
            }
        });
        Self(match worker {
            Ok(worker) => State::Running(receiver, worker),
            Err(_) => take(&items).map_or(State::Ended, |items| State::Here(Box::new(items))),
        })
    }
}

impl<T> Iterator for Ahead<T> {
    type Item = T;

    /// # Panics
    /// If the iterator panicked: ending normally would hide the missing items.
    fn next(&mut self) -> Option<T> {
        match &mut self.0 {
            State::Here(items) => return items.next(),
            State::Ended => return None,
            State::Running(receiver, _) => {
                if let Ok(item) = receiver.recv() {
                    return Some(item);
                }
            }
        }
        if let State::Running(_, worker) = std::mem::replace(&mut self.0, State::Ended)
            && let Err(panic) = worker.join()
        {
            std::panic::resume_unwind(panic);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn items_come_in_order_and_end() {
        let mut ahead = Ahead::new(0..100);
        assert!(ahead.by_ref().eq(0..100));
        assert!(ahead.next().is_none());
    }

    #[test]
    fn no_more_is_made_than_may_wait() {
        let made = Arc::new(AtomicUsize::new(0));
        let counter = made.clone();
        let items = (0..).inspect(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        let mut ahead = Ahead::new(items);
        for taken in 1..20 {
            ahead.next();
            // Those taken, those waiting, and the one being made.
            assert!(made.load(Ordering::SeqCst) <= taken + WAITING + 1);
        }
    }

    #[test]
    #[should_panic(expected = "the source broke")]
    fn a_panic_is_not_an_end() {
        let broken = (0..5).inspect(|&i| assert!(i < 3, "the source broke"));
        Ahead::new(broken).for_each(drop);
    }
}

#[cfg(all(test, shuttle))]
mod interleavings {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::sync::mpsc::channel;

    const SCHEDULES: usize = 5000;
    /// Preemptions by which each schedule is unlike one thread after the other.
    const PREEMPTIONS: usize = 3;

    #[test]
    fn items_come_in_order_and_few_are_made_ahead() {
        let check = || {
            let made = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&made);
            let items = (0..5).inspect(move |_| {
                counter.fetch_add(1, Ordering::SeqCst);
            });
            let mut ahead = Ahead::new(items);
            for expected in 0..5 {
                assert_eq!(ahead.next(), Some(expected));
                assert!(made.load(Ordering::SeqCst) <= expected + 1 + WAITING + 1);
            }
            assert_eq!([ahead.next(), ahead.next()], [None, None]);
        };
        shuttle::check_random(check, SCHEDULES);
        shuttle::check_pct(check, SCHEDULES, PREEMPTIONS);
    }

    /// A thread that never ended would be a deadlock, which shuttle reports.
    #[test]
    fn the_thread_ends_when_nobody_takes_more() {
        for taken in 0..4 {
            let check = move || {
                let (alive, ended) = channel::<()>();
                let items = (0..).inspect(move |_| {
                    let _ = &alive;
                });
                let mut ahead = Ahead::new(items);
                for expected in 0..taken {
                    assert_eq!(ahead.next(), Some(expected));
                }
                drop(ahead);
                // An error, when the items were dropped with the thread.
                assert!(ended.recv().is_err());
            };
            shuttle::check_random(check, SCHEDULES / 4);
            shuttle::check_pct(check, SCHEDULES / 4, PREEMPTIONS);
        }
    }
}
