//! Decides the size of the images, and checks that the model can draw it.

use image::RgbImage;

use super::limits::{LARGEST_SIDE, MOST_IMAGES, SIZE_MULTIPLE};
use super::model::AltDiffusion;
use crate::latents::all_finite;
use crate::options::GenerateOptions;
use crate::{Error, Result};

impl AltDiffusion {
    /// The default width and height in pixels: what the model was trained on.
    ///
    /// # Errors
    /// If the model does not say.
    pub fn default_size(&self) -> Result<(usize, usize)> {
        let factor = self.vae_config().downscale();
        let (height, width) = self.denoiser_spec().sample_size.ok_or_else(|| {
            let problem = "not given, and the model has no `sample_size`: expected width and height";
            Error::option("size", problem)
        })?;
        Ok((width.saturating_mul(factor), height.saturating_mul(factor)))
    }

    /// The size of a run that starts from `image`: the image's, or reduced to the number of pixels that the model was
    /// trained on.
    fn size_from(&self, image: &RgbImage) -> Result<(usize, usize)> {
        let (most_wide, most_high) = self.default_size()?;
        let (width, height) = image.dimensions();
        let pixels = f64::from(width) * f64::from(height);
        let scale = (most_wide as f64 * most_high as f64 / pixels).sqrt().min(1.0);
        let multiple = self.size_multiple();
        let side = |side: u32| ((f64::from(side) * scale) as usize / multiple * multiple).max(multiple);
        Ok((side(width), side(height)))
    }

    /// Image sides must be multiples of this.
    pub(super) fn size_multiple(&self) -> usize {
        self.vae_config().downscale().max(SIZE_MULTIPLE)
    }

    /// What these options would draw: the number of images, and the width and height of each in pixels, before they are
    /// enlarged.
    ///
    /// # Errors
    /// If that size cannot be drawn.
    pub fn drawn_size(&self, options: &GenerateOptions) -> Result<(usize, usize, usize)> {
        let [images, _, height, width] = self.latent_shape(options)?;
        let factor = self.vae_config().downscale();
        Ok((images, width * factor, height * factor))
    }

    /// The shape of the latents for these options: (images, channels, height, width).
    ///
    /// # Errors
    /// If that size cannot be drawn, or [`GenerateOptions::initial_latents`] have another.
    pub fn latent_shape(&self, options: &GenerateOptions) -> Result<[usize; 4]> {
        let channels = self.vae_config().latent_channels;
        let factor = self.vae_config().downscale();
        let given = match &options.initial_latents {
            Some(latents) => Some(latents.dims4().map_err(|_| Error::Shape {
                tensor: "initial latents",
                expected: format!("(images, {channels}, height / {factor}, width / {factor})"),
                found: format!("{:?}", latents.dims()),
            })?),
            None => None,
        };
        let (default_width, default_height) = match (options.width, options.height, given, &options.image) {
            (_, _, Some((_, _, height, width)), _) => (width * factor, height * factor),
            (Some(width), Some(height), ..) => (width, height),
            (.., Some(image)) => self.size_from(image)?,
            _ => match options.controls.first() {
                Some(control) => self.size_of_control(control)?,
                None => self.default_size()?,
            },
        };
        let width = check_side("width", options.width.unwrap_or(default_width), self.size_multiple())?;
        let height = check_side("height", options.height.unwrap_or(default_height), self.size_multiple())?;
        let prompts = options.prompt_count();
        if prompts == 0 {
            return Err(Error::option("prompts", "none given, expected at least one"));
        }
        let each = options.images.unwrap_or(given.map_or(1, |(images, ..)| (images / prompts).max(1)));
        let images = each.saturating_mul(prompts);
        if images == 0 || images > MOST_IMAGES {
            let problem = format!("{images} images, expected 1 to {MOST_IMAGES}");
            return Err(Error::option("number of images", problem));
        }
        let expected = [images, channels, height / factor, width / factor];
        if let Some(latents) = &options.initial_latents {
            if latents.dims() != expected {
                return Err(Error::Shape {
                    tensor: "initial latents",
                    expected: format!("{expected:?} for {images} images of {width} × {height} pixels"),
                    found: format!("{:?}", latents.dims()),
                });
            }
            if !all_finite(latents)? {
                return Err(Error::NotFinite {
                    place: "the initial latents are".to_owned(),
                    remedy: "expected standard normal values",
                });
            }
        }
        Ok(expected)
    }
}

/// Checks one side of an image.
fn check_side(option: &'static str, side: usize, multiple: usize) -> Result<usize> {
    if side == 0 || side > LARGEST_SIDE || !side.is_multiple_of(multiple) {
        let problem = format!("{side} pixels, expected a multiple of {multiple} up to {LARGEST_SIDE}");
        return Err(Error::option(option, problem));
    }
    Ok(side)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_multiples() {
        assert!(check_side("width", 64, 8).is_ok());
        for (side, multiple) in [(0, 8), (60, 8), (100, 8), (72, 16), (1 << 40, 8)] {
            let error = check_side("width", side, multiple).err().map(|error| error.to_string());
            assert!(error.is_some_and(|error| error.starts_with("width: ") && error.contains("multiple of")));
        }
    }
}
