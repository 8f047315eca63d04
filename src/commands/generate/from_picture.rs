//! The picture that another begins with.

use std::path::{Path, PathBuf};

use altclip_encoder::picture::{self, DecodeOptions};
use altdiffusion_pipeline::GenerateOptions;
use anyhow::{Context, Result, ensure};
use clap::Args;
use image::DynamicImage;

use crate::option_values;

/// The options that say what picture to begin with.
#[derive(Debug, Args)]
#[command(next_help_heading = "From another picture")]
pub struct FromPicture {
    /// A picture to begin with, in place of noise alone.
    ///
    /// It is resized to --width and --height. Without them the new picture is as large as it is, but no larger than what
    /// the model was trained on.
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,

    /// How much of the picture may change: from 0, nothing, to 1, all of it.
    ///
    /// It is the share of the steps that are done. By default 0.8, and 1 with --mask.
    #[arg(
        long,
        value_name = "X",
        value_parser = option_values::part,
        allow_negative_numbers = true
    )]
    strength: Option<f64>,

    /// Draw only a part of the picture anew: where this one is white.
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
}

/// The pictures themselves.
pub struct GivenPictures {
    image: Option<DynamicImage>,
    mask: Option<DynamicImage>,
}

impl FromPicture {
    /// Reads the pictures.
    ///
    /// # Errors
    /// When there is an option without the picture that it belongs to, or a file is none.
    pub fn read(&self) -> Result<GivenPictures> {
        ensure!(
            self.mask.is_none() || self.image.is_some(),
            "--mask: expected an --image that it belongs to"
        );
        ensure!(
            self.strength.is_none() || self.image.is_some(),
            "--strength: expected an --image to begin with"
        );
        Ok(GivenPictures {
            image: self.image.as_deref().map(|path| read_picture("--image", path)).transpose()?,
            mask: self.mask.as_deref().map(|path| read_picture("--mask", path)).transpose()?,
        })
    }

    /// `options` with these, and `given`, which they were read to.
    pub fn apply(&self, mut options: GenerateOptions, given: GivenPictures) -> GenerateOptions {
        if let Some(strength) = self.strength {
            options = options.strength(strength);
        }
        if let Some(image) = given.image {
            options = options.image(image.into_rgb8());
        }
        if let Some(mask) = given.mask {
            options = options.mask(mask.into_luma8());
        }
        options
    }

    /// How much of the picture may change, if there is one.
    pub fn strength(&self) -> Option<f64> {
        self.image.as_ref()?;
        Some(self.strength.unwrap_or(GenerateOptions::default_strength(self.mask.is_some())))
    }
}

/// Reads a picture file, upright, whatever its type.
pub fn read_picture(option: &str, path: &Path) -> Result<DynamicImage> {
    picture::open(path, DecodeOptions::default()).with_context(|| option.to_owned())
}
