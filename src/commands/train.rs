//! `altdiffusion train`: the training recipe.

use altclip_training::emoji::{Dataset, PrepareOptions, prepare};
use altclip_training::{Metrics, Observer, Recipe, Stage};
use anyhow::Result;
use clap::{Args, Subcommand};
use std::path::PathBuf;

use crate::device::DeviceChoice;
use crate::progress::TrainingProgress;

/// Train models.
#[derive(Debug, Subcommand)]
pub enum Train {
    /// Make the emoji data set from npm packages.
    ///
    /// Needs cldr-annotations-full, cldr-annotations-derived-full (48.2.0), emoji-datasource-google and
    /// emoji-datasource-twitter (16.0.0), unpacked side by side as in node_modules or as the files that `npm pack`
    /// writes.
    Prepare(Prepare),
    /// Train the small model that ships with the program, or resume its training.
    Emoji(Emoji),
}

#[derive(Debug, Args)]
pub struct Prepare {
    /// The folder with the packages.
    #[arg(long, value_name = "DIR")]
    packages: PathBuf,
    /// The folder for the data set: pictures.safetensors and concepts.jsonl.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

impl Prepare {
    fn run(self) -> Result<()> {
        let report = prepare(&PrepareOptions::new(self.packages, &self.output))?;
        for (category, concepts) in &report.categories {
            println!("{concepts:5} {category}");
        }
        println!("{} concepts, {} pictures in {}", report.concepts, report.pictures, self.output.display());
        Ok(())
    }
}

#[derive(Debug, Args)]
pub struct Emoji {
    /// The data set that `train prepare` wrote.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The recipe: a TOML file with every setting.
    #[arg(long, value_name = "FILE")]
    recipe: PathBuf,
    /// Folder of the run: checkpoints, metrics, sample pictures and in the end the model.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// The last stage to run: vae, contrastive (both can run at the same time), image, which needs both, or diffusion.
    #[arg(long, value_name = "STAGE", default_value = "diffusion")]
    until: Stage,
    /// Where to train: cpu, cuda, metal, or auto for a GPU if there is one that this build can use.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
}

impl Train {
    pub fn run(self) -> Result<()> {
        match self {
            Self::Prepare(prepare) => prepare.run(),
            Self::Emoji(emoji) => emoji.run(),
        }
    }
}

impl Emoji {
    fn run(self) -> Result<()> {
        let recipe = Recipe::load(&self.recipe)?;
        let data = Dataset::load(&self.data)?;
        let device = self.device.open()?;
        Ok(recipe.train(&data, &self.output, self.until, &device, &mut Watch::default())?)
    }
}

/// Shows how the training goes, one stage after the other.
#[derive(Default)]
struct Watch {
    stage: Option<(String, TrainingProgress)>,
}

impl Watch {
    fn stage(&mut self, name: &str) -> &mut TrainingProgress {
        let shown = self.stage.take().filter(|(shown, _)| shown == name);
        &mut self.stage.insert(shown.unwrap_or_else(|| (name.to_owned(), TrainingProgress::start(name)))).1
    }
}

impl Observer for Watch {
    fn step(&mut self, stage: &str, metrics: &Metrics, steps: usize) {
        self.stage(stage).step(metrics.step + 1, steps, metrics.loss);
    }

    fn note(&mut self, stage: &str, text: &str) {
        self.stage(stage).note(text);
    }
}
