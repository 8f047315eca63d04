//! One training run: its folder, its checkpoint, its metrics and the loop over its steps.

use crate::error::{Error, Result};
use crate::optimizer::{Gradients, Optimizer};
use altdiffusion_pipeline::write_whole;
use candle_core::{Device, Tensor};
use image::RgbImage;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The checkpoint: weights, averages and moments, with the step in its metadata.
const STATE_FILE: &str = "state.safetensors";
/// One JSON object per step.
const METRICS_FILE: &str = "metrics.jsonl";
/// Time between two checkpoints, unless another is asked for.
const SAVE_EVERY: Duration = Duration::from_secs(120);

/// The folder of one stage of training.
#[derive(Debug)]
pub struct Run {
    folder: PathBuf,
    seed: u64,
    save_every: Duration,
}

/// What a stage reports of one step, for people and for plots.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Metrics {
    pub step: usize,
    pub loss: f64,
    pub gradient_norm: f64,
    pub learning_rate: f64,
}

/// Watches a run from outside, for instance to draw a progress bar.
pub trait Observer {
    /// Called after every step.
    fn step(&mut self, stage: &str, metrics: &Metrics, steps: usize);
    /// Called with a sentence that is worth a line.
    fn note(&mut self, stage: &str, text: &str);
}

impl Run {
    /// Opens or creates the folder of a run.
    ///
    /// # Errors
    /// If the folder cannot be created.
    pub fn open(folder: impl Into<PathBuf>, seed: u64) -> Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        Ok(Self { folder, seed, save_every: SAVE_EVERY })
    }

    /// Writes a checkpoint whenever so much time has passed since the last one; 0 means after every step.
    #[must_use]
    pub fn save_every(mut self, interval: Duration) -> Self {
        self.save_every = interval;
        self
    }

    /// The name of the stage, which is that of the folder.
    fn stage(&self) -> String {
        self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Trains until the optimiser has taken all its steps, from the checkpoint if there is one.
    ///
    /// `gradients` computes the losses of one step's batch, in one or several parts. All its randomness must come from the generator that it is given, which
    /// depends on the seed and the step alone: a resumed run then takes the same steps as an unbroken one. `sample`
    /// draws a picture of what the averaged weights can do; it is called at a tenth, two tenths … of the run.
    ///
    /// # Errors
    /// Those of `gradients` and `sample`, a loss that is not finite, or a file that cannot be written.
    pub fn train(
        &self,
        optimizer: &mut Optimizer,
        observer: &mut dyn Observer,
        mut gradients: impl FnMut(&mut ChaCha8Rng) -> Result<Vec<Gradients>>,
        mut sample: impl FnMut() -> Result<RgbImage>,
    ) -> Result<()> {
        let stage = self.stage();
        if self.resume(optimizer)? {
            observer.note(&stage, &format!("goes on after step {}", optimizer.step_count()));
        }
        let mut metrics = self.open_metrics(optimizer.step_count())?;
        let steps = optimizer.config().steps;
        let mut saved = Instant::now();
        while !optimizer.is_finished() {
            let step = optimizer.step_count();
            let mut rng = self.rng(step);
            let parts = gradients(&mut rng)?;
            let value = parts.iter().map(|part| part.loss).sum::<f64>() / parts.len() as f64;
            if !value.is_finite() {
                return Err(Error::Setting(format!(
                    "{stage}, step {step}: the loss is not finite; try a lower learning rate"
                )));
            }
            let learning_rate = optimizer.config().learning_rate_at(step);
            let gradient_norm = optimizer.step(&parts)?;
            let line = Metrics { step, loss: value, gradient_norm, learning_rate };
            let path = self.folder.join(METRICS_FILE);
            serde_json::to_writer(&mut metrics, &line).map_err(|e| Error::format(&path, e))?;
            writeln!(metrics).map_err(Error::io(&path))?;
            observer.step(&stage, &line, steps);
            let step = step + 1;
            if step == steps || step.is_multiple_of((steps / 10).max(1)) {
                let picture = optimizer.with_averages(&mut sample)?;
                let path = self.folder.join(format!("sample-{step:06}.png"));
                picture.save(&path).map_err(|e| Error::format(&path, e))?;
            }
            if step == steps || saved.elapsed() >= self.save_every {
                metrics.flush().map_err(Error::io(&path))?;
                self.save(optimizer)?;
                saved = Instant::now();
            }
        }
        Ok(())
    }

    /// The generator of one step.
    fn rng(&self, step: usize) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(step as u64 + 1);
        rng
    }

    /// Loads the checkpoint, if there is one.
    fn resume(&self, optimizer: &mut Optimizer) -> Result<bool> {
        let path = self.folder.join(STATE_FILE);
        if !path.exists() {
            return Ok(false);
        }
        let bytes = fs::read(&path).map_err(Error::io(&path))?;
        let (_, metadata) =
            safetensors::SafeTensors::read_metadata(&bytes).map_err(|e| Error::format(&path, e))?;
        let step = metadata.metadata().as_ref().and_then(|m| m.get("step")).and_then(|s| s.parse().ok());
        let step = step.ok_or_else(|| Error::format(&path, "expected the step in the metadata"))?;
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?;
        let tensors: BTreeMap<String, Tensor> = tensors.into_iter().collect();
        optimizer.load_state(step, &tensors).map_err(|e| Error::format(&path, e))?;
        Ok(true)
    }

    fn save(&self, optimizer: &Optimizer) -> Result<()> {
        let metadata = HashMap::from([("step".to_owned(), optimizer.step_count().to_string())]);
        save_tensors(&self.folder.join(STATE_FILE), &optimizer.state(), Some(metadata))
    }

    /// The metrics file, cut back to the steps before `step`, which is where the run goes on.
    fn open_metrics(&self, step: usize) -> Result<File> {
        let path = self.folder.join(METRICS_FILE);
        let kept = match File::open(&path) {
            Ok(file) => BufReader::new(file)
                .lines()
                .take(step)
                .collect::<Result<Vec<_>, _>>()
                .map_err(Error::io(&path))?,
            Err(_) => Vec::new(),
        };
        let mut text = kept.join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        write_whole(&path, |temporary| fs::write(temporary, &text))?;
        OpenOptions::new().append(true).open(&path).map_err(Error::io(&path))
    }
}

/// Writes tensors to a safetensors file, whole or not at all.
///
/// # Errors
/// If the file cannot be written.
pub fn save_tensors(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: Option<HashMap<String, String>>,
) -> Result<()> {
    let bytes = safetensors::serialize(tensors, metadata).map_err(|e| Error::format(path, e))?;
    Ok(write_whole(path, |temporary| fs::write(temporary, &bytes))?)
}
