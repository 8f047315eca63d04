//! Defines how often captions use which words and languages, in a recipe.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How captions are drawn; what is left out has its default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaptionSettings {
    /// How often a language with phrases (English, Chinese) is drawn, relative to one with bare words: there is more
    /// to learn.
    pub phrased_weight: f32,
    /// The share of captions around everyday words, if a concept has any in the language.
    pub everyday_share: f32,
    /// The share of captions around keywords, if a concept has specific ones.
    pub keyword_share: f32,
    /// A keyword shared by more concepts only occurs together with the name.
    pub max_sharers: usize,
    /// How often a batch of images and captions has a person in a skin tone, relative to another concept.
    pub toned_weight: f64,
}

impl Default for CaptionSettings {
    fn default() -> Self {
        Self {
            phrased_weight: 8.0,
            everyday_share: 0.45,
            keyword_share: 0.1,
            max_sharers: 3,
            toned_weight: 0.1,
        }
    }
}

impl CaptionSettings {
    /// # Errors
    /// If a setting is out of range.
    pub(super) fn check(&self) -> Result<()> {
        let Self { phrased_weight, everyday_share, keyword_share, toned_weight, .. } = *self;
        let share = 0.0..=1.0;
        let problem = if !(phrased_weight.is_finite() && phrased_weight > 0.0) {
            format!("phrased_weight: expected a positive number, found {phrased_weight}")
        } else if !share.contains(&everyday_share) {
            format!("everyday_share: expected a share from 0 to 1, found {everyday_share}")
        } else if !share.contains(&keyword_share) {
            format!("keyword_share: expected a share from 0 to 1, found {keyword_share}")
        } else if everyday_share + keyword_share > 1.0 {
            let sum = everyday_share + keyword_share;
            format!("everyday_share, keyword_share: expected at most 1 together, found {sum}")
        } else if !(toned_weight > 0.0 && toned_weight <= 1.0) {
            format!("toned_weight: expected a number above 0, up to 1, found {toned_weight}")
        } else {
            return Ok(());
        };
        Err(Error::Setting(format!("captions.{problem}")))
    }
}
