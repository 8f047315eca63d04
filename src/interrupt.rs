//! Handles signals that ask the program to end: Ctrl-C, SIGTERM, and SIGHUP unless `nohup` ignores it. The first is
//! acknowledged immediately; the second ends the program in any case.

#![allow(unsafe_code, reason = "signals")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::exit_status::ExitStatus;
use crate::progress;
use crate::standard_streams::complain;

/// How the work responds to Ctrl-C.
pub struct Interrupt(Arc<InterruptState>);

struct InterruptState {
    pressed: AtomicBool,
    /// What must be finished first, for a message; if empty, the program ends immediately.
    unfinished: Mutex<Option<String>>,
    /// The progress of the work, for a message.
    stage: Mutex<String>,
}

impl Interrupt {
    /// Ends the program immediately on a signal, even in the middle of a step: nothing is saved before the end, so
    /// nothing is lost. Only work under [`put_off`](Self::put_off) is finished first.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn watch() -> Result<Self> {
        Self::install(None, "while the model was loaded")
    }

    /// Asks the work to end when it can, after `unfinished`; it checks [`is_pressed`](Self::is_pressed).
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn watch_for(unfinished: &str) -> Result<Self> {
        Self::install(Some(unfinished.to_owned()), "")
    }

    fn install(unfinished: Option<String>, stage: &str) -> Result<Self> {
        let state = Arc::new(InterruptState {
            pressed: AtomicBool::new(false),
            unfinished: Mutex::new(unfinished),
            stage: Mutex::new(stage.to_owned()),
        });
        let seen = state.clone();
        let ignored = Ignored::now();
        ctrlc::set_handler(move || seen.press()).context("cannot watch for Ctrl-C")?;
        ignored.restore();
        Ok(Self(state))
    }

    /// Whether the work should end.
    pub fn is_pressed(&self) -> bool {
        self.0.pressed.load(Ordering::Relaxed)
    }

    /// Sets the progress shown in the message.
    pub fn set_stage(&self, stage: impl Into<String>) {
        *lock(&self.0.stage) = stage.into();
    }

    /// Delays the end until the result is dropped, while files are written.
    pub fn put_off(&self) -> PutOff<'_> {
        *lock(&self.0.unfinished) = Some("the files are written".to_owned());
        PutOff(&self.0)
    }
}

impl InterruptState {
    fn press(&self) {
        if self.pressed.swap(true, Ordering::Relaxed) {
            exit();
        }
        progress::clear_line();
        match &*lock(&self.unfinished) {
            Some(unfinished) => complain(format!("stopping when {unfinished}; Ctrl-C again stops at once")),
            None => {
                complain(format!("error: cancelled {}", lock(&self.stage)));
                exit();
            }
        }
    }
}

/// Ends the program when dropped, if a signal came meanwhile.
pub struct PutOff<'a>(&'a InterruptState);

impl Drop for PutOff<'_> {
    fn drop(&mut self) {
        let mut unfinished = lock(&self.0.unfinished);
        if self.0.pressed.load(Ordering::Relaxed) {
            exit();
        }
        *unfinished = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the program while other threads still compute, so nothing they use may be torn down.
fn exit() -> ! {
    let code = ExitStatus::Interrupted.code().into();
    #[cfg(unix)]
    // SAFETY: takes a number, and does not return.
    unsafe {
        libc::_exit(code)
    }
    #[cfg(not(unix))]
    std::process::exit(code)
}

/// Signals that the parent process ignores: SIGHUP under `nohup`, SIGINT for background jobs of a shell.
struct Ignored {
    #[cfg(unix)]
    signals: Vec<libc::c_int>,
}

#[cfg(unix)]
impl Ignored {
    fn now() -> Self {
        let is_ignored = |signal: &libc::c_int| {
            // SAFETY: asks for the disposition of a signal, which it writes to `action`; all zeros is a valid value of it.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                libc::sigaction(*signal, std::ptr::null(), &mut action) == 0
                    && action.sa_sigaction == libc::SIG_IGN
            }
        };
        Self { signals: [libc::SIGINT, libc::SIGTERM, libc::SIGHUP].into_iter().filter(is_ignored).collect() }
    }

    fn restore(self) {
        for signal in self.signals {
            // SAFETY: ignores a signal, as it was before.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
    }
}

#[cfg(not(unix))]
impl Ignored {
    fn now() -> Self {
        Self {}
    }

    fn restore(self) {}
}
