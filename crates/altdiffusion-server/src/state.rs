//! Holds what all requests share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use tokio::sync::Semaphore;

use crate::drawing::{AdapterFolders, DrawingQueue};
use crate::embedding::EmbeddingQueue;
use crate::error::Result;
use crate::image_data::ImageDecoding;
use crate::indexes::ServedIndex;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::options::ServerOptions;
use crate::problem::Problem;
use crate::prompt_states::PromptQueue;

/// The header by which a request asks for less than the server's time limit, in seconds.
const TIME_HEADER: &str = "x-request-timeout";

/// What all requests share.
pub(crate) struct State {
    pub(crate) options: ServerOptions,
    pub(crate) drawing: Vec<DrawingQueue>,
    pub(crate) embedding: Vec<EmbeddingQueue>,
    pub(crate) prompts: HashMap<String, PromptQueue>,
    pub(crate) folders: Arc<AdapterFolders>,
    pub(crate) indexes: Vec<Arc<ServedIndex>>,
    pub(crate) metrics: Arc<Metrics>,
    /// KiB that bodies may still take.
    pub(crate) body_room: Arc<Semaphore>,
    pub(crate) decoding: Arc<ImageDecoding>,
    webui: Mutex<WebuiSettings>,
    ending: AtomicBool,
}

pub(crate) type Shared = Arc<State>;

/// What stable-diffusion-webui's clients have chosen for the requests of all of them that do not say.
#[derive(Debug, Clone, Default)]
pub(crate) struct WebuiSettings {
    /// The diffusion model.
    pub(crate) model: Option<String>,
    /// Layers of the text encoder to skip.
    pub(crate) clip_skip: usize,
}

impl State {
    /// Starts the threads of the models.
    ///
    /// # Errors
    /// If an index cannot be opened, or the system has no thread left.
    pub(crate) fn start(models: &Models, options: ServerOptions) -> Result<Shared> {
        let metrics = Arc::new(Metrics::new());
        let folders = Arc::new(AdapterFolders {
            loras: options.lora_folder.clone(),
            words: options.word_folder.clone(),
            controlnets: options.controlnet_folder.clone(),
        });
        let mut indexes = Vec::new();
        for (name, path) in &options.indexes {
            indexes.push(ServedIndex::open(name, path)?);
        }
        let (mut drawing, mut prompts, mut embedding) = (Vec::new(), HashMap::new(), Vec::new());
        for model in &models.image_models {
            drawing.push(DrawingQueue::start(model, &options, &folders, &metrics)?);
            prompts.insert(model.name.clone(), PromptQueue::start(model, &options, &metrics)?);
        }
        for model in &models.embedding_models {
            embedding.push(EmbeddingQueue::start(model, &options, &metrics)?);
        }
        let room = |bytes: usize| Arc::new(Semaphore::new((bytes >> 10).clamp(1, Semaphore::MAX_PERMITS)));
        let limits = &options.limits;
        Ok(Arc::new(Self {
            drawing,
            embedding,
            prompts,
            folders,
            indexes,
            metrics,
            body_room: room(limits.all_body_bytes),
            decoding: Arc::new(ImageDecoding::new(room(limits.all_image_bytes), limits.image_pixels)),
            webui: Mutex::default(),
            ending: AtomicBool::new(false),
            options,
        }))
    }

    /// The diffusion model called `name`, or the first.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn image_model(&self, name: Option<&str>) -> std::result::Result<&DrawingQueue, Problem> {
        find(&self.drawing, name, |queue| &queue.model.name, "diffusion model")
    }

    /// The embedding model called `name`, or the first.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn embedding_model(
        &self,
        name: Option<&str>,
    ) -> std::result::Result<&EmbeddingQueue, Problem> {
        find(&self.embedding, name, |queue| &queue.name, "embedding model")
    }

    /// The index called `name`, or the first.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn index(&self, name: Option<&str>) -> std::result::Result<&Arc<ServedIndex>, Problem> {
        find(&self.indexes, name, |index| &index.name, "index")
    }

    /// What stable-diffusion-webui's clients have chosen.
    pub(crate) fn webui(&self) -> WebuiSettings {
        self.webui.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn change_webui(&self, change: impl FnOnce(&mut WebuiSettings)) {
        change(&mut self.webui.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// When a request with these headers must be answered.
    ///
    /// # Errors
    /// If the header is not a number of seconds, or the server is ending.
    pub(crate) fn deadline(&self, headers: &HeaderMap) -> std::result::Result<Instant, Problem> {
        if self.ending.load(Ordering::Relaxed) {
            return Err(Problem::shutting_down());
        }
        let most = self.options.limits.request_time;
        let time = match headers.get(TIME_HEADER) {
            None => most,
            Some(value) => {
                let seconds = value.to_str().ok().and_then(|value| value.trim().parse().ok());
                let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                let time = time.filter(|time| !time.is_zero());
                time.ok_or_else(|| Problem::field(TIME_HEADER, "expected a number of seconds above 0"))?
                    .min(most)
            }
        };
        Ok(Instant::now() + time)
    }

    /// Refuses new work from now on.
    pub(crate) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }
}

/// The one called `name`, in whole or by its last part after a slash, or the first.
fn find<'a, T>(
    all: &'a [T],
    name: Option<&str>,
    name_of: impl Fn(&T) -> &str,
    kind: &str,
) -> std::result::Result<&'a T, Problem> {
    let name = name.filter(|name| !name.is_empty());
    let found = match name {
        None => all.first(),
        Some(name) => {
            let last = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
            let exact = all.iter().find(|one| name_of(one) == name);
            exact.or_else(|| all.iter().find(|one| last(name_of(one)) == last(name)))
        }
    };
    found.ok_or_else(|| {
        let known: Vec<&str> = all.iter().map(&name_of).collect();
        let problem = match (name, known.is_empty()) {
            (_, true) => format!("this server offers no {kind}"),
            (Some(name), false) => format!("no {kind} {name:?} here, expected one of: {}", known.join(", ")),
            (None, false) => format!("no {kind}"),
        };
        let field = if kind == "index" { "index" } else { "model" };
        Problem { field: Some(field.to_owned()), ..Problem::not_found(problem) }
    })
}

/// Shortens a name for a log line.
pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}
