//! `altdiffusion train teacher`, `contrastive`, `diffusion`, `lora`, `dreambooth` and `textual-inversion`: models of any size,
//! each run by one configuration.

use std::path::{Path, PathBuf};

use altclip_training::Observer;
use altclip_training::parallel::Communicator;
use altclip_training::recipes::{
    ContrastiveRecipe, DiffusionRecipe, DreamBoothRecipe, LoraRecipe, TeacherRecipe, TextualInversionRecipe,
};
use altclip_training::settings::Change;
use anyhow::Result;
use candle_core::Device;
use clap::Args;

use super::ranks::Ranks;
use super::watch::Watch;
use crate::device::DeviceChoice;

#[derive(Debug, Args)]
pub struct StageRun {
    /// The configuration: a TOML file with every setting.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Changes a setting, such as stage.optimizer.steps=100. May be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<Change>,
    /// Folder of the run: checkpoints, metrics, sample pictures and in the end what was trained.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// End after so many minutes, with a checkpoint. The same command goes on from there.
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<f64>,
    /// Where to train: cpu, cuda, metal, or auto for a GPU if there is one that this build can use. Of several GPUs, each
    /// rank has its own.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    #[command(flatten)]
    ranks: Ranks,
}

impl StageRun {
    pub fn teacher(self) -> Result<()> {
        let recipe = TeacherRecipe::load(&self.config, &self.set)?;
        self.watched(|output, device, ranks, watch| recipe.train(output, device, ranks, watch))
    }

    pub fn contrastive(self) -> Result<()> {
        let recipe = ContrastiveRecipe::load(&self.config, &self.set)?;
        self.watched(|output, device, ranks, watch| recipe.train(output, device, ranks, watch))
    }

    pub fn diffusion(self) -> Result<()> {
        let recipe = DiffusionRecipe::load(&self.config, &self.set)?;
        self.watched(|output, device, ranks, watch| recipe.train(output, device, ranks, watch))
    }

    pub fn lora(self) -> Result<()> {
        let recipe = LoraRecipe::load(&self.config, &self.set)?;
        self.watched(|output, device, ranks, watch| recipe.train(output, device, ranks, watch))
    }

    pub fn dreambooth(self) -> Result<()> {
        let recipe = DreamBoothRecipe::load(&self.config, &self.set)?;
        self.watched(|output, device, ranks, watch| recipe.train(output, device, ranks, watch))
    }

    pub fn textual_inversion(self) -> Result<()> {
        let recipe = TextualInversionRecipe::load(&self.config, &self.set)?;
        self.watched(|output, device, ranks, watch| recipe.train(output, device, ranks, watch))
    }

    fn watched(
        self,
        train: impl FnOnce(&Path, &Device, &dyn Communicator, &mut dyn Observer) -> altclip_training::Result<()>,
    ) -> Result<()> {
        let device = self.ranks.device(self.device).open()?;
        // Before Ctrl-C is watched for: here it may end the program at once.
        let ranks = self.ranks.join(&device)?;
        let mut watch = Watch::start(self.minutes)?;
        let result = train(&self.output, &device, &*ranks, &mut watch);
        watch.finish(result)
    }
}
