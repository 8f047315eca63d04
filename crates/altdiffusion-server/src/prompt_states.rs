//! Encodes prompts to hidden states, without the rest of a diffusion model.

use std::sync::Arc;
use std::time::{Duration, Instant};

use altclip_encoder::PromptEncoder;
use candle_core::{DType, Device, Tensor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::metrics::Metrics;
use crate::model_thread::{ModelThread, Stage, Work};
use crate::models::ImageModel;
use crate::options::ServerOptions;
use crate::problem::Problem;
use crate::sync::Receiver;

/// Prompts encoded at a time.
const BATCH: usize = 32;

/// Hidden states of some prompts, as `altdiffusion encode` writes them.
pub(crate) struct PromptStates {
    /// (prompts, tokens), u32.
    pub(crate) input_ids: Tensor,
    /// (prompts, tokens), u32: 1 for tokens, 0 for padding.
    pub(crate) attention_mask: Tensor,
    /// (prompts, tokens, width), f32 on the CPU.
    pub(crate) hidden_states: Tensor,
}

pub(crate) struct PromptJob {
    prompts: Vec<String>,
    reply: oneshot::Sender<Result<PromptStates, Problem>>,
    place: OwnedSemaphorePermit,
}

/// A text encoder's queue.
pub(crate) struct PromptQueue {
    thread: ModelThread<PromptJob>,
    /// Prompts that may still wait.
    places: Arc<Semaphore>,
    all_places: usize,
}

impl PromptQueue {
    /// Starts the thread of the model's text encoder.
    ///
    /// # Errors
    /// If the system has none left.
    pub(crate) fn start(
        model: &ImageModel,
        options: &ServerOptions,
        metrics: &Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let work = PromptWork { model: model.clone(), loaded: None, metrics: Arc::clone(metrics) };
        let name = format!("text {}", model.name);
        let thread = ModelThread::start(&name, work, options.keep_loaded, false)?;
        // Enough for a few of the largest requests.
        let all_places = options.limits.prompts * 4;
        Ok(Self { thread, places: Arc::new(Semaphore::new(all_places)), all_places })
    }

    pub(crate) fn stage(&self) -> &Stage {
        &self.thread.stage
    }

    /// Prompts that wait or are encoded.
    pub(crate) fn length(&self) -> usize {
        self.all_places.saturating_sub(self.places.available_permits())
    }

    /// Encodes prompts.
    ///
    /// # Errors
    /// If they cannot be encoded, or the deadline passes.
    pub(crate) async fn encode(
        &self,
        prompts: Vec<String>,
        deadline: Instant,
    ) -> Result<PromptStates, Problem> {
        let count = u32::try_from(prompts.len()).unwrap_or(u32::MAX);
        let Ok(place) = Arc::clone(&self.places).try_acquire_many_owned(count) else {
            return Err(Problem::busy("too many prompts wait for this text encoder", Duration::from_secs(1)));
        };
        let (reply, received) = oneshot::channel();
        self.thread.send(PromptJob { prompts, reply, place })?;
        match tokio::time::timeout_at(deadline.into(), received).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Problem::failed()),
            Err(_) if self.thread.stage.is_loading() => Err(Problem::loading()),
            Err(_) => Err(Problem::late()),
        }
    }
}

struct PromptWork {
    model: ImageModel,
    loaded: Option<PromptEncoder>,
    metrics: Arc<Metrics>,
}

impl PromptWork {
    fn encode(&mut self, prompts: &[String], stage: &Stage) -> Result<PromptStates, Problem> {
        let encoder = match &self.loaded {
            Some(encoder) => encoder,
            None => {
                let Some(load) = &self.model.prompt_encoder else {
                    return Err(Problem::invalid("model: this model does not offer its hidden states"));
                };
                let start = Instant::now();
                let encoder = stage.loading(|| load())?;
                self.metrics.add_seconds("load", start.elapsed());
                let seconds = start.elapsed().as_secs_f64();
                tracing::info!(model = self.model.name, seconds, "loaded the text encoder");
                self.loaded.insert(encoder)
            }
        };
        Ok(encode(encoder, prompts)?)
    }
}

fn encode(encoder: &PromptEncoder, prompts: &[String]) -> altclip_encoder::Result<PromptStates> {
    let encoding = encoder.tokenizer().encode_padded(prompts, encoder.length())?;
    let mut states = Vec::new();
    for batch in prompts.chunks(BATCH) {
        let of_batch = encoder.encode(batch)?.hidden_states;
        states.push(of_batch.to_dtype(DType::F32)?.to_device(&Device::Cpu)?);
    }
    Ok(PromptStates {
        input_ids: encoding.input_ids,
        attention_mask: encoding.attention_mask,
        hidden_states: Tensor::cat(&states, 0)?,
    })
}

impl Work for PromptWork {
    type Job = PromptJob;

    fn run(&mut self, job: PromptJob, _: &Receiver<PromptJob>, stage: &Stage) {
        if job.reply.is_closed() {
            self.metrics.add_cancelled();
            return;
        }
        let outcome = self.encode(&job.prompts, stage);
        // Free before the client knows, who may come again at once.
        drop(job.place);
        let _ = job.reply.send(outcome);
    }

    fn preload(&mut self, _: &Stage) {}

    fn free(&mut self) {
        self.loaded = None;
    }
}
