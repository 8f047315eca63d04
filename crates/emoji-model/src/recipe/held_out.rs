//! Measures models on held-out images: retrieval by a dual encoder, and reconstruction by an autoencoder.

use crate::dataset::{DataSplit, Dataset, IMAGE_SIZE};
use crate::error::Result;
use crate::fidelity::Fidelity;
use crate::pixels::to_tensor;
use crate::stages::autoencoder::{Autoencoder, reconstruct};
use crate::stages::dual_encoder::{TrainedDualEncoder, embed_images};
use altclip_encoder::altclip::{AltClipTextTower, normalize};
use altclip_encoder::tokenizer::Tokenizer;
use altclip_encoder::vision::ClipVisionTower;
use altclip_training::frozen;
use altdiffusion_pipeline::PROMPT_TOKENS;
use altdiffusion_pipeline::vae::AutoencoderKl;
use candle_core::{D, Device, Tensor};
use std::collections::BTreeMap;

/// Held-out images and their names.
pub(super) struct HeldOutReport {
    /// (n, size, size, 3), channels-last, from −1 to 1.
    images: Tensor,
    /// For each image, its concept's name by language.
    names: Vec<BTreeMap<String, String>>,
}

impl HeldOutReport {
    pub(super) fn new(data: &Dataset, split: &DataSplit, device: &Device) -> Result<Self> {
        let (mut pixels, mut names) = (Vec::new(), Vec::new());
        for (image, concept) in split.held_out_images(data) {
            let (Some(image), Some(concept)) = (data.image(image), data.concepts().get(concept)) else {
                continue;
            };
            pixels.extend_from_slice(image);
            names.push(
                concept.labels.iter().map(|(code, label)| (code.clone(), label.name.clone())).collect(),
            );
        }
        Ok(Self { images: to_tensor(&pixels, IMAGE_SIZE, device)?, names })
    }

    /// One line: how the autoencoder's reconstructions differ.
    pub(super) fn fidelity(&self, model: &Autoencoder) -> Result<String> {
        if self.names.is_empty() {
            return Ok("no images are held out".to_owned());
        }
        let vae = AutoencoderKl::new(&model.config, frozen(&model.weights, self.images.device()))?;
        let fidelity = Fidelity::of(&self.images, &reconstruct(&vae, &self.images)?)?;
        Ok(format!("{} held-out images: {fidelity}", self.names.len()))
    }

    /// One line: in each language, the share of names whose own image is found first.
    pub(super) fn found_shares(
        &self,
        model: &TrainedDualEncoder,
        tokenizer: &Tokenizer,
        languages: &[String],
    ) -> Result<String> {
        if self.names.is_empty() {
            return Ok("no images are held out".to_owned());
        }
        let device = self.images.device();
        let vision = ClipVisionTower::new(&model.vision_config, frozen(&model.vision_weights, device))?;
        let vb = frozen(&model.text_weights, device);
        let projection = vb.pp("text_projection");
        let text =
            AltClipTextTower::new(&model.text_config, model.vision_config.projection_dim, vb, projection)?;
        let images = embed_images(&vision, &self.images)?.t()?;
        let mut shares = Vec::new();
        for language in languages {
            let named =
                self.names.iter().enumerate().filter_map(|(i, names)| Some((i, names.get(language)?)));
            let (own, texts): (Vec<usize>, Vec<&String>) = named.unzip();
            if texts.is_empty() {
                continue;
            }
            let encoding = tokenizer.encode_padded(&texts, PROMPT_TOKENS)?;
            let vectors = normalize(&text.forward(
                &encoding.input_ids.to_device(device)?,
                &encoding.attention_mask.to_device(device)?,
            )?)?;
            let first = vectors.matmul(&images)?.argmax(D::Minus1)?.to_vec1::<u32>()?;
            let right = first.iter().zip(&own).filter(|&(&found, &own)| found as usize == own).count();
            shares.push(format!("{language} {:.0}", 100. * right as f64 / own.len() as f64));
        }
        let count = self.names.len();
        Ok(format!("of {count} held-out images, found first by name, in %: {}", shares.join(", ")))
    }
}
