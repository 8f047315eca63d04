//! Trains the autoencoder.

use crate::fidelity::Fidelity;
use crate::weights::read_weights;
use altclip_training::stages::ObjectiveFunctions;
use altclip_training::{
    Batch, Cache, Error, Gradients, Observer, Optimizer, OptimizerConfig, Parameters, Result, TrainingRun,
    Workers, contact_sheet, frozen,
};
use altdiffusion_pipeline::vae::{AutoencoderKl, AutoencoderKlConfig};
use candle_core::{Device, Tensor};
use model_files::source::ModelSource;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The settings of the stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaeStage {
    /// Channels per level.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks per level.
    pub layers_per_block: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Groups per group normalisation.
    pub norm_num_groups: usize,
    /// Images per batch.
    pub batch_size: usize,
    /// Weight of the absolute error, relative to the squared one.
    pub absolute_weight: f64,
    /// Weight of the Kullback–Leibler divergence, per latent value.
    pub kl_weight: f64,
    /// Whether images are mirrored at random.
    #[serde(default)]
    pub mirror: bool,
    /// Parts of a batch computed at the same time on the CPU, each with its share of the cores.
    #[serde(default = "super::one_part")]
    pub parts: usize,
    /// A model whose autoencoder, of the same shape, is trained further; by default a new one is trained.
    #[serde(default)]
    pub start: Option<String>,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
}

/// An autoencoder.
#[derive(Debug, Clone)]
pub struct Autoencoder {
    /// Its configuration.
    pub config: AutoencoderKlConfig,
    /// By name; the averages, if trained.
    pub weights: BTreeMap<String, Tensor>,
}

/// The trained autoencoder.
pub struct TrainedVae {
    /// The autoencoder, with the scaling factor of its latents.
    pub model: Autoencoder,
    /// Mean latents of all images (n, channels, height, width), scaled.
    pub latents: Tensor,
}

/// Images encoded at a time outside training.
const CHUNK: usize = 32;

impl VaeStage {
    fn config(&self, scaling_factor: f64) -> AutoencoderKlConfig {
        let levels = self.block_out_channels.len();
        AutoencoderKlConfig {
            down_block_types: vec!["DownEncoderBlock2D".to_owned(); levels],
            up_block_types: vec!["UpDecoderBlock2D".to_owned(); levels],
            block_out_channels: self.block_out_channels.clone(),
            layers_per_block: self.layers_per_block,
            latent_channels: self.latent_channels,
            norm_num_groups: self.norm_num_groups,
            scaling_factor,
            ..AutoencoderKlConfig::default()
        }
    }

    /// Trains on channels-last images (n, size, size, 3) from −1 to 1.
    ///
    /// # Errors
    /// If the settings are invalid, or the run fails.
    pub fn train(
        &self,
        images: &Tensor,
        run: &TrainingRun,
        seed: u64,
        observer: &mut dyn Observer,
    ) -> Result<TrainedVae> {
        let device = images.device();
        let workers = Workers::on(device, self.parts)?;
        let share = workers.share("vae.batch_size", self.batch_size)?;
        let mut parameters = Parameters::new(seed);
        if let Some(start) = &self.start {
            let start = Autoencoder::open(&ModelSource::open(start)?)?;
            parameters = parameters.starting_from(frozen(&start.weights, device));
        }
        let vae = AutoencoderKl::new(&self.config(1.), parameters.var_builder(device))?;
        let mut optimizer = Optimizer::new(self.optimizer.clone(), &parameters)?;
        let n = images.dim(0)?;
        let part = |rng: &mut ChaCha8Rng| {
            let chosen: Vec<u32> = (0..share).map(|_| rng.random_range(0..n as u32)).collect();
            let mut chosen = images.index_select(&Tensor::new(chosen, device)?, 0)?;
            if self.mirror {
                chosen = mirrored(rng, &chosen)?;
            }
            let moments = vae.encode_channels_last(&chosen)?;
            let noise: Vec<f32> = rng.sample_iter(StandardNormal).take(moments.mean.elem_count()).collect();
            let noise = Tensor::from_vec(noise, moments.mean.shape(), device)?;
            let fit =
                fit(&vae.decode_channels_last(&moments.sample(&noise)?)?, &chosen, self.absolute_weight)?;
            let latent_values = (moments.mean.elem_count() / share) as f64;
            let kl = (moments.kl()?.mean_all()? / latent_values)?;
            Gradients::of(&(fit + (kl * self.kl_weight)?)?)
        };
        let gradients = |batch: &mut Batch| Gradients::sum(workers.run(&mut batch.rng, part));
        let sample = || {
            let few = images.narrow(0, 0, n.min(32))?;
            let pairs = Tensor::cat(&[&few, &reconstruct(&vae, &few)?], 0)?;
            Ok(Some(contact_sheet(&pairs, 16)?))
        };
        run.train(&mut optimizer, observer, &ObjectiveFunctions { gradients, sample })?;

        parameters.load(&optimizer.averages())?;
        let weights = parameters.snapshot()?;
        let (latents, scaling_factor, fidelity) = self.latents(&vae, images, run, seed)?;
        observer.note(&run.stage(), &format!("reconstructs at {fidelity}; scaling factor {scaling_factor}"));
        Ok(TrainedVae { model: Autoencoder { config: self.config(scaling_factor), weights }, latents })
    }
}

impl Autoencoder {
    /// Reads the autoencoder of a model in folders.
    ///
    /// # Errors
    /// If a file is missing or damaged.
    pub fn open(source: &ModelSource) -> Result<Self> {
        let weights = read_weights(source, "vae")?;
        Ok(Self { config: source.read_json("vae/config.json")?, weights })
    }

    /// Adds the latents of channels-last images (n, size, size, 3) from −1 to 1.
    ///
    /// # Errors
    /// If the images do not fit the model.
    pub fn with_latents(self, images: &Tensor) -> Result<TrainedVae> {
        let vae = AutoencoderKl::new(&self.config, frozen(&self.weights, images.device()))?;
        Ok(TrainedVae { latents: scaled_latents(&vae, images)?, model: self })
    }
}

impl VaeStage {
    /// The scaled latents of all images, the factor, and the fidelity of reconstructions; cached, since it takes
    /// minutes.
    fn latents(
        &self,
        vae: &AutoencoderKl,
        images: &Tensor,
        run: &TrainingRun,
        seed: u64,
    ) -> Result<(Tensor, f64, Fidelity)> {
        let device = images.device();
        let n = images.dim(0)?;
        let sum = images.sum_all()?.to_scalar::<f32>()?;
        let key = format!("{n} images of sum {sum} after {} steps with seed {seed}", self.optimizer.steps);
        let make = || {
            let Fidelity { psnr, edges, white_error } = Fidelity::of(images, &reconstruct(vae, images)?)?;
            let latents = encode(vae, images)?;
            let deviation = f64::from(deviation(&latents)?);
            let scaling_factor = ((1. / deviation) * 1e5).round() / 1e5;
            let latents = (latents.permute((0, 3, 1, 2))?.contiguous()? * scaling_factor)?;
            let numbers = Tensor::new(&[scaling_factor, psnr, edges, white_error], &Device::Cpu)?;
            let latents = latents.to_device(&Device::Cpu)?;
            Ok(BTreeMap::from([("latents".to_owned(), latents), ("numbers".to_owned(), numbers)]))
        };
        let cache = Cache::at(&run.folder().join("latents.safetensors"));
        let tensors = cache.of(&key, make)?;
        let numbers = cache.tensor(tensors.clone(), "numbers")?.to_vec1::<f64>()?;
        let latents = cache.tensor(tensors, "latents")?.to_device(device)?;
        match numbers.as_slice() {
            &[scaling_factor, psnr, edges, white_error] => {
                Ok((latents, scaling_factor, Fidelity { psnr, edges, white_error }))
            }
            _ => Err(Error::Setting(format!("{}: expected four numbers", run.stage()))),
        }
    }
}

/// The root mean square, relative to which noise is added.
fn deviation(latents: &Tensor) -> candle_core::Result<f32> {
    latents.sqr()?.mean_all()?.sqrt()?.to_scalar::<f32>()
}

fn by_chunks(x: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let n = x.dim(0)?;
    let chunks: Vec<Tensor> = (0..n)
        .step_by(CHUNK)
        // detached: no gradients of a whole data set are needed
        .map(|first| Ok(f(&x.narrow(0, first, CHUNK.min(n - first))?)?.detach()))
        .collect::<Result<_>>()?;
    Ok(Tensor::cat(&chunks, 0)?)
}

/// Mean latents, channels-last and unscaled, of channels-last images from −1 to 1.
fn encode(vae: &AutoencoderKl, images: &Tensor) -> Result<Tensor> {
    by_chunks(images, |images| Ok(vae.encode_channels_last(images)?.mean))
}

/// Scaled latents (n, channels, height, width) of channels-last images from −1 to 1.
pub(crate) fn scaled_latents(vae: &AutoencoderKl, images: &Tensor) -> Result<Tensor> {
    let latents = encode(vae, images)?.permute((0, 3, 1, 2))?.contiguous()?;
    Ok((latents * vae.scaling_factor())?)
}

/// Mirrors each channels-last image with probability ½.
fn mirrored(rng: &mut ChaCha8Rng, images: &Tensor) -> candle_core::Result<Tensor> {
    let (n, _, width, _) = images.dims4()?;
    let coins: Vec<u8> = (0..n).map(|_| rng.random_range(0..=1)).collect();
    let coins = Tensor::from_vec(coins, (n, 1, 1, 1), images.device())?.broadcast_as(images.shape())?;
    let backwards: Vec<u32> = (0..width as u32).rev().collect();
    let mirrored = images.index_select(&Tensor::new(backwards, images.device())?, 2)?;
    coins.where_cond(&mirrored, images)
}

/// The squared error of reconstructions plus the weighted absolute error, a scalar.
pub(super) fn fit(found: &Tensor, expected: &Tensor, absolute_weight: f64) -> candle_core::Result<Tensor> {
    let error = (found - expected)?;
    error.sqr()?.mean_all()? + (error.abs()?.mean_all()? * absolute_weight)?
}

/// Adds noise to four-dimensional latents, with a random standard deviation of up to `most` per image.
pub(super) fn with_noise(rng: &mut dyn Rng, latents: &Tensor, most: f32) -> candle_core::Result<Tensor> {
    let (n, _, _, _) = latents.dims4()?;
    let deviations: Vec<f32> = (0..n).map(|_| most * rng.random_range(0f32..=1.)).collect();
    let noise: Vec<f32> = rng.sample_iter(StandardNormal).take(latents.elem_count()).collect();
    let noise = Tensor::from_vec(noise, latents.shape(), latents.device())?;
    latents + noise.broadcast_mul(&Tensor::from_vec(deviations, (n, 1, 1, 1), latents.device())?)?
}

/// Encodes and decodes channels-last images (n, height, width, 3) from −1 to 1.
///
/// # Errors
/// If the images do not fit the model.
pub fn reconstruct(vae: &AutoencoderKl, images: &Tensor) -> Result<Tensor> {
    by_chunks(images, |images| Ok(vae.decode_channels_last(&vae.encode_channels_last(images)?.mean)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn about_half_of_the_images_are_mirrored_and_the_others_stay() -> Result<()> {
        let images = Tensor::arange(0f32, 64. * 2. * 3. * 3., &Device::Cpu)?.reshape((64, 2, 3, 3))?;
        let mirror =
            Tensor::cat(&[&images.narrow(2, 2, 1)?, &images.narrow(2, 1, 1)?, &images.narrow(2, 0, 1)?], 2)?;
        let found = mirrored(&mut ChaCha8Rng::seed_from_u64(7), &images)?;
        let mut count = 0;
        for i in 0..64 {
            let values = |images: &Tensor| images.get(i)?.flatten_all()?.to_vec1::<f32>();
            if values(&found)? == values(&mirror)? {
                count += 1;
            } else {
                assert_eq!(values(&found)?, values(&images)?);
            }
        }
        // 64 fair coins fall outside this range with probability 1.5 in 10 000.
        assert!((17..=47).contains(&count), "{count}");
        Ok(())
    }
}
