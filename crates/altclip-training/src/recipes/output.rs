//! Names the output of a run, and opens a stage's folder.

use crate::error::Result;
use crate::parallel::Communicator;
use crate::run::TrainingRun;
use std::path::Path;
use std::time::Duration;

/// The folder of the trained model.
pub(super) const MODEL: &str = "model";
/// The file of a trained LoRA, with diffusers' name.
pub(super) const LORA_FILE: &str = "pytorch_lora_weights.safetensors";

/// Opens a stage's folder.
pub(super) fn open_run<'a>(
    ranks: &'a dyn Communicator,
    output: &Path,
    stage: &str,
    seed: u64,
    save_every: u64,
) -> Result<TrainingRun<'a>> {
    Ok(TrainingRun::among(ranks, output.join(stage), seed)?.save_every(Duration::from_secs(save_every)))
}
