//! Reads images from files, bytes or parts of files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::Tensor;
use image::DynamicImage;

use crate::error::{Error, Result};
use crate::image_processor::ImageProcessor;
use crate::images::{self, Background, DecodeOptions, flattened};

/// A stored image, for [`Embedder::image_stream`](super::Embedder::image_stream).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// A file.
    Path(PathBuf),
    /// The contents of a file.
    Bytes {
        /// The image's name in results and errors.
        name: PathBuf,
        /// In a format that [`images::decode`] supports.
        bytes: Vec<u8>,
    },
    /// A part of a file, such as a member of an archive.
    Part {
        /// The image's name in results and errors.
        name: PathBuf,
        /// The file, shared by many images.
        file: Arc<Path>,
        /// Offset of the image's own file.
        start: u64,
        /// Length of the image's own file, in bytes.
        length: u64,
    },
    /// An image that cannot be read; it yields an error in its place.
    Unreadable {
        /// The image's name in results and errors.
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
    /// The image's name: its path, or the name it was given.
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
    /// See [`images::open`]; the error names the image.
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

    /// The image's pixels as model input, (3, height, width). Errors name the image. `transparent` counts transparent
    /// images without a background.
    pub(super) fn prepare(
        &self,
        processor: &ImageProcessor,
        options: DecodeOptions,
        transparent: &AtomicUsize,
    ) -> Result<Tensor> {
        let image = self.decode(options)?;
        let background = processor.background();
        if background == Background::None && image.color().has_alpha() {
            transparent.fetch_add(1, Ordering::Relaxed);
        }
        // The processor would make a copy.
        let image = DynamicImage::ImageRgb8(flattened(image, background));
        processor
            .preprocess(&image)
            .map_err(|error| Error::format(self.name().display().to_string(), Error::from(error).to_string()))
    }
}
