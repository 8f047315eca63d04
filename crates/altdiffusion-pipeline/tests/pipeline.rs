//! Compares the whole pipeline with diffusers' `AltDiffusionPipeline`, on two tiny models in the published layout.

mod common;

use std::collections::HashMap;
use std::ops::ControlFlow;

use altdiffusion_pipeline::random::{BatchPosition, Noise, Rng, Seeds, TorchCpu};
use altdiffusion_pipeline::schedulers::{SchedulerKind, SigmaSpacing, Steps, TimestepSpacing};
use altdiffusion_pipeline::{Error, GenerateOptions, PromptReading, TextStates};
use candle_core::{Device, Tensor};
use common::load;
use serde::Deserialize;
use test_support::{TestResult, error_message, golden_json, golden_tensors, relative_error};

/// The largest relative error ‖a − b‖/‖b‖ of the latents and of the image.
const TOLERANCE: f64 = 1e-4;

const MODELS: [&str; 2] = ["alt_diffusion", "alt_diffusion_m18"];

#[derive(Deserialize)]
struct Case {
    name: String,
    prompt: String,
    negative_prompt: Option<String>,
    guidance_scale: f64,
    #[serde(default)]
    guidance_rescale: f64,
    num_inference_steps: usize,
    num_images_per_prompt: usize,
    height: usize,
    width: usize,
    scheduler: Option<String>,
    #[serde(default)]
    scheduler_config: HashMap<String, serde_json::Value>,
    eta: Option<f64>,
    /// If set, the reference drew all noise from this seed; otherwise it had these initial latents.
    seed: Option<u64>,
}

impl Case {
    fn options(
        &self,
        initial_latents: Option<&Tensor>,
    ) -> Result<GenerateOptions, Box<dyn std::error::Error>> {
        let mut options = GenerateOptions::new(&self.prompt)
            .negative_prompt(self.negative_prompt.as_deref().unwrap_or_default())
            .guidance_scale(self.guidance_scale)
            .guidance_rescale(self.guidance_rescale)
            .steps(self.num_inference_steps)
            .images(self.num_images_per_prompt)
            .height(self.height)
            .width(self.width)
            .eta(self.eta.unwrap_or(0.0));
        if let Some(seed) = self.seed {
            options = options.seed(seed);
        }
        if let Some(latents) = initial_latents {
            options = options.initial_latents(latents.clone());
        }
        if let Some(class_name) = &self.scheduler {
            let mut kind = SchedulerKind::from_class_name(class_name).ok_or("a scheduler nobody knows")?;
            if self.scheduler_config.contains_key("algorithm_type") {
                kind = SchedulerKind::DpmSolverMultistepSde;
            }
            options = options.scheduler(kind);
        }
        if self.scheduler_config.contains_key("use_karras_sigmas") {
            options = options.sigma_spacing(SigmaSpacing::Karras);
        }
        Ok(options)
    }
}

#[test]
fn images_are_those_of_diffusers() -> TestResult {
    let cases: Vec<Case> = golden_json("pipeline.json");
    let tensors: HashMap<String, Tensor> = golden_tensors("pipeline.safetensors");
    for model in MODELS {
        let pipeline = load(model)?;
        for case in &cases {
            let name = format!("{model}.{}", case.name);
            let expected = |part: &str| &tensors[&format!("{name}.{part}")];
            let initial_latents = tensors.get(&format!("{name}.initial_latents"));
            assert_ne!(initial_latents.is_some(), case.seed.is_some(), "{name}");
            let generated = pipeline.generate(&case.options(initial_latents)?)?;

            let latents_error = relative_error(&generated.latents, expected("latents"));
            let pixels = pipeline.vae()?.decode(&(&generated.latents / pipeline.vae()?.scaling_factor())?)?;
            let pixels = pixels.affine(0.5, 0.5)?.clamp(0f32, 1f32)?;
            let image_error = relative_error(&pixels, expected("picture"));
            println!("{name}: latents {latents_error:e}, image {image_error:e}");
            assert!(latents_error <= TOLERANCE, "{name}: latents {latents_error}");
            assert!(image_error <= TOLERANCE, "{name}: image {image_error}");

            assert_eq!(generated.images.len(), case.num_images_per_prompt, "{name}");
            for (index, image) in generated.images.iter().enumerate() {
                let expected = expected("picture").get(index)?.permute((1, 2, 0))?.affine(255.0, 0.0)?;
                let expected = expected.flatten_all()?.to_vec1::<f32>()?;
                assert_eq!(image.as_raw().len(), expected.len(), "{name}");
                for (byte, expected) in image.as_raw().iter().zip(&expected) {
                    assert!((f32::from(*byte) - expected).abs() < 0.6, "{name}: {byte} {expected}");
                }
            }
        }
    }
    Ok(())
}

/// The noise of a batch is drawn at once, the first image's first. PyTorch transforms 16 values at a time, so latents
/// of a multiple of 16 values do not depend on the batch.
#[test]
fn the_first_image_is_the_same_alone_and_in_a_batch() -> TestResult {
    let pipeline = load(MODELS[0])?;
    let options = GenerateOptions::new("一只猫").steps(3).width(32).height(64).guidance_scale(3.0).seed(5);
    for rng in Rng::ALL {
        let options = options.clone().rng(rng);
        let batch = pipeline.generate(&options.clone().images(2))?;
        let alone = pipeline.generate(&options)?;
        assert_eq!(batch.images[0].dimensions(), (32, 64));
        let [first, second] = [0, 1].map(|image| batch.latents.narrow(0, image, 1));
        let (first, second) =
            (relative_error(&first?, &alone.latents), relative_error(&second?, &alone.latents));
        assert!(first < 1e-5, "{rng}: {first}");
        assert!(second > 0.1, "{rng}: {second}");
    }
    Ok(())
}

#[test]
fn every_scheduler_draws() -> TestResult {
    let pipeline = load(MODELS[1])?;
    let options = GenerateOptions::new("a cat").steps(4).width(16).height(16).guidance_scale(1.0);
    for kind in SchedulerKind::ALL {
        for spacing in SigmaSpacing::ALL.into_iter().filter(|spacing| kind.takes_sigma_spacing(*spacing)) {
            let options = options.clone().scheduler(kind).sigma_spacing(spacing);
            let drawn = pipeline.generate(&options.clone().seed(1));
            let latents = drawn.map_err(|error| format!("{kind}, {spacing}: {error}"))?.latents;
            let other = pipeline.generate(&options.seed(2))?.latents;
            assert!(relative_error(&other, &latents) > 1e-3, "{kind}, {spacing}");
        }
    }
    Ok(())
}

#[test]
fn steps_may_be_given() -> TestResult {
    let pipeline = load(MODELS[0])?;
    let options = GenerateOptions::new("a cat").width(16).height(16).scheduler(SchedulerKind::EulerDiscrete);
    let generated = |options: &GenerateOptions| pipeline.generate(options).map(|generated| generated.latents);
    let timesteps = options.clone().steps(Steps::Timesteps(vec![999, 500, 0]));
    let sigmas = options.clone().steps(Steps::Sigmas(vec![14.6146, 1.6181, 0.0292, 0.0]));
    let spaced = options.steps(3).timestep_spacing(TimestepSpacing::Linspace);
    let expected = generated(&spaced)?;
    // The middle step is half a timestep away, and the initial standard deviation is rounded.
    assert!(relative_error(&generated(&timesteps)?, &expected) < 0.02);
    assert!(relative_error(&generated(&sigmas)?, &expected) < 0.02);
    Ok(())
}

#[test]
fn every_step_is_reported_and_can_be_the_last() -> TestResult {
    let pipeline = load(MODELS[0])?;
    let options = GenerateOptions::new("a cat").steps(4).width(16).height(16).scheduler(SchedulerKind::Ddim);
    let mut seen = Vec::new();
    let generated = pipeline.generate_with(&options, |step| {
        seen.push((step.index, step.total, step.latents.dims().to_vec()));
        ControlFlow::Continue(())
    })?;
    let expected: Vec<_> = (0..4).map(|index| (index, 4, generated.latents.dims().to_vec())).collect();
    assert_eq!(seen, expected);
    assert_eq!(generated.timings.steps.len(), 4);

    let cancelled = pipeline.generate_with(&options, |step| match step.index {
        1 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert!(matches!(cancelled, Err(Error::Cancelled { completed: 2, total: 4, .. })));
    Ok(())
}

/// From noise, from an image, and inpainting; with a seed per image, and from one stream.
#[test]
fn an_image_of_a_batch_can_be_drawn_alone() -> TestResult {
    const IMAGES: usize = 3;
    let pipeline = load(MODELS[0])?;
    let given = image::RgbImage::from_fn(40, 32, |x, y| image::Rgb([x as u8 * 6, y as u8 * 7, 128]));
    let mask = image::GrayImage::from_fn(40, 32, |x, _| image::Luma([if x < 16 { 255 } else { 0 }]));
    let plain = GenerateOptions::new("a cat").steps(3).width(40).height(32).seed(7);
    let plain = plain.scheduler(SchedulerKind::EulerAncestralDiscrete);
    let begun = plain.clone().image(given).strength(0.7);
    for options in [plain, begun.clone(), begun.mask(mask)] {
        for seeds in Seeds::ALL {
            let options = options.clone().seeds(seeds);
            let batch = pipeline.generate(&options.clone().images(IMAGES))?.latents;
            for index in 0..IMAGES {
                let position = BatchPosition { index, images: IMAGES };
                let alone = pipeline.generate(&options.clone().batch_position(position))?.latents;
                let of_batch = batch.narrow(0, index, 1)?;
                assert!(relative_error(&alone, &of_batch) < TOLERANCE, "{seeds}, {index}");
                // In a stream, no image equals that of a single seed: the first step already draws for all.
                let own_seed = pipeline.generate(&options.clone().seed(7 + index as u64))?.latents;
                let has_own_seed = relative_error(&own_seed, &of_batch) < TOLERANCE;
                assert_eq!(has_own_seed, seeds == Seeds::Consecutive, "{seeds}, {index}");
            }
        }
    }
    let outside = GenerateOptions::new("a cat").batch_position(BatchPosition { index: 2, images: 2 });
    assert!(
        pipeline
            .generate(&outside)
            .is_err_and(|error| error.to_string().starts_with("batch position: 2 of 2"))
    );
    Ok(())
}

#[test]
fn options_that_cannot_be_met_are_named() -> TestResult {
    let pipeline = load(MODELS[0])?;
    let options = || GenerateOptions::new("a cat").steps(2);
    let latents = |value: f32, shape: &[usize]| Tensor::full(value, shape, &Device::Cpu);
    for (options, parts) in [
        (options().width(100), ["width", "100", "multiple of 8"]),
        (options().height(0), ["height", "0", "multiple of 8"]),
        (options().steps(0), ["steps", "0 steps", "at least 1"]),
        (options().steps(5000), ["steps", "5000", "1000"]),
        (options().eta(0.5).scheduler(SchedulerKind::Lcm), ["eta", "lcm", "ddim"]),
        (
            options().sigma_spacing(SigmaSpacing::Karras).scheduler(SchedulerKind::Ddim),
            ["sigma spacing", "karras", "dpm++-2m"],
        ),
        (
            options().steps(Steps::Timesteps(vec![1, 2])).scheduler(SchedulerKind::Lcm),
            ["timesteps", "below", "1000"],
        ),
        (options().images(0), ["number of images", "0 images", "expected 1"]),
        (options().guidance_scale(f64::NAN), ["guidance scale", "NaN", "a number"]),
        (options().initial_latents(latents(0.0, &[4, 8, 8])?), ["initial latents", "[4, 8, 8]", "images"]),
        (
            options().initial_latents(latents(0.0, &[1, 3, 8, 8])?),
            ["initial latents", "[1, 3, 8, 8]", "[1, 4"],
        ),
        (options().initial_latents(latents(f32::NAN, &[1, 4, 8, 8])?), ["initial latents", "not", "finite"]),
    ] {
        let message = error_message(pipeline.generate(&options));
        for part in parts {
            assert!(message.contains(part), "expected {part:?} in {message:?}");
        }
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    Ok(())
}

/// Prompts in a batch, or as hidden states, draw what each draws alone.
#[test]
fn prompts_may_be_several_and_encoded_before() -> TestResult {
    let pipeline = load(MODELS[0])?;
    let prompts = ["一只戴帽子的小狗", "a cat"];
    let noise = TorchCpu::new(3).normal(&[4, 4, 2, 2])?;
    let options = GenerateOptions::new("").negative_prompt("blurry").steps(3).guidance_scale(3.0);
    let draw = |options: GenerateOptions| pipeline.generate(&options).map(|generated| generated.latents);
    let together = draw(options.clone().prompts(prompts).images(2).initial_latents(noise.clone()))?;
    assert_eq!(together.dim(0)?, 4);

    let encode = |texts: &[&str]| pipeline.encode_texts(PromptReading::Plain, texts);
    let states = encode(&prompts)?;
    let encoded = options.clone().prompt_states(states.clone()).initial_latents(noise.clone());
    assert!(relative_error(&draw(encoded.clone())?, &together) < 1e-5);
    let both = encoded.clone().negative_states(encode(&["blurry"])?);
    assert!(relative_error(&draw(both)?, &together) < 1e-5);
    let each = encoded.negative_states(encode(&["blurry", "blurry"])?);
    assert!(relative_error(&draw(each)?, &together) < 1e-5);
    // The reference's 77 rows, padding included, give the same.
    let rows = |text: &str| -> Result<Tensor, Box<dyn std::error::Error>> {
        let encoding = pipeline.tokenizer()?.encode_padded(&[text], pipeline.prompt_tokens()?)?;
        Ok(pipeline.text_encoder()?.forward(&encoding.input_ids, &encoding.attention_mask)?)
    };
    for (index, prompt) in prompts.into_iter().enumerate() {
        let noise = noise.narrow(0, 2 * index, 2)?.contiguous()?;
        let options = options.clone().initial_latents(noise);
        let expected = together.narrow(0, 2 * index, 2)?;
        let alone = draw(options.clone().prompts([prompt]))?;
        assert!(relative_error(&alone, &expected) < 1e-5, "{prompt}");
        let expanded = draw(options.prompt_states(TextStates::from_hidden_states(rows(prompt)?)?))?;
        assert!(relative_error(&expanded, &expected) < 1e-4, "{prompt}");
    }
    let none = options.clone().prompts(Vec::<String>::new());
    assert!(error_message(pipeline.generate(&none)).starts_with("prompts: none given"));
    let three = options.prompts(prompts).negative_states(encode(&["a", "b", "c"])?);
    assert!(error_message(pipeline.generate(&three)).contains("(1 or 2, tokens, width)"));
    Ok(())
}
