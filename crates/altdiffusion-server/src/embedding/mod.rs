//! Embeds texts and images: collects what waits into batches by tokens.

mod description;
mod rows;

use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use altclip_encoder::Embedder;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use self::description::Description;
pub(crate) use self::description::Pooling;
use self::rows::rows;
use crate::image_data::GivenImage;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::model_thread::{ModelThread, Stage, Work};
use crate::models::EmbeddingModel;
use crate::options::ServerOptions;
use crate::problem::Problem;
use crate::sync::Receiver;

/// Something to embed.
pub(crate) enum Input {
    Text(String),
    /// The same, which fails instead of being cut if it is too long.
    WholeText(String),
    /// Token ids of the model's tokenizer, with special tokens.
    Ids(Vec<u32>),
    Image(Box<GivenImage>),
}

impl Input {
    /// At most the tokens it will have, before the tokenizer is loaded: a character is about a token at most.
    fn most_tokens(&self, most: usize) -> usize {
        match self {
            Self::Text(text) | Self::WholeText(text) => (text.chars().count() + 2).min(most),
            Self::Ids(ids) => ids.len().min(most),
            Self::Image(_) => Limits::IMAGE_TOKENS,
        }
    }
}

/// Vectors of a request's inputs, in order.
#[derive(Debug)]
pub(crate) struct Vectors {
    /// (inputs, dim), not normalised.
    pub(crate) values: Vec<f32>,
    pub(crate) dim: usize,
    /// The texts' tokens, special ones included.
    pub(crate) tokens: usize,
}

impl Vectors {
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.dim)
    }

    /// Checks the dimension that a request asks for.
    ///
    /// # Errors
    /// If it is not the model's own.
    pub(crate) fn check_dim(&self, asked: Option<usize>) -> Result<(), Problem> {
        match asked.filter(|asked| *asked != self.dim) {
            None => Ok(()),
            Some(asked) => {
                let problem =
                    format!("{asked}, expected {}: this model's vectors cannot be shortened", self.dim);
                Err(Problem::field("dimensions", problem))
            }
        }
    }

    /// Divides each vector by its length.
    pub(crate) fn normalize(&mut self) {
        for row in self.values.chunks_exact_mut(self.dim) {
            let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            // As `altclip_encoder::altclip::normalize`, which divides.
            row.iter_mut().for_each(|x| *x /= length);
        }
    }
}

type Call = Box<dyn FnOnce(Result<&Embedder, Problem>) + Send>;

/// What is asked of the thread.
pub(crate) enum EmbeddingJob {
    /// Part of a batch.
    Embed {
        inputs: Vec<Input>,
        reply: oneshot::Sender<Result<Vectors, Problem>>,
        /// Its tokens in the queue, given back at the end.
        place: OwnedSemaphorePermit,
    },
    /// Anything else, which keeps its place itself.
    Call {
        call: Call,
        /// Gone when nobody waits for it.
        caller: Weak<()>,
    },
}

impl EmbeddingJob {
    /// Whether nobody waits for it.
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Embed { reply, .. } => reply.is_closed(),
            Self::Call { caller, .. } => caller.strong_count() == 0,
        }
    }
}

/// A model's queue.
pub(crate) struct EmbeddingQueue {
    pub(crate) name: String,
    /// Known once the model was loaded, also after it was freed.
    description: OnceLock<Description>,
    thread: ModelThread<EmbeddingJob>,
    tokens: Arc<Semaphore>,
    all_tokens: usize,
}

/// More tokens of a text than any model takes, for the queue.
const MOST_TOKENS: usize = 512;
/// Batches' worth of tokens of a large request that are embedded between looks whether anybody still waits.
const BATCHES_AT_ONCE: usize = 8;

impl EmbeddingQueue {
    /// Starts the model's thread.
    ///
    /// # Errors
    /// If the system has none left.
    pub(crate) fn start(
        model: &EmbeddingModel,
        options: &ServerOptions,
        metrics: &Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let work = EmbeddingWork {
            model: model.clone(),
            loaded: None,
            batch_tokens: options.limits.batch_tokens,
            metrics: Arc::clone(metrics),
        };
        let name = format!("embed {}", model.name);
        let thread = ModelThread::start(&name, work, options.keep_loaded, options.preload)?;
        let all_tokens = options.limits.queued_tokens.min(u32::MAX as usize);
        let tokens = Arc::new(Semaphore::new(all_tokens));
        Ok(Self { name: model.name.clone(), description: OnceLock::new(), thread, tokens, all_tokens })
    }

    pub(crate) fn stage(&self) -> &Stage {
        &self.thread.stage
    }

    /// Tokens that wait or are embedded.
    pub(crate) fn length(&self) -> usize {
        self.all_tokens.saturating_sub(self.tokens.available_permits())
    }

    fn place(&self, tokens: usize) -> Result<OwnedSemaphorePermit, Problem> {
        // A request larger than the queue is taken when the queue is empty.
        let tokens = tokens.clamp(1, self.all_tokens);
        let place = u32::try_from(tokens).ok();
        let place = place.and_then(|tokens| Arc::clone(&self.tokens).try_acquire_many_owned(tokens).ok());
        place.ok_or_else(|| {
            let problem =
                format!("{} tokens wait for this model, expected at most {}", self.length(), self.all_tokens);
            Problem::busy(problem, Duration::from_secs(1))
        })
    }

    /// Embeds `inputs`.
    ///
    /// # Errors
    /// If the queue is full, an input cannot be embedded, or the deadline passes.
    pub(crate) async fn embed(&self, inputs: Vec<Input>, deadline: Instant) -> Result<Vectors, Problem> {
        let place = self.place(inputs.iter().map(|input| input.most_tokens(MOST_TOKENS)).sum())?;
        let (reply, received) = oneshot::channel();
        self.thread.send(EmbeddingJob::Embed { inputs, reply, place })?;
        self.receive(received, deadline).await
    }

    /// Describes the model, which is loaded if nobody asked before.
    ///
    /// # Errors
    /// Like [`call`](Self::call).
    pub(crate) async fn description(&self, deadline: Instant) -> Result<Description, Problem> {
        if let Some(known) = self.description.get() {
            return Ok(*known);
        }
        let description = self.call(1, deadline, |embedder| Ok(Description::of(embedder))).await?;
        Ok(*self.description.get_or_init(|| description))
    }

    /// Runs `call` with the model.
    ///
    /// # Errors
    /// If the queue is full, the model cannot be loaded, or the deadline passes.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        tokens: usize,
        deadline: Instant,
        call: impl FnOnce(&Embedder) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let place = self.place(tokens)?;
        let (reply, received) = oneshot::channel();
        let caller = Arc::new(());
        let job = EmbeddingJob::Call {
            call: Box::new(move |embedder: Result<&Embedder, Problem>| {
                let outcome = embedder.and_then(call);
                // Free before the client knows, who may come again at once.
                drop(place);
                let _ = reply.send(outcome);
            }),
            caller: Arc::downgrade(&caller),
        };
        self.thread.send(job)?;
        let outcome = self.receive(received, deadline).await;
        drop(caller);
        outcome
    }

    async fn receive<T>(
        &self,
        received: oneshot::Receiver<Result<T, Problem>>,
        deadline: Instant,
    ) -> Result<T, Problem> {
        match tokio::time::timeout_at(deadline.into(), received).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Problem::failed()),
            Err(_) if self.stage().is_loading() => Err(Problem::loading()),
            Err(_) => Err(Problem::late()),
        }
    }
}

/// A model's work.
struct EmbeddingWork {
    model: EmbeddingModel,
    loaded: Option<Embedder>,
    batch_tokens: usize,
    metrics: Arc<Metrics>,
}

impl EmbeddingWork {
    fn load(&mut self, stage: &Stage) -> Result<Embedder, Problem> {
        if let Some(embedder) = &self.loaded {
            return Ok(embedder.clone());
        }
        let start = Instant::now();
        let embedder = stage.loading(|| (self.model.load)())?;
        self.metrics.add_seconds("load", start.elapsed());
        tracing::info!(model = self.model.name, seconds = start.elapsed().as_secs_f64(), "loaded");
        self.loaded = Some(embedder.clone());
        Ok(embedder)
    }

    /// Embeds the inputs of several requests at once, and answers each; gives up if nobody waits any more.
    fn embed(&self, embedder: &Embedder, jobs: Vec<EmbeddingJob>) {
        if jobs.is_empty() {
            return;
        }
        let (mut inputs, mut replies) = (Vec::new(), Vec::new());
        for job in jobs {
            if let EmbeddingJob::Embed { inputs: of_job, reply, place } = job {
                replies.push((of_job.len(), reply, place));
                inputs.extend(of_job);
            }
        }
        let start = Instant::now();
        let mut embedded = Vec::with_capacity(inputs.len());
        for part in parts(inputs, self.batch_tokens.saturating_mul(BATCHES_AT_ONCE)) {
            if replies.iter().all(|(_, reply, _)| reply.is_closed()) {
                replies.iter().for_each(|_| self.metrics.add_cancelled());
                return;
            }
            embedded.extend(rows(embedder, part));
        }
        let mut rows = embedded.into_iter();
        let mut tokens = 0;
        for (count, reply, place) in replies {
            let mut vectors = Vectors { values: Vec::new(), dim: embedder.projection_dim(), tokens: 0 };
            let mut problem = None;
            for (index, row) in rows.by_ref().take(count).enumerate() {
                match row {
                    Ok((vector, tokens)) => {
                        vectors.values.extend(vector);
                        vectors.tokens += tokens;
                    }
                    Err(found) => {
                        let field = format!("input[{index}]");
                        problem.get_or_insert(Problem {
                            message: format!("{field}: {}", found.message),
                            field: Some(field),
                            ..found
                        });
                    }
                }
            }
            tokens += vectors.tokens;
            drop(place);
            let _ = reply.send(problem.map_or(Ok(vectors), Err));
        }
        self.metrics.add_batch(tokens, start.elapsed());
    }
}

/// Splits inputs into parts of at most `most` tokens; an input alone may have more.
fn parts(inputs: Vec<Input>, most: usize) -> Vec<Vec<Input>> {
    let (mut parts, mut part, mut tokens) = (Vec::new(), Vec::new(), 0);
    for input in inputs {
        let of_input = input.most_tokens(MOST_TOKENS);
        if tokens > 0 && tokens + of_input > most {
            parts.push(std::mem::take(&mut part));
            tokens = 0;
        }
        tokens += of_input;
        part.push(input);
    }
    parts.push(part);
    parts
}

impl Work for EmbeddingWork {
    type Job = EmbeddingJob;

    fn run(&mut self, job: EmbeddingJob, waiting: &Receiver<EmbeddingJob>, stage: &Stage) {
        if job.is_abandoned() {
            // Before the model is loaded, which others may not need.
            self.metrics.add_cancelled();
            return;
        }
        let mut embedder = self.load(stage);
        let mut next = Some(job);
        let mut batch = Vec::new();
        let mut tokens = 0;
        // What has come meanwhile joins the batch, up to its size.
        while let Some(job) = next.take().or_else(|| waiting.try_recv().ok()) {
            if job.is_abandoned() {
                self.metrics.add_cancelled();
                continue;
            }
            match (job, &mut embedder) {
                (EmbeddingJob::Embed { inputs, reply, place }, Err(problem)) => {
                    drop((inputs, place));
                    let _ = reply.send(Err(problem.clone()));
                }
                (EmbeddingJob::Call { call, .. }, Err(problem)) => call(Err(problem.clone())),
                (EmbeddingJob::Call { call, .. }, Ok(embedder)) => {
                    // In turn, since calls that keep coming would hold up the batch.
                    self.embed(embedder, batch);
                    call(Ok(&*embedder));
                    return;
                }
                (EmbeddingJob::Embed { inputs, reply, place }, Ok(_)) => {
                    tokens += inputs.iter().map(|input| input.most_tokens(MOST_TOKENS)).sum::<usize>();
                    batch.push(EmbeddingJob::Embed { inputs, reply, place });
                    if tokens >= self.batch_tokens {
                        break;
                    }
                }
            }
        }
        if let Ok(embedder) = embedder {
            self.embed(&embedder, batch);
        }
    }

    fn preload(&mut self, stage: &Stage) {
        if let Err(problem) = self.load(stage) {
            tracing::error!(model = self.model.name, "{}", problem.message);
        }
    }

    fn free(&mut self) {
        self.loaded = None;
    }
}
