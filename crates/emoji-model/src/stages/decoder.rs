//! Trains the autoencoder's decoder further, to decode clean images from imperfect latents, as drawn by diffusion
//! (noise-augmented decoding: Zheng et al., arXiv 2510.11690). The encoder is frozen, and with it the latents that a
//! UNet was trained on.

use crate::stages::autoencoder::{TrainedVae, fit, with_noise};
use altclip_training::stages::ObjectiveFunctions;
use altclip_training::{
    Batch, Gradients, Observer, Optimizer, OptimizerConfig, Parameters, Result, TrainingRun, Workers,
    contact_sheet, frozen,
};
use altdiffusion_pipeline::vae::AutoencoderKl;
use candle_core::Tensor;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// The settings of the stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderStage {
    /// Channels per level of a new decoder, highest resolution first; by default the one there is is trained further.
    #[serde(default)]
    pub block_out_channels: Option<Vec<usize>>,
    /// Images per batch.
    pub batch_size: usize,
    /// The largest standard deviation of noise added to latents of standard deviation 1.
    pub max_latent_noise: f32,
    /// Weight of the absolute error, relative to the squared one.
    pub absolute_weight: f64,
    /// Parts of a batch computed at the same time on the CPU, each with its share of the cores.
    #[serde(default = "super::one_part")]
    pub parts: usize,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
}

impl DecoderStage {
    /// Trains the decoder on channels-last images (n, size, size, 3) from −1 to 1, whose latents are in `trained`.
    ///
    /// # Errors
    /// If the settings are invalid, or the run fails.
    pub fn train(
        &self,
        trained: &mut TrainedVae,
        images: &Tensor,
        run: &TrainingRun,
        seed: u64,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let device = images.device();
        let workers = Workers::on(device, self.parts)?;
        let share = workers.share("decoder.batch_size", self.batch_size)?;
        if let Some(channels) = &self.block_out_channels {
            trained.model.weights.retain(|name, _| !name.starts_with("decoder."));
            trained.model.config.decoder_block_out_channels = Some(channels.clone());
        }
        let parameters = Parameters::new(seed)
            .starting_from(frozen(&trained.model.weights, device))
            .training(|name| name.starts_with("decoder.") || name.starts_with("post_quant_conv."));
        let vae = AutoencoderKl::new(&trained.model.config, parameters.var_builder(device))?;
        let mut optimizer = Optimizer::new(self.optimizer.clone(), &parameters)?;
        // The decoder's input: unscaled, channels-last.
        let latents = trained.latents.permute((0, 2, 3, 1))?.contiguous()?;
        let decode = |rng: &mut dyn Rng, chosen: &Tensor, most: f32| -> Result<Tensor> {
            let latents = with_noise(rng, &latents.index_select(chosen, 0)?, most)?;
            Ok(vae.decode_channels_last(&(latents / vae.scaling_factor())?)?)
        };
        let n = images.dim(0)? as u32;
        let part = |rng: &mut ChaCha8Rng| {
            let chosen: Vec<u32> = (0..share).map(|_| rng.random_range(0..n)).collect();
            let chosen = Tensor::new(chosen, device)?;
            let decoded = decode(rng, &chosen, self.max_latent_noise)?;
            Gradients::of(&fit(&decoded, &images.index_select(&chosen, 0)?, self.absolute_weight)?)
        };
        let gradients = |batch: &mut Batch| Gradients::sum(workers.run(&mut batch.rng, part));
        // Images, and below them their latents with the most noise, decoded.
        let sample = || {
            let few = n.min(32);
            let chosen = Tensor::arange(0, few, device)?;
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let rough = decode(&mut rng, &chosen, self.max_latent_noise)?;
            Ok(Some(contact_sheet(&Tensor::cat(&[&images.narrow(0, 0, few as usize)?, &rough], 0)?, 16)?))
        };
        run.train(&mut optimizer, observer, &ObjectiveFunctions { gradients, sample })?;
        trained.model.weights = parameters.with(optimizer.averages());
        Ok(())
    }
}
