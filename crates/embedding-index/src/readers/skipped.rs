//! Counts what is skipped in a data set, and keeps the first reasons.

use std::fmt;

/// The reasons kept; all are counted.
const MOST_REASONS: usize = 3;

/// What was skipped, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skipped {
    /// The number of skipped items.
    pub count: usize,
    reasons: Vec<String>,
}

impl Skipped {
    /// Counts another item.
    pub fn add(&mut self, reason: impl FnOnce() -> String) {
        self.count += 1;
        if self.reasons.len() < MOST_REASONS {
            self.reasons.push(reason());
        }
    }

    /// Adds what was skipped in `place`.
    pub fn add_all(&mut self, other: Self, place: impl fmt::Display) {
        self.count += other.count;
        let room = MOST_REASONS.saturating_sub(self.reasons.len());
        self.reasons.extend(other.reasons.into_iter().take(room).map(|reason| format!("{place}: {reason}")));
    }
}

/// For example `skipped 12: line 3: `zh` is empty; line 9: …; and 10 more`.
impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skipped {}: {}", self.count, self.reasons.join("; "))?;
        match self.count - self.reasons.len() {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}
