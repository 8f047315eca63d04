//! Loads the models to evaluate, and embeds images with them.

use std::path::{Path, PathBuf};

use altclip_encoder::altclip::normalize;
use altclip_encoder::embedder::{Embedder, PairRanker, TokenSimilarities};
use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use clap::Args;
use embedding_index::readers::Skipped;
use model_files::Arithmetic;
use model_files::source::ModelSource;

use crate::device::{DeviceChoice, devices};
use crate::image_args::ImageArgs;
use crate::model::open_source;
use crate::progress::{ProgressLine, warn};
use crate::{option_values, shipped};

/// Warns of images in unsupported formats, once if several languages share them.
pub fn warn_of_unread<'a>(sets: impl Iterator<Item = &'a Skipped>) {
    let mut known: Vec<&Skipped> = Vec::new();
    for unread in sets.filter(|unread| unread.count > 0) {
        if !known.contains(&unread) {
            warn(&unread.to_string());
            known.push(unread);
        }
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Models")]
pub struct Embedders {
    /// A model: a directory or a repository on the hub. Repeat the option for more.
    ///
    /// By default the one inside this program. Any dual encoder, such as AltCLIP, CLIP, SigLIP or OpenCLIP, and models trained
    /// with this program.
    #[arg(long = "model", value_name = "DIR_OR_HUB_ID")]
    models: Vec<String>,

    /// Number type to compute with: f32, f16, bf16 or int8.
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = option_values::arithmetics(), hide_possible_values = true)]
    dtype: Arithmetic,

    /// Device: cpu, cuda, metal, or auto, a GPU if this build can use one.
    #[arg(long, value_name = "DEVICE", value_parser = devices(), hide_possible_values = true, default_value = "auto")]
    device: DeviceChoice,

    #[command(flatten)]
    reading: ImageArgs,
}

impl Embedders {
    /// Calls `measure` with each model and its name.
    ///
    /// # Errors
    /// If a model cannot be loaded, or `measure` fails.
    pub fn each(&self, mut measure: impl FnMut(&str, &Embedder) -> Result<()>) -> Result<()> {
        let device = self.device.open_for(self.dtype)?;
        let load = |source: &ModelSource| -> Result<Embedder> {
            let source = source.computing_in(self.dtype);
            Ok(self.reading.apply(Embedder::from_source(&source, self.dtype.dtype(), &device)?))
        };
        if self.models.is_empty() {
            return measure("emoji", &load(&shipped::source())?);
        }
        for name in &self.models {
            let embedder = load(&open_source(name, None, None)?)?;
            let short = Path::new(name).file_name().and_then(|name| name.to_str()).unwrap_or(name);
            measure(if Path::new(name).exists() { short } else { name }, &embedder)?;
        }
        Ok(())
    }

    /// The unit vectors of the readable images, and which these are. Unreadable ones are named and skipped.
    ///
    /// # Errors
    /// If none can be read.
    pub fn embed_images(&self, embedder: &Embedder, images: &[PathBuf]) -> Result<(Tensor, Vec<bool>)> {
        let progress = ProgressLine::start("Reading images");
        let mut values = Vec::with_capacity(images.len() * embedder.projection_dim());
        let mut is_there = Vec::with_capacity(images.len());
        let mut stream = embedder.image_stream(Vec::from(images).into_iter());
        for (_, vector) in stream.by_ref() {
            match vector {
                Ok(vector) => {
                    values.extend(vector);
                    is_there.push(true);
                }
                Err(error) => {
                    progress.note(&format!("left out: {error}"));
                    is_there.push(false);
                }
            }
            progress.steps("Embedding images", is_there.len(), images.len());
        }
        self.reading.warn_of_transparency(stream.transparent());
        let found = is_there.iter().filter(|there| **there).count();
        ensure!(found > 0, "none of the {} images can be read", images.len());
        let vectors = Tensor::from_vec(values, (found, embedder.projection_dim()), &Device::Cpu)?;
        Ok((normalize(&vectors)?, is_there))
    }
}

/// Token-wise similarities of the images that can be read with all texts, and which images these are.
pub struct ComparedTokens {
    pub similarities: TokenSimilarities,
    pub is_there: Vec<bool>,
}

/// Images decoded at a time.
const IMAGES_AT_A_TIME: usize = 16;

impl Embedders {
    /// Compares images and texts token by token. Unreadable images are named and skipped.
    ///
    /// # Errors
    /// If none can be read, or the model compares vectors.
    pub fn compare_tokens(
        &self,
        embedder: &Embedder,
        images: &[PathBuf],
        texts: &[String],
    ) -> Result<ComparedTokens> {
        let progress = ProgressLine::start("Reading texts");
        let comparer = embedder.token_comparer(texts)?;
        let (mut of_images, mut of_texts, mut is_there) = (Vec::new(), Vec::new(), Vec::new());
        for paths in images.chunks(IMAGES_AT_A_TIME) {
            let mut opened = Vec::with_capacity(paths.len());
            for path in paths {
                let image = self.reading.open("an image", path);
                is_there.push(image.is_ok());
                match image {
                    Ok(image) => opened.push(image),
                    Err(error) => progress.note(&format!("left out: {error:#}")),
                }
            }
            let found = comparer.compare(&opened)?;
            of_images.push(found.of_images);
            of_texts.push(found.of_texts);
            progress.steps("Comparing images", is_there.len(), images.len());
        }
        ensure!(is_there.contains(&true), "none of the {} images can be read", images.len());
        let similarities = TokenSimilarities {
            of_images: Tensor::cat(&of_images, 0)?,
            of_texts: Tensor::cat(&of_texts, 0)?,
        };
        Ok(ComparedTokens { similarities, is_there })
    }

    /// A ranker of these images, which could be read before, and texts.
    ///
    /// # Errors
    /// If the model has none, or an image cannot be read any more.
    pub fn pair_ranker(
        &self,
        embedder: &Embedder,
        images: &[PathBuf],
        texts: &[String],
    ) -> Result<PairRanker> {
        let progress = ProgressLine::start("Reading texts");
        let mut ranker = embedder.pair_ranker(texts)?;
        for (part, paths) in images.chunks(IMAGES_AT_A_TIME).enumerate() {
            let opened =
                paths.iter().map(|path| self.reading.open("an image", path)).collect::<Result<Vec<_>>>()?;
            ranker.add_images(&opened)?;
            progress.steps("Reading images", part * IMAGES_AT_A_TIME + paths.len(), images.len());
        }
        Ok(ranker)
    }
}

/// Formats a share in percent, like the papers.
pub fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}
