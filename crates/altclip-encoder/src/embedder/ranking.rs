//! Ranks pairs of texts and images by reading both at once.

use candle_core::{DType, Device, Tensor};
use image::DynamicImage;
use rayon::prelude::*;

use super::Embedder;
use crate::error::{Error, Result};

/// Pairs per batch.
const BATCH: usize = 16;

impl Embedder {
    /// Whether the model can [rank](Self::match_scores) what its vectors find.
    pub fn ranks(&self) -> bool {
        self.model.ranker().is_some()
    }

    /// How well each image matches each text by the model's ranker, 0 to 1: (images, texts), f32 on the CPU. It reads a
    /// text and an image at once, so that each pair costs a pass through it.
    ///
    /// # Errors
    /// [`Error::Input`] if the model has no ranker; also like [`embed_texts`](Self::embed_texts) and
    /// [`embed_images`](Self::embed_images).
    pub fn match_scores<S: AsRef<str>>(&self, images: &[DynamicImage], texts: &[S]) -> Result<Tensor> {
        let Some(ranker) = self.model.ranker() else {
            return Err(Error::Input(format!("{} has no ranker, expected R2D2", self.family)));
        };
        let encoding = self.tokenizer.encode_batch_padded(texts, self.max_tokens)?;
        let (ids, mask) = (&encoding.input_ids, &encoding.attention_mask);
        let mut scores = Vec::with_capacity(images.len() * texts.len());
        // A batch of texts at a time, whose states are computed once for all images.
        let states = (0..texts.len()).step_by(BATCH).map(|first| {
            let count = BATCH.min(texts.len() - first);
            let mask = mask.narrow(0, first, count)?.contiguous()?;
            let states = self.model.text_hidden_states(&ids.narrow(0, first, count)?.contiguous()?, &mask)?;
            Ok((states, mask))
        });
        let states = states.collect::<Result<Vec<(Tensor, Tensor)>>>()?;
        let processor = self.image_processor()?;
        for images in images.chunks(BATCH) {
            let pixels = images.par_iter().map(|image| processor.preprocess(image));
            let pixels = pixels.collect::<candle_core::Result<Vec<Tensor>>>()?;
            let found = ranker.image_hidden_states(&Tensor::stack(&pixels, 0)?)?;
            let (count, rows, width) = found.dims3()?;
            for image in 0..count {
                let image = found.narrow(0, image, 1)?;
                for (texts, mask) in &states {
                    let image = image.expand((texts.dim(0)?, rows, width))?.contiguous()?;
                    let matches = ranker.match_pairs(texts, mask, &image)?;
                    scores.extend(matches.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.to_vec1::<f32>()?);
                }
            }
        }
        Ok(Tensor::from_vec(scores, (images.len(), texts.len()), &Device::Cpu)?)
    }
}
