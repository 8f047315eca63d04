//! `altdiffusion eval emoji`: evaluates the drawings of the small model.

use anyhow::{Context, Result};
use clap::Args;
use emoji_model::dataset::Dataset;
use emoji_model::{EmojiEvaluation, LanguageScore, Variety};
use image::RgbImage;
use model_files::Arithmetic;
use model_files::source::ModelSource;
use std::path::PathBuf;

use crate::device::{DeviceChoice, devices};
use crate::option_values;
use crate::standard_streams::{complain, print_json, print_line, print_table};

#[derive(Debug, Args)]
pub struct EvalEmoji {
    /// The data set that `train prepare` wrote.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The model: a directory. By default the one inside this program.
    #[arg(long, value_name = "DIR")]
    model: Option<String>,
    /// The recipe that the model was trained with. By default that of the model inside this program.
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Number of prompts in each language.
    #[arg(long, default_value_t = 100)]
    prompts: usize,
    /// Draw some prompts from this many seeds, to measure how much the drawings vary.
    #[arg(long, value_name = "N", default_value_t = 20)]
    seeds: usize,
    /// Seed for choosing prompts and for noise.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Denoising steps per image.
    #[arg(long, default_value_t = crate::shipped::STEPS)]
    steps: usize,
    /// Guidance scale.
    #[arg(long, default_value_t = crate::shipped::GUIDANCE_SCALE)]
    guidance_scale: f64,
    /// Number type to draw with: f32, f16, bf16 or int8. The drawings are judged in f32.
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = option_values::arithmetics(), hide_possible_values = true)]
    dtype: Arithmetic,
    /// Device: cpu, cuda, metal, or auto, a GPU if this build can use one.
    #[arg(long, value_name = "DEVICE", value_parser = devices(), hide_possible_values = true, default_value = "auto")]
    device: DeviceChoice,
    /// Write all images into one file.
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
    /// Print JSON: an object with languages, edges, variety, vae_psnr and images.
    #[arg(long)]
    json: bool,
}

impl EvalEmoji {
    pub fn run(self) -> Result<()> {
        let source = match &self.model {
            Some(name) => ModelSource::open(name)?,
            None => crate::shipped::source(),
        };
        let data = Dataset::load(&self.data)?;
        let coverage = crate::shipped::recipe(self.recipe.as_deref())?.coverage();
        let evaluation = EmojiEvaluation {
            coverage,
            prompts: self.prompts,
            seeds: self.seeds,
            seed: self.seed,
            steps: self.steps,
            guidance_scale: self.guidance_scale,
            arithmetic: self.dtype,
        };
        let mut images: Vec<RgbImage> = Vec::new();
        let score = evaluation.run(&source, &data, &self.device.open_for(self.dtype)?, |drawn| {
            let mark = |right: bool| if right { "right" } else { "wrong" };
            let (encoder, pixels) = (mark(drawn.right_by_encoder), mark(drawn.right_by_pixels));
            complain(format!(
                "{} {encoder} by encoder, {pixels} by pixels: {}",
                drawn.language, drawn.prompt
            ));
            images.push(drawn.image.clone());
        })?;
        if let Some(path) = &self.sheet {
            let sheet = altdiffusion_pipeline::contact_sheet(&images, 20)?;
            sheet.save(path).with_context(|| format!("{}", path.display()))?;
        }
        if self.json {
            return print_json(&score);
        }
        let row = |language: &LanguageScore| {
            let share = |n: usize| format!("{:.0} %", 100. * n as f64 / language.prompts.max(1) as f64);
            let (encoder, pixels) = (share(language.right_by_encoder), share(language.right_by_pixels));
            vec![
                language.language.clone(),
                language.prompts.to_string(),
                encoder,
                pixels,
                format!("{:.1}", language.psnr),
            ]
        };
        let header = [
            "language",
            "prompts",
            "right by the image encoder",
            "right by pixels",
            "median dB to the nearest",
        ];
        print_table(&header, &score.languages.iter().map(row).collect::<Vec<_>>(), 1..)?;
        let edges = 100. * score.edges;
        print_line(format!(
            "The drawings' edges have {edges:.0} % of the energy of those of the nearest originals."
        ))?;
        if let Some(Variety { seeds, difference, between_styles }) = score.variety {
            print_line(format!(
                "From {seeds} seeds, two drawings of a prompt differ by {difference:.1} of 255; originals of two styles differ by {between_styles:.1}."
            ))?;
        }
        print_line(format!("The VAE alone reconstructs the training images at {:.1} dB.", score.vae_psnr))
    }
}
