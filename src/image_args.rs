//! Parses the options for reading image files, shared by several subcommands.

use std::cell::Cell;
use std::path::Path;

use altclip_encoder::embedder::Embedder;
use altclip_encoder::images::{self, Background, DecodeOptions, MAX_PIXELS, transparency_note};
use altdiffusion_pipeline::image_metadata::ParameterFields;
use anyhow::{Context, Result};
use clap::Args;
use image::{DynamicImage, RgbImage};

use crate::model::ModelArgs;
use crate::progress::warn;
use crate::standard_input;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Reading images")]
pub struct ImageArgs {
    /// Background for transparent images: white, black, #rrggbb, or none.
    ///
    /// With none, the colours under the transparency are used as they are. By default as the model's
    /// preprocessor_config.json says: white for the model inside this program, and none for published ones, as in
    /// the reference implementations.
    #[arg(long, value_name = "COLOR", hide_short_help = true)]
    background: Option<Background>,

    /// Reject images with more pixels than this before decoding them.
    #[arg(long, value_name = "N", default_value_t = MAX_PIXELS, allow_negative_numbers = true, hide_short_help = true)]
    max_pixels: u64,
}

impl ImageArgs {
    /// The decoding options.
    pub fn decode_options(&self) -> DecodeOptions {
        DecodeOptions { max_pixels: self.max_pixels, ..DecodeOptions::default() }
    }

    /// Opens an image for an embedder, which flattens it. `option` is the option that named the file, or standard
    /// input.
    ///
    /// # Errors
    /// If the file is not an image, or has too many pixels.
    pub fn open(&self, option: &'static str, path: &Path) -> Result<DynamicImage> {
        if standard_input::is_named_by(path) {
            let bytes = standard_input::read(option)?;
            return images::decode("standard input", bytes, self.decode_options()).context(option);
        }
        images::open(path, self.decode_options()).context(option)
    }

    /// Records the background, if one was requested. The model's own comes with the model.
    pub fn record(&self, fields: &mut ParameterFields) {
        let Self { background, max_pixels: _ } = self;
        fields.add_some("Background", *background);
    }

    /// These options, with those of an image as the default.
    pub fn or(self, image: Self) -> Self {
        Self { background: self.background.or(image.background), ..self }
    }

    /// These options, with the limit of `other`.
    pub fn limited_as(self, other: &Self) -> Self {
        Self { max_pixels: other.max_pixels, ..self }
    }

    /// Makes an embedder read images with these options.
    pub fn apply(&self, embedder: Embedder) -> Embedder {
        let embedder = embedder.with_decode_options(self.decode_options());
        match self.background {
            Some(background) => embedder.with_background(background),
            None => embedder,
        }
    }

    /// Warns of `count` transparent images without a background, unless that was requested.
    pub fn warn_of_transparency(&self, count: usize) {
        if count > 0 && self.background.is_none() {
            warn(&format!("{}; --background white composites them", transparency_note(count)));
        }
    }

    /// How many of `images` an embedder uses without their transparency.
    pub fn transparent(&self, images: &[DynamicImage], embedder: &Embedder) -> usize {
        match embedder.background() {
            Background::None => images.iter().filter(|image| image.color().has_alpha()).count(),
            Background::Color(_) => 0,
        }
    }
}

/// Reads the images that a drawing uses.
pub struct ImageReader<'a> {
    args: &'a ImageArgs,
    model: &'a ModelArgs,
    transparent: Cell<usize>,
}

impl<'a> ImageReader<'a> {
    /// A reader of images for a model.
    pub fn new(args: &'a ImageArgs, model: &'a ModelArgs) -> Self {
        Self { args, model, transparent: Cell::new(0) }
    }

    /// Reads an image file, upright and flattened. `option` is the option that named it.
    ///
    /// # Errors
    /// If the file is not an image, or has too many pixels.
    pub fn read(&self, option: &'static str, path: &Path) -> Result<RgbImage> {
        let image = self.args.open(option, path)?;
        if !image.color().has_alpha() {
            return Ok(image.into_rgb8());
        }
        let background = self.args.background.map_or_else(|| self.model.background(), Ok)?;
        if background == Background::None {
            self.transparent.update(|count| count + 1);
        }
        Ok(images::flatten(&image, background).into_owned())
    }

    /// Warns if some were transparent and had no background.
    pub fn warn_of_transparency(&self) {
        self.args.warn_of_transparency(self.transparent.get());
    }
}
