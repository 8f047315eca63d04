//! `altdiffusion train`: the training recipe.

use altclip_training::emoji::Dataset;
use altclip_training::{Metrics, Observer, Recipe, Run, pictures};
use anyhow::{Context, Result};
use candle_core::Device;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::time::Instant;

/// Train models.
#[derive(Debug, Subcommand)]
pub enum Train {
    /// Train the small model that ships with the program, or resume its training.
    Emoji(Emoji),
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
}

impl Train {
    pub fn run(self) -> Result<()> {
        match self {
            Self::Emoji(emoji) => emoji.run(),
        }
    }
}

impl Emoji {
    fn run(self) -> Result<()> {
        let recipe = Recipe::load(&self.recipe)?;
        let data = Dataset::load(&self.data)?;
        let data = data
            .filtered(|c| c.pictures.iter().any(|p| recipe.vendors.contains(&p.vendor)))
            .context("no picture is left")?;
        let chosen: Vec<usize> = data
            .concepts()
            .iter()
            .flat_map(|c| &c.pictures)
            .filter(|p| recipe.vendors.contains(&p.vendor))
            .map(|p| p.index)
            .collect();
        let pixels: Vec<u8> = chosen.iter().filter_map(|&i| data.picture(i)).flatten().copied().collect();
        let device = Device::Cpu;
        let tensor = pictures::to_tensor(&pixels, 64, &device)?;
        eprintln!("{} concepts, {} pictures", data.concepts().len(), chosen.len());
        let mut observer = Lines { start: Instant::now(), average: None };
        let run = Run::open(self.output.join("vae"), recipe.seed)?;
        recipe.vae.train(&tensor, &run, recipe.seed, &mut observer)?;
        Ok(())
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
        if metrics.step % 20 == 0 {
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
