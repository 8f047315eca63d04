//! Queues requests for a model, and follows them to their end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::adapters::AdapterFolders;
use super::request::{DrawEvent, DrawRequest, Drawn, Interruption};
use super::status::{DrawJob, DrawingStatus};
use super::work::DrawingWork;
use crate::metrics::Metrics;
use crate::model_thread::{ModelThread, Stage};
use crate::models::ImageModel;
use crate::options::ServerOptions;
use crate::problem::Problem;

/// A model's queue.
pub(crate) struct DrawingQueue {
    pub(crate) model: ImageModel,
    pub(crate) status: Arc<DrawingStatus>,
    thread: ModelThread<DrawJob>,
    places: Arc<Semaphore>,
    all_places: usize,
}

impl DrawingQueue {
    /// Starts the model's thread.
    ///
    /// # Errors
    /// If the system has none left.
    pub(crate) fn start(
        model: &ImageModel,
        options: &ServerOptions,
        folders: &Arc<AdapterFolders>,
        metrics: &Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let status = Arc::new(DrawingStatus::default());
        if let Some(size) = model.size {
            let _ = status.default_size.set(size);
        }
        let work =
            DrawingWork::new(model.clone(), Arc::clone(folders), Arc::clone(&status), Arc::clone(metrics));
        let thread =
            ModelThread::start(&format!("draw {}", model.name), work, options.keep_loaded, options.preload)?;
        let all_places = options.limits.queued_drawings;
        let places = Arc::new(Semaphore::new(all_places));
        Ok(Self { model: model.clone(), status, thread, places, all_places })
    }

    pub(crate) fn stage(&self) -> &Stage {
        &self.thread.stage
    }

    /// Requests that wait or run.
    pub(crate) fn length(&self) -> usize {
        self.all_places.saturating_sub(self.places.available_permits())
    }

    /// Queues a request, which ends when the result is dropped.
    ///
    /// # Errors
    /// If the queue is full.
    pub(crate) fn add(&self, request: DrawRequest, deadline: Instant) -> Result<Drawing, Problem> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let wait = self.status.seconds() * self.all_places as f64 / 2.0;
            let problem = format!("{} requests wait for this model, which is the most", self.all_places);
            return Err(Problem::busy(problem, Duration::from_secs_f64(wait.clamp(1.0, 600.0))));
        };
        let (events, received) = unbounded_channel();
        let interruption = Interruption::default();
        let images = request.images;
        let job = DrawJob { request, events, interruption: interruption.clone(), place };
        self.thread.send(job)?;
        Ok(Drawing { events: received, deadline, stage: self.thread.stage.clone(), images, interruption })
    }
}

/// A request that waits or runs. It is cancelled at the next step when this is dropped.
pub(crate) struct Drawing {
    events: UnboundedReceiver<DrawEvent>,
    deadline: Instant,
    stage: Stage,
    pub(crate) images: usize,
    pub(crate) interruption: Interruption,
}

impl Drawing {
    /// The next event, or `None` at the end.
    ///
    /// # Errors
    /// If the request failed, or its time is over.
    pub(crate) async fn next(&mut self) -> Result<Option<DrawEvent>, Problem> {
        match tokio::time::timeout_at(self.deadline.into(), self.events.recv()).await {
            Ok(Some(DrawEvent::Failed(problem))) => Err(problem),
            Ok(event) => Ok(event),
            Err(_) if self.stage.is_loading() => Err(Problem::loading()),
            Err(_) => Err(Problem::late()),
        }
    }

    /// Waits for all images. An interrupted request has fewer.
    ///
    /// # Errors
    /// Like [`next`](Self::next).
    pub(crate) async fn images(mut self) -> Result<Vec<Drawn>, Problem> {
        let mut images = Vec::with_capacity(self.images);
        while let Some(event) = self.next().await? {
            if let DrawEvent::Image(drawn) = event {
                images.push(drawn);
            }
        }
        if images.is_empty() && !self.interruption.is_interrupted() {
            return Err(Problem::failed());
        }
        Ok(images)
    }
}
