//! Re-aligns an AltDiffusion on images and captions.

use super::data::{read_pairs, report_skipped};
use super::diffusion_model::DiffusionModel;
use super::encoded_pairs::EncodedPairs;
use super::output::open_run;
use super::precision::Precision;
use super::recipe::TrainingRecipe;
use crate::error::{Error, Result};
use crate::optimizer::Optimizer;
use crate::parallel::Communicator;
use crate::parameters::{Parameters, frozen};
use crate::run::{Batch, Objective, Observer};
use crate::stages::ObjectiveFunctions;
use crate::stages::realign::{RealignStage, Realignment};
use crate::stages::sheet::SampleSheet;
use altclip_encoder::images::Background;
use altdiffusion_pipeline::unet::UNet2DConditionModel;
use candle_core::{DType, Device, Tensor};
use embedding_index::readers::ImagePairs;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The settings of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffusionRecipe {
    /// Seed of all random draws.
    pub seed: u64,
    /// Seconds between checkpoints.
    pub save_every: u64,
    /// The model whose UNet is trained, in diffusers' layout: a directory or a hub repository.
    pub model: String,
    /// The dtype that the model computes in.
    #[serde(default)]
    pub precision: Precision,
    /// Images and captions: a table, a WebDataset archive, several of those, or a folder; see [`ImagePairs::read`].
    pub data: PathBuf,
    /// The column of images in a table, or their endings elsewhere; by default `image`, or all known endings.
    #[serde(alias = "picture")]
    pub image: Option<String>,
    /// The background of transparent images: `white`, `black`, `#rrggbb`, or `none` to use the hidden colours. The
    /// default is that of the model's `preprocessor_config.json`.
    pub background: Option<Background>,
    /// The columns of captions in a table, or the endings or fields of their files elsewhere.
    pub captions: Vec<String>,
    /// The stages, in order.
    pub stages: Vec<RealignStage>,
    /// Images drawn during training.
    pub sample: Option<SampleSheet>,
}

/// What all stages share.
struct DiffusionRun<'a> {
    model: DiffusionModel,
    pairs: ImagePairs,
    /// The run's folder.
    output: &'a Path,
    ranks: &'a dyn Communicator,
}

impl TrainingRecipe for DiffusionRecipe {
    /// Trains all stages, resuming an earlier run, and writes the model to `output/model`. Images that cannot be read
    /// are skipped and counted.
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
        if self.stages.is_empty() {
            return Err(Error::Setting("stages: expected at least one, found none".to_owned()));
        }
        let model = DiffusionModel::open(&self.model, self.background, device)?;
        let pairs = read_pairs(&self.data, self.image.as_deref(), &self.captions)?;
        report_skipped(observer, "data", &pairs.skipped);
        let inputs = DiffusionRun { model, pairs, output, ranks };
        let mut weights: Option<BTreeMap<String, Tensor>> = None;
        for stage in &self.stages {
            let initial = match &weights {
                Some(weights) => frozen(weights, device),
                None => inputs.model.unet_weights(DType::F32)?,
            };
            let parameters = Parameters::new(self.seed).starting_from(initial);
            weights = Some(self.train_stage(stage, parameters, &inputs, observer)?);
        }
        if ranks.is_first() {
            inputs.model.write(output, weights.unwrap_or_default())?;
        }
        Ok(())
    }
}

impl DiffusionRecipe {
    /// Trains one stage, starting with `parameters`, and returns the resulting weights.
    fn train_stage(
        &self,
        stage: &RealignStage,
        parameters: Parameters,
        inputs: &DiffusionRun,
        observer: &mut dyn Observer,
    ) -> Result<BTreeMap<String, Tensor>> {
        let DiffusionRun { model, pairs, output, ranks } = inputs;
        let run = open_run(*ranks, output, &stage.name, self.seed, self.save_every)?;
        let train = stage.train;
        let device = &model.device;
        let parameters =
            parameters.training(move |name| train.has(name)).computing_in(self.precision.dtype(device)?);
        let unet = UNet2DConditionModel::new(&model.unet_config, parameters.var_builder(device))?;
        let mut optimizer = Optimizer::new(stage.optimizer.clone(), &parameters)?;

        let EncodedPairs { latents, captions } =
            ranks.after_first(|| EncodedPairs::of(pairs, stage.resolution, model, (output, ""), observer))?;
        let realignment = Realignment::new(stage.batches(), &unet, &model.scheduler, &latents, &captions, 1)?;
        let gradients = |batch: &mut Batch| realignment.gradients(batch);
        let sample = || match &self.sample {
            Some(sheet) => sheet.draw(&model.drawing_parts(), &unet, &latents, self.seed).map(Some),
            None => Ok(None),
        };
        run.train(&mut optimizer, observer, &ObjectiveFunctions { gradients, sample })?;
        Ok(parameters.with(optimizer.averages()))
    }
}
