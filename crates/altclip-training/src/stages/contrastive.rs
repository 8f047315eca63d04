//! Trains contrastively (AltCLIP, section 3.2, after Zhai et al., LiT, arXiv 2111.07991): the image tower is frozen,
//! and the text tower is trained with CLIP's symmetric loss on images and captions.
//!
//! A frozen tower always gives an image the same vector, so all vectors are computed once. The text tower limits the
//! batch size, and gradient caching removes that limit.

use crate::error::{Error, Result};
use crate::gradients::Gradients;
use crate::optimizer::OptimizerConfig;
use crate::run::{Batch, Objective};
use crate::settings;
use crate::stages::by_length::by_length;
use crate::text_rows::TextRows;
use crate::workers::Workers;
use altclip_encoder::altclip::{AltClipTextTower, normalize};
use altclip_encoder::tokenizer::{Encoding, Tokenizer};
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// The settings of the stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContrastiveStage {
    /// Pairs per batch: each is a negative example for all others.
    pub batch_size: usize,
    /// Texts that go through the tower together. Fewer than the batch need less memory, and are computed twice.
    pub chunk_size: usize,
    /// Keep the activations of all chunks, in the memory of the whole batch, so that nothing is computed twice.
    #[serde(default)]
    pub keep_chunks: bool,
    /// The length that texts are truncated to, in tokens. By default that of the tokenizer.
    #[serde(default)]
    pub max_tokens: Option<usize>,
    /// Chunks computed at the same time on the CPU, each with its share of the cores.
    #[serde(default = "settings::one")]
    pub parts: usize,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
}

/// The largest logit scale, as in CLIP.
pub const MAX_LOGIT_SCALE: f64 = 100.;

/// CLIP's symmetric loss (Radford et al., arXiv 2103.00020): the mean of the cross-entropies over rows and over
/// columns of a square matrix of logits with the pairs on its diagonal; a scalar.
///
/// # Errors
/// If the logits are not a square matrix.
pub fn symmetric_loss(logits: &Tensor) -> candle_core::Result<Tensor> {
    let targets = Tensor::arange(0u32, logits.dim(0)? as u32, logits.device())?;
    let images = candle_nn::loss::cross_entropy(logits, &targets)?;
    let texts = candle_nn::loss::cross_entropy(&logits.t()?.contiguous()?, &targets)?;
    (images + texts)? / 2.
}

/// Minimises the cross-entropy of picking each image's caption and each caption's image.
pub struct ContrastiveLearning<'a> {
    /// The text tower, which is trained.
    pub text: &'a AltClipTextTower,
    /// The learned logarithm of the logit scale; a scalar.
    pub logit_scale: &'a Tensor,
    /// The tokenizer of the texts.
    pub tokenizer: &'a Tokenizer,
    /// Captions, each with the row of its image.
    pub captions: &'a dyn TextRows,
    /// (images, projection_dim), normalised, f32, on the tower's device.
    pub images: &'a Tensor,
    /// See [`ContrastiveStage`].
    pub batch_size: usize,
    /// See [`ContrastiveStage`].
    pub chunk_size: usize,
    /// See [`ContrastiveStage`].
    pub keep_chunks: bool,
    /// The length that texts are truncated to, in tokens.
    pub max_tokens: usize,
    /// The threads that compute it.
    pub workers: &'a Workers,
}

/// The gradients of the symmetric loss of captions, in chunks that the `workers` run through the tower, and as many
/// images. Chunks are computed twice or, with `keep`, once in the memory of all.
///
/// * `logit_scale` (), the logarithm of the logit scale
/// * `images` (captions, projection_dim), normalised, f32, on the tower's device
///
/// # Errors
/// If the captions do not fit the tower, or the number of images differs.
pub fn contrastive_gradients(
    workers: &Workers,
    text: &AltClipTextTower,
    logit_scale: &Tensor,
    captions: &[Encoding],
    keep: bool,
    images: &Tensor,
) -> Result<Gradients> {
    let device = images.device();
    let encode = |chunk: usize| match captions.get(chunk) {
        Some(texts) => {
            let (ids, mask) = (texts.input_ids.to_device(device)?, texts.attention_mask.to_device(device)?);
            Ok(normalize(&text.forward(&ids, &mask)?)?) // (texts, projection_dim)
        }
        None => Err(Error::Setting("batch_size: expected captions, found none".to_owned())),
    };
    let loss = |texts: &Tensor| {
        let scale = logit_scale.to_dtype(DType::F32)?.exp()?.minimum(MAX_LOGIT_SCALE)?;
        Ok(symmetric_loss(&images.matmul(&texts.t()?)?.broadcast_mul(&scale)?)?)
    };
    match captions {
        [_] => Gradients::of(&loss(&encode(0)?)?),
        _ if keep => Gradients::joined(workers, captions.len(), encode, loss),
        _ => Gradients::cached(workers, captions.len(), encode, loss),
    }
}

impl Objective for ContrastiveLearning<'_> {
    fn gradients(&self, batch: &mut Batch) -> Result<Gradients> {
        let (captions, rows) = self.captions.draw(batch, self.batch_size)?;
        let groups = by_length(self.tokenizer, &captions, self.max_tokens, self.chunk_size)?;
        let of_caption = |&number: &u32| rows.get(number as usize).copied();
        let rows: Vec<u32> = groups.iter().flat_map(|group| &group.numbers).filter_map(of_caption).collect();
        let images = self.images.index_select(&Tensor::new(rows, self.images.device())?, 0)?;
        let chunks: Vec<Encoding> = groups.into_iter().map(|group| group.texts).collect();
        contrastive_gradients(self.workers, self.text, self.logit_scale, &chunks, self.keep_chunks, &images)
    }
}
