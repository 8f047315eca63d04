//! Runs the training of a stage: one loop over its steps, with checkpoints, metrics and samples in a folder.

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

/// Time between two checkpoints, unless another is asked for.
const SAVE_EVERY: Duration = Duration::from_secs(120);
/// A run draws so many samples, evenly spread.
const SAMPLES: usize = 10;

/// What a stage of training minimises. Everything else about it is the same for all stages, and [`TrainingRun`]'s.
pub trait Objective {
    /// The losses of one batch, in one or several parts, with their gradients.
    ///
    /// All that is drawn at random must come from the batch, which depends on the seed and its number alone: a resumed
    /// run then takes the same steps as an unbroken one.
    ///
    /// # Errors
    /// If the batch cannot be computed.
    fn gradients(&self, batch: &mut Batch) -> Result<Gradients>;

    /// An image of what the weights, for now the averaged ones, can do; `None` where there is nothing to see. It is asked
    /// for at a tenth, two tenths … of the run.
    ///
    /// # Errors
    /// If it cannot be drawn.
    fn sample(&self) -> Result<Option<RgbImage>> {
        Ok(None)
    }
}

/// One batch of a run.
pub struct Batch {
    /// Counted from the beginning of the run; a step has one or, with accumulation, several.
    pub number: usize,
    /// The source of all that is drawn for it.
    pub rng: ChaCha8Rng,
}

impl Batch {
    /// The batch of a number, in a run of a seed.
    pub fn new(seed: u64, number: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(number as u64 + 1);
        Self { number, rng }
    }
}

/// Watches a run from outside, for instance to draw a progress bar.
pub trait Observer {
    /// Called after every step.
    fn step(&mut self, stage: &str, metrics: &Metrics, steps: usize);

    /// Called with a sentence that is worth a line.
    fn note(&mut self, stage: &str, text: &str);

    /// Whether the run is to end now, with a checkpoint that it can go on from. Asked after every step.
    fn is_over(&mut self) -> bool {
        false
    }
}

/// Watches nothing.
impl Observer for () {
    fn step(&mut self, _: &str, _: &Metrics, _: usize) {}

    fn note(&mut self, _: &str, _: &str) {}
}

/// The folder of one stage of training.
#[derive(Debug)]
pub struct TrainingRun<'a> {
    folder: PathBuf,
    seed: u64,
    save_every: Duration,
    ranks: &'a dyn Communicator,
    /// Rank 0 keeps it while the run lives, against a second run in the same folder.
    _lock: Option<FolderLock>,
}

impl TrainingRun<'static> {
    /// Opens or creates the folder of a run of one process: [`TrainingRun::among`] no others.
    ///
    /// # Errors
    /// As [`TrainingRun::among`].
    pub fn open(folder: impl Into<PathBuf>, seed: u64) -> Result<Self> {
        Self::among(&Alone, folder, seed)
    }
}

impl<'a> TrainingRun<'a> {
    /// Opens the folder of a run of several processes. Rank 0 creates it where there is none, and removes what killed
    /// processes left half written there; the others wait for that.
    ///
    /// # Errors
    /// If the folder cannot be created, another run is training in it, another rank does not see it, or a rank is lost.
    pub fn among(ranks: &'a dyn Communicator, folder: impl Into<PathBuf>, seed: u64) -> Result<Self> {
        let folder = folder.into();
        let lock = ranks.after_first(|| {
            if !ranks.is_first() {
                fs::read_dir(&folder).map_err(Error::io(&folder))?;
                return Ok(None);
            }
            fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
            let lock = FolderLock::take(&folder)?;
            Checkpoints::new(&folder, seed, ranks.ranks()).clean()?;
            Ok(Some(lock))
        })?;
        Ok(Self { folder, seed, save_every: SAVE_EVERY, ranks, _lock: lock })
    }

    /// Writes a checkpoint whenever so much time has passed since the last one; 0 means after every step.
    #[must_use]
    pub fn save_every(mut self, interval: Duration) -> Self {
        self.save_every = interval;
        self
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The name of the stage, which is that of the folder.
    pub fn stage(&self) -> String {
        self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Trains until the optimiser has taken all its steps, from the newest checkpoint if there is one. Returns how many
    /// steps were left to take. Every rank reports the mean loss of all, and rank 0 alone writes files.
    ///
    /// # Errors
    /// Those of `objective`, a loss that is not finite, a file that cannot be written, a rank that is lost or began with
    /// other weights, and [`Error::Interrupted`] where an observer, that of any rank, ended the run. The last checkpoint is
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

    /// Refuses ranks that would go apart.
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

    /// Takes one step. Of its batches, each rank has as many, one after the other.
    fn step(&self, optimizer: &mut Optimizer, objective: &impl Objective) -> Result<Metrics> {
        let step = optimizer.step_count();
        let accumulate = optimizer.config().accumulate.max(1);
        let first = (step * self.ranks.ranks() + self.ranks.rank()) * accumulate;
        let batches = (first..first + accumulate).map(|number| Batch::new(self.seed, number));
        let gradients = Gradients::sum(batches.map(|mut batch| objective.gradients(&mut batch)))?
            .over_ranks(self.ranks, optimizer.weights())?;
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
