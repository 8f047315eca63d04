//! Runs the command: draws, writes the images, and reports where they are.

use std::time::Instant;

use altdiffusion_pipeline::latents::write_latents;
use anyhow::{Context, Result};
use image::RgbImage;
use serde::Serialize;

use super::draw;
use super::files::GenerateSeconds;
use super::like::ModelHash;
use super::loaded::{LoadedModel, Plan};
use super::options::Generate;
use super::prepared::Prepared;
use super::record::ShownImages;
use crate::animation::Animation;
use crate::image_file::{is_standard_output, write_image};
use crate::output_files::write_timings;
use crate::preview;
use crate::progress::{ProgressLine, announce};
use crate::standard_streams::{print_json_line, print_line};

/// An image that was written.
#[derive(Serialize)]
pub struct WrittenImage {
    pub path: String,
    pub width: u64,
    pub height: u64,
    /// `None` if the noise was given.
    pub seed: Option<u64>,
    /// Its number in the batch, if it can only be drawn there.
    pub number: Option<usize>,
    /// The time to draw it, or its share of a batch's time. `None` if it existed before.
    pub seconds: Option<f64>,
    /// The record in the image.
    pub parameters: Option<String>,
}

impl Generate {
    /// Draws the requested images with one model.
    pub(super) fn draw(self, start: Instant, expected: Option<ModelHash>) -> Result<()> {
        let mut prepared = self.prepare()?;
        let mut model = LoadedModel::load(&self, start, expected)?;
        let plan = model.plan(&mut prepared, self.seed.unwrap_or_else(random_seed))?;
        model.draw(&prepared, plan, start)?;
        model.drawn_concepts.note_unknown(&self, "");
        self.model.suggest_bf16()
    }

    /// Which images the file at this position shows.
    pub(super) fn shown_at(&self, place: usize) -> ShownImages {
        match self.grid {
            true => ShownImages::All,
            false => ShownImages::One(self.index_at(place)),
        }
    }

    /// The index in the batch of the image whose file is at this position.
    pub(super) fn index_at(&self, place: usize) -> usize {
        self.only.map_or(place, |only| only - 1)
    }

    /// Describes the image whose file is at this position: where it is and how to draw it again.
    pub(super) fn written(&self, prepared: &Prepared<'_>, plan: &Plan, place: usize) -> WrittenImage {
        let index = self.index_at(place);
        let (width, height) = if self.grid { plan.sheet.size() } else { plan.sheet.cell() };
        WrittenImage {
            path: prepared.files.paths.get(place).map(|path| path.display().to_string()).unwrap_or_default(),
            width,
            height,
            seed: (self.initial_latents.is_none()).then(|| self.seed_of(index, &plan.record)),
            number: self.needs_batch(plan.record.images).then_some(index + 1),
            seconds: None,
            parameters: None,
        }
    }
}

/// A seed short enough to type.
pub fn random_seed() -> u64 {
    u64::from(rand::random::<u32>())
}

impl LoadedModel {
    /// Draws as planned, writes the images, and reports where they are.
    ///
    /// # Errors
    /// If drawing fails, or a file cannot be written.
    pub fn draw(&mut self, prepared: &Prepared<'_>, plan: Plan, start: Instant) -> Result<()> {
        let asked = prepared.options;
        // Before drawing, since it reads files.
        let mut record = if asked.no_parameters { None } else { Some(asked.record(&plan.record)?) };
        let mut animation = asked.save_steps.is_some().then(Animation::default);
        let generated =
            draw::draw(&self.pipeline, &plan.runs, &plan.sheet, animation.as_mut(), &self.interrupt)?;

        draw::warn_of_black_images(generated.flagged.as_deref().unwrap_or_default());
        if let Some(fields) = &mut record {
            self.add_hash(fields);
        }
        let _whole = self.interrupt.put_off();
        let writing = ProgressLine::start("Writing");
        let shown =
            if asked.grid { vec![plan.sheet.draw(&generated.images)?] } else { generated.images.clone() };
        let seconds = generated.timings.total.as_secs_f64() / shown.len().max(1) as f64;
        let mut written = Vec::with_capacity(shown.len());
        for (place, (path, image)) in prepared.files.paths.iter().zip(&shown).enumerate() {
            let text = record
                .as_ref()
                .map(|fields| asked.record_image(fields, &plan.record, asked.shown_at(place)).to_text());
            write_image(path, prepared.files.format, image, text.as_deref())?;
            let image = asked.written(prepared, &plan, place);
            written.push(WrittenImage { seconds: Some(seconds), parameters: text, ..image });
        }
        if let (Some(mut animation), Some(path)) = (animation, &asked.save_steps) {
            animation.push(plan.sheet.draw(&generated.images)?);
            animation.write("--save-steps", path)?;
        }
        if let Some(path) = &asked.save_latents {
            write_latents(path, &generated.latents).context("--save-latents")?;
        }
        if let Some(path) = &asked.timings {
            write_timings(path, &GenerateSeconds::new(self.time, &generated.timings, start.elapsed()))?;
        }
        drop(writing);
        prepared.reader.warn_of_transparency();
        asked.report(&written, &shown, plan.record.images)
    }
}

impl Generate {
    /// Shows the images, and reports where they are and how to draw them again.
    fn report(&self, written: &[WrittenImage], shown: &[RgbImage], images: usize) -> Result<()> {
        if self.json {
            return written.iter().try_for_each(print_json_line);
        }
        let is_piped = is_standard_output(&self.output);
        if !self.no_preview && !is_piped {
            preview::show(shown)?;
        }
        for WrittenImage { path, width, height, seed, number, .. } in written {
            let mut line = format!("{path}: {width} × {height} pixels");
            if let Some(seed) = seed {
                line += &format!(", seed {seed}");
            }
            if let Some(number) = number.filter(|_| !self.grid && seed.is_some()) {
                line += &format!(", image {number} of {images}");
            }
            // Standard output is reserved for the image.
            if is_piped { announce(&line) } else { print_line(line)? }
        }
        Ok(())
    }
}
