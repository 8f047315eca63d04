//! `altdiffusion train emoji`: trains the small model.

use altclip_training::settings::SettingChange;
use anyhow::Result;
use clap::Args;
use emoji_model::{EmojiRecipe, Error};
use std::path::PathBuf;

use super::watch::Watch;
use crate::device::{DeviceChoice, devices};

#[derive(Debug, Args)]
pub struct TrainEmoji {
    /// The data set that `train prepare` wrote.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The recipe: a TOML file with every setting, such as models/emoji/recipe.toml.
    #[arg(long, value_name = "FILE")]
    recipe: PathBuf,
    /// Change a setting of the recipe, such as vae.optimizer.steps=100. Repeat the option for more.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<SettingChange>,
    /// Folder of the run: checkpoints, metrics, sample images and finally the model.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// The last stage to run. By default all: vae and clip (may run at the same time), base and teacher (likewise),
    /// decoder, image, contrastive, keys-and-values, whole and guidance.
    #[arg(long, value_name = "STAGE")]
    until: Option<String>,
    /// Stop after this many minutes, with a checkpoint. Run the same command to resume.
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<f64>,
    /// Device: cpu, cuda, metal, or auto, a GPU if this build can use one.
    #[arg(long, value_name = "DEVICE", value_parser = devices(), hide_possible_values = true, default_value = "auto")]
    device: DeviceChoice,
}

impl TrainEmoji {
    pub fn run(self) -> Result<()> {
        let mut watch = Watch::start(self.minutes);
        let recipe = EmojiRecipe::load(&self.recipe, &self.set)?;
        let device = self.device.open()?;
        let until = self.until.as_deref();
        match recipe.train(&self.data, &self.output, until, &device, &mut watch) {
            Err(Error::Training(error)) => watch.finish(Err(error)),
            other => Ok(other?),
        }
    }
}
