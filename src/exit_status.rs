//! Defines the exit codes.

use std::fmt;

use altdiffusion_pipeline::{Error as PipelineError, ErrorKind};

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// Success.
    Success,
    /// An error.
    Failure,
    /// Invalid options.
    Usage,
    /// Stopped by a signal, such as Ctrl-C.
    Interrupted,
}

impl ExitStatus {
    /// The exit status for this error.
    pub fn of(error: &anyhow::Error) -> Self {
        let of_pipeline = error.downcast_ref().map(PipelineError::kind);
        let is_cancelled = error.is::<Cancelled>() || of_pipeline == Some(ErrorKind::Cancelled);
        if is_cancelled { Self::Interrupted } else { Self::Failure }
    }

    /// The exit code. After an interrupt it is the one shells report for Ctrl-C, 128 + SIGINT.
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Interrupted => 130,
        }
    }
}

/// The error of work stopped by a signal.
#[derive(Debug)]
pub struct Cancelled {
    /// Steps completed.
    pub step: usize,
    /// Total steps.
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
