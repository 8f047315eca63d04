//! Trains a LoRA of an AltDiffusion on images and captions.

use super::data::{read_pairs, report_skipped};
use super::diffusion_model::DiffusionModel;
use super::encoded_pairs::EncodedPairs;
use super::fine_tuning::{FineTuning, FineTuningStage};
use super::output::{LORA_FILE, open_run};
use super::precision::Precision;
use super::recipe::TrainingRecipe;
use crate::error::Result;
use crate::low_rank::{LowRankAdapter, LowRankConfig, unet_file};
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

/// The settings of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraRecipe {
    /// Seed of the new matrices and all random draws.
    pub seed: u64,
    /// Seconds between checkpoints.
    pub save_every: u64,
    /// The model, in diffusers' layout: a directory or a hub repository. It is not changed.
    pub model: String,
    /// The dtype that the model computes in.
    #[serde(default)]
    pub precision: Precision,
    /// Images and captions: a table, a WebDataset archive, several of those, or a folder; see
    /// [`ImagePairs::read`](embedding_index::readers::ImagePairs::read).
    pub data: PathBuf,
    /// The column of images in a table, or their endings elsewhere; by default `image`, or all known endings.
    #[serde(alias = "picture")]
    pub image: Option<String>,
    /// The background of transparent images: `white`, `black`, `#rrggbb`, or `none` to use the hidden colours. The
    /// default is that of the model's `preprocessor_config.json`.
    pub background: Option<Background>,
    /// The columns of captions in a table, or the endings or fields of their files elsewhere.
    pub captions: Vec<String>,
    /// Which layers are adapted.
    pub lora: LowRankConfig,
    /// The settings of the training.
    pub stage: FineTuningStage,
    /// Images drawn during training.
    pub sample: Option<SampleSheet>,
}

impl TrainingRecipe for LoraRecipe {
    /// Trains, resuming an earlier run, and writes `output/pytorch_lora_weights.safetensors`, which diffusers reads
    /// too. Images that cannot be read are skipped and counted.
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
        report_skipped(observer, STAGE, &pairs.skipped);
        let model = DiffusionModel::open(&self.model, self.background, device)?;
        let resolution = self.stage.resolution;
        let examples =
            ranks.after_first(|| EncodedPairs::of(&pairs, resolution, &model, (output, ""), observer))?;

        let adapted = LowRankAdapter::beside(model.unet_weights(dtype)?, &self.lora, self.seed)?;
        let unet = UNet2DConditionModel::new(&model.unet_config, adapted.var_builder())?;
        let EncodedPairs { latents, captions } = &examples;
        let realignment =
            Realignment::new(self.stage.batches(), &unet, &model.scheduler, latents, captions, 1)?;
        let tuning = FineTuning {
            run: &run,
            stage: &self.stage,
            parameters: adapted.matrices()?,
            unet: &unet,
            drawing_parts: model.drawing_parts(),
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
