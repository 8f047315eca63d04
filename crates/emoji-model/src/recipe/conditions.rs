//! Encodes emoji captions for a UNet in training.

use crate::captions::CaptionSampler;
use altclip_encoder::conditioner::Conditioner;
use altclip_encoder::tokenizer::Tokenizer;
use altclip_training::Result;
use altclip_training::stages::coupling::Side;
use altclip_training::stages::realign::{ConditioningRows, ConditioningSource};
use altdiffusion_pipeline::PROMPT_TOKENS;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};

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
    /// The side of the noise of each image, where a caption does not name its style: see [`style_sides`].
    pub sides: Vec<Option<Side>>,
}

/// Couples noise to styles: the concepts drawn in both of two styles have one on either side.
pub(super) fn style_sides(owners: &[usize], styles: &[String]) -> Vec<Option<Side>> {
    let names: BTreeSet<&String> = styles.iter().collect();
    let mut drawn: BTreeMap<usize, BTreeSet<&String>> = BTreeMap::new();
    for (&owner, style) in owners.iter().zip(styles) {
        drawn.entry(owner).or_default().insert(style);
    }
    let side = |(owner, style): (&usize, &String)| {
        let has_both = drawn.get(owner).is_some_and(|own| own.len() == 2);
        let side = if names.first() == Some(&style) { Side::Positive } else { Side::Negative };
        (names.len() == 2 && has_both).then_some(side)
    };
    owners.iter().zip(styles).map(side).collect()
}

impl ConditioningSource for CaptionConditioning<'_> {
    fn draw(&self, rng: &mut ChaCha8Rng, images: &[u32], is_dropped: &[bool]) -> Result<ConditioningRows> {
        let mut caption = |(&image, &is_dropped): (&u32, &bool)| {
            let language = self.captions.draw_language(rng, self.languages)?;
            let concept = *self.owners.get(image as usize)?;
            let style = self.styles.get(image as usize)?;
            let (caption, names_style) = self.captions.sample_styled(rng, concept, language, style)?;
            let side = if names_style { None } else { *self.sides.get(image as usize)? };
            Some(if is_dropped { (String::new(), side) } else { (caption, side) })
        };
        let (texts, sides): (Vec<String>, Vec<Option<Side>>) =
            images.iter().zip(is_dropped).map(|pair| caption(pair).unwrap_or_default()).unzip();
        let encoding = self.tokenizer.encode_padded(&texts, PROMPT_TOKENS)?;
        let states = self.text_encoder.encode_compact(&encoding.input_ids, &encoding.attention_mask)?;
        Ok(ConditioningRows { rows: states.rows.detach(), key_bias: states.key_bias, sides })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concepts_in_two_styles_have_one_on_either_side() {
        let styles: Vec<String> =
            ["noto", "twemoji", "twemoji", "noto", "noto", "noto"].map(String::from).into();
        // Concept 0 has both styles, one of them twice, 1 has one, and 2 has one twice.
        let sides = style_sides(&[0, 0, 1, 2, 2, 0], &styles);
        let (noto, twemoji) = (Some(Side::Positive), Some(Side::Negative));
        assert_eq!(sides, [noto, twemoji, None, None, None, noto]);
        let three: Vec<String> = ["noto", "twemoji", "other"].map(String::from).into();
        assert_eq!(style_sides(&[0, 0, 1], &three), [None; 3]);
    }
}
