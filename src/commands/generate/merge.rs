//! Merges the command line's options with those of an image.

use super::options::Generate;

impl Generate {
    /// Whether an option with a file is given.
    pub(super) fn has(&self, option: &str) -> bool {
        (option == "initial-latents" && self.initial_latents.is_some())
            || self.from_image.has(option)
            || self.followed.has(option)
            || self.image_prompts.has(option)
            || self.adapters.has(option)
            || self.model.has(option)
    }

    /// These options, with those of an image as the default.
    pub(super) fn or(self, image: Self) -> Self {
        let is_own_batch = self.num_images.or(self.batch_count).is_some();
        // With another seed, the batch of the recorded image does not matter.
        let image_batch = !is_own_batch && (self.seed.is_none() || image.only.is_none());
        let is_sized = self.initial_latents.is_some();
        let has_list = self.sampling.listed_steps().is_some();
        let has_prompt = !self.prompts().is_empty();
        Self {
            prompt: if has_prompt { self.prompt } else { image.prompt },
            prompt_option: if has_prompt { self.prompt_option } else { image.prompt_option },
            prompt_file: self.prompt_file,
            negative_prompt: self.negative_prompt.or(image.negative_prompt),
            prompt_weights: self.prompt_weights || image.prompt_weights,
            clip_skip: self.clip_skip.or(image.clip_skip),
            output: self.output,
            num_images: self.num_images.or(image.num_images.filter(|_| image_batch)),
            batch_count: self.batch_count.or(image.batch_count.filter(|_| image_batch)),
            only: self.only.or(image.only.filter(|_| image_batch)),
            seed: self.seed.or(image.seed),
            seeds: self.seeds.or(image.seeds),
            sampling: self.sampling.or(image.sampling, self.steps.is_some()),
            steps: self.steps.or(image.steps.filter(|_| !has_list)),
            guidance_scale: self.guidance_scale.or(image.guidance_scale),
            width: self.width.or(image.width.filter(|_| !is_sized)),
            height: self.height.or(image.height.filter(|_| !is_sized)),
            scale: self.scale.or(image.scale),
            panorama: self.panorama.or(image.panorama),
            vae_tiling: self.vae_tiling.or(image.vae_tiling),
            low_memory: self.low_memory,
            no_safety_checker: self.no_safety_checker || image.no_safety_checker,
            grid: self.grid || (image.grid && self.only.is_none()),
            like: self.like,
            leave_out: self.leave_out,
            save_steps: self.save_steps,
            no_parameters: self.no_parameters,
            no_preview: self.no_preview,
            json: self.json,
            initial_latents: self.initial_latents.or(image.initial_latents),
            save_latents: self.save_latents,
            timings: self.timings,
            from_image: self.from_image.or(image.from_image),
            followed: self.followed.or(image.followed),
            image_prompts: self.image_prompts.or(image.image_prompts),
            reading: self.reading.or(image.reading),
            adapters: self.adapters.or(image.adapters),
            model: self.model.or(image.model),
        }
    }
}
