//! LoRA of an AltDiffusion on pictures and captions.

use super::contrastive::files;
use super::drawer::Drawer;
use super::examples::Examples;
use super::fine_tuning::{FineTuning, FineTuningStage, write};
use super::{LORA_FILE, Precision, open_run, tell};
use crate::error::Result;
use crate::low_rank::{LowRank, LowRankConfig, unet_file};
use crate::pairs::Table;
use crate::parallel::Communicator;
use crate::run::{Objective, Observer};
use crate::settings::{self, Change};
use crate::stages::realign::Realignment;
use crate::stages::sheet::SampleSheet;
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
    /// A file of pictures and captions, `.jsonl`, `.csv` or `.tsv`.
    pub data: PathBuf,
    /// The column of the pictures' files, whose names begin in the folder of `data`.
    pub picture: String,
    /// The columns of the captions.
    pub captions: Vec<String>,
    pub lora: LowRankConfig,
    pub stage: FineTuningStage,
    /// Pictures that are drawn on the way.
    pub sample: Option<SampleSheet>,
}

impl LoraRecipe {
    /// Reads the settings from a TOML file, with changes made to them.
    ///
    /// # Errors
    /// If the file cannot be read, or lacks a setting, or has one that is unknown.
    pub fn load(path: &Path, changes: &[Change]) -> Result<Self> {
        settings::load(path, changes)
    }

    /// Trains, going on where an earlier run stopped, and writes `output/pytorch_lora_weights.safetensors`, which diffusers
    /// reads too. Pictures that cannot be read are skipped and counted.
    ///
    /// # Errors
    /// If a file cannot be read or written, a setting does not fit the model, a loss is not finite, or a rank is lost.
    pub fn train(
        &self,
        output: &Path,
        device: &Device,
        ranks: &dyn Communicator,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let dtype = self.precision.dtype(device)?;
        let run = open_run(ranks, output, STAGE, self.seed, self.save_every)?;
        let columns: Vec<&str> =
            std::iter::once(&self.picture).chain(&self.captions).map(String::as_str).collect();
        let table = Table::read(&self.data, &columns)?;
        tell(observer, STAGE, &table.skipped);
        let captions: Vec<Vec<String>> =
            table.rows.iter().map(|values| values.iter().skip(1).cloned().collect()).collect();
        let drawer = Drawer::open(&self.model, device)?;
        let pairs = (files(&self.data, &table), captions);
        let resolution = self.stage.resolution;
        let examples = ranks.after_first(|| {
            Examples::of((&pairs.0, &pairs.1), resolution, &drawer, (output, ""), observer)
        })?;

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
            write(&output.join(LORA_FILE), &unet_file(matrices)?)?;
        }
        Ok(())
    }
}
