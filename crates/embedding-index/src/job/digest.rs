//! Digests a job's items and a model's vectors, to recognize them.

use altclip_encoder::embedder::Embedder;
use image::DynamicImage;
use model_files::hex;
use sha2::{Digest, Sha256};

use crate::error::Result;

/// The number of items, and their digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ItemDigest {
    pub(super) count: usize,
    pub(super) digest: String,
}

impl ItemDigest {
    /// Reads all items once, so that errors show before the work begins.
    ///
    /// # Errors
    /// The first error among the items.
    pub(super) fn of<T: AsRef<[u8]>>(items: impl Iterator<Item = Result<T>>) -> Result<Self> {
        let mut digest = Sha256::new();
        let mut count = 0;
        for item in items {
            let item = item?;
            let bytes = item.as_ref();
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
            count += 1;
        }
        Ok(Self { count, digest: hex(&digest.finalize()) })
    }
}

/// A digest of the weights, the tokenizer, the dtype and the device: of their vectors for a text and, if the model
/// supports images, for an image.
///
/// # Errors
/// If the model fails.
pub(super) fn digest_of_model(embedder: &Embedder) -> Result<String> {
    Ok(digest_of_numbers(&vectors_of_model(embedder)?))
}

/// A model's vectors for a text and, if it supports images, for an image, which tell its weights from others.
///
/// # Errors
/// If the model fails.
pub(crate) fn vectors_of_model(embedder: &Embedder) -> Result<Vec<f32>> {
    let image =
        image::RgbImage::from_fn(64, 48, |x, y| image::Rgb([4 * x as u8, 5 * y as u8, (x * y) as u8]));
    let mut numbers = vector_of_text(embedder)?;
    if embedder.image_processor().is_ok() {
        let embedded = embedder.embed_images(&[DynamicImage::ImageRgb8(image)])?;
        numbers.extend(numbers_of(embedded)?);
    }
    Ok(numbers)
}

/// A model's vector for the text among [`vectors_of_model`].
///
/// # Errors
/// If the model fails.
pub(crate) fn vector_of_text(embedder: &Embedder) -> Result<Vec<f32>> {
    numbers_of(embedder.embed_texts(&["一只猫 and a red apple"])?)
}

fn numbers_of(vectors: candle_core::Tensor) -> Result<Vec<f32>> {
    let numbers = vectors.flatten_all().and_then(|vectors| vectors.to_vec1());
    Ok(numbers.map_err(altclip_encoder::Error::from)?)
}

/// A digest of the bits of numbers.
fn digest_of_numbers(numbers: &[f32]) -> String {
    let mut digest = Sha256::new();
    for number in numbers {
        digest.update(number.to_le_bytes());
    }
    hex(&digest.finalize())
}

/// A digest of bytes.
#[cfg(feature = "postgres")]
pub(super) fn digest_of_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_tell_lists_apart() -> Result<()> {
        let digest = |items: &[&str]| ItemDigest::of(items.iter().map(|item| Ok(item.to_string())));
        assert_eq!(digest(&["a", "b"])?, digest(&["a", "b"])?);
        assert_eq!(digest(&["ab", ""])?.count, 2);
        assert_ne!(digest(&["a", "b"])?.digest, digest(&["ab", ""])?.digest);
        Ok(())
    }
}
