//! Reads images from wherever they are stored.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::Tensor;
use image::DynamicImage;

use crate::error::{Error, Result};
use crate::image_processor::ImageProcessor;
use crate::images::{self, Background, DecodeOptions};

/// An image as it is stored, for [`Embedder::image_stream`](super::Embedder::image_stream).
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
    pub(super) fn prepare(
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
