//! Ranks pairs of texts and images by reading both at once.

use candle_core::{DType, Device, Tensor};
use image::DynamicImage;
use rayon::prelude::*;

use super::Embedder;
use crate::error::{Error, Result};

/// Images, texts or pairs per batch.
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
        let shape = (images.len(), texts.len());
        let mut ranker = self.pair_ranker(texts)?;
        for images in images.chunks(BATCH) {
            ranker.add_images(images)?;
        }
        let pairs: Vec<_> =
            (0..shape.0).flat_map(|image| (0..shape.1).map(move |text| (image, text))).collect();
        Ok(Tensor::from_vec(ranker.scores(&pairs)?, shape, &Device::Cpu)?)
    }

    /// A ranker of these texts, and of the images that are added to it.
    ///
    /// # Errors
    /// [`Error::Input`] if the model has no ranker; also like [`embed_texts`](Self::embed_texts).
    pub fn pair_ranker<S: AsRef<str>>(&self, texts: &[S]) -> Result<PairRanker> {
        if !self.ranks() {
            return Err(Error::Input(format!("{} has no ranker, expected R2D2", self.family)));
        }
        let encoding = self.tokenizer.encode_batch_padded(texts, self.max_tokens)?;
        let mut states = Vec::with_capacity(texts.len());
        for first in (0..texts.len()).step_by(BATCH) {
            let count = BATCH.min(texts.len() - first);
            let part = |x: &Tensor| x.narrow(0, first, count)?.contiguous();
            let mask = part(&encoding.attention_mask)?;
            let found = self.model.text_hidden_states(&part(&encoding.input_ids)?, &mask)?;
            for text in 0..count {
                states.push((found.narrow(0, text, 1)?, mask.narrow(0, text, 1)?));
            }
        }
        Ok(PairRanker { embedder: self.clone(), texts: states, images: Vec::new() })
    }
}

/// The hidden states of texts and images, to rank pairs of them: a megabyte or so for each image of R2D2.
pub struct PairRanker {
    embedder: Embedder,
    /// (1, tokens, width), and the masks (1, tokens).
    texts: Vec<(Tensor, Tensor)>,
    /// (1, rows, width)
    images: Vec<Tensor>,
}

impl PairRanker {
    /// Adds images, which count on from those that are there.
    ///
    /// # Errors
    /// Like [`embed_images`](Embedder::embed_images).
    pub fn add_images(&mut self, images: &[DynamicImage]) -> Result<()> {
        let Some(ranker) = self.embedder.model.ranker().filter(|_| !images.is_empty()) else { return Ok(()) };
        let processor = self.embedder.image_processor()?;
        let pixels = images.par_iter().map(|image| processor.preprocess(image));
        let pixels = pixels.collect::<candle_core::Result<Vec<Tensor>>>()?;
        let states = ranker.image_hidden_states(&Tensor::stack(&pixels, 0)?)?;
        for image in 0..images.len() {
            self.images.push(states.narrow(0, image, 1)?);
        }
        Ok(())
    }

    /// How well the image and the text of each pair match, 0 to 1.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such image or text.
    pub fn scores(&self, pairs: &[(usize, usize)]) -> Result<Vec<f32>> {
        let mut scores = Vec::with_capacity(pairs.len());
        let Some(ranker) = self.embedder.model.ranker() else { return Ok(scores) };
        for pairs in pairs.chunks(BATCH) {
            let (mut images, mut texts, mut masks) = (Vec::new(), Vec::new(), Vec::new());
            for &(image, text) in pairs {
                let (Some(states), Some((text, mask))) = (self.images.get(image), self.texts.get(text))
                else {
                    let (images, texts) = (self.images.len(), self.texts.len());
                    let problem =
                        format!("image {image} and text {text}, expected less than {images} and {texts}");
                    return Err(Error::Input(problem));
                };
                images.push(states);
                texts.push(text);
                masks.push(mask);
            }
            let matches = ranker.match_pairs(
                &Tensor::cat(&texts, 0)?,
                &Tensor::cat(&masks, 0)?,
                &Tensor::cat(&images, 0)?,
            )?;
            scores.extend(matches.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.to_vec1::<f32>()?);
        }
        Ok(scores)
    }
}
