//! Compares texts and images token by token.

use candle_core::{Device, Tensor};
use image::DynamicImage;
use rayon::prelude::*;

use super::Embedder;
use crate::dual_encoder::TextTokens;
use crate::error::{Error, Result};

/// Texts or images per batch.
const BATCH: usize = 16;

/// Token-wise similarities of images and texts, both (images, texts), f32 on the CPU.
#[derive(Debug, Clone)]
pub struct TokenSimilarities {
    /// Of each image to the texts, to find texts for it.
    pub of_images: Tensor,
    /// Of each text to the images, to find images for it.
    pub of_texts: Tensor,
}

impl Embedder {
    /// Whether the model compares tokens, so that it has no vectors of whole texts and images.
    pub fn is_token_wise(&self) -> bool {
        self.model.token_wise().is_some()
    }

    /// Compares each image with each text token by token. See [`TextTokens::similarities`].
    ///
    /// # Errors
    /// [`Error::Input`] if the model compares one vector of each; also if a text or an image cannot be prepared.
    pub fn token_similarities<S: AsRef<str>>(
        &self,
        images: &[DynamicImage],
        texts: &[S],
    ) -> Result<TokenSimilarities> {
        self.token_comparer(texts)?.compare(images)
    }

    /// The tokens of these texts, to be compared with images.
    ///
    /// # Errors
    /// [`Error::Input`] if the model compares one vector of each; also if a text cannot be prepared.
    pub fn token_comparer<S: AsRef<str>>(&self, texts: &[S]) -> Result<TokenComparer> {
        let Some(model) = self.model.token_wise() else {
            return Err(Error::Input(format!(
                "{} has one vector for each text and image, expected a token-wise model, such as Wukong's",
                self.family
            )));
        };
        let batches = texts.chunks(BATCH).map(|texts| {
            let encoding = self.tokenizer.encode_batch_padded(texts, self.max_tokens)?;
            let tokens = model.encode_text_tokens(&encoding.input_ids, &encoding.attention_mask)?;
            TextTokens::new(&tokens, &encoding.attention_mask, self.model.max_tokens())
        });
        Ok(TokenComparer {
            embedder: self.clone(),
            texts: batches.collect::<Result<_>>()?,
            count: texts.len(),
        })
    }
}

/// The tokens of texts, from [`Embedder::token_comparer`].
pub struct TokenComparer {
    embedder: Embedder,
    texts: Vec<TextTokens>,
    count: usize,
}

impl TokenComparer {
    /// Compares each image with each text.
    ///
    /// # Errors
    /// If an image cannot be prepared.
    pub fn compare(&self, images: &[DynamicImage]) -> Result<TokenSimilarities> {
        let shape = (images.len(), self.count);
        let (mut to_texts, mut to_images) = (Vec::new(), Vec::new());
        if let Some(model) = self.embedder.model.token_wise() {
            let processor = self.embedder.image_processor()?;
            for images in images.chunks(BATCH) {
                let pixels = images.par_iter().map(|image| processor.preprocess(image));
                let pixels = pixels.collect::<candle_core::Result<Vec<Tensor>>>()?;
                let tokens = model.encode_image_tokens(&Tensor::stack(&pixels, 0)?)?;
                for image in 0..images.len() {
                    let image = tokens.narrow(0, image, 1)?.squeeze(0)?.contiguous()?;
                    for texts in &self.texts {
                        let [to_text, to_image] = texts.similarities(&image)?;
                        to_texts.extend(to_text.to_vec1::<f32>()?);
                        to_images.extend(to_image.to_vec1::<f32>()?);
                    }
                }
            }
        }
        Ok(TokenSimilarities {
            of_images: Tensor::from_vec(to_texts, shape, &Device::Cpu)?,
            of_texts: Tensor::from_vec(to_images, shape, &Device::Cpu)?,
        })
    }
}
