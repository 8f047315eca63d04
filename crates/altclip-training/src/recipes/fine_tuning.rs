//! Runs the steps of fine-tuning a diffusion model, for LoRA, DreamBooth and textual inversion.

use crate::error::Result;
use crate::optimizer::{Optimizer, OptimizerConfig};
use crate::run::{Batch, Observer, TrainingRun};
use crate::stages::ObjectiveFunctions;
use crate::stages::denoising::NoiseSettings;
use crate::stages::realign::BatchSettings;
use crate::stages::sheet::{DrawingParts, SampleSheet};
use crate::{Gradients, Parameters};
use altdiffusion_pipeline::unet::UNet2DConditionModel;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The settings of the steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FineTuningStage {
    /// Side of the images in pixels.
    pub resolution: usize,
    /// Images per batch.
    pub batch_size: usize,
    /// The share of captions replaced by the empty one.
    #[serde(default)]
    pub caption_dropout: f64,
    /// How noise is added to latents.
    #[serde(default)]
    pub noise: NoiseSettings,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
}

impl FineTuningStage {
    /// How its batches are drawn.
    pub fn batches(&self) -> BatchSettings {
        let Self { batch_size, caption_dropout, noise, .. } = *self;
        BatchSettings { batch_size, caption_dropout, noise }
    }
}

/// A model to fine-tune.
pub(super) struct FineTuning<'a> {
    pub run: &'a TrainingRun<'a>,
    pub stage: &'a FineTuningStage,
    /// The trained weights.
    pub parameters: &'a Parameters,
    pub unet: &'a UNet2DConditionModel,
    pub drawing_parts: DrawingParts<'a>,
    pub sample: Option<&'a SampleSheet>,
    /// (n, channels, height, width): the size of samples.
    pub latents: &'a Tensor,
    pub seed: u64,
}

impl FineTuning<'_> {
    /// Takes all steps with each batch's gradients, and returns the averages of the trained weights.
    ///
    /// # Errors
    /// The errors of a run.
    pub(super) fn train(
        &self,
        gradients: impl Fn(&mut Batch) -> Result<Gradients>,
        observer: &mut dyn Observer,
    ) -> Result<BTreeMap<String, Tensor>> {
        observer.note(&self.run.stage(), &format!("trains {} values", self.parameters.count()));
        let mut optimizer = Optimizer::new(self.stage.optimizer.clone(), self.parameters)?;
        let sample = || match self.sample {
            Some(sheet) => sheet.draw(&self.drawing_parts, self.unet, self.latents, self.seed).map(Some),
            None => Ok(None),
        };
        self.run.train(&mut optimizer, observer, &ObjectiveFunctions { gradients, sample })?;
        Ok(optimizer.averages())
    }
}
