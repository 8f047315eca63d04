//! Names what threads share in a model's thread. In tests built with `--cfg shuttle` these are shuttle's, which tries
//! interleavings.

use std::time::Duration;

#[cfg(all(test, shuttle))]
pub(crate) use shuttle::{
    sync::{
        atomic::{AtomicU8, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
};
#[cfg(not(all(test, shuttle)))]
pub(crate) use std::{
    sync::{
        atomic::{AtomicU8, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
};

/// The next message, unless none comes for a time.
#[cfg(not(all(test, shuttle)))]
pub(crate) fn receive_within<T>(receiver: &Receiver<T>, time: Duration) -> Result<T, RecvTimeoutError> {
    receiver.recv_timeout(time)
}

/// The same where no time passes: it may always be over before the next message.
#[cfg(all(test, shuttle))]
pub(crate) fn receive_within<T>(receiver: &Receiver<T>, _: Duration) -> Result<T, RecvTimeoutError> {
    use shuttle::rand::Rng;
    use shuttle::sync::mpsc::TryRecvError;

    if shuttle::rand::thread_rng().gen_bool(0.5) {
        return receiver.recv().map_err(|_| RecvTimeoutError::Disconnected);
    }
    receiver.try_recv().map_err(|error| match error {
        TryRecvError::Empty => RecvTimeoutError::Timeout,
        TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
    })
}
