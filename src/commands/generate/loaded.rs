//! Loads the model once, and plans what to draw with it.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use altdiffusion_pipeline::image_metadata::ParameterFields;
use altdiffusion_pipeline::vae::Tiling;
use altdiffusion_pipeline::{AltDiffusion, ContactSheet, DenoisingWindows, GenerateOptions, ModelParts};
use anyhow::{Context, Result, anyhow, ensure};

use super::control::LoadedNets;
use super::drawn_concepts::DrawnConcepts;
use super::image_prompt::LoadedAdapter;
use super::like::ModelHash;
use super::options::Generate;
use super::prepared::Prepared;
use super::record::RunRecord;
use crate::interrupt::Interrupt;
use crate::progress::{ProgressLine, warn};
use crate::standard_streams::printable;

/// The model, and what is loaded for it.
pub struct LoadedModel {
    pub pipeline: AltDiffusion,
    pub interrupt: Interrupt,
    pub drawn_concepts: DrawnConcepts,
    /// How long loading took.
    pub time: Duration,
    /// The model's hash for images, while it is being computed.
    pending_hash: Option<PendingHash>,
    hash: Option<String>,
    nets: LoadedNets,
    adapter: LoadedAdapter,
}

/// The model's hash, computed on another thread while the model is loaded and draws.
struct PendingHash(JoinHandle<altdiffusion_pipeline::Result<String>>);

impl PendingHash {
    fn start(parts: &ModelParts) -> Self {
        Self(thread::spawn(parts.hasher()))
    }

    /// Waits for it.
    fn finish(self) -> Result<String> {
        let hash = self.0.join().map_err(|_| anyhow!("the model's hash could not be computed"))?;
        hash.context("the model's hash")
    }
}

/// What to draw, and how.
pub struct Plan {
    pub runs: Vec<GenerateOptions>,
    pub sheet: ContactSheet,
    pub record: RunRecord,
}

impl LoadedModel {
    /// Loads the model of `options`, and warns if it is not the expected one.
    ///
    /// # Errors
    /// If it cannot be loaded.
    pub fn load(options: &Generate, start: Instant, expected: Option<ModelHash>) -> Result<Self> {
        let interrupt = Interrupt::watch();
        let parts = options.adapters.exchange_vae(options.model.parts()?)?;
        let mut pending_hash =
            (!options.no_parameters || expected.is_some()).then(|| PendingHash::start(&parts));
        let load_options = options.adapters.apply(options.model.load_options()?)?;
        let load_options =
            load_options.low_memory(options.low_memory).safety_checker(!options.no_safety_checker);
        let loading = ProgressLine::start("Loading the model");
        let pipeline = AltDiffusion::load(parts, load_options)?;
        drop(loading);
        if options.no_safety_checker && !options.model.is_shipped() {
            warn("images are not checked for safety: review them before you show them to others");
        }
        let drawn_concepts = DrawnConcepts::of(&options.model)?;
        let mut hash = None;
        if let Some(expected) = expected
            && let Some(pending) = pending_hash.take()
        {
            // Before drawing, which may take long.
            let found = pending.finish()?;
            expected.check(&found);
            hash = Some(found);
        }
        let time = start.elapsed();
        tracing::info!("loaded in {time:.1?}");
        let (nets, adapter) = Default::default();
        Ok(Self { pipeline, interrupt, drawn_concepts, time, pending_hash, hash, nets, adapter })
    }

    /// Plans a drawing with this seed.
    ///
    /// # Errors
    /// If the options do not fit the model or each other.
    pub fn plan(&mut self, prepared: &mut Prepared<'_>, seed: u64) -> Result<Plan> {
        let Prepared { options: asked, initial_latents, images, files, .. } = prepared;
        let (asked, images, latents) = (*asked, *images, initial_latents.as_ref());
        let pipeline = &self.pipeline;
        let mut options = asked.options(seed, images, latents);
        // In latents, and by default that of the model's training images.
        let side_in_latents = |pixels: Option<usize>| -> Result<usize> {
            let side = pixels.map_or_else(|| pipeline.default_size().map(|(width, _)| width), Ok)?;
            Ok(side / pipeline.vae_config().downscale())
        };
        if let Some(side) = asked.panorama {
            options = options.windows(DenoisingWindows::of_side(side_in_latents(side)?));
        }
        if let Some(side) = asked.vae_tiling {
            options = options.tiling(Tiling::of_side(side_in_latents(side)?));
        }
        let (given, dtype) = (std::mem::take(&mut prepared.given_images), asked.model.dtype());
        options = asked.from_image.apply(options, given);
        let followed = std::mem::take(&mut prepared.followed_images);
        options = asked.followed.apply(options, followed, pipeline, dtype, &mut self.nets)?;
        let prompts = std::mem::take(&mut prepared.prompt_images);
        options = asked.image_prompts.apply(options, prompts, pipeline, dtype, &mut self.adapter)?;
        let (count, width, height) = pipeline.drawn_size(&options)?;
        ensure!(count == images, "expected {images} images, found {count}");
        let runs = asked.runs(options, pipeline.device(), images, latents)?;
        let count = if asked.only.is_some() { 1 } else { images };
        let captions: Vec<String> = asked.prompts().iter().map(|prompt| printable(prompt)).collect();
        let enlarged = |side: usize| side.saturating_mul(asked.enlargement());
        let sheet = ContactSheet::with_prompts((enlarged(width), enlarged(height)), count, &captions);
        asked.check_sizes(files, &sheet)?;
        let record = RunRecord {
            images,
            seed,
            size: (width, height),
            scheduler: asked.sampling.scheduler().map_or_else(|| pipeline.scheduler().kind(), Ok)?,
            device: format!("{:?}", pipeline.device().location()).to_lowercase(),
        };
        Ok(Plan { runs, sheet, record })
    }

    /// Adds the model's hash to the record.
    pub fn add_hash(&mut self, fields: &mut ParameterFields) {
        if let Some(pending) = self.pending_hash.take() {
            match pending.finish() {
                Ok(found) => self.hash = Some(found),
                // The images are worth more than the hash.
                Err(error) => warn(&format!("{error:#}")),
            }
        }
        if let Some(hash) = &self.hash {
            fields.insert_before("Model", "Model hash", hash);
        }
    }
}
