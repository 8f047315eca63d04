//! Re-aligns a diffusion model with another text encoder, in stages (Ye et al., AltDiffusion, arXiv 2308.09991,
//! section 3.3): first only the keys and values of the cross-attentions, at a low resolution; then the whole UNet, at
//! the full one; finally with some captions dropped, for guidance (Ho & Salimans, arXiv 2207.12598).

use crate::error::{Error, Result};
use crate::gradients::Gradients;
use crate::optimizer::OptimizerConfig;
use crate::run::{Batch, Objective};
use crate::stages::coupling::{Side, on_sides};
use crate::stages::denoising::{DenoisingLoss, NoiseSettings};
use crate::workers::Workers;
use altdiffusion_pipeline::schedulers::SchedulerConfig;
use altdiffusion_pipeline::unet::UNet2DConditionModel;
use candle_core::Tensor;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// The settings of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealignStage {
    /// The name of the stage and its folder.
    pub name: String,
    /// Which part of the UNet is trained.
    pub train: TrainedPart,
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

impl RealignStage {
    /// How its batches are drawn.
    pub fn batches(&self) -> BatchSettings {
        let Self { batch_size, caption_dropout, noise, .. } = *self;
        BatchSettings { batch_size, caption_dropout, noise }
    }
}

/// How batches are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchSettings {
    /// Images per batch.
    pub batch_size: usize,
    /// The share of captions replaced by the empty one.
    pub caption_dropout: f64,
    /// How noise is added to latents.
    pub noise: NoiseSettings,
}

/// The part of the UNet that a stage trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainedPart {
    /// The projections of the prompt to keys and values: what a UNet knows about its text encoder.
    CrossAttentionKeysAndValues,
    /// Everything.
    All,
}

impl TrainedPart {
    /// Whether a weight of the UNet is trained.
    pub fn has(self, name: &str) -> bool {
        match self {
            Self::All => true,
            // A transformer block's second attention is the cross-attention.
            Self::CrossAttentionKeysAndValues => {
                name.contains(".attn2.to_k.") || name.contains(".attn2.to_v.")
            }
        }
    }
}

/// The UNet's conditioning: a batch of prompts.
pub struct ConditioningRows {
    /// (batch, rows, width)
    pub rows: Tensor,
    /// (batch, rows), added to the scores: see
    /// [`CompactHiddenStates`](altclip_encoder::conditioner::CompactHiddenStates).
    pub key_bias: Tensor,
    /// The side of the noise that each image is coupled to (see [`on_sides`]); empty if none is.
    pub sides: Vec<Option<Side>>,
}

/// Provides the encoded captions of images.
pub trait ConditioningSource: Sync {
    /// A caption for each of the images; the empty one where `is_dropped`.
    ///
    /// # Errors
    /// If a caption cannot be encoded.
    fn draw(&self, rng: &mut ChaCha8Rng, images: &[u32], is_dropped: &[bool]) -> Result<ConditioningRows>;
}

/// Minimises the error of the UNet's prediction for noised latents with their captions.
pub struct Realignment<'a> {
    unet: &'a UNet2DConditionModel,
    denoising: DenoisingLoss,
    /// (images, channels, height, width), scaled.
    latents: &'a Tensor,
    conditions: &'a dyn ConditioningSource,
    batch_size: usize,
    caption_dropout: f64,
    workers: Workers,
}

impl<'a> Realignment<'a> {
    /// The objective. On the CPU a batch is computed in `parts` at the same time.
    ///
    /// * `latents` (images, channels, height, width), scaled, on the UNet's device
    ///
    /// # Errors
    /// If the settings do not fit the data.
    pub fn new(
        batches: BatchSettings,
        unet: &'a UNet2DConditionModel,
        scheduler: &SchedulerConfig,
        latents: &'a Tensor,
        conditions: &'a dyn ConditioningSource,
        parts: usize,
    ) -> Result<Self> {
        let BatchSettings { caption_dropout, batch_size, noise } = batches;
        if !(0. ..=1.).contains(&caption_dropout) {
            let problem = format!("expected a share from 0 to 1, found {caption_dropout}");
            return Err(Error::Setting(format!("caption_dropout: {problem}")));
        }
        let workers = Workers::on(latents.device(), parts)?;
        workers.share("batch_size", batch_size)?;
        if latents.dim(0)? == 0 {
            return Err(Error::Setting("data: expected images, found none".to_owned()));
        }
        let denoising = DenoisingLoss::new(scheduler, noise);
        Ok(Self { unet, denoising, latents, conditions, batch_size, caption_dropout, workers })
    }

    /// The loss of a whole batch, a scalar.
    ///
    /// # Errors
    /// If a caption cannot be encoded, or a tensor operation fails.
    pub fn loss(&self, rng: &mut ChaCha8Rng) -> Result<Tensor> {
        self.loss_of(rng, self.batch_size)
    }

    fn loss_of(&self, rng: &mut ChaCha8Rng, size: usize) -> Result<Tensor> {
        let images = self.latents.dim(0)? as u32;
        let chosen: Vec<u32> = (0..size).map(|_| rng.random_range(0..images)).collect();
        let is_dropped: Vec<bool> = chosen.iter().map(|_| rng.random_bool(self.caption_dropout)).collect();
        let original =
            self.latents.index_select(&Tensor::new(chosen.as_slice(), self.latents.device())?, 0)?;
        let (noise, timesteps) = self.denoising.draw(rng, &original)?;
        let condition = self.conditions.draw(rng, &chosen, &is_dropped)?;
        let noised = self.denoising.noised(&original, &on_sides(noise, &condition.sides)?, &timesteps)?;
        let context = self.unet.project_context(&condition.rows, Some(&condition.key_bias))?;
        self.denoising.loss(self.unet, &noised, &context)
    }
}

impl Objective for Realignment<'_> {
    fn gradients(&self, batch: &mut Batch) -> Result<Gradients> {
        let size = self.batch_size / self.workers.parts();
        Gradients::sum(self.workers.run(&mut batch.rng, |rng| Gradients::of(&self.loss_of(rng, size)?)))
    }
}
