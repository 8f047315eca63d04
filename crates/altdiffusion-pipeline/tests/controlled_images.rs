//! Compares images drawn with ControlNets with diffusers' `StableDiffusionControlNetPipeline` and its relatives.

mod common;

use std::collections::HashMap;
use std::sync::Arc;

use altdiffusion_pipeline::controlnet::{ControlNetConfig, ControlNetModel};
use altdiffusion_pipeline::schedulers::SchedulerKind;
use altdiffusion_pipeline::{Control, GenerateOptions};
use candle_core::{DType, Device, Tensor, safetensors};
use candle_nn::VarBuilder;
use common::{golden_image, golden_mask, load, load_inpainting};
use image::RgbImage;
use serde::Deserialize;
use test_support::{TestResult, error_message, golden, golden_json, golden_tensors, relative_error};

/// The largest relative error ‖a − b‖/‖b‖ of the latents. The reference's own distance from f64 is up to 4e-5.
const TOLERANCE: f64 = 1e-4;

/// The second of two ControlNets has the first one's weights times this.
const SECOND: f64 = 0.75;

/// The given images, and the expected latents.
const GIVEN: &str = "controlnet/pipeline.safetensors";

#[derive(Deserialize)]
struct Case {
    repository: String,
    name: String,
    prompt: String,
    negative_prompt: String,
    guidance_scale: f64,
    num_inference_steps: usize,
    num_images_per_prompt: usize,
    seed: u64,
    controls: Vec<CaseControl>,
    #[serde(default)]
    guess_mode: bool,
    #[serde(default)]
    global_pool_conditions: bool,
    strength: Option<f64>,
    #[serde(default)]
    mask: bool,
    channels: Option<usize>,
    scheduler: Option<String>,
}

#[derive(Deserialize)]
struct CaseControl {
    scale: f64,
    start: f64,
    end: f64,
}

fn net(repository: &str, factor: f64, pools: bool) -> TestResult<Arc<ControlNetModel>> {
    let folder = golden("controlnet").join(if repository.ends_with("m18") { "sd2" } else { "sd1" });
    let config = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
    let config = ControlNetConfig { global_pool_conditions: pools, ..config };
    let weights = safetensors::load(folder.join("diffusion_pytorch_model.fp16.safetensors"), &Device::Cpu)?;
    let weights =
        weights.into_iter().map(|(name, weight)| Ok((name, (weight.to_dtype(DType::F32)? * factor)?)));
    let weights = weights.collect::<candle_core::Result<HashMap<_, _>>>()?;
    Ok(Arc::new(ControlNetModel::new(&config, VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu))?))
}

#[test]
fn they_are_those_of_diffusers() -> TestResult {
    let cases: Vec<Case> = golden_json("controlnet/pipeline.json");
    let given = golden_tensors(GIVEN);
    let (plain, m18) = (load("alt_diffusion")?, load("alt_diffusion_m18")?);
    let inpainting = load_inpainting("alt_diffusion")?;
    for case in &cases {
        let mut options = GenerateOptions::new(&case.prompt)
            .negative_prompt(&case.negative_prompt)
            .guidance_scale(case.guidance_scale)
            .steps(case.num_inference_steps)
            .images(case.num_images_per_prompt)
            .seed(case.seed)
            .guess_mode(case.guess_mode);
        for (place, (control, factor)) in case.controls.iter().zip([1.0, SECOND]).enumerate() {
            let net = net(&case.repository, factor, case.global_pool_conditions)?;
            let image = golden_image(&given, &format!("control.{place}"))?;
            let control = Control::new(net, image).scale(control.scale).start(control.start).end(control.end);
            options = options.control(control);
        }
        if let Some(strength) = case.strength {
            options = options.image(golden_image(&given, "given")?).strength(strength);
        }
        if case.mask {
            options = options.mask(golden_mask(&given)?);
        }
        if let Some(class_name) = &case.scheduler {
            options = options
                .scheduler(SchedulerKind::from_class_name(class_name).ok_or("a scheduler nobody knows")?);
        }
        let pipeline = match (case.channels, case.repository.as_str()) {
            (Some(9), _) => &inpainting,
            (_, "alt_diffusion") => &plain,
            _ => &m18,
        };
        let name = format!("{}.{}", case.repository, case.name);
        let expected = &given[&format!("{name}.latents")];
        let error = relative_error(&pipeline.generate(&options)?.latents, expected);
        println!("{name}: {error:e}");
        assert!(error <= TOLERANCE, "{name}: {error}");
    }
    Ok(())
}

/// Several prompts with one image to follow draw what each draws alone, guided or not, in guess mode or not.
#[test]
fn prompts_that_go_together_do_not_change_each_other() -> TestResult {
    let (pipeline, given, net) =
        (load("alt_diffusion")?, golden_tensors(GIVEN), net("alt_diffusion", 1.0, false)?);
    let prompts = ["一只戴帽子的小狗", "a cat"];
    let noise = Tensor::randn(0f32, 1.0, (4, 4, 5, 7), &Device::Cpu)?;
    for guesses in [false, true] {
        let options = GenerateOptions::new("")
            .negative_prompt("blurry")
            .steps(3)
            .control(Control::new(net.clone(), golden_image(&given, "control.0")?))
            .guess_mode(guesses);
        let together = options.clone().prompts(prompts).images(2).initial_latents(noise.clone());
        let together = pipeline.generate(&together)?.latents;
        for (index, prompt) in prompts.into_iter().enumerate() {
            let half = |tensor: &Tensor| tensor.narrow(0, 2 * index, 2)?.contiguous();
            let alone = options.clone().prompts([prompt]).initial_latents(half(&noise)?);
            let error = relative_error(&pipeline.generate(&alone)?.latents, &half(&together)?);
            assert!(error < 1e-5, "{prompt}: {error}");
        }
    }
    Ok(())
}

#[test]
fn an_image_that_counts_nothing_changes_nothing() -> TestResult {
    let (pipeline, given, net) =
        (load("alt_diffusion")?, golden_tensors(GIVEN), net("alt_diffusion", 1.0, false)?);
    let options = GenerateOptions::new("a cat").steps(4).width(56).height(40);
    let draw = |options: &GenerateOptions| pipeline.generate(options).map(|generated| generated.latents);
    let control =
        || Ok::<_, Box<dyn std::error::Error>>(Control::new(net.clone(), golden_image(&given, "control.0")?));
    let plain = draw(&options)?;
    assert_eq!(relative_error(&draw(&options.clone().control(control()?.scale(0.0)))?, &plain), 0.0);
    // No step lies entirely within such a short interval.
    let never = options.clone().control(control()?.start(0.3).end(0.45));
    assert_eq!(relative_error(&draw(&never)?, &plain), 0.0);
    assert!(relative_error(&draw(&options.control(control()?))?, &plain) > 1e-2);
    Ok(())
}

#[test]
fn an_image_decides_the_size_where_nothing_else_does() -> TestResult {
    let (pipeline, given, net) =
        (load("alt_diffusion")?, golden_tensors(GIVEN), net("alt_diffusion", 1.0, false)?);
    let options = GenerateOptions::new("a cat").steps(1);
    let generated =
        pipeline.generate(&options.control(Control::new(net, golden_image(&given, "control.0")?)))?;
    assert_eq!(generated.images[0].dimensions(), (56, 40));
    Ok(())
}

#[test]
fn what_does_not_fit_together_is_named() -> TestResult {
    let pipeline = load("alt_diffusion")?;
    let (own, other) = (net("alt_diffusion", 1.0, false)?, net("alt_diffusion_m18", 1.0, false)?);
    let options = || GenerateOptions::new("a cat").steps(1);
    let control = |width, height| Control::new(own.clone(), RgbImage::new(width, height));
    for (options, parts) in [
        (options().guess_mode(true), ["guess mode", "expected a control image"]),
        (
            options().control(control(72, 40)).width(64).height(64),
            ["control image: is 72 × 40, the generated image 64 × 64", "give width and height"],
        ),
        (
            options().control(control(64, 64)).control(control(72, 40)),
            ["control image: is 72 × 40, the generated image 64 × 64", "resize it"],
        ),
        (options().control(control(70, 41)), ["control image: is 70 × 41", "such as to 64 × 40"]),
        (options().control(control(0, 8)), ["width: 0 pixels", "a multiple of 8"]),
        (
            options().control(control(64, 64)).image(RgbImage::new(48, 48)),
            ["is 64 × 64, the generated image 48 × 48", "resize it"],
        ),
        (
            options().control(Control::new(other, RgbImage::new(64, 64))),
            ["`block_out_channels`", "as in the UNet that it is used with"],
        ),
        (options().control(control(64, 64).scale(f64::NAN)), ["control scale: NaN", "a number"]),
        (options().control(control(64, 64).start(0.5).end(0.5)), ["from 0.5 to 0.5", "growing"]),
        (options().control(control(64, 64).start(-0.1)), ["from -0.1 to 1", "from 0 to 1"]),
        (options().control(control(64, 64).end(f64::NAN)), ["from 0 to NaN", "from 0 to 1"]),
    ] {
        let message = error_message(pipeline.generate(&options));
        for part in parts {
            assert!(message.contains(part), "expected {part:?} in {message:?}");
        }
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    Ok(())
}
