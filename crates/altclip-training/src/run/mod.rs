//! Runs the training of a stage: the loop over its steps, with checkpoints, metrics and samples in a folder.

mod checkpoints;
mod events;
mod lock;
mod metrics;
mod plot;

use crate::error::{Error, Result};
use crate::gradients::Gradients;
use crate::hash::hash;
use crate::optimizer::Optimizer;
use crate::parallel::{Alone, Communicator};
use crate::png_file::save_png;
use checkpoints::Checkpoints;
use image::RgbImage;
use lock::FolderLock;
use metrics::MetricsFiles;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use metrics::Metrics;

/// The default time between checkpoints.
const SAVE_EVERY: Duration = Duration::from_secs(120);
/// The number of evenly spread samples in a run.
const SAMPLES: usize = 10;

/// What a stage of training minimises. Everything else is in [`TrainingRun`], shared by all stages.
pub trait Objective {
    /// The losses of a batch, in one or more parts, with their gradients.
    ///
    /// Draw all random numbers from the batch, whose generator depends only on the seed and its number: a resumed run
    /// then takes the same steps as an uninterrupted one.
    ///
    /// # Errors
    /// If the batch cannot be computed.
    fn gradients(&self, batch: &mut Batch) -> Result<Gradients>;

    /// Draws an image with the weights, which are the averaged ones during this call; `None` if there is nothing to
    /// show. Called at a tenth, two tenths … of the run.
    ///
    /// # Errors
    /// If it cannot be drawn.
    fn sample(&self) -> Result<Option<RgbImage>> {
        Ok(None)
    }
}

/// A batch of a run.
pub struct Batch {
    /// Its number in the run; a step has one or, with accumulation, several.
    pub number: usize,
    /// The generator of its random numbers.
    pub rng: ChaCha8Rng,
}

impl Batch {
    /// The batch with this number, in a run with this seed.
    pub fn new(seed: u64, number: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(number as u64 + 1);
        Self { number, rng }
    }
}

/// Watches a run, for example to show a progress bar.
pub trait Observer {
    /// Called after every step.
    fn step(&mut self, stage: &str, metrics: &Metrics, steps: usize);

    /// Called with messages for the user.
    fn note(&mut self, stage: &str, text: &str);

    /// Whether to stop now, with a checkpoint to resume from. Called after every step.
    fn is_over(&mut self) -> bool {
        false
    }
}

/// Ignores everything.
impl Observer for () {
    fn step(&mut self, _: &str, _: &Metrics, _: usize) {}

    fn note(&mut self, _: &str, _: &str) {}
}

/// The folder of a training stage.
#[derive(Debug)]
pub struct TrainingRun<'a> {
    folder: PathBuf,
    seed: u64,
    save_every: Duration,
    ranks: &'a dyn Communicator,
    /// Held by rank 0 during the run, against a second run in the same folder.
    _lock: Option<FolderLock>,
}

impl TrainingRun<'static> {
    /// Opens or creates the folder of a single-process run.
    ///
    /// # Errors
    /// Like [`TrainingRun::among`].
    pub fn open(folder: impl Into<PathBuf>, seed: u64) -> Result<Self> {
        Self::among(&Alone, folder, seed)
    }
}

impl<'a> TrainingRun<'a> {
    /// Opens the folder of a run of several processes. Rank 0 creates it if necessary; the others wait
    /// for that.
    ///
    /// # Errors
    /// If the folder cannot be created, another run uses it, another rank does not see it, or a rank is lost.
    pub fn among(ranks: &'a dyn Communicator, folder: impl Into<PathBuf>, seed: u64) -> Result<Self> {
        let folder = folder.into();
        let lock = ranks.after_first(|| {
            if !ranks.is_first() {
                fs::read_dir(&folder).map_err(Error::io(&folder))?;
                return Ok(None);
            }
            fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
            let lock = FolderLock::take(&folder)?;
            Ok(Some(lock))
        })?;
        Ok(Self { folder, seed, save_every: SAVE_EVERY, ranks, _lock: lock })
    }

    /// Sets the time between checkpoints; 0 means after every step.
    #[must_use]
    pub fn save_every(mut self, interval: Duration) -> Self {
        self.save_every = interval;
        self
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The name of the stage, which is that of its folder.
    pub fn stage(&self) -> String {
        self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Trains until the optimizer has taken all steps, from the newest checkpoint if there is one. Returns the number
    /// of steps taken. Every rank reports the mean loss of all, and only rank 0 writes files.
    ///
    /// # Errors
    /// The errors of `objective`; if a loss is not finite, a file cannot be written, or a rank is lost or started with
    /// other weights; and [`Error::Interrupted`] if the observer of any rank stopped the run. The last checkpoint is
    /// left as it was.
    pub fn train(
        &self,
        optimizer: &mut Optimizer,
        observer: &mut dyn Observer,
        objective: &impl Objective,
    ) -> Result<usize> {
        let stage = self.stage();
        let checkpoints = Checkpoints::new(&self.folder, self.seed, self.ranks.ranks());
        if let Some(resumed) = checkpoints.resume(optimizer)? {
            resumed
                .damaged
                .iter()
                .for_each(|problem| observer.note(&stage, &format!("passed over {problem}")));
            observer.note(&stage, &format!("goes on after step {}", resumed.step));
        }
        self.agree(optimizer)?;
        let is_first = self.ranks.is_first();
        let mut metrics =
            is_first.then(|| MetricsFiles::open(&self.folder, optimizer.step_count())).transpose()?;
        let steps = optimizer.config().steps;
        let left = steps.saturating_sub(optimizer.step_count());
        let mut saved = Instant::now();
        while !optimizer.is_finished() {
            let line = self.step(optimizer, objective)?;
            if let Some(metrics) = &mut metrics {
                metrics.add(&line)?;
            }
            observer.step(&stage, &line, steps);
            let step = optimizer.step_count();
            if is_first && (step == steps || step.is_multiple_of((steps / SAMPLES).max(1))) {
                self.draw_sample(optimizer, objective)?;
            }
            let is_over = step < steps && self.ranks.any(observer.is_over())?;
            let is_due = step == steps || is_over || saved.elapsed() >= self.save_every;
            if let Some(metrics) = metrics.as_mut().filter(|_| is_due) {
                metrics.flush()?;
                checkpoints.save(optimizer)?;
                saved = Instant::now();
            }
            if is_over {
                return Err(Error::Interrupted { stage, step, steps });
            }
        }
        Ok(left)
    }

    /// Rejects ranks that would diverge.
    fn agree(&self, optimizer: &Optimizer) -> Result<()> {
        if self.ranks.ranks() == 1 {
            return Ok(());
        }
        let config = serde_json::to_vec(optimizer.config()).map_err(|e| Error::format(&self.folder, e))?;
        self.ranks.agree("seed", self.seed)?;
        self.ranks.agree("settings of the optimiser", hash(config))?;
        self.ranks.agree("step to go on from", optimizer.step_count() as u64)?;
        self.ranks.agree("weights to begin with", optimizer.fingerprint()?.into())
    }

    /// Takes a step. Each rank takes an equal share of its batches, in order.
    fn step(&self, optimizer: &mut Optimizer, objective: &impl Objective) -> Result<Metrics> {
        let step = optimizer.step_count();
        let accumulate = optimizer.config().accumulate.max(1);
        let first = (step * self.ranks.ranks() + self.ranks.rank()) * accumulate;
        let batches = (first..first + accumulate).map(|number| Batch::new(self.seed, number));
        let of_batch = |mut batch| Ok(objective.gradients(&mut batch)?.of_weights(optimizer.weights()));
        let gradients = Gradients::sum(batches.map(of_batch))?.over_ranks(self.ranks, optimizer.weights())?;
        let loss = gradients.loss();
        if !loss.is_finite() {
            let stage = self.stage();
            return Err(Error::Setting(format!(
                "{stage}, step {step}: the loss is not finite; try a lower learning rate"
            )));
        }
        let learning_rate = optimizer.config().learning_rate_at(step);
        let gradient_norm = optimizer.step(&gradients)?;
        Ok(Metrics { step, loss, gradient_norm, learning_rate })
    }

    fn draw_sample(&self, optimizer: &Optimizer, objective: &impl Objective) -> Result<()> {
        let Some(image) = optimizer.with_averages(|| objective.sample())? else { return Ok(()) };
        let path = self.folder.join(format!("sample-{:06}.png", optimizer.step_count()));
        save_png(&path, &image)
    }
}
