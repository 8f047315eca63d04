//! The stages for models of any size, in their published layouts: a run of each has a configuration file of its own.

mod contrastive;
mod diffusion;
mod drawer;
mod dreambooth;
mod examples;
mod fine_tuning;
mod latents;
mod lora;
mod model;
mod states;
mod teacher;
mod textual_inversion;

pub use contrastive::ContrastiveRecipe;
pub use diffusion::DiffusionRecipe;
pub use dreambooth::{DreamBoothRecipe, PriorPreservation};
pub use fine_tuning::FineTuningStage;
pub use lora::LoraRecipe;
pub use teacher::TeacherRecipe;
pub use textual_inversion::TextualInversionRecipe;

use crate::error::{Error, Result};
use crate::pairs::{ImagePairs, Skipped};
use crate::parallel::Communicator;
use crate::run::{Observer, Run};
use crate::settings::{self, Change};
use altclip_encoder::images::{self, Background};
use candle_core::{DType, Device};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// Folder of the trained model.
const MODEL: &str = "model";
/// The file of a trained LoRA, as diffusers calls it.
const LORA_FILE: &str = "pytorch_lora_weights.safetensors";

/// What a model computes in while it is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    #[default]
    F32,
    /// Half the memory and several times the speed of a GPU; the optimiser keeps weights in f32.
    Bf16,
}

impl Precision {
    /// The type of the weights.
    ///
    /// # Errors
    /// For bf16 on a CPU, which computes in f32 whatever weights are stored in.
    pub fn dtype(self, device: &Device) -> Result<DType> {
        match self {
            Self::F32 => Ok(DType::F32),
            Self::Bf16 if device.is_cpu() => {
                Err(Error::Setting("precision: bf16 needs a GPU, expected f32 on a CPU".to_owned()))
            }
            Self::Bf16 => Ok(DType::BF16),
        }
    }
}

/// A run that one configuration file tells.
pub trait TrainingRecipe: DeserializeOwned {
    /// Reads the settings from a TOML file, with changes made to them.
    ///
    /// # Errors
    /// If the file cannot be read, or lacks a setting, or has one that is unknown.
    fn load(path: &Path, changes: &[Change]) -> Result<Self> {
        settings::load(path, changes)
    }

    /// Trains, going on where an earlier run stopped, and writes into the folder `output`.
    ///
    /// # Errors
    /// If a file cannot be read or written, a setting does not fit the model, a loss is not finite, or a rank is lost.
    fn train(
        &self,
        output: &Path,
        device: &Device,
        ranks: &dyn Communicator,
        observer: &mut dyn Observer,
    ) -> Result<()>;
}

/// Opens the folder of a stage.
fn open_run<'a>(
    ranks: &'a dyn Communicator,
    output: &Path,
    stage: &str,
    seed: u64,
    save_every: u64,
) -> Result<Run<'a>> {
    Ok(Run::among(ranks, output.join(stage), seed)?.save_every(Duration::from_secs(save_every)))
}

/// The images and captions of a run that needs both.
fn read_pairs(data: &Path, image: Option<&str>, captions: &[String]) -> Result<ImagePairs> {
    if captions.is_empty() {
        return Err(Error::Setting("captions: expected at least one column, found none".to_owned()));
    }
    ImagePairs::read(data, image, captions)
}

/// Tells how many images were transparent and had no background, unless that was asked for.
fn tell_transparent(observer: &mut dyn Observer, stage: &str, count: usize, asked: Option<Background>) {
    if count > 0 && asked.is_none() {
        let line = format!("{}; background = \"white\" composites them", images::transparency_note(count));
        observer.note(stage, &line);
    }
}

/// Tells what was left out of the data.
fn tell(observer: &mut dyn Observer, stage: &str, skipped: &Skipped) {
    if skipped.count > 0 {
        observer.note(stage, &skipped.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files that people begin with.
    #[test]
    fn the_configurations_of_this_crate_can_be_read() -> Result<()> {
        let config = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(name);
        TeacherRecipe::load(&config("teacher.toml"), &[])?;
        ContrastiveRecipe::load(&config("contrastive.toml"), &[])?;
        let diffusion = DiffusionRecipe::load(&config("diffusion.toml"), &["seed=7".parse()?])?;
        assert_eq!((diffusion.stages.len(), diffusion.seed), (3, 7));
        LoraRecipe::load(&config("lora.toml"), &[])?;
        DreamBoothRecipe::load(&config("dreambooth.toml"), &[])?;
        TextualInversionRecipe::load(&config("textual-inversion.toml"), &[])?;
        Ok(())
    }

    #[test]
    fn half_precision_needs_a_gpu() {
        let error =
            Precision::Bf16.dtype(&Device::Cpu).map_or_else(|error| error.to_string(), |_| String::new());
        assert_eq!(error, "precision: bf16 needs a GPU, expected f32 on a CPU");
    }
}
