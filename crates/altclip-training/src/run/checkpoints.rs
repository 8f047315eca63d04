//! Writes and finds a run's checkpoints: the two newest are kept, and written atomically.

use crate::error::{Error, Result};
use crate::optimizer::Optimizer;
use candle_core::{Device, Tensor};
use model_files::checkpoint::save_tensors;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// If one is damaged, the other remains.
const KEPT: usize = 2;
const PREFIX: &str = "checkpoint-";
const SUFFIX: &str = ".safetensors";

/// The checkpoints in a run's folder.
///
/// Each is a safetensors file with the optimizer's state. Its metadata has the number of steps, the number of batches
/// drawn, which is the position in the data, and the seed: seed and batch number determine the state of a batch's
/// generator.
pub(super) struct Checkpoints {
    folder: PathBuf,
    seed: u64,
    ranks: usize,
}

/// The state that a run resumes from.
pub(super) struct Resumed {
    /// Newer checkpoints that could not be read, and why.
    pub damaged: Vec<String>,
    pub step: usize,
}

impl Checkpoints {
    pub(super) fn new(folder: &Path, seed: u64, ranks: usize) -> Self {
        Self { folder: folder.to_owned(), seed, ranks }
    }

    /// Batches per step, over all ranks.
    fn batches(&self, optimizer: &Optimizer) -> usize {
        optimizer.config().accumulate.saturating_mul(self.ranks)
    }

    /// Writes a checkpoint, and then removes old ones. On error the older ones are kept.
    pub(super) fn save(&self, optimizer: &Optimizer) -> Result<()> {
        let step = optimizer.step_count();
        let metadata = HashMap::from([
            ("step".to_owned(), step.to_string()),
            ("batches".to_owned(), (step * self.batches(optimizer)).to_string()),
            ("seed".to_owned(), self.seed.to_string()),
        ]);
        let path = self.folder.join(format!("{PREFIX}{step:08}{SUFFIX}"));
        save_tensors(&path, &optimizer.state(), Some(metadata))?;
        for (_, old) in self.list()?.into_iter().rev().skip(KEPT) {
            fs::remove_file(&old).map_err(Error::io(&old))?;
        }
        Ok(())
    }

    /// Loads the newest readable checkpoint; `None` if there are none at all.
    ///
    /// # Errors
    /// If there are checkpoints but none is readable, or one belongs to another model or seed. It is kept then: it
    /// may be all that is left of a long run.
    pub(super) fn resume(&self, optimizer: &mut Optimizer) -> Result<Option<Resumed>> {
        let mut damaged = Vec::new();
        for (_, path) in self.list()?.into_iter().rev() {
            match read(&path) {
                Ok(checkpoint) => {
                    self.load(optimizer, &path, checkpoint)?;
                    return Ok(Some(Resumed { damaged, step: optimizer.step_count() }));
                }
                Err(error) => damaged.push(error.to_string()),
            }
        }
        if damaged.is_empty() { Ok(None) } else { Err(Error::Checkpoints(damaged.join("; "))) }
    }

    fn load(&self, optimizer: &mut Optimizer, path: &Path, checkpoint: SavedRun) -> Result<()> {
        let SavedRun { step, batches, seed, tensors } = checkpoint;
        if seed != self.seed {
            let problem = format!("was made with seed {seed}, expected {}", self.seed);
            return Err(Error::format(path, problem));
        }
        let expected = self.batches(optimizer);
        if batches != step.saturating_mul(expected) {
            let problem =
                format!("has drawn {batches} batches in {step} steps, expected {expected} for each");
            return Err(Error::format(path, problem));
        }
        optimizer.load_state(step, &tensors).map_err(|e| Error::format(path, e))
    }

    /// The checkpoints by step, oldest first.
    fn list(&self) -> Result<Vec<(usize, PathBuf)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(Error::io(&self.folder))? {
            let path = entry.map_err(Error::io(&self.folder))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let step = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
            if let Some(step) = step.and_then(|step| step.parse().ok()) {
                found.push((step, path));
            }
        }
        found.sort();
        Ok(found)
    }
}

/// A checkpoint's content.
struct SavedRun {
    step: usize,
    batches: usize,
    seed: u64,
    tensors: BTreeMap<String, Tensor>,
}

fn read(path: &Path) -> Result<SavedRun> {
    let bytes = fs::read(path).map_err(Error::io(path))?;
    let (_, metadata) =
        safetensors::SafeTensors::read_metadata(&bytes).map_err(|e| Error::format(path, e))?;
    let metadata = metadata.metadata().clone().unwrap_or_default();
    let number = |name: &str| -> Result<u64> {
        let value = metadata.get(name).and_then(|value| value.parse().ok());
        value.ok_or_else(|| Error::format(path, format!("expected a number `{name}` in the metadata")))
    };
    let (step, batches, seed) = (number("step")? as usize, number("batches")? as usize, number("seed")?);
    let tensors =
        candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).map_err(|e| Error::format(path, e))?;
    Ok(SavedRun { step, batches, seed, tensors: tensors.into_iter().collect() })
}
