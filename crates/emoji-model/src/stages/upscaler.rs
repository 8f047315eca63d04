//! Trains the upscaler: from images as the autoencoder decodes them, which are a little blurred, to large drawings of the
//! same emoji.

use crate::dataset::{IMAGE_BYTES, IMAGE_SIZE, LARGE_SIZE, LargeImages};
use crate::fidelity::Fidelity;
use crate::pixels::{to_bytes, to_tensor};
use crate::stages::autoencoder::{Autoencoder, with_noise};
use altclip_training::stages::ObjectiveFunctions;
use altclip_training::{
    Batch, Error, Gradients, Observer, Optimizer, OptimizerConfig, Parameters, Result, TrainingRun, Workers,
    contact_sheet, frozen,
};
use altdiffusion_pipeline::upscaler::{PixelShuffleUpscaler, UpscalerConfig};
use altdiffusion_pipeline::vae::AutoencoderKl;
use candle_core::{Device, Tensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Large pixels per small one along each side.
const FACTOR: usize = LARGE_SIZE / IMAGE_SIZE;
/// Images decoded, or enlarged, at a time outside training.
const CHUNK: usize = 32;
/// Images on the sheet of samples.
const SHOWN: usize = 8;

/// The settings of the stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpscalerStage {
    /// Folder of the large images, relative to the data set: `VENDOR/CONCEPT.png`.
    pub images: PathBuf,
    /// Channels between the convolutions.
    pub hidden_channels: usize,
    /// Convolutions between the first and the last.
    pub num_hidden_layers: usize,
    /// Squares per batch.
    pub batch_size: usize,
    /// The side of the squares that are cut out of the small images, in pixels.
    pub crop: usize,
    /// How often each image is decoded to learn from, with other noise.
    pub decodings: usize,
    /// The largest standard deviation of noise added to latents of standard deviation 1 before that.
    pub max_latent_noise: f32,
    /// The share of squares from images as they were before the autoencoder.
    pub clean_share: f32,
    /// Weight of the error of differences between neighbouring pixels, relative to that of pixels.
    pub edge_weight: f64,
    /// Parts of a batch computed at the same time on the CPU, each with its share of the cores.
    #[serde(default = "super::one_part")]
    pub parts: usize,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
}

/// A trained upscaler.
#[derive(Debug, Clone)]
pub struct TrainedUpscaler {
    /// Its configuration.
    pub config: UpscalerConfig,
    /// The averaged weights by name.
    pub weights: BTreeMap<String, Tensor>,
}

/// Pairs of small and large images.
struct Pairs<'a> {
    /// The small images as they are, then each decoding of them all: rows of RGB pixels.
    small: Vec<u8>,
    large: &'a [u8],
    count: usize,
}

impl UpscalerStage {
    /// Where the large images of a data set are.
    ///
    /// # Errors
    /// If there is no such folder.
    pub fn folder(&self, data: &Path) -> Result<PathBuf> {
        let folder = data.join(&self.images);
        match folder.is_dir() {
            true => Ok(folder),
            false => {
                let problem = "expected a folder of large images, found none";
                Err(Error::Setting(format!("upscaler.images: {}: {problem}", folder.display())))
            }
        }
    }

    /// Trains on channels-last images (n, 64, 64, 3) from −1 to 1, some of which have a large one.
    ///
    /// # Errors
    /// If the settings are invalid, or the run fails.
    pub fn train(
        &self,
        vae: &Autoencoder,
        images: &Tensor,
        large: &LargeImages,
        run: &TrainingRun,
        seed: u64,
        observer: &mut dyn Observer,
    ) -> Result<TrainedUpscaler> {
        self.check()?;
        let device = images.device();
        let workers = Workers::on(device, self.parts)?;
        let share = workers.share("upscaler.batch_size", self.batch_size)?;
        let images = images.index_select(&Tensor::new(large.rows.as_slice(), device)?, 0)?;
        let pairs = self.pairs(vae, &images, large, seed)?;

        let config = UpscalerConfig {
            hidden_channels: self.hidden_channels,
            num_hidden_layers: self.num_hidden_layers,
            scale_factor: FACTOR,
        };
        let parameters = Parameters::new(seed);
        let upscaler = PixelShuffleUpscaler::new(&config, parameters.var_builder(device))?;
        // Begins with nearly the same pixels, larger.
        parameters.scale(0.1, |name| name == "conv_out.weight")?;
        let mut optimizer = Optimizer::new(self.optimizer.clone(), &parameters)?;
        let part = |rng: &mut ChaCha8Rng| {
            let (small, large) = self.crops(rng, &pairs, share, device)?;
            Gradients::of(&self.loss(&upscaler.forward_channels_last(&small)?, &large)?)
        };
        let gradients = |batch: &mut Batch| Gradients::sum(workers.run(&mut batch.rng, part));
        // Enlarged images, and below them the drawings.
        let sample = || {
            let (small, large) = pairs.spread(SHOWN, device)?;
            let enlarged = upscaler.forward_channels_last(&small)?;
            Ok(Some(contact_sheet(&Tensor::cat(&[&enlarged, &large], 0)?, SHOWN)?))
        };
        run.train(&mut optimizer, observer, &ObjectiveFunctions { gradients, sample })?;

        parameters.load(&optimizer.averages())?;
        let (small, large) = pairs.spread(CHUNK, device)?;
        let fidelity = Fidelity::of(&large, &upscaler.forward_channels_last(&small)?.detach())?;
        observer.note(&run.stage(), &format!("enlarges at {fidelity}"));
        Ok(TrainedUpscaler { config, weights: parameters.snapshot()? })
    }

    fn check(&self) -> Result<()> {
        let problem = if !(1..=IMAGE_SIZE).contains(&self.crop) {
            format!("crop: expected a number from 1 to {IMAGE_SIZE}, found {}", self.crop)
        } else if self.decodings == 0 {
            "decodings: expected at least 1, found 0".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::Setting(format!("upscaler.{problem}")))
    }

    /// Decodes the images, as often as the settings say, from their latents with noise.
    fn pairs<'a>(
        &self,
        vae: &Autoencoder,
        images: &Tensor,
        large: &'a LargeImages,
        seed: u64,
    ) -> Result<Pairs<'a>> {
        let vae = AutoencoderKl::new(&vae.config, frozen(&vae.weights, images.device()))?;
        let count = images.dim(0)?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut small = to_bytes(images)?;
        for _ in 0..self.decodings {
            for first in (0..count).step_by(CHUNK) {
                let chunk = images.narrow(0, first, CHUNK.min(count - first))?;
                let latents = (vae.encode_channels_last(&chunk)?.mean * vae.scaling_factor())?;
                let noisy = with_noise(&mut rng, &latents, self.max_latent_noise)?;
                let decoded = vae.decode_channels_last(&(noisy / vae.scaling_factor())?)?;
                small.extend(to_bytes(&decoded)?);
            }
        }
        Ok(Pairs { small, large: &large.pixels, count })
    }

    /// Cuts squares out of random images, and the same out of the large ones.
    fn crops(
        &self,
        rng: &mut ChaCha8Rng,
        pairs: &Pairs,
        count: usize,
        device: &Device,
    ) -> candle_core::Result<(Tensor, Tensor)> {
        let (mut small, mut large) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let image = rng.random_range(0..pairs.count);
            let decoding = match rng.random_range(0f32..1.) < self.clean_share {
                true => 0,
                false => rng.random_range(1..=self.decodings),
            };
            let mut place = || rng.random_range(0..=IMAGE_SIZE - self.crop);
            let (left, top) = (place(), place());
            cut(pairs.small(image, decoding), IMAGE_SIZE, (left, top), self.crop, &mut small);
            let (corner, side) = ((FACTOR * left, FACTOR * top), FACTOR * self.crop);
            cut(pairs.large(image), LARGE_SIZE, corner, side, &mut large);
        }
        Ok((to_tensor(&small, self.crop, device)?, to_tensor(&large, FACTOR * self.crop, device)?))
    }

    /// The mean absolute error of pixels, plus the weighted one of differences between neighbours along both axes.
    fn loss(&self, found: &Tensor, expected: &Tensor) -> candle_core::Result<Tensor> {
        let error = (found - expected)?;
        let mut loss = error.abs()?.mean_all()?;
        for dimension in [1, 2] {
            let steps = error.dim(dimension)?.saturating_sub(1);
            let edges = (error.narrow(dimension, 1, steps)? - error.narrow(dimension, 0, steps)?)?;
            loss = (loss + (edges.abs()?.mean_all()? * self.edge_weight)?)?;
        }
        Ok(loss)
    }
}

impl Pairs<'_> {
    fn small(&self, image: usize, decoding: usize) -> &[u8] {
        self.small.chunks_exact(IMAGE_BYTES).nth(decoding * self.count + image).unwrap_or_default()
    }

    fn large(&self, image: usize) -> &[u8] {
        self.large.chunks_exact(LARGE_SIZE * LARGE_SIZE * 3).nth(image).unwrap_or_default()
    }

    /// At most `most` pairs from all over the data set: the first decoding, and the large images.
    fn spread(&self, most: usize, device: &Device) -> candle_core::Result<(Tensor, Tensor)> {
        let shown = most.min(self.count);
        let chosen: Vec<usize> = (0..shown).map(|place| place * self.count / shown).collect();
        let small: Vec<u8> = chosen.iter().flat_map(|&image| self.small(image, 1)).copied().collect();
        let large: Vec<u8> = chosen.iter().flat_map(|&image| self.large(image)).copied().collect();
        Ok((to_tensor(&small, IMAGE_SIZE, device)?, to_tensor(&large, LARGE_SIZE, device)?))
    }
}

/// Appends the pixels of a square in an image of side `size`.
fn cut(pixels: &[u8], size: usize, (left, top): (usize, usize), side: usize, out: &mut Vec<u8>) {
    for row in pixels.chunks_exact(3 * size).skip(top).take(side) {
        out.extend(row.iter().skip(3 * left).take(3 * side));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_square_is_cut_out() {
        // Each pixel has its row and its column, of a 4 × 4 image.
        let pixels: Vec<u8> = (0..16u8).flat_map(|place| [place / 4, place % 4, 9]).collect();
        let mut out = Vec::new();
        cut(&pixels, 4, (2, 1), 2, &mut out);
        assert_eq!(out, [1, 2, 9, 1, 3, 9, 2, 2, 9, 2, 3, 9]);
    }
}
