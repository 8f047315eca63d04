//! `altdiffusion train emoji`: the small models.

use altclip_training::emoji::Dataset;
use altclip_training::settings::Change;
use altclip_training::{MultilingualRecipe, Recipe, Stage};
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

use super::watch::Watch;
use crate::device::DeviceChoice;

#[derive(Debug, Args)]
pub struct Emoji {
    /// The data set that `train prepare` wrote.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The recipe: a TOML file with every setting, such as models/emoji/recipe-18.toml.
    #[arg(long, value_name = "FILE")]
    recipe: PathBuf,
    /// Changes a setting of the recipe, such as vae.optimizer.steps=100. May be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<Change>,
    /// Folder of the run: checkpoints, metrics, sample pictures and in the end the model.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// The last stage to run, by default all. In the recipe for two languages these are vae, contrastive (both can run at
    /// the same time), image, which needs both, and diffusion; in that for 18 vae and clip (both can run at the same
    /// time), base and teacher (the same), decoder, image, contrastive, keys-and-values, whole and guidance.
    #[arg(long, value_name = "STAGE")]
    until: Option<String>,
    /// End after so many minutes, with a checkpoint. The same command goes on from there.
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<f64>,
    /// Where to train: cpu, cuda, metal, or auto for a GPU if there is one that this build can use.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
}

impl Emoji {
    pub fn run(self) -> Result<()> {
        let mut watch = Watch::start(self.minutes)?;
        let result = if MultilingualRecipe::is_in(&self.recipe)? {
            let recipe = MultilingualRecipe::load(&self.recipe, &self.set)?;
            let device = self.device.open()?;
            recipe.train(&self.data, &self.output, self.until.as_deref(), &device, &mut watch)
        } else {
            let recipe = Recipe::load(&self.recipe, &self.set)?;
            let until: Stage = self.until.as_deref().map_or(Ok(Stage::Diffusion), str::parse)?;
            let data = Dataset::load(&self.data)?;
            recipe.train(&data, &self.output, until, &self.device.open()?, &mut watch)
        };
        watch.finish(result)
    }
}
