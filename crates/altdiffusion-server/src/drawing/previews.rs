//! Chooses the steps after which a preview is made: no more than can be watched.

use std::time::{Duration, Instant};

/// The least time between previews that are not promised.
const INTERVAL: Duration = Duration::from_millis(100);
/// The most previews of an image that are promised, which is what OpenAI's interface lets clients ask for.
const MOST_PROMISED: usize = 3;

/// Chooses the steps of a request.
pub(super) struct PreviewClock {
    promised: usize,
    /// When the last preview was made.
    last: Option<Instant>,
}

impl PreviewClock {
    /// For a request that wants at least `promised` previews of each image, however fast it is drawn, spread evenly.
    pub(super) fn new(promised: usize) -> Self {
        Self { promised: promised.min(MOST_PROMISED), last: None }
    }

    /// Whether to make a preview `now`, after step number `step`, from 1, of an image's `steps`.
    pub(super) fn is_due(&mut self, step: usize, steps: usize, now: Instant) -> bool {
        // Of the previews promised, how many are due after this many steps.
        let due_after = |step: usize| step.saturating_mul(self.promised) / steps.max(1);
        let is_promised = step == steps || due_after(step) > due_after(step.saturating_sub(1));
        let is_due = is_promised || self.last.is_none_or(|last| now.duration_since(last) >= INTERVAL);
        if is_due {
            self.last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps with a preview, of an image of 50 steps.
    fn chosen(clock: &mut PreviewClock, start: Instant, milliseconds: u64) -> Vec<usize> {
        let end_of = |step: usize| start + Duration::from_millis(step as u64 * milliseconds);
        (1..=50).filter(|step| clock.is_due(*step, 50, end_of(*step))).collect()
    }

    #[test]
    fn each_slow_step_has_a_preview() {
        for promised in [0, 1, 50] {
            let mut clock = PreviewClock::new(promised);
            assert_eq!(chosen(&mut clock, Instant::now(), 100).len(), 50);
        }
    }

    #[test]
    fn fast_steps_have_ten_previews_a_second_and_always_the_last() {
        let (mut clock, start) = (PreviewClock::new(0), Instant::now());
        assert_eq!(chosen(&mut clock, start, 5), [1, 21, 41, 50]);
        // The next image of the request, at once: the clock is the request's.
        assert_eq!(chosen(&mut clock, start + Duration::from_millis(250), 5), [20, 40, 50]);
    }

    #[test]
    fn what_is_promised_comes_at_any_speed() {
        for (promised, expected) in
            [(1, vec![1, 50]), (2, vec![1, 25, 50]), (3, vec![1, 17, 34, 50]), (50, vec![1, 17, 34, 50])]
        {
            assert_eq!(chosen(&mut PreviewClock::new(promised), Instant::now(), 1), expected);
        }
    }
}
