//! `altdiffusion train teacher`, `contrastive`, `diffusion`, `lora`, `dreambooth` and `textual-inversion`: trains
//! models of any size, from a configuration file.

use std::path::PathBuf;

use altclip_training::recipes::TrainingRecipe;
use altclip_training::settings::SettingChange;
use anyhow::Result;
use clap::Args;

use super::ranks::Ranks;
use super::watch::Watch;
use crate::device::{DeviceChoice, devices};

#[derive(Debug, Args)]
pub struct RecipeRun {
    /// The configuration: a TOML file with every setting.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Change a setting, such as stage.optimizer.steps=100. Repeat the option for more.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<SettingChange>,
    /// Folder of the run: checkpoints, metrics, sample images and finally the result.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Stop after this many minutes, with a checkpoint. Run the same command to resume.
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<f64>,
    /// Device: cpu, cuda, metal, or auto, a GPU if this build can use one. Each rank has a GPU of its own.
    #[arg(long, value_name = "DEVICE", value_parser = devices(), hide_possible_values = true, default_value = "auto")]
    device: DeviceChoice,
    #[command(flatten)]
    ranks: Ranks,
}

impl RecipeRun {
    /// Trains by the configuration.
    ///
    /// # Errors
    /// The errors of the recipe.
    pub fn run<R: TrainingRecipe>(self) -> Result<()> {
        let recipe = R::load(&self.config, &self.set)?;
        let device = self.ranks.device(self.device).open()?;
        // Before watching for Ctrl-C, which may still end the program immediately here.
        let ranks = self.ranks.join(&device)?;
        let mut watch = Watch::start(self.minutes);
        let result = recipe.train(&self.output, &device, &*ranks, &mut watch);
        watch.finish(result)
    }
}
