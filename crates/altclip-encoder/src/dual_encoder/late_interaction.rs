//! Compares the tokens of texts with those of images (late interaction).
//!
//! FILIP: Fine-grained Interactive Language-Image Pre-Training, <https://arxiv.org/abs/2111.07783>.

use candle_core::{D, DType, Device, Tensor};

use crate::altclip::normalize;
use crate::error::{Error, Result};

/// A model that has a vector for each token of a text and of an image.
pub trait TokenWise: Send + Sync {
    /// A vector for each token, not normalised: (texts, tokens, projection_dim). Rows of padding are meaningless.
    ///
    /// # Errors
    /// Like [`encode_text`](super::DualEncoder::encode_text).
    fn encode_text_tokens(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor>;

    /// A vector for each token, not normalised: (images, tokens, projection_dim).
    ///
    /// # Errors
    /// Like [`encode_image`](super::DualEncoder::encode_image).
    fn encode_image_tokens(&self, pixel_values: &Tensor) -> Result<Tensor>;
}

/// The tokens of texts, normalised, with what counts of them.
#[derive(Debug, Clone)]
pub struct TextTokens {
    /// (texts · tokens, dim), f32, on the CPU
    vectors: Tensor,
    /// 0 for a token and −∞ for padding: (texts, tokens)
    bias: Tensor,
    /// 1 for a token and 0 for padding, divided by the text's tokens: (texts, tokens)
    weights: Tensor,
    /// The least similarity of anything with each text: (texts)
    least: Tensor,
}

impl TextTokens {
    /// * `tokens` (texts, tokens, dim), not normalised
    /// * `attention_mask` (texts, tokens), u32, 0 at padding
    /// * `context` is the longest text of the model. In training shorter texts were padded to it with vectors of zeros,
    ///   which are similar by 0 to everything, so that no similarity is less.
    ///
    /// # Errors
    /// If the shapes differ, or the mask hides a whole text.
    pub fn new(tokens: &Tensor, attention_mask: &Tensor, context: usize) -> Result<Self> {
        let (texts, count, dim) = tokens.dims3()?;
        let mask = attention_mask.to_vec2::<u32>()?;
        if attention_mask.dims() != [texts, count] {
            let found = attention_mask.dims();
            return Err(Error::Input(format!("the mask has shape {found:?}, expected [{texts}, {count}]")));
        }
        let seen: Vec<usize> = mask.iter().map(|row| row.iter().filter(|&&m| m != 0).count()).collect();
        if let Some(text) = seen.iter().position(|&seen| seen == 0) {
            return Err(Error::Input(format!("the attention mask hides every token of text {text}")));
        }
        let bias = mask.iter().flatten().map(|&m| if m == 0 { f32::NEG_INFINITY } else { 0. });
        let weights = mask
            .iter()
            .zip(&seen)
            .flat_map(|(row, &seen)| row.iter().map(move |&m| if m == 0 { 0. } else { 1. / seen as f32 }));
        let least = seen.iter().map(|&seen| if seen < context { 0. } else { f32::NEG_INFINITY });
        let cpu = &Device::Cpu;
        Ok(Self {
            vectors: normalize(&tokens.to_device(cpu)?.reshape((texts * count, dim))?)?,
            bias: Tensor::from_vec(bias.collect::<Vec<f32>>(), (texts, count), cpu)?,
            weights: Tensor::from_vec(weights.collect::<Vec<f32>>(), (texts, count), cpu)?,
            least: Tensor::from_vec(least.collect::<Vec<f32>>(), texts, cpu)?,
        })
    }

    /// Similarities to an image, for finding texts, and of the image to them, for finding images: both (texts), f32. The
    /// first is the mean over the image's tokens of each one's largest cosine with a token of the text, the second the
    /// mean over the text's tokens of each one's largest cosine with a token of the image.
    ///
    /// * `image` (tokens, dim), not normalised
    ///
    /// # Errors
    /// If the widths differ.
    pub fn similarities(&self, image: &Tensor) -> Result<[Tensor; 2]> {
        let (texts, tokens) = self.bias.dims2()?;
        let image = normalize(&image.to_device(&Device::Cpu)?.to_dtype(DType::F32)?)?;
        let cosines = image.matmul(&self.vectors.t()?)?.reshape((image.dim(0)?, texts, tokens))?;
        let most_of_text = cosines.broadcast_add(&self.bias)?.max(D::Minus1)?; // (image's tokens, texts)
        let to_texts = most_of_text.broadcast_maximum(&self.least)?.mean(0)?;
        let most_of_image = cosines.max(0)?; // (texts, tokens)
        Ok([to_texts, (most_of_image * &self.weights)?.sum(1)?])
    }
}
