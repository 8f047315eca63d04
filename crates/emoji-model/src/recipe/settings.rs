//! Defines the settings of the emoji model's training, in a TOML file.

use super::drawn::DrawnStage;
use crate::captions::CaptionSettings;
use crate::coverage::Coverage;
use crate::error::Result;
use crate::stages::autoencoder::VaeStage;
use crate::stages::decoder::DecoderStage;
use crate::stages::dual_encoder::ClipStage;
use crate::stages::image_tower::ImageStage;
use crate::stages::unet_shape::UnetShape;
use crate::stages::upscaler::UpscalerStage;
use altclip_training::TrainingRun;
use altclip_training::settings::{self, SettingChange};
use altclip_training::stages::contrastive::ContrastiveStage;
use altclip_training::stages::realign::RealignStage;
use altclip_training::stages::sheet::SampleSheet;
use altclip_training::stages::teacher::TeacherStage;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// The settings of the emoji model's training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmojiRecipe {
    /// Seed of all weights and random draws.
    pub seed: u64,
    /// Seconds between checkpoints.
    pub save_every: u64,
    /// A model from an earlier run to train further: its autoencoder, or the one of `vae.start`, replaces the new
    /// one, its encoders those of teacher and student, and its UNet the base.
    pub start: Option<String>,
    /// Whether such a model gets a new tokenizer, trained on the captions of today. New pieces begin with the mean of
    /// the embeddings that they were written with.
    #[serde(default)]
    pub renew_tokenizer: bool,
    /// Languages of the captions, by code, including English.
    pub languages: Vec<String>,
    /// How captions are drawn.
    #[serde(default)]
    pub captions: CaptionSettings,
    /// Drawing styles for the encoders and the autoencoder.
    pub vendors: Vec<String>,
    /// Drawing styles for diffusion.
    pub drawn_vendors: Vec<String>,
    /// Categories and subcategories of concepts that are not drawn: a small model draws fewer things better.
    pub not_drawn: Vec<String>,
    /// Whether people are drawn in each skin tone, besides without one.
    pub draw_skin_tones: bool,
    /// Size of the tokenizer's vocabulary.
    pub vocab_size: usize,
    /// Parts of a diffusion batch computed at the same time on the CPU, each with its share of the cores.
    pub parts: usize,
    /// The autoencoder.
    pub vae: VaeStage,
    /// Further training of its decoder, to decode what diffusion draws.
    pub decoder: DecoderStage,
    /// The teacher: an English CLIP.
    pub clip: ClipStage,
    /// Further training of its image tower, to recognize rough drawings.
    pub image: ImageStage,
    /// Teacher learning of the multilingual text tower.
    pub teacher: TeacherStage,
    /// Contrastive learning of that tower.
    pub contrastive: ContrastiveStage,
    /// The size of the UNet.
    pub unet: UnetShape,
    /// Training of the UNet on English captions, encoded by the teacher.
    pub base: RealignStage,
    /// Re-alignment to the multilingual text tower, in stages.
    pub realign: Vec<RealignStage>,
    /// Further training of the decoder on what the UNet draws.
    #[serde(default)]
    pub drawn: Option<DrawnStage>,
    /// The upscaler for what that decoder decodes.
    #[serde(default)]
    pub upscaler: Option<UpscalerStage>,
    /// Samples drawn while the UNet is trained.
    pub sample: SampleSheet,
}

impl EmojiRecipe {
    /// Reads a recipe from a TOML file, and applies changes.
    ///
    /// # Errors
    /// If the file cannot be read, lacks a setting, or has an unknown one.
    pub fn load(path: &Path, changes: &[SettingChange]) -> Result<Self> {
        Ok(settings::load(path, changes)?)
    }

    /// Parses a recipe; `path` is used in errors.
    ///
    /// # Errors
    /// If a setting is missing or unknown.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        Ok(settings::parse(text, path, &[])?)
    }

    /// What the model learns to draw.
    pub fn coverage(&self) -> Coverage {
        Coverage {
            languages: self.languages.clone(),
            vendors: self.drawn_vendors.clone(),
            exclude: self.not_drawn.clone(),
            skin_tones: self.draw_skin_tones,
        }
    }

    /// The names of all stages, in order.
    pub fn stages(&self) -> Vec<&str> {
        let mut stages = Vec::new();
        if self.start.is_none() {
            stages.extend(["vae", "clip", self.base.name.as_str(), "teacher"]);
        }
        stages.extend(["decoder", "image", "contrastive"]);
        stages.extend(self.realign.iter().map(|stage| stage.name.as_str()));
        stages.extend(self.drawn.as_ref().map(|_| "drawn"));
        stages.extend(self.upscaler.as_ref().map(|_| "upscaler"));
        stages
    }

    /// Opens a stage's folder.
    pub(super) fn open_run(&self, output: &Path, stage: &str) -> Result<TrainingRun<'static>> {
        let run = TrainingRun::open(output.join(stage), self.seed)?;
        Ok(run.save_every(Duration::from_secs(self.save_every)))
    }
}
