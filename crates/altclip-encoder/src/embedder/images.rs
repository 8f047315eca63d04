//! Images to vectors: files are decoded and prepared on all cores, a batch ahead of the model.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::vec::IntoIter;

use candle_core::Tensor;
use image::DynamicImage;
use rayon::prelude::*;

use super::ahead::Ahead;
use super::{Embedder, in_place, vectors};
use crate::error::{Error, Result};
use crate::image_processor::ImageProcessor;
use crate::images::{self, Background, DecodeOptions};

/// Images that go through the model together. A stream that begins at a multiple of this gives the same bits as one
/// that came there from the start.
pub const BATCH: usize = 16;

/// An image as it is stored, for [`Embedder::image_stream`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// In a file.
    Path(PathBuf),
    /// The contents of a file, and what to call it.
    Bytes {
        /// What the result and errors call the image.
        name: PathBuf,
        /// Of one of the formats that [`images::decode`] knows.
        bytes: Vec<u8>,
    },
    /// In a part of a file, such as a member of an archive.
    Part {
        /// What the result and errors call the image.
        name: PathBuf,
        /// The file, which many images can share.
        file: Arc<Path>,
        /// Where the image's own file begins in it.
        start: u64,
        /// Bytes of the image's own file.
        length: u64,
    },
    /// Nowhere that it could be read from: an error in its place.
    Unreadable {
        /// What the result and errors call the image.
        name: PathBuf,
        /// Why it cannot be read.
        problem: String,
    },
}

impl From<PathBuf> for ImageSource {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl From<&Path> for ImageSource {
    fn from(path: &Path) -> Self {
        Self::Path(path.to_owned())
    }
}

impl From<(PathBuf, Vec<u8>)> for ImageSource {
    fn from((name, bytes): (PathBuf, Vec<u8>)) -> Self {
        Self::Bytes { name, bytes }
    }
}

impl ImageSource {
    /// What the image is called: its path, or the name that it was given.
    pub fn name(&self) -> &Path {
        match self {
            Self::Path(name)
            | Self::Bytes { name, .. }
            | Self::Part { name, .. }
            | Self::Unreadable { name, .. } => name,
        }
    }

    /// Reads the image.
    ///
    /// # Errors
    /// As for [`images::open`]; the error names the image.
    pub fn decode(&self, options: DecodeOptions) -> Result<DynamicImage> {
        let name = || self.name().display().to_string();
        match self {
            Self::Path(path) => images::open(path, options),
            Self::Bytes { bytes, .. } => images::decode(&name(), bytes, options),
            Self::Part { file, start, length, .. } => {
                images::open_part(&name(), file, *start, *length, options)
            }
            Self::Unreadable { problem, .. } => Err(Error::format(name(), problem)),
        }
    }

    /// The image's pixels as the model takes them, (3, height, width). An error names the image. If it is transparent
    /// and there is no background for it, `transparent` counts it.
    fn prepare(
        &self,
        processor: &ImageProcessor,
        options: DecodeOptions,
        transparent: &AtomicUsize,
    ) -> Result<Tensor> {
        let image = self.decode(options)?;
        if processor.background() == Background::None && image.color().has_alpha() {
            transparent.fetch_add(1, Ordering::Relaxed);
        }
        processor
            .preprocess(&image)
            .map_err(|error| Error::format(self.name().display().to_string(), Error::from(error).to_string()))
    }
}

/// The pixels of each image, (3, height, width).
pub(super) fn prepare(processor: &ImageProcessor, images: &[DynamicImage]) -> Vec<Result<Tensor>> {
    images.par_iter().map(|image| Ok(processor.preprocess(image)?)).collect()
}

/// Names and pixels of some images.
type Prepared = Vec<(PathBuf, Result<Tensor>)>;

/// Names and vectors of images, from [`Embedder::image_stream`].
pub struct ImageStream<'a> {
    embedder: &'a Embedder,
    batches: Ahead<Prepared>,
    ready: IntoIter<(PathBuf, Result<Vec<f32>>)>,
    transparent: Arc<AtomicUsize>,
}

impl ImageStream<'_> {
    /// How many images were transparent and had no background, so that the colours under the transparency were taken.
    /// Of all, once the stream has ended.
    pub fn transparent(&self) -> usize {
        self.transparent.load(Ordering::Relaxed)
    }
}

impl Iterator for ImageStream<'_> {
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
    /// The name and the vector of each image in turn, not normalised, as from [`embed_images`](Self::embed_images).
    ///
    /// Images are given as paths, or as names with bytes. A few batches of prepared images are in memory at a time,
    /// and one decoded image per core. They are read, decoded and prepared while the model works on those before. A
    /// image that cannot be read is an error in its place, and does not end the stream.
    ///
    /// # Panics
    /// If `images` panics.
    pub fn image_stream<I>(&self, sources: I) -> ImageStream<'_>
    where
        I: Iterator<Item: Into<ImageSource>> + Send + 'static,
    {
        let (images, options) = (self.images.clone(), self.decode_options);
        let transparent = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&transparent);
        let mut sources = sources.map(Into::into).fuse();
        let batches = std::iter::from_fn(move || {
            let batch: Vec<ImageSource> = sources.by_ref().take(BATCH).collect();
            let prepare = |source: ImageSource| {
                let pixels =
                    images.processor().and_then(|processor| source.prepare(processor, options, &counter));
                (source.name().to_owned(), pixels)
            };
            (!batch.is_empty()).then(|| batch.into_par_iter().map(prepare).collect())
        });
        ImageStream {
            embedder: self,
            batches: Ahead::new(batches),
            ready: Vec::new().into_iter(),
            transparent,
        }
    }

    /// A vector for each image's pixels, in their order.
    pub(super) fn embed_pixels(&self, pixels: Vec<Result<Tensor>>) -> Vec<Result<Vec<f32>>> {
        let good: Vec<&Tensor> = pixels.iter().flatten().collect();
        if good.is_empty() {
            return in_place(pixels, Vec::new());
        }
        let encode = |pixels: &[&Tensor]| self.model.encode_image(&Tensor::stack(pixels, 0)?);
        let found = vectors(encode(&good), good.len());
        in_place(pixels, found)
    }
}
