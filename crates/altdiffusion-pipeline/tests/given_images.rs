//! Compares image-to-image and inpainting with diffusers' `AltDiffusionImg2ImgPipeline` and
//! `StableDiffusionInpaintPipeline`.

mod common;

use altdiffusion_pipeline::GenerateOptions;
use altdiffusion_pipeline::schedulers::SchedulerKind;
use candle_core::Tensor;
use common::{golden_image, golden_mask, load, load_inpainting};
use image::{GrayImage, RgbImage};
use serde::Deserialize;
use test_support::{TestResult, error_message, golden_json, golden_tensors, relative_error};

/// The largest relative error ‖a − b‖/‖b‖ of the latents. The reference's own distance from f64 is up to 6e-5.
const TOLERANCE: f64 = 1e-4;

const MODELS: [&str; 2] = ["alt_diffusion", "alt_diffusion_m18"];

#[derive(Deserialize)]
struct Case {
    name: String,
    prompt: String,
    negative_prompt: String,
    guidance_scale: f64,
    num_inference_steps: usize,
    num_images_per_prompt: usize,
    strength: f64,
    seed: u64,
    #[serde(default)]
    mask: bool,
    channels: Option<usize>,
    scheduler: Option<String>,
}

#[test]
fn they_are_those_of_diffusers() -> TestResult {
    let cases: Vec<Case> = golden_json("given_images.json");
    let tensors = golden_tensors("given_images.safetensors");
    let (image, mask) = (golden_image(&tensors, "given")?, golden_mask(&tensors)?);
    for model in MODELS {
        let (plain, inpainting) = (load(model)?, load_inpainting(model)?);
        for case in &cases {
            let mut options = GenerateOptions::new(&case.prompt)
                .negative_prompt(&case.negative_prompt)
                .guidance_scale(case.guidance_scale)
                .steps(case.num_inference_steps)
                .images(case.num_images_per_prompt)
                .strength(case.strength)
                .seed(case.seed)
                .image(image.clone());
            if case.mask {
                options = options.mask(mask.clone());
            }
            if let Some(class_name) = &case.scheduler {
                options = options
                    .scheduler(SchedulerKind::from_class_name(class_name).ok_or("a scheduler nobody knows")?);
            }
            let pipeline = if case.channels == Some(9) { &inpainting } else { &plain };
            let name = format!("{model}.{}", case.name);
            let latents = pipeline.generate(&options)?.latents;
            let error = relative_error(&latents, &tensors[&format!("{name}.latents")]);
            println!("{name}: {error:e}");
            assert!(error <= TOLERANCE, "{name}: {error}");
        }
    }
    Ok(())
}

#[test]
fn what_is_not_masked_stays() -> TestResult {
    let image = golden_image(&golden_tensors("given_images.safetensors"), "given")?;
    let pipeline = load(MODELS[0])?;
    let mask = GrayImage::from_fn(image.width(), image.height(), |x, _| {
        image::Luma([if x < image.width() / 2 { 255 } else { 0 }])
    });
    let draw = |prompt: &str| {
        let options = GenerateOptions::new(prompt).steps(4).seed(1).image(image.clone()).mask(mask.clone());
        Ok::<_, altdiffusion_pipeline::Error>(pipeline.generate(&options)?.latents)
    };
    let (one, other) = (draw("a cat")?, draw("两座红色的房子")?);
    let half = |latents: &Tensor, first| {
        let width = latents.dim(3)? / 2;
        latents.narrow(3, first * (width + 1), width)
    };
    assert_eq!(relative_error(&half(&one, 1)?, &half(&other, 1)?), 0.0);
    assert!(relative_error(&half(&one, 0)?, &half(&other, 0)?) > 1e-3);
    Ok(())
}

#[test]
fn what_does_not_fit_together_is_named() -> TestResult {
    let tensors = golden_tensors("given_images.safetensors");
    let (image, mask) = (golden_image(&tensors, "given")?, golden_mask(&tensors)?);
    let (plain, inpainting) = (load(MODELS[0])?, load_inpainting(MODELS[0])?);
    let options = || GenerateOptions::new("a cat").steps(4);
    for (pipeline, options, parts) in [
        (&plain, options().mask(mask.clone()), ["mask", "expected an image"]),
        (&plain, options().strength(0.5), ["strength", "expected an image"]),
        (&plain, options().image(image.clone()).strength(1.5), ["strength: 1.5", "from 0 to 1"]),
        (&plain, options().image(image.clone()).strength(f64::NAN), ["strength: NaN", "from 0 to 1"]),
        (&plain, options().image(image.clone()).strength(0.2), ["strength: 0.2 of 4 steps", "more steps"]),
        (&plain, options().image(RgbImage::new(0, 3)), ["image", "0 × 3"]),
        (&plain, options().guidance_rescale(2.0), ["guidance rescale: 2", "from 0 to 1"]),
        (&inpainting, options(), ["mask: not given", "an image and a mask"]),
        (&inpainting, options().image(image.clone()), ["mask: not given", "an image and a mask"]),
    ] {
        let message = error_message(pipeline.generate(&options));
        for part in parts {
            assert!(message.contains(part), "expected {part:?} in {message:?}");
        }
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    Ok(())
}
