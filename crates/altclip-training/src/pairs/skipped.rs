//! What was left out of the data.

use std::fmt;

/// Reasons that are told of what was skipped; all are counted.
const TOLD: usize = 3;

/// What was left out, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skipped {
    pub count: usize,
    reasons: Vec<String>,
}

impl Skipped {
    /// Counts one more.
    pub fn add(&mut self, reason: impl FnOnce() -> String) {
        self.count += 1;
        if self.reasons.len() < TOLD {
            self.reasons.push(reason());
        }
    }

    /// Counts what was left out of `place` as well.
    pub fn add_all(&mut self, other: Self, place: impl fmt::Display) {
        self.count += other.count;
        let room = TOLD.saturating_sub(self.reasons.len());
        self.reasons.extend(other.reasons.into_iter().take(room).map(|reason| format!("{place}: {reason}")));
    }
}

/// Such as `skipped 12: line 3: `zh` is empty; line 9: …; and 10 more`.
impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skipped {}: {}", self.count, self.reasons.join("; "))?;
        match self.count - self.reasons.len() {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}
