//! Handles signals that ask the program to end: Ctrl-C, SIGTERM, and SIGHUP unless `nohup` ignores it. The first is
//! acknowledged immediately; the second ends the program in any case. None leaves a temporary file behind.

#![allow(unsafe_code, reason = "signals")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use model_files::temporary;

use crate::exit_status::ExitStatus;
use crate::progress;
use crate::standard_streams::complain;

/// How the work responds to Ctrl-C.
pub struct Interrupt(&'static InterruptState);

struct InterruptState {
    pressed: AtomicBool,
    /// What must be finished first, for a message; if none, the program ends immediately.
    unfinished: Mutex<Option<String>>,
    /// The progress of the work, for a message.
    stage: Mutex<String>,
}

static STATE: InterruptState = InterruptState {
    pressed: AtomicBool::new(false),
    unfinished: Mutex::new(None),
    stage: Mutex::new(String::new()),
};

/// Handles signals from now on. A file that becomes longer than the system allows is an error of writing it, instead
/// of a signal; and whatever ends the process, no core file holds the hub's token.
pub fn install() {
    #[cfg(unix)]
    // SAFETY: ignores a signal, and sets a limit to what the struct holds.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        libc::setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 0, rlim_max: 0 });
    }
    let ignored = Ignored::now();
    // Without memory for another thread, signals end the program as they end others.
    if let Err(error) = ctrlc::set_handler(|| STATE.press()) {
        tracing::debug!("cannot watch for Ctrl-C: {error}");
    }
    ignored.restore();
}

impl Interrupt {
    /// Ends the program immediately on a signal, even in the middle of a step: nothing is saved before the end, so
    /// nothing is lost. Only work under [`put_off`](Self::put_off) is finished first.
    pub fn watch() -> Self {
        let interrupt = Self(&STATE);
        interrupt.set_stage("while the model was loaded");
        interrupt
    }

    /// Asks the work to end when it can, after `unfinished`; it checks [`is_pressed`](Self::is_pressed).
    pub fn watch_for(unfinished: &str) -> Self {
        *lock(&STATE.unfinished) = Some(unfinished.to_owned());
        Self(&STATE)
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
        PutOff(self.0)
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
                let stage = lock(&self.stage);
                complain(format!("error: cancelled {stage}").trim_end());
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

/// Ends the program while other threads still compute, so nothing they use may be torn down. Only what is unfinished
/// is removed.
fn exit() -> ! {
    temporary::remove_all();
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
