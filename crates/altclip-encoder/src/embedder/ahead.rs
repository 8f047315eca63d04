//! Work that is done on a thread of its own, a little ahead of where it is needed.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

/// Results that wait. One more is in work.
const WAITING: usize = 1;

/// The items of an iterator that runs on another thread.
///
/// When this is dropped, the thread ends at its next item.
pub(super) struct Ahead<T> {
    running: Option<(Receiver<T>, JoinHandle<()>)>,
}

impl<T: Send + 'static> Ahead<T> {
    pub fn new(items: impl Iterator<Item = T> + Send + 'static) -> Self {
        let (sender, receiver) = sync_channel(WAITING);
        let worker = std::thread::spawn(move || {
            for item in items {
                if sender.send(item).is_err() {
                    break; // nobody wants the rest
                }
            }
        });
        Self { running: Some((receiver, worker)) }
    }
}

impl<T> Iterator for Ahead<T> {
    type Item = T;

    /// # Panics
    /// If the iterator panicked: an end that looks like any other would lose the rest silently.
    fn next(&mut self) -> Option<T> {
        if let Ok(item) = self.running.as_ref()?.0.recv() {
            return Some(item);
        }
        let (_, worker) = self.running.take()?;
        match worker.join() {
            Ok(()) => None,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
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
            // Those that were taken, those that wait, and one in the maker's hand.
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
