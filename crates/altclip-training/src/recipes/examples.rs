//! What a diffusion model learns from: images as latents, and their captions as hidden states.

use super::drawer::Drawer;
use super::latents::Latents;
use super::states::CaptionStates;
use super::{tell, tell_transparent};
use crate::error::Result;
use crate::pairs::ImagePairs;
use crate::run::Observer;
use candle_core::Tensor;
use std::path::Path;

/// Images and captions, both encoded once and kept in files.
pub(super) struct Examples {
    /// (images, channels, height, width), scaled, on the model's device.
    pub latents: Tensor,
    pub captions: CaptionStates,
}

impl Examples {
    /// Encodes square images of `resolution` pixels and the captions of each. Files of the folder `output` whose names
    /// begin with `name` keep them. Images that cannot be read are skipped, and `observer` is told how many.
    ///
    /// # Errors
    /// If no image can be read, a caption cannot be encoded, or a file cannot be written.
    pub fn of(
        pairs: &ImagePairs,
        resolution: usize,
        drawer: &Drawer,
        (output, name): (&Path, &str),
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let Drawer { tokenizer, text_encoder, device, .. } = drawer;
        let cache = |of: &str| output.join(format!("{name}{of}.safetensors"));
        let at = cache(&format!("latents-{resolution}"));
        let latents = Latents::of(pairs, resolution, drawer, &at)?;
        tell(observer, "data", &latents.skipped);
        tell_transparent(observer, "data", latents.transparent, drawer.asked_background);
        let kept = latents.kept.iter().filter_map(|&row| pairs.captions.get(row as usize).cloned());
        let kept: Vec<Vec<String>> = kept.collect();
        let captions =
            CaptionStates::of(&kept, tokenizer, text_encoder, &drawer.name, &cache("captions"), device)?;
        Ok(Self { latents: latents.latents.to_device(device)?, captions })
    }
}
