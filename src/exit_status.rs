//! Says how the program ended, in the numbers that shells know.

use std::fmt;
use std::process::ExitCode;

use altdiffusion_pipeline::{Error as PipelineError, ErrorKind};

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// What was asked for was done.
    Success,
    /// It could not be done.
    Failure,
    /// The options cannot be.
    Usage,
    /// A signal asked for an end, such as Ctrl-C.
    Interrupted,
}

impl ExitStatus {
    /// How the program ends with this error.
    pub fn of(error: &anyhow::Error) -> Self {
        let of_pipeline = error.downcast_ref().map(PipelineError::kind);
        let is_cancelled = error.is::<Cancelled>() || of_pipeline == Some(ErrorKind::Cancelled);
        if is_cancelled { Self::Interrupted } else { Self::Failure }
    }

    /// The number. That of an interrupted program is what shells report of one that Ctrl-C ended, 128 + SIGINT.
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Interrupted => 130,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}

/// The error of work that ended because a signal asked for it.
#[derive(Debug)]
pub struct Cancelled {
    /// The steps that were done.
    pub step: usize,
    /// The steps of the whole work.
    pub steps: usize,
}

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cancelled after step {} of {}", self.step, self.steps)
    }
}

impl std::error::Error for Cancelled {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_decide_the_status() {
        let cancelled = || PipelineError::Cancelled { completed: 1, total: 2, latents: None };
        for (error, expected) in [
            (anyhow::anyhow!("the disk is full"), ExitStatus::Failure),
            (Cancelled { step: 1, steps: 2 }.into(), ExitStatus::Interrupted),
            (cancelled().into(), ExitStatus::Interrupted),
            (anyhow::Error::new(cancelled()).context("--output"), ExitStatus::Interrupted),
        ] {
            assert_eq!(ExitStatus::of(&error), expected, "{error:#}");
        }
    }
}
