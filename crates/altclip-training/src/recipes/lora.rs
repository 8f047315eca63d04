//! LoRA of an AltDiffusion on images and captions.

use super::drawer::Drawer;
use super::examples::Examples;
use super::fine_tuning::{FineTuning, FineTuningStage};
use super::{LORA_FILE, Precision, TrainingRecipe, open_run, read_pairs, tell};
use crate::error::Result;
use crate::low_rank::{LowRank, LowRankConfig, unet_file};
use crate::parallel::Communicator;
use crate::run::{Objective, Observer};
use crate::stages::realign::Realignment;
use crate::stages::sheet::SampleSheet;
use crate::tensor_file::save_weights;
use altclip_encoder::images::Background;
use altdiffusion_pipeline::unet::UNet2DConditionModel;
use candle_core::Device;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const STAGE: &str = "lora";

/// Every setting of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraRecipe {
    /// Seed of the new matrices and of all draws.
    pub seed: u64,
    /// Seconds between two checkpoints.
    pub save_every: u64,
    /// The model, in the layout of diffusers: a directory, or a repository on the hub. It stays as it is.
    pub model: String,
    #[serde(default)]
    pub precision: Precision,
    /// Images and captions: a table, an archive of WebDataset, several of those, or a folder; see
    /// [`ImagePairs::read`](crate::pairs::ImagePairs::read).
    pub data: PathBuf,
    /// The column of the images in a table, or their endings elsewhere; what is usual, where it is left out.
    #[serde(alias = "picture")]
    pub image: Option<String>,
    /// What transparent images are laid on: `white`, `black`, `#rrggbb`, or `none` for the colours under the transparency.
    /// As the model's `preprocessor_config.json` says, where it is left out.
    pub background: Option<Background>,
    /// The columns of the captions in a table, or the endings or fields of their files elsewhere.
    pub captions: Vec<String>,
    pub lora: LowRankConfig,
    pub stage: FineTuningStage,
    /// Images that are drawn on the way.
    pub sample: Option<SampleSheet>,
}

impl TrainingRecipe for LoraRecipe {
    /// Trains, going on where an earlier run stopped, and writes `output/pytorch_lora_weights.safetensors`, which diffusers
    /// reads too. Images that cannot be read are skipped and counted.
    ///
    /// # Errors
    /// If a file cannot be read or written, a setting does not fit the model, a loss is not finite, or a rank is lost.
    fn train(
        &self,
        output: &Path,
        device: &Device,
        ranks: &dyn Communicator,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let dtype = self.precision.dtype(device)?;
        let run = open_run(ranks, output, STAGE, self.seed, self.save_every)?;
        let pairs = read_pairs(&self.data, self.image.as_deref(), &self.captions)?;
        tell(observer, STAGE, &pairs.skipped);
        let drawer = Drawer::open(&self.model, self.background, device)?;
        let resolution = self.stage.resolution;
        let examples =
            ranks.after_first(|| Examples::of(&pairs, resolution, &drawer, (output, ""), observer))?;

        let adapted = LowRank::beside(drawer.unet_weights(dtype)?, &self.lora, self.seed)?;
        let unet = UNet2DConditionModel::new(&drawer.unet_config, adapted.var_builder())?;
        let Examples { latents, captions } = &examples;
        let realignment =
            Realignment::new(self.stage.batches(), &unet, &drawer.scheduler, latents, captions, 1)?;
        let tuning = FineTuning {
            run: &run,
            stage: &self.stage,
            parameters: adapted.matrices()?,
            unet: &unet,
            drawing: drawer.drawing(),
            sample: self.sample.as_ref(),
            latents,
            seed: self.seed,
        };
        let matrices = tuning.train(|batch| realignment.gradients(batch), observer)?;
        if ranks.is_first() {
            save_weights(&output.join(LORA_FILE), &unet_file(matrices)?)?;
        }
        Ok(())
    }
}
