//! Records how an image was drawn, from the options themselves. Every structure of options is taken apart without `..`, so that an
//! option that nobody has decided about does not compile.

use altdiffusion_pipeline::random::{Rng, Seeds};
use altdiffusion_pipeline::schedulers::SchedulerKind;
use anyhow::Result;

use super::Generate;
use crate::recorded::add_file;
use altdiffusion_pipeline::image_metadata::{GenerationParameters, ParameterFields};

/// What is known of a run beside its options.
pub struct RunRecord {
    /// How many images the batch has, of all prompts.
    pub images: usize,
    /// The seed of the batch.
    pub seed: u64,
    /// Pixels of each image, width and height.
    pub size: (usize, usize),
    pub scheduler: SchedulerKind,
    pub device: String,
}

/// Which of a run's images a file shows.
pub enum ShownImages {
    /// One, by its number in the batch, from 0.
    One(usize),
    /// All of them, in a sheet.
    All,
}

impl Generate {
    /// How the images of a run are drawn, but for what differs between them: see [`Generate::record_image`].
    ///
    /// # Errors
    /// When a file that an option names cannot be read.
    pub fn record(&self, run: &RunRecord) -> Result<ParameterFields> {
        let Self {
            // In `record_image`.
            prompt: _,
            prompt_option: _,
            negative_prompt: _,
            num_images: _,
            batch_count: _,
            seed: _,
            seeds: _,
            only: _,
            grid: _,
            // As they came out, not as they were asked for.
            steps: _,
            guidance_scale: _,
            width: _,
            height: _,
            // Without an effect on the pixels.
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
        fields.add("CFG scale", self.scale());
        fields.add("Seed", run.seed);
        fields.add("Size", format!("{}x{}", run.size.0, run.size.1));
        model.record(&mut fields);
        from_image.record(&mut fields)?;
        reading.record(&mut fields);
        // Web interfaces count from the last layer, which is 1.
        fields.add_some("Clip skip", clip_skip.filter(|skip| *skip > 0).map(|skip| skip + 1));
        sampling.record(&mut fields);
        fields.add_flag("Prompt weights", *prompt_weights);
        fields.add_some("Panorama", panorama.map(side));
        fields.add_some("VAE tiling", vae_tiling.map(side));
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

    /// How one file's images are drawn, with what `record` said of all.
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

    /// The seed that gives the image at `index` of the batch, alone or at its position there.
    pub fn seed_of(&self, index: usize, run: &RunRecord) -> u64 {
        if self.needs_batch(run.images) { run.seed } else { run.seed.wrapping_add(index as u64) }
    }

    /// Whether an image of the batch can be had by its position there alone: one of several from a stream, or from latents
    /// in one file.
    pub fn needs_batch(&self, images: usize) -> bool {
        images > 1 && (self.seeds() == Seeds::Stream || self.initial_latents.is_some())
    }
}

/// A number of pixels, or that of the model.
fn side(side: Option<usize>) -> String {
    side.map_or("True".to_owned(), |side| side.to_string())
}

/// What web interfaces call a generator. Theirs of the name GPU is a card's own, NV the same computed on the CPU.
pub fn rng_name(rng: Rng) -> &'static str {
    match rng {
        Rng::Cpu => "CPU",
        Rng::Cuda => "NV",
    }
}
