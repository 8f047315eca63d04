//! Records how an image was drawn. Every struct of options is destructured without `..`, so that a new option does
//! not compile until its recording is decided.

use altdiffusion_pipeline::image_metadata::{GenerationParameters, ParameterFields};
use altdiffusion_pipeline::random::Seeds;
use altdiffusion_pipeline::schedulers::SchedulerKind;
use anyhow::Result;

use super::options::Generate;
use crate::recorded::add_file;

/// What is known about a run besides its options.
pub struct RunRecord {
    /// The number of images in the batch, over all prompts.
    pub images: usize,
    /// The seed of the batch.
    pub seed: u64,
    /// The size of each image before it is enlarged, (width, height) in pixels.
    pub size: (usize, usize),
    pub scheduler: SchedulerKind,
    pub device: String,
}

/// The images that a file shows.
pub enum ShownImages {
    /// One, by its index in the batch.
    One(usize),
    /// All of them, in a sheet.
    All,
}

impl Generate {
    /// Records what all images of a run share; [`Generate::record_image`] adds the rest.
    ///
    /// # Errors
    /// If a file that an option names cannot be read.
    pub fn record(&self, run: &RunRecord) -> Result<ParameterFields> {
        let Self {
            // Recorded by `record_image`.
            prompt: _,
            prompt_option: _,
            negative_prompt: _,
            num_images: _,
            batch_count: _,
            seed: _,
            seeds: _,
            only: _,
            grid: _,
            // The actual values, not the requested ones.
            steps: _,
            guidance_scale: _,
            width: _,
            height: _,
            // No effect on the pixels.
            prompt_file: _,
            like: _,
            leave_out: _,
            output: _,
            low_memory: _,
            save_steps: _,
            no_parameters: _,
            no_preview: _,
            json: _,
            save_latents: _,
            timings: _,
            prompt_weights,
            clip_skip,
            scale: _,
            panorama,
            vae_tiling,
            no_safety_checker,
            initial_latents,
            from_image,
            followed,
            image_prompts,
            reading,
            sampling,
            adapters,
            model,
        } = self;
        let mut fields = ParameterFields::default();
        fields.add("Steps", self.step_count());
        sampling.record_sampler(run.scheduler, &mut fields);
        fields.add("CFG scale", self.guidance());
        fields.add("Seed", run.seed);
        fields.add("Size", format!("{}x{}", run.size.0, run.size.1));
        model.record(&mut fields);
        from_image.record(&mut fields)?;
        reading.record(&mut fields);
        // Web interfaces count the last layer as 1.
        fields.add_some("Clip skip", clip_skip.filter(|skip| *skip > 0).map(|skip| skip + 1));
        sampling.record(&mut fields);
        fields.add_flag("Prompt weights", *prompt_weights);
        fields.add_some("Panorama", panorama.map(side));
        fields.add_some("VAE tiling", vae_tiling.map(side));
        fields.add_some("Scale", Some(self.enlargement()).filter(|scale| *scale > 1));
        fields.add_some("Safety checker", no_safety_checker.then_some("False"));
        if let Some(path) = initial_latents {
            add_file(&mut fields, "Initial latents", path)?;
        }
        adapters.record(&mut fields)?;
        let followed = followed.record()?.into_iter();
        for (number, control) in followed.chain(image_prompts.record()?).enumerate() {
            fields.add(format!("ControlNet {number}"), control.to_text());
        }
        fields.add("Device", &run.device);
        fields.add("Version", format!("altdiffusion {}", env!("CARGO_PKG_VERSION")));
        Ok(fields)
    }

    /// Completes `record`'s result for the images of one file.
    pub fn record_image(
        &self,
        all: &ParameterFields,
        run: &RunRecord,
        shown: ShownImages,
    ) -> GenerationParameters {
        let seeds = self.seeds();
        let mut fields = ParameterFields::default();
        let mut add = |name: &str, value: &str| fields.add(name, value);
        let (prompts, seed) = match shown {
            ShownImages::One(index) => (self.prompt_of(index, run.images), self.seed_of(index, run)),
            ShownImages::All => (self.prompts(), run.seed),
        };
        for (name, value) in all.iter() {
            if name == "Seed" {
                add(name, &seed.to_string());
                match shown {
                    ShownImages::One(index) if self.needs_batch(run.images) => {
                        add("Seeds", seeds.name());
                        add("Batch size", &run.images.to_string());
                        add("Batch pos", &index.to_string());
                    }
                    ShownImages::All => {
                        add("Seeds", seeds.name());
                        add("Batch size", &run.images.to_string());
                        add("Grid", "True");
                    }
                    ShownImages::One(_) => {}
                }
            } else {
                add(name, value);
            }
        }
        if prompts.len() > 1 {
            add("Prompts", &serde_json::Value::from(prompts.clone()).to_string());
        }
        let negative_prompt = self.negative_prompt.clone().unwrap_or_default();
        GenerationParameters { prompt: prompts.join("\n"), negative_prompt, fields }
    }

    /// The seed that draws image `index`, alone or at its position in the batch.
    pub fn seed_of(&self, index: usize, run: &RunRecord) -> u64 {
        if self.needs_batch(run.images) { run.seed } else { run.seed.wrapping_add(index as u64) }
    }

    /// Whether an image can only be drawn at its position in the batch: one of several from a stream, or from latents
    /// in one file.
    pub fn needs_batch(&self, images: usize) -> bool {
        images > 1 && (self.seeds() == Seeds::Stream || self.initial_latents.is_some())
    }
}

/// A number of pixels, or the model's default.
fn side(side: Option<usize>) -> String {
    side.map_or("True".to_owned(), |side| side.to_string())
}
