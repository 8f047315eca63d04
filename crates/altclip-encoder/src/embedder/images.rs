//! Embeds images: decodes and prepares files on all cores, a batch ahead of the model.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::vec::IntoIter;

use candle_core::{DType, Device, Tensor};
use image::DynamicImage;
use rayon::prelude::*;

use super::Embedder;
use super::ahead::Ahead;
use super::image_source::ImageSource;
use crate::error::{Error, Result};
use crate::image_processor::ImageProcessor;
use crate::images::{Background, DecodeOptions};

/// Images per batch. A stream resumed at a multiple of this gives the same bits as an uninterrupted one.
pub const BATCH: usize = 16;

/// Pixels of each image, (3, height, width).
fn prepare(processor: &ImageProcessor, images: &[DynamicImage]) -> Vec<Result<Tensor>> {
    images.par_iter().map(|image| Ok(processor.preprocess(image)?)).collect()
}

/// Names and pixels of some images.
type Prepared = Vec<(PathBuf, Result<Tensor>)>;

/// Names and vectors of images, from [`Embedder::image_stream`].
pub struct ImageStream {
    embedder: Embedder,
    batches: Ahead<Prepared>,
    ready: IntoIter<(PathBuf, Result<Vec<f32>>)>,
    transparent: Arc<AtomicUsize>,
}

impl ImageStream {
    /// The number of transparent images without a background, whose hidden colours were used. Final once the stream
    /// has ended.
    pub fn transparent(&self) -> usize {
        self.transparent.load(Ordering::Relaxed)
    }
}

impl Iterator for ImageStream {
    type Item = (PathBuf, Result<Vec<f32>>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(vector) = self.ready.next() {
                return Some(vector);
            }
            let (names, pixels): (Vec<PathBuf>, Vec<Result<Tensor>>) =
                self.batches.next()?.into_iter().unzip();
            let found: Vec<_> = names.into_iter().zip(self.embedder.embed_pixels(pixels)).collect();
            self.ready = found.into_iter();
        }
    }
}

impl Embedder {
    /// Overrides the background for transparent images that the model configures.
    #[must_use]
    pub fn with_background(self, background: Background) -> Self {
        Self { preparation: self.preparation.with_background(background), ..self }
    }

    /// Sets how [`image_stream`](Self::image_stream) decodes files.
    #[must_use]
    pub fn with_decode_options(mut self, options: DecodeOptions) -> Self {
        self.preparation.decode_options = options;
        self
    }

    /// The background of transparent images.
    pub fn background(&self) -> Background {
        self.image_processor().map_or(Background::None, ImageProcessor::background)
    }

    /// The image processor.
    ///
    /// # Errors
    /// [`MissingFile`](model_files::Error::MissingFile) if the model has none, which a text-only model does not need,
    /// and [`Config`](model_files::Error::Config) if its images would not fit the image tower.
    pub fn image_processor(&self) -> Result<&ImageProcessor> {
        self.preparation.processor()
    }

    /// Embeds images, in order: (images, projection_dim), f32 on the CPU, not normalised; (0, dim) for no images.
    ///
    /// # Errors
    /// If an image cannot be prepared, or the model has no image processor or fails.
    pub fn embed_images(&self, images: &[DynamicImage]) -> Result<Tensor> {
        let mut values = Vec::with_capacity(images.len() * self.projection_dim());
        for batch in images.chunks(BATCH) {
            for vector in self.embed_pixels(prepare(self.image_processor()?, batch)) {
                values.extend(vector?);
            }
        }
        Ok(Tensor::from_vec(values, (images.len(), self.projection_dim()), &Device::Cpu)?)
    }

    /// Yields the name and vector of each image, not normalised, equal to those of
    /// [`embed_images`](Self::embed_images).
    ///
    /// Images are paths, or names with bytes. They are read, decoded and prepared while the model runs on earlier
    /// ones; a few batches of prepared images and one decoded image per core are in memory. An image that cannot be
    /// read yields an error in its place, and the stream goes on.
    ///
    /// # Panics
    /// If `sources` panics.
    pub fn image_stream<I>(&self, sources: I) -> ImageStream
    where
        I: Iterator<Item: Into<ImageSource>> + Send + 'static,
    {
        let preparation = self.preparation.clone();
        let transparent = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&transparent);
        let mut sources = sources.map(Into::into).fuse();
        let batches = std::iter::from_fn(move || {
            let batch: Vec<ImageSource> = sources.by_ref().take(BATCH).collect();
            let prepare = |source: ImageSource| {
                let pixels = preparation
                    .processor()
                    .and_then(|processor| source.prepare(processor, preparation.decode_options, &counter));
                (source.name().to_owned(), pixels)
            };
            (!batch.is_empty()).then(|| batch.into_par_iter().map(prepare).collect())
        });
        ImageStream {
            embedder: self.clone(),
            batches: Ahead::new(batches),
            ready: Vec::new().into_iter(),
            transparent,
        }
    }

    /// A vector for each image's pixels, in order.
    fn embed_pixels(&self, pixels: Vec<Result<Tensor>>) -> Vec<Result<Vec<f32>>> {
        let good: Vec<&Tensor> = pixels.iter().flatten().collect();
        if good.is_empty() {
            return in_place(pixels, Vec::new());
        }
        let encode = |pixels: &[&Tensor]| self.model.encode_image(&Tensor::stack(pixels, 0)?);
        let found = vectors(encode(&good), good.len());
        in_place(pixels, found)
    }
}

/// The vectors of a batch of `count`, f32 on the CPU; if the model failed, its error for each.
fn vectors(embeddings: Result<Tensor>, count: usize) -> Vec<Result<Vec<f32>>> {
    let rows = |embeddings: Tensor| Ok(embeddings.to_dtype(DType::F32)?.to_vec2()?);
    match embeddings.and_then(rows) {
        Ok(vectors) => vectors.into_iter().map(Ok).collect(),
        Err(error) => {
            let error = Arc::new(error);
            (0..count).map(|_| Err(Error::Shared(Arc::clone(&error)))).collect()
        }
    }
}

/// Merges the results for the good `inputs` with the errors of the others, in order.
fn in_place<T>(inputs: Vec<Result<T>>, found: Vec<Result<Vec<f32>>>) -> Vec<Result<Vec<f32>>> {
    let mut found = found.into_iter();
    let results = inputs.into_iter().map(|input| match input {
        Ok(_) => found.next(),
        Err(error) => Some(Err(error)),
    });
    results.flatten().collect()
}
