//! Decodes images in requests: base64, or a data URI. Nothing else is followed.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use altclip_encoder::images::{self, Background, DecodeOptions, flatten, grey};
use axum::body::Bytes;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use image::{DynamicImage, GrayImage, ImageReader, RgbImage};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::Problem;

/// With or without padding, as clients write it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Bytes of a decoded pixel, at most: RGBA, and a copy in RGB.
const PIXEL_BYTES: u64 = 7;

/// Images that are decoded at a time: decoding is memory-hungry.
const DECODING_AT_ONCE: usize = 2;

/// The limits within which the images of all requests are decoded.
pub(crate) struct ImageDecoding {
    turns: Semaphore,
    /// KiB that decoded images may still take.
    room: Arc<Semaphore>,
    max_pixels: u64,
}

impl ImageDecoding {
    /// Images of up to `max_pixels` pixels, in `room` KiB.
    pub(crate) fn new(room: Arc<Semaphore>, max_pixels: u64) -> Self {
        Self { turns: Semaphore::new(DECODING_AT_ONCE), room, max_pixels }
    }

    fn room(&self, field: &str, pixels: u64) -> Result<ImageRoom, Problem> {
        let most = self.max_pixels;
        if pixels > most {
            let problem = Problem::too_large(format!("{field}: {pixels} pixels, expected at most {most}"));
            return Err(Problem { field: Some(field.to_owned()), ..problem });
        }
        let needed = u32::try_from((pixels * PIXEL_BYTES).div_ceil(1 << 10)).unwrap_or(u32::MAX);
        Arc::clone(&self.room).try_acquire_many_owned(needed).map(ImageRoom).map_err(|_| {
            let problem = "the images of the requests that wait fill the room for them";
            Problem::busy(problem, Duration::from_secs(1))
        })
    }
}

/// A decoded image, and its share of the room for all of them.
#[derive(Debug)]
pub(crate) struct GivenImage {
    pub(crate) image: DynamicImage,
    pub(crate) room: ImageRoom,
}

/// A share of the room for decoded images, kept until the work with them is done.
#[derive(Debug)]
pub(crate) struct ImageRoom(#[allow(dead_code, reason = "held")] OwnedSemaphorePermit);

impl GivenImage {
    /// The image in base64 or a data URI.
    ///
    /// # Errors
    /// If it is not base64, not an image, too large, or there is no room for it now.
    pub(crate) async fn of_text(
        decoding: &Arc<ImageDecoding>,
        field: &str,
        text: String,
    ) -> Result<Self, Problem> {
        Self::decode(decoding, field, move |field| bytes(field, &text).map(Bytes::from)).await
    }

    /// The image in a file's bytes.
    ///
    /// # Errors
    /// If it is not an image, too large, or there is no room for it now.
    pub(crate) async fn of_file(
        decoding: &Arc<ImageDecoding>,
        field: &str,
        bytes: Bytes,
    ) -> Result<Self, Problem> {
        Self::decode(decoding, field, move |_| Ok(bytes)).await
    }

    /// Decodes on a thread for blocking work, a few at a time.
    async fn decode(
        decoding: &Arc<ImageDecoding>,
        field: &str,
        bytes: impl FnOnce(&str) -> Result<Bytes, Problem> + Send + 'static,
    ) -> Result<Self, Problem> {
        let Ok(_turn) = decoding.turns.acquire().await else { return Err(Problem::failed()) };
        let (decoding, field) = (Arc::clone(decoding), field.to_owned());
        let work = move || {
            let bytes = bytes(&field)?;
            let max_pixels = decoding.max_pixels;
            let room = decoding.room(&field, pixels(&bytes).unwrap_or(max_pixels))?;
            let options = DecodeOptions { max_pixels, ..DecodeOptions::default() };
            let image = images::decode(&field, &bytes, options)
                .map_err(|error| Problem { field: Some(field), ..Problem::invalid(error.to_string()) })?;
            Ok(Self { image, room })
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(Problem::failed()))
    }
}

/// The pixels that a file announces, for formats whose head is read easily.
fn pixels(bytes: &[u8]) -> Option<u64> {
    let size = ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok()?.into_dimensions();
    size.ok().map(|(width, height)| u64::from(width) * u64::from(height))
}

/// The bytes of `text`: base64, or a data URI in base64.
///
/// # Errors
/// If it is neither; a URL or a path is refused by name.
pub(crate) fn bytes(field: &str, text: &str) -> Result<Vec<u8>, Problem> {
    let encoded = match text.strip_prefix("data:") {
        Some(uri) => match uri.split_once(";base64,") {
            Some((_, encoded)) => encoded,
            None => return Err(Problem::field(field, "expected a data URI in base64")),
        },
        None if text.contains("://") => {
            return Err(Problem::field(field, "expected base64 or a data URI; URLs are not opened"));
        }
        None => text,
    };
    let compact: String = encoded.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    BASE64.decode(compact).map_err(|error| Problem::field(field, format!("expected base64: {error}")))
}

/// An image to start a drawing from, on white if it is transparent.
pub(crate) fn rgb(image: &DynamicImage) -> RgbImage {
    flatten(image, Background::Color([255; 3])).into_owned()
}

/// A mask: white is redrawn. In an image with transparency, transparent is, as in OpenAI's interface.
pub(crate) fn mask(image: &DynamicImage) -> GrayImage {
    if image.color().has_alpha() {
        let pixels = image.to_rgba8();
        if pixels.pixels().any(|pixel| pixel.0[3] < 255) {
            return GrayImage::from_fn(pixels.width(), pixels.height(), |x, y| {
                image::Luma([255 - pixels.get_pixel(x, y).0[3]])
            });
        }
    }
    grey(&rgb(image))
}
