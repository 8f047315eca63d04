//! Writes the `info` of an answer, which clients parse.

use altdiffusion_pipeline::{GenerateOptions, Steps};
use serde_json::{Value, json};

use crate::drawing::{DrawingQueue, Drawn};

/// How images were drawn, in stable-diffusion-webui's fields; `unknown` are fields of the request that were ignored.
pub(super) fn info(
    queue: &DrawingQueue,
    options: &GenerateOptions,
    images: &[Drawn],
    unknown: &[String],
) -> Value {
    let prompt = options.prompts.join("\n");
    let negative = &options.negative_prompt;
    let seeds: Vec<u64> = images.iter().map(|drawn| drawn.seed).collect();
    let texts: Vec<&str> = images.iter().map(|drawn| drawn.parameters.as_str()).collect();
    let Steps::Count(steps) = options.steps else { return Value::Null };
    let first = images.first();
    let strength = options
        .image
        .as_ref()
        .map(|_| options.strength.unwrap_or(GenerateOptions::default_strength(options.mask.is_some())));
    json!({
        "prompt": prompt,
        "all_prompts": vec![&prompt; images.len()],
        "negative_prompt": negative,
        "all_negative_prompts": vec![negative; images.len()],
        "seed": options.seed,
        "all_seeds": seeds,
        "subseed": options.seed,
        "all_subseeds": seeds,
        "subseed_strength": 0,
        "width": first.map(|drawn| drawn.width),
        "height": first.map(|drawn| drawn.height),
        "sampler_name": sampler(texts.first().copied().unwrap_or_default()),
        "cfg_scale": options.guidance.scale,
        "steps": steps,
        "batch_size": images.len(),
        "restore_faces": false,
        "face_restoration_model": null,
        "sd_model_name": queue.model.name,
        "sd_model_hash": null,
        "sd_vae_name": null,
        "sd_vae_hash": null,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": strength,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": texts,
        "styles": [],
        "job_timestamp": "",
        "clip_skip": options.clip_skip + 1,
        "is_using_inpainting_conditioning": false,
        "version": env!("CARGO_PKG_VERSION"),
        "ignored_fields": unknown,
    })
}

/// The sampler in a record.
fn sampler(record: &str) -> Option<String> {
    let parameters = altdiffusion_pipeline::image_metadata::GenerationParameters::parse(record);
    parameters.fields.get("Sampler").map(str::to_owned)
}
