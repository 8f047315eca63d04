//! Encodes emoji captions for a UNet in training.

use crate::captions::{CaptionSampler, draw_language};
use altclip_encoder::conditioner::Conditioner;
use altclip_encoder::tokenizer::Tokenizer;
use altclip_training::Result;
use altclip_training::stages::realign::{ConditioningRows, ConditioningSource};
use altdiffusion_pipeline::PROMPT_TOKENS;
use rand_chacha::ChaCha8Rng;

/// Draws and encodes a new caption for each image: there are too many to cache.
pub(super) struct CaptionConditioning<'a> {
    pub captions: &'a CaptionSampler,
    pub languages: &'a [String],
    pub tokenizer: &'a Tokenizer,
    pub text_encoder: &'a dyn Conditioner,
    /// The concept of each image.
    pub owners: &'a [usize],
    /// The drawing style of each image.
    pub styles: &'a [String],
}

impl ConditioningSource for CaptionConditioning<'_> {
    fn draw(&self, rng: &mut ChaCha8Rng, images: &[u32], is_dropped: &[bool]) -> Result<ConditioningRows> {
        let mut caption = |(&image, &is_dropped): (&u32, &bool)| {
            let language = draw_language(rng, self.languages)?;
            let concept = *self.owners.get(image as usize)?;
            let style = self.styles.get(image as usize)?;
            let caption = self.captions.sample_styled(rng, concept, language, style)?;
            (!is_dropped).then_some(caption)
        };
        let texts: Vec<String> =
            images.iter().zip(is_dropped).map(|pair| caption(pair).unwrap_or_default()).collect();
        let encoding = self.tokenizer.encode_padded(&texts, PROMPT_TOKENS)?;
        let states = self.text_encoder.encode_compact(&encoding.input_ids, &encoding.attention_mask)?;
        Ok(ConditioningRows { rows: states.rows.detach(), key_bias: states.key_bias })
    }
}
