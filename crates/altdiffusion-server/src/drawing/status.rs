//! Keeps what is known of a model while it works, for those who wait.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

use super::request::{DrawEvent, DrawRequest, Interruption};

/// A request on its way to the model.
pub(crate) struct DrawJob {
    pub(crate) request: DrawRequest,
    /// Closed when the client has gone.
    pub(crate) events: UnboundedSender<DrawEvent>,
    pub(crate) interruption: Interruption,
    /// The job's place in the queue, given back when it ends.
    pub(crate) place: OwnedSemaphorePermit,
}

/// The request that a model is drawing.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) image: usize,
    pub(crate) images: usize,
    pub(crate) step: usize,
    pub(crate) steps: usize,
    pub(crate) since: Instant,
    pub(crate) preview: Option<Vec<u8>>,
    pub(crate) interruption: Interruption,
}

/// What is known of a model while it works.
#[derive(Default)]
pub(crate) struct DrawingStatus {
    running: Mutex<Option<Running>>,
    /// Width and height in pixels, once the model was loaded.
    pub(crate) default_size: OnceLock<(usize, usize)>,
    /// The width of the embeddings of words, once the model was loaded.
    pub(crate) word_width: OnceLock<usize>,
    /// The seconds that recent requests took, averaged.
    seconds: Mutex<f64>,
}

impl DrawingStatus {
    pub(crate) fn running(&self) -> Option<Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_running(&self, change: impl FnOnce(&mut Option<Running>)) {
        change(&mut self.running.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Adds the time of a request to the average, in which the last counts a third.
    pub(crate) fn add_time(&self, time: Duration) {
        let mut seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        *seconds += (time.as_secs_f64() - *seconds) / if *seconds == 0.0 { 1.0 } else { 3.0 };
    }

    pub(super) fn seconds(&self) -> f64 {
        *self.seconds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
