//! Describes models that rank pairs.

use candle_core::Tensor;

use crate::error::Result;

/// A model that reads a text and an image at once, to rank what vectors found.
pub trait Ranker: Send + Sync {
    /// Hidden states of images: (images, rows, width), in the weights' dtype. Those of texts are
    /// [`text_hidden_states`](super::DualEncoder::text_hidden_states).
    ///
    /// # Errors
    /// If the images have another size.
    fn image_hidden_states(&self, pixel_values: &Tensor) -> Result<Tensor>;

    /// How well each text matches its image, 0 to 1: (pairs), f32.
    ///
    /// * `texts` (pairs, tokens, width), and `attention_mask` (pairs, tokens), u32, 0 at padding
    /// * `images` (pairs, rows, width)
    ///
    /// # Errors
    /// If the shapes do not fit.
    fn match_pairs(&self, texts: &Tensor, attention_mask: &Tensor, images: &Tensor) -> Result<Tensor>;
}
