//! Runs the command: reads the files, draws, writes the images, and says where they are.

use std::time::Instant;

use altdiffusion_pipeline::latents::{read_latents, write_latents};
use altdiffusion_pipeline::vae::Tiling;
use altdiffusion_pipeline::{AltDiffusion, ContactSheet, DenoisingWindows};
use anyhow::{Context, Result, ensure};
use image::RgbImage;
use serde::Serialize;

use super::files::GenerateSeconds;
use super::like::ModelHash;
use super::record::{RunRecord, ShownImages};
use super::{Generate, draw};
use crate::animation::Animation;
use crate::image_args::ImageReader;
use crate::image_file::write_image;
use crate::interrupt::Interrupt;
use crate::output::{print_json, print_line, printable};
use crate::output_files::write_timings;
use crate::progress::{ProgressLine, warn};
use crate::{model_hash, preview};

/// An image that was written.
#[derive(Serialize)]
struct WrittenImage {
    file: String,
    width: u32,
    height: u32,
    /// Nothing, where the noise was given.
    seed: Option<u64>,
    /// Its number in the batch, where it cannot be had without it.
    number: Option<usize>,
    /// How it was drawn, as the image tells it.
    parameters: Option<String>,
}

impl Generate {
    pub(super) fn draw(self, start: Instant, expected_hash: Option<ModelHash>) -> Result<()> {
        // What can be wrong with the files comes out before the work begins.
        let initial_latents = match &self.initial_latents {
            Some(path) => Some(read_latents(path).context("--initial-latents")?),
            None => None,
        };
        let reader = ImageReader::new(&self.reading, &self.model);
        let given_images = self.from_image.read(&reader)?;
        let followed_images = self.followed.read(&reader)?;
        let prompt_images = self.image_prompts.read(&reader)?;
        let images = self.images_in_batch(initial_latents.as_ref())?;
        let files = self.outputs(if self.only.is_some() { 1 } else { images })?;
        let interrupt = Interrupt::watch()?;

        let parts = self.model.parts()?;
        let mut hash = (!self.no_parameters || expected_hash.is_some()).then(|| model_hash::start(&parts));
        let options = self.adapters.apply(self.model.load_options()?)?;
        let options = options.low_memory(self.low_memory).safety_checker(!self.no_safety_checker);
        let loading = ProgressLine::start("Loading the model");
        let pipeline = AltDiffusion::load(parts, options)?;
        drop(loading);
        if self.no_safety_checker && !self.model.is_shipped() {
            warn("images are not checked: take care before you show them to others");
        }
        let mut model_hash = None;
        if let Some(expected) = expected_hash
            && let Some(hash) = hash.take()
        {
            // Before the work, which may be long.
            let found = model_hash::finish(hash)?;
            expected.check(&found);
            model_hash = Some(found);
        }
        let loaded = start.elapsed();
        tracing::info!("loaded in {loaded:.1?}");

        let seed = self.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
        let mut options = self.options(seed, images, initial_latents.as_ref());
        // In latents, and of the images that the model was trained on if not given.
        let latents = |pixels: Option<usize>| -> Result<usize> {
            let side = pixels.map_or_else(|| pipeline.default_size().map(|(width, _)| width), Ok)?;
            Ok(side / pipeline.vae_config().downscale())
        };
        if let Some(side) = self.panorama {
            options = options.windows(DenoisingWindows::of_side(latents(side)?));
        }
        if let Some(side) = self.vae_tiling {
            options = options.tiling(Tiling::of_side(latents(side)?));
        }
        options = self.from_image.apply(options, given_images);
        options = self.followed.apply(options, followed_images, &pipeline, self.model.dtype())?;
        options = self.image_prompts.apply(options, prompt_images, &pipeline, self.model.dtype())?;
        let (count, width, height) = pipeline.drawn_size(&options)?;
        ensure!(count == images, "expected {images} images, found {count}");
        let runs = self.runs(options, pipeline.device(), images, initial_latents.as_ref())?;
        let count = if self.only.is_some() { 1 } else { images };
        let captions: Vec<String> = self.prompts().iter().map(|prompt| printable(prompt)).collect();
        let sheet = ContactSheet::with_prompts((width, height), count, &captions);
        self.check_sizes(&files, &sheet)?;
        let run = RunRecord {
            images,
            seed,
            size: (width, height),
            scheduler: self.sampling.scheduler().map_or_else(|| pipeline.scheduler().kind(), Ok)?,
            device: format!("{:?}", pipeline.device().location()).to_lowercase(),
        };
        // Before the work, since it reads files.
        let mut record = if self.no_parameters { None } else { Some(self.record(&run)?) };
        let mut animation = self.save_steps.is_some().then(Animation::default);
        let generated = draw::draw(&pipeline, &runs, &sheet, animation.as_mut(), &interrupt)?;

        draw::warn_of_black_images(generated.flagged.as_deref().unwrap_or_default());
        if let Some(hash) = hash.take() {
            match model_hash::finish(hash) {
                Ok(found) => model_hash = Some(found),
                // What was drawn is worth more.
                Err(error) => warn(&format!("{error:#}")),
            }
        }
        if let (Some(fields), Some(hash)) = (&mut record, model_hash) {
            fields.insert_before("Model", "Model hash", hash);
        }
        let _whole = interrupt.put_off();
        let writing = ProgressLine::start("Writing");
        let shown = if self.grid { vec![sheet.draw(&generated.images)?] } else { generated.images.clone() };
        let mut drawn = Vec::with_capacity(shown.len());
        for (place, (path, image)) in files.paths.iter().zip(&shown).enumerate() {
            let index = self.only.map_or(place, |only| only - 1);
            let shown = if self.grid { ShownImages::All } else { ShownImages::One(index) };
            let text = record.as_ref().map(|fields| self.record_image(fields, &run, shown).to_text());
            write_image(path, files.format, image, text.as_deref())?;
            drawn.push(WrittenImage {
                file: path.display().to_string(),
                width: image.width(),
                height: image.height(),
                seed: (self.initial_latents.is_none()).then(|| self.seed_of(index, &run)),
                number: self.needs_batch(images).then_some(index + 1),
                parameters: text,
            });
        }
        if let (Some(mut animation), Some(path)) = (animation, &self.save_steps) {
            animation.push(sheet.draw(&generated.images)?);
            animation.write("--save-steps", path)?;
        }
        if let Some(path) = &self.save_latents {
            write_latents(path, &generated.latents).context("--save-latents")?;
        }
        if let Some(path) = &self.timings {
            write_timings(path, &GenerateSeconds::new(loaded, &generated.timings, start.elapsed()))?;
        }
        drop(writing);
        reader.warn_of_transparency();
        self.report(&drawn, &shown, images)
    }

    /// Shows the images, and says where they are and how to get them again.
    fn report(&self, drawn: &[WrittenImage], shown: &[RgbImage], images: usize) -> Result<()> {
        if self.json {
            return print_json(drawn);
        }
        if !self.no_preview {
            preview::show(shown)?;
        }
        for WrittenImage { file, width, height, seed, number, .. } in drawn {
            let mut line = format!("{file}: {width} × {height} pixels");
            if let Some(seed) = seed {
                line += &format!(", seed {seed}");
            }
            if let Some(number) = number.filter(|_| !self.grid && seed.is_some()) {
                line += &format!(", image {number} of {images}");
            }
            print_line(line)?;
        }
        Ok(())
    }
}
