//! Encodes training data for diffusion: images to latents, and captions to hidden states.

use super::caption_states::CaptionStates;
use super::data::{report_skipped, report_transparent};
use super::diffusion_model::DiffusionModel;
use super::encoded_images::EncodedImages;
use crate::error::Result;
use crate::run::Observer;
use candle_core::Tensor;
use embedding_index::readers::ImagePairs;
use std::path::Path;

/// Encoded images and captions, cached in files.
pub(super) struct EncodedPairs {
    /// (images, channels, height, width), scaled, on the model's device.
    pub latents: Tensor,
    pub captions: CaptionStates,
}

impl EncodedPairs {
    /// Encodes square images of `resolution` pixels and the captions of each. Files in the folder `output` whose
    /// names start with `name` cache them. Unreadable images are skipped and reported to `observer`.
    ///
    /// # Errors
    /// If no image can be read, a caption cannot be encoded, or a file cannot be written.
    pub(super) fn of(
        pairs: &ImagePairs,
        resolution: usize,
        model: &DiffusionModel,
        (output, name): (&Path, &str),
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let DiffusionModel { tokenizer, text_encoder, device, .. } = model;
        let cache = |of: &str| output.join(format!("{name}{of}.safetensors"));
        let at = cache(&format!("latents-{resolution}"));
        let latents = EncodedImages::of(pairs, resolution, model, &at)?;
        report_skipped(observer, "data", &latents.skipped);
        report_transparent(observer, "data", latents.transparent, model.asked_background);
        let kept = latents.kept.iter().filter_map(|&row| pairs.captions.get(row as usize).cloned());
        let kept: Vec<Vec<String>> = kept.collect();
        let captions =
            CaptionStates::of(&kept, tokenizer, &**text_encoder, &model.name, &cache("captions"), device)?;
        Ok(Self { latents: latents.latents.to_device(device)?, captions })
    }
}
