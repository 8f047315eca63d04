//! Parses the options for the initial image.

use std::path::PathBuf;

use altclip_encoder::images::grey;
use altdiffusion_pipeline::GenerateOptions;
use altdiffusion_pipeline::image_metadata::ParameterFields;
use anyhow::{Result, ensure};
use clap::Args;
use image::RgbImage;

use crate::image_args::ImageReader;
use crate::option_values;
use crate::recorded::add_file;

/// The options for the initial image.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Image to image")]
pub struct FromImage {
    /// Start from this image instead of noise alone; - for standard input.
    ///
    /// It is resized to --width and --height. Without them, the output has its size, but not more than the model
    /// was trained on.
    #[arg(long, aliases = ["init-img", "init-image"], value_name = "FILE")]
    image: Option<PathBuf>,

    /// How much of the image may change, from 0 (nothing) to 1 (all of it).
    ///
    /// It is the share of the steps that are run. By default 0.8, and 1 with --mask.
    #[arg(
        long,
        aliases = ["denoising-strength", "denoise"],
        value_name = "X",
        value_parser = option_values::part,
        allow_negative_numbers = true
    )]
    strength: Option<f64>,

    /// Redraw only where this image is white.
    #[arg(long, alias = "mask-image", value_name = "FILE", hide_short_help = true)]
    mask: Option<PathBuf>,
}

/// The images.
#[derive(Default)]
pub struct GivenImages {
    image: Option<RgbImage>,
    mask: Option<RgbImage>,
}

impl FromImage {
    /// Reads the images.
    ///
    /// # Errors
    /// If an option is given without its image, or a file is not an image.
    pub fn read(&self, reader: &ImageReader<'_>) -> Result<GivenImages> {
        ensure!(
            self.mask.is_none() || self.image.is_some(),
            "--mask: expected an --image that it belongs to"
        );
        ensure!(
            self.strength.is_none() || self.image.is_some(),
            "--strength: expected an --image to begin with"
        );
        Ok(GivenImages {
            image: self.image.as_deref().map(|path| reader.read("--image", path)).transpose()?,
            mask: self.mask.as_deref().map(|path| reader.read("--mask", path)).transpose()?,
        })
    }

    /// Adds these options to `options`, with the images read for them.
    pub fn apply(&self, mut options: GenerateOptions, given: GivenImages) -> GenerateOptions {
        if let Some(strength) = self.strength {
            options = options.strength(strength);
        }
        if let Some(image) = given.image {
            options = options.image(image);
        }
        if let Some(mask) = given.mask {
            options = options.mask(grey(&mask));
        }
        options
    }

    /// Records these options in an image.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn record(&self, fields: &mut ParameterFields) -> Result<()> {
        let Self { image, strength, mask } = self;
        let Some(image) = image else { return Ok(()) };
        add_file(fields, "Image", image)?;
        if let Some(mask) = mask {
            add_file(fields, "Mask", mask)?;
        }
        let strength = strength.unwrap_or(GenerateOptions::default_strength(mask.is_some()));
        fields.add("Denoising strength", strength);
        Ok(())
    }

    /// These options, with those of an image as the default. A mask belongs to its image.
    pub fn or(self, image: Self) -> Self {
        Self {
            mask: self.mask.or(image.mask.filter(|_| self.image.is_none())),
            image: self.image.or(image.image),
            strength: self.strength.or(image.strength),
        }
    }

    /// Whether an option with a file is given.
    pub fn has(&self, option: &str) -> bool {
        match option {
            "image" => self.image.is_some(),
            "mask" => self.mask.is_some() || self.image.is_some(),
            _ => false,
        }
    }

    /// Whether there is an initial image.
    pub fn has_image(&self) -> bool {
        self.image.is_some()
    }
}
