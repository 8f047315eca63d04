//! Runs work on a separate thread while Python runs others, and ends it when Python handles a signal such as Ctrl-C.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use altdiffusion_pipeline::Cancellation;
use pyo3::prelude::*;

use crate::errors::{Failure, Result};

/// How long a signal may wait for an answer.
const PATIENCE: Duration = Duration::from_millis(50);

/// The process in which the threads for computing were started.
static PROCESS: OnceLock<u32> = OnceLock::new();

/// Does `work` on another thread, and waits for it.
///
/// If Python raises an exception meanwhile, the work is asked to stop, and what it still does is not waited for.
///
/// # Errors
/// That exception; an error of the work; or that this process was forked after threads were started, which it lacks.
pub(crate) fn interruptible<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce(&Cancellation) -> Result<T> + Send + 'static,
) -> PyResult<T> {
    let cancellation = Cancellation::new();
    let of_work = cancellation.clone();
    let mut result = started(py, move || work(&of_work))?;
    let result = next(py, &mut result, &cancellation)?.unwrap_or_else(|| Err(ended()));
    result.map_err(|failure| failure.exception(py))
}

/// Starts `work` on another thread, which sends its result.
///
/// # Errors
/// If there can be no more threads.
pub(crate) fn started<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> PyResult<Receiver<Result<T>>> {
    check_process().map_err(|failure| failure.exception(py))?;
    let (sender, receiver) = channel();
    let run = move || {
        let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(ended()));
        // Nobody waits for it after an exception.
        let _ = sender.send(result);
    };
    match thread::Builder::new().name("altdiffusion".to_owned()).spawn(run) {
        Ok(_) => Ok(receiver),
        Err(error) => Err(Failure::other(format!("cannot start a thread: {error}")).exception(py)),
    }
}

/// The next message of some work; `None` if it has ended.
///
/// # Errors
/// If Python raises an exception. The work is then cancelled.
pub(crate) fn next<T: Send>(
    py: Python<'_>,
    messages: &mut Receiver<T>,
    cancellation: &Cancellation,
) -> PyResult<Option<T>> {
    loop {
        let waiting = &mut *messages;
        match py.detach(move || waiting.recv_timeout(PATIENCE)) {
            Ok(message) => return Ok(Some(message)),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) => py.check_signals().inspect_err(|_| cancellation.cancel())?,
        }
    }
}

fn ended() -> Failure {
    Failure::other("this is a mistake in the library, please report it: the work ended without a result")
}

/// Checks that threads started earlier exist in this process.
fn check_process() -> Result<()> {
    let now = process::id();
    match *PROCESS.get_or_init(|| now) {
        started if started == now => Ok(()),
        started => Err(Failure::forked(format!(
            "altdiffusion was used in process {started} before that forked this one, {now}, which lacks its threads: \
             start processes with multiprocessing.get_context(\"spawn\"), or load the model only after the fork"
        ))),
    }
}
