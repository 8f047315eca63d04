//! `altdiffusion train emoji`: trains the small model.

use altclip_training::settings::SettingChange;
use anyhow::Result;
use clap::Args;
use emoji_model::{EmojiRecipe, Error};
use std::path::PathBuf;

use super::watch::Watch;
use crate::device::DeviceChoice;

#[derive(Debug, Args)]
pub struct TrainEmoji {
    /// The data set that `train prepare` wrote.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The recipe: a TOML file with every setting, such as models/emoji/recipe.toml.
    #[arg(long, value_name = "FILE")]
    recipe: PathBuf,
    /// Changes a setting of the recipe, such as vae.optimizer.steps=100. May be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<SettingChange>,
    /// Folder of the run: checkpoints, metrics, sample images and in the end the model.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// The last stage to run, by default all: vae and clip (both can run at the same time), base and teacher (the same),
    /// decoder, image, contrastive, keys-and-values, whole and guidance.
    #[arg(long, value_name = "STAGE")]
    until: Option<String>,
    /// End after so many minutes, with a checkpoint. The same command goes on from there.
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<f64>,
    /// Where to train: cpu, cuda, metal, or auto for a GPU if there is one that this build can use.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
}

impl TrainEmoji {
    pub fn run(self) -> Result<()> {
        let mut watch = Watch::start(self.minutes)?;
        let recipe = EmojiRecipe::load(&self.recipe, &self.set)?;
        let device = self.device.open()?;
        let until = self.until.as_deref();
        match recipe.train(&self.data, &self.output, until, &device, &mut watch) {
            Err(Error::Training(error)) => watch.finish(Err(error)),
            other => Ok(other?),
        }
    }
}
