//! Works on items in several threads.

use crate::error::Result;
use crate::sync::{AtomicUsize, Mutex, Ordering, PoisonError, thread};

/// Works on all items, `threads` at a time. After the first error no more are started.
pub(crate) fn in_parallel<T: Sync>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> Result<()> + Sync,
) -> Result<()> {
    let (next, error) = (AtomicUsize::new(0), Mutex::new(None));
    thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(problem) = work(item) {
                        next.store(items.len(), Ordering::Relaxed);
                        error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(problem);
                    }
                }
            });
        }
    });
    error.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

#[cfg(all(test, shuttle))]
mod interleavings {
    use super::*;
    use crate::error::Error;

    const SCHEDULES: usize = 5000;
    /// Preemptions by which each schedule is unlike one thread after the other.
    const PREEMPTIONS: usize = 3;
    const THREADS: usize = 3;

    /// Works on items, of which some fail, and checks that each was worked on as often as it should be.
    fn check(failing: &'static [usize]) {
        let items: Vec<usize> = (0..5).collect();
        let started: Vec<AtomicUsize> = items.iter().map(|_| AtomicUsize::new(0)).collect();
        let outcome = in_parallel(THREADS, &items, |&item| {
            started[item].fetch_add(1, Ordering::SeqCst);
            if failing.contains(&item) { Err(Error::Input(item.to_string())) } else { Ok(()) }
        });
        let started: Vec<usize> = started.into_iter().map(AtomicUsize::into_inner).collect();
        match outcome {
            Ok(()) => {
                assert!(failing.is_empty());
                assert!(started.iter().all(|count| *count == 1), "{started:?}");
            }
            Err(error) => {
                let item: usize = error.to_string().parse().unwrap();
                assert!(failing.contains(&item) && started[item] == 1);
                assert!(started.iter().all(|count| *count <= 1), "{started:?}");
                // Those before the first that fails were all begun, in order.
                assert!(started[..=failing[0]].iter().all(|count| *count == 1), "{started:?}");
            }
        }
    }

    #[test]
    fn every_item_is_worked_on_once() {
        shuttle::check_random(|| check(&[]), SCHEDULES);
        shuttle::check_pct(|| check(&[]), SCHEDULES, PREEMPTIONS);
    }

    #[test]
    fn an_error_is_one_that_happened() {
        let some: [&'static [usize]; 4] = [&[0], &[2], &[1, 3], &[0, 1, 2, 3, 4]];
        for failing in some {
            shuttle::check_random(move || check(failing), SCHEDULES / 4);
            shuttle::check_pct(move || check(failing), SCHEDULES / 4, PREEMPTIONS);
        }
    }
}
