//! Records how an image was drawn, with the fields and in the order of `altdiffusion generate`.

use altdiffusion_pipeline::image_metadata::{GenerationParameters, ParameterFields};
use altdiffusion_pipeline::schedulers::SigmaSpacing;
use altdiffusion_pipeline::{AltDiffusion, GenerateOptions, PromptReading, Steps};

use super::request::{DrawRequest, NamedLora};
use crate::models::ImageModel;

/// The record of the image that `options` draw with the textual inversions `words`, in `size`, (width, height) in
/// pixels, before it is enlarged.
///
/// # Errors
/// If the model does not name a scheduler.
pub(super) fn record(
    model: &ImageModel,
    hash: Option<&str>,
    pipeline: &AltDiffusion,
    request: &DrawRequest,
    options: &GenerateOptions,
    words: &[String],
    size: (u32, u32),
) -> altdiffusion_pipeline::Result<GenerationParameters> {
    let mut fields = ParameterFields::default();
    if let Steps::Count(steps) = options.steps {
        fields.add("Steps", steps);
    }
    let kind = options.scheduler.map_or_else(|| pipeline.scheduler().kind(), Ok)?;
    fields.add("Sampler", kind.sampler_name());
    fields.add_some("Schedule type", options.sigma_spacing.map(SigmaSpacing::recorded_name));
    fields.add_some("Scheduler", options.scheduler.is_none().then_some("of the model"));
    fields.add("CFG scale", options.guidance.scale);
    fields.add("Seed", options.seed);
    fields.add("Size", format!("{}x{}", size.0, size.1));
    for (name, value) in model.recorded.iter() {
        if name == "Model" {
            fields.add_some("Model hash", hash);
        }
        fields.add(name, value);
    }
    if options.image.is_some() {
        let strength = options.strength.unwrap_or(GenerateOptions::default_strength(options.mask.is_some()));
        fields.add("Denoising strength", strength);
    }
    // Web interfaces count the last layer as 1.
    fields.add_some("Clip skip", Some(options.clip_skip).filter(|skip| *skip > 0).map(|skip| skip + 1));
    fields.add("RNG", options.rng.recorded_name());
    fields.add_some("Eta", Some(options.eta).filter(|eta| *eta != 0.0));
    let rescale = options.guidance.rescale;
    fields.add_some("Guidance rescale", Some(rescale).filter(|rescale| *rescale != 0.0));
    fields.add_flag("Prompt weights", options.prompt_reading == PromptReading::Weighted);
    fields.add_some("Scale", Some(options.scale).filter(|scale| *scale > 1));
    for (number, NamedLora { name, strength }) in request.loras.iter().enumerate() {
        let mut lora = ParameterFields::default();
        lora.add("Model", name);
        lora.add("Weight", strength);
        fields.add(format!("LoRA {number}"), lora.to_text());
    }
    for (number, word) in words.iter().enumerate() {
        let mut embedding = ParameterFields::default();
        embedding.add("Model", word);
        fields.add(format!("Embedding {number}"), embedding.to_text());
    }
    for (number, control) in request.controls.iter().enumerate() {
        let mut unit = ParameterFields::default();
        unit.add("Model", &control.model);
        unit.add("Weight", control.scale);
        unit.add("Guidance Start", control.start);
        unit.add("Guidance End", control.end);
        fields.add(format!("ControlNet {number}"), unit.to_text());
    }
    fields.add("Device", format!("{:?}", pipeline.device().location()).to_lowercase());
    fields.add("Version", format!("altdiffusion {}", env!("CARGO_PKG_VERSION")));
    let negative_prompt = options.negative_prompt.clone();
    Ok(GenerationParameters { prompt: options.prompts.join("\n"), negative_prompt, fields })
}
