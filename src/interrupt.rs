//! Ctrl-C: the first ends the work after the current step, with nothing half done; the second ends the program at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

/// The exit code of a program that Ctrl-C ended, as shells report it.
pub const EXIT_CODE: u8 = 130;

/// Whether Ctrl-C was pressed.
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes over from the system, which would end the program.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub fn watch() -> Result<Self> {
        let pressed = Arc::new(AtomicBool::new(false));
        let seen = pressed.clone();
        let handler = move || {
            if seen.swap(true, Ordering::Relaxed) {
                std::process::exit(EXIT_CODE.into());
            }
        };
        ctrlc::set_handler(handler).context("cannot watch for Ctrl-C")?;
        Ok(Self(pressed))
    }

    pub fn is_pressed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
