//! `altdiffusion train`: the training recipe.

use altclip_training::emoji::{Dataset, PrepareOptions, prepare};
use altclip_training::{Metrics, Observer, Recipe, Stage};
use anyhow::Result;
use candle_core::Device;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::time::Instant;

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
    /// The last stage to run: vae, contrastive (both can run at the same time), or diffusion, which needs both.
    #[arg(long, value_name = "STAGE", default_value = "diffusion")]
    until: Stage,
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
        let mut observer = Lines { start: Instant::now(), average: None };
        Ok(recipe.train(&data, &self.output, self.until, &Device::Cpu, &mut observer)?)
    }
}

/// A line every few steps.
struct Lines {
    start: Instant,
    average: Option<f64>,
}

impl Observer for Lines {
    fn step(&mut self, stage: &str, metrics: &Metrics, steps: usize) {
        let average = self.average.map_or(metrics.loss, |a| 0.98 * a + 0.02 * metrics.loss);
        self.average = Some(average);
        if metrics.step.is_multiple_of(20) {
            let seconds = self.start.elapsed().as_secs_f64();
            eprintln!(
                "{stage} {}/{steps}: loss {average:.5}, gradient {:.3}, {seconds:.0} s",
                metrics.step, metrics.gradient_norm
            );
        }
    }

    fn note(&mut self, stage: &str, text: &str) {
        eprintln!("{stage}: {text}");
    }
}
