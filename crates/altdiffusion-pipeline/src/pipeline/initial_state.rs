//! Makes the noise or the noised image that a run starts from.

use candle_core::{DType, Tensor};

use super::model::AltDiffusion;
use crate::image_input;
use crate::inpainting::{Inpainting, InpaintingMode};
use crate::options::GenerateOptions;
use crate::random::Noise;
use crate::schedulers::Scheduler;
use crate::start::{Start, first_index};
use crate::{Error, Result};

impl AltDiffusion {
    /// The start of the run, on the device. Noise is drawn in diffusers' order.
    pub(super) fn start(
        &self,
        options: &GenerateOptions,
        scheduler: &dyn Scheduler,
        noise: &mut dyn Noise,
    ) -> Result<Start> {
        let shape @ [_, _, height, width] = self.latent_shape(options)?;
        let inpaints = self.denoiser_spec().inpaints();
        let (image, strength) = match (&options.image, &options.mask) {
            (None, Some(_)) => return Err(Error::option("mask", "expected an image that it belongs to")),
            (None, None) | (Some(_), None) if inpaints => {
                let problem = "not given, but this model draws parts of images: expected an image and a mask";
                return Err(Error::option("mask", problem));
            }
            (None, None) if options.strength.is_some() => {
                return Err(Error::option("strength", "expected an image to begin with"));
            }
            (None, None) => {
                let noise = self.initial_noise(options, &shape, noise)?;
                return Start::from_noise(scheduler, &noise);
            }
            (Some(image), mask) => {
                (image, options.strength.unwrap_or(GenerateOptions::default_strength(mask.is_some())))
            }
        };
        let steps = options.steps.count();
        first_index(scheduler, strength, steps)?;

        let factor = self.vae_config().downscale();
        let pixels = image_input::pixels(image, width * factor, height * factor)?.to_device(&self.device)?;
        let anew = options.mask.is_some() && strength == 1.0;
        let original = if anew && inpaints { None } else { Some(self.encode_pixels(&pixels, noise)?) };
        let initial_noise = self.initial_noise(options, &shape, noise)?;
        let mut start = match &original {
            Some(original) if !anew => {
                let original = original.broadcast_as(&shape)?.contiguous()?;
                Start::from_image(scheduler, &original, &initial_noise, strength, steps)?
            }
            _ => Start::from_noise(scheduler, &initial_noise)?,
        };
        if let Some(mask) = &options.mask {
            let mask = image_input::mask(mask, width * factor, height * factor)?.to_device(&self.device)?;
            let masked = pixels.broadcast_mul(&mask.affine(-1.0, 1.0)?)?;
            // Encode it even if not needed, because encoding draws noise.
            let masked = self.encode_pixels(&masked, noise)?;
            let mode = match original {
                Some(original) if !inpaints => InpaintingMode::Blend { original, noise: initial_noise },
                _ => InpaintingMode::Channels { masked },
            };
            start.inpainting = Some(Inpainting { mask: image_input::mask_of_latents(&mask, factor)?, mode });
        }
        Ok(start)
    }

    /// The initial noise, given or drawn.
    fn initial_noise(
        &self,
        options: &GenerateOptions,
        shape: &[usize],
        noise: &mut dyn Noise,
    ) -> Result<Tensor> {
        let latents = match &options.initial_latents {
            Some(latents) => latents.to_dtype(DType::F32)?,
            None => noise.normal(shape)?,
        };
        Ok(latents.to_device(&self.device)?)
    }

    /// Encodes pixels (1, 3, height, width), −1 to 1, to scaled latents, sampled from the autoencoder's distribution:
    /// once, or once per image if each has its own generator.
    fn encode_pixels(&self, pixels: &Tensor, noise: &mut dyn Noise) -> Result<Tensor> {
        let vae = self.vae()?;
        let moments = vae.encode(pixels)?;
        let noise = noise.normal_for_all(moments.mean.dims())?.to_device(&self.device)?;
        Ok((moments.sample(&noise)? * vae.scaling_factor())?)
    }
}
