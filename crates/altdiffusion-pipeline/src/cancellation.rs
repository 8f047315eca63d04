//! Ends a run from another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Result};

/// A flag that ends a run, shared between the thread that draws and those that may want to stop it.
///
/// It is checked between the layers of the text encoder, after each step, and in the decoder between images, tiles
/// and levels. The run then ends with [`Error::Cancelled`], which holds the latents so far.
///
/// ```
/// use altdiffusion_pipeline::{Cancellation, GenerateOptions};
///
/// let cancellation = Cancellation::new();
/// let options = GenerateOptions::new("一只猫").cancellation(cancellation.clone());
/// std::thread::spawn(move || cancellation.cancel());
/// # drop(options);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Cancellation(Arc<AtomicBool>);

impl Cancellation {
    /// A flag that is not set yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the end. This cannot be undone.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the end was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns an error if the end was asked for; [`Error::in_run`] adds how far the run got.
    pub(crate) fn check(&self) -> Result<()> {
        match self.is_cancelled() {
            true => Err(Error::Cancelled { completed: 0, total: 0, latents: None }),
            false => Ok(()),
        }
    }
}
