//! Describes every setting of the emoji model's training, as its TOML file has them.

use crate::coverage::Coverage;
use crate::error::Result;
use crate::stages::autoencoder::VaeStage;
use crate::stages::decoder::DecoderStage;
use crate::stages::dual_encoder::ClipStage;
use crate::stages::image_tower::ImageStage;
use crate::stages::unet_shape::UnetShape;
use altclip_training::TrainingRun;
use altclip_training::settings::{self, SettingChange};
use altclip_training::stages::contrastive::ContrastiveStage;
use altclip_training::stages::realign::RealignStage;
use altclip_training::stages::sheet::SampleSheet;
use altclip_training::stages::teacher::TeacherStage;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// Every setting of the emoji model's training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmojiRecipe {
    /// Seed of all weights and all draws.
    pub seed: u64,
    /// Seconds between two checkpoints.
    pub save_every: u64,
    /// A model that an earlier run wrote, which is trained further: its autoencoder takes the place of the first one, its
    /// encoders that of teacher and student, and its UNet that of the base.
    pub start: Option<String>,
    /// Languages of the captions, by their codes; English among them.
    pub languages: Vec<String>,
    /// DrawingParts styles that the encoders and the autoencoder learn.
    pub vendors: Vec<String>,
    /// DrawingParts styles that are drawn.
    pub drawn_vendors: Vec<String>,
    /// Categories and subcategories of concepts that are not drawn: a small model draws fewer things better.
    pub not_drawn: Vec<String>,
    /// Whether people in each skin tone are drawn, beside those without one.
    pub draw_skin_tones: bool,
    /// Pieces of the tokenizer.
    pub vocab_size: usize,
    /// Parts of a batch of diffusion that are computed at the same time on the CPU, each by its share of the cores.
    pub parts: usize,
    /// The autoencoder.
    pub vae: VaeStage,
    /// Its decoder, trained further to decode what diffusion draws.
    pub decoder: DecoderStage,
    /// The teacher: an English CLIP.
    pub clip: ClipStage,
    /// Its image side, trained further to know rough drawings.
    pub image: ImageStage,
    /// Teacher learning of the multilingual text tower.
    pub teacher: TeacherStage,
    /// Contrastive learning of that tower.
    pub contrastive: ContrastiveStage,
    /// The size of the UNet.
    pub unet: UnetShape,
    /// DrawingParts, learned from English captions as the teacher reads them.
    pub base: RealignStage,
    /// Re-alignment to the multilingual text tower, stage after stage.
    pub realign: Vec<RealignStage>,
    /// What is drawn during the training of the UNet.
    pub sample: SampleSheet,
}

impl EmojiRecipe {
    /// Reads a recipe from a TOML file, with changes made to it.
    ///
    /// # Errors
    /// If the file cannot be read, or lacks a setting, or has one that is unknown.
    pub fn load(path: &Path, changes: &[SettingChange]) -> Result<Self> {
        Ok(settings::load(path, changes)?)
    }

    /// Reads a recipe from the text of a TOML file; `path` is for the errors.
    ///
    /// # Errors
    /// If the text lacks a setting, or has one that is unknown.
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

    /// The names of all stages, in their order.
    pub fn stages(&self) -> Vec<&str> {
        let mut stages = Vec::new();
        if self.start.is_none() {
            stages.extend(["vae", "clip", self.base.name.as_str(), "teacher"]);
        }
        stages.extend(["decoder", "image", "contrastive"]);
        stages.extend(self.realign.iter().map(|stage| stage.name.as_str()));
        stages
    }

    /// The folder of a stage.
    pub(super) fn open_run(&self, output: &Path, stage: &str) -> Result<TrainingRun<'static>> {
        let run = TrainingRun::open(output.join(stage), self.seed)?;
        Ok(run.save_every(Duration::from_secs(self.save_every)))
    }
}
