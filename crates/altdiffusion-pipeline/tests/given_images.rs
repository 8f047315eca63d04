//! Compares image-to-image and inpainting with diffusers' `AltDiffusionImg2ImgPipeline` and
//! `StableDiffusionInpaintPipeline`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use altdiffusion_pipeline::schedulers::SchedulerKind;
use altdiffusion_pipeline::{AltDiffusion, GenerateOptions};
use candle_core::{DType, Device, Tensor, safetensors};
use image::{GrayImage, RgbImage};
use model_files::source::ModelSource;
use serde::Deserialize;
use test_support::{TestResult, golden, golden_json, golden_tensors, relative_error};

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

fn given(tensors: &HashMap<String, Tensor>) -> TestResult<(RgbImage, GrayImage)> {
    let bytes = |name: &str| -> candle_core::Result<(u32, u32, Vec<u8>)> {
        let tensor = &tensors[name];
        Ok((tensor.dim(1)? as u32, tensor.dim(0)? as u32, tensor.flatten_all()?.to_vec1()?))
    };
    let ((width, height, image), (mask_width, mask_height, mask)) = (bytes("given")?, bytes("mask")?);
    Ok((
        RgbImage::from_raw(width, height, image).ok_or("an image of another size")?,
        GrayImage::from_raw(mask_width, mask_height, mask).ok_or("a mask of another size")?,
    ))
}

/// The model, optionally with other weights for the UNet's `conv_in`.
fn load(
    model: &str,
    conv_in: Option<&Tensor>,
    directory: &Path,
) -> Result<AltDiffusion, Box<dyn std::error::Error>> {
    let Some(conv_in) = conv_in else {
        let source = ModelSource::directory(golden(model));
        return Ok(AltDiffusion::from_source(&source, DType::F32, &Device::Cpu)?);
    };
    for part in ["tokenizer", "text_encoder", "unet", "vae", "scheduler"] {
        std::fs::create_dir(directory.join(part))?;
        for file in std::fs::read_dir(golden(model).join(part))? {
            let file = file?;
            std::fs::copy(file.path(), directory.join(part).join(file.file_name()))?;
        }
    }
    let config = directory.join("unet/config.json");
    let mut fields: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&config)?)?;
    fields["in_channels"] = 9.into();
    std::fs::write(&config, fields.to_string())?;
    let files: Vec<PathBuf> = std::fs::read_dir(directory.join("unet"))?
        .map(|file| Ok(file?.path()))
        .collect::<std::io::Result<_>>()?;
    let weights =
        files.iter().find(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    let weights = weights.ok_or("expected the golden UNet as safetensors")?;
    let mut tensors = safetensors::load(weights, &Device::Cpu)?;
    tensors.insert("conv_in.weight".to_owned(), conv_in.clone());
    safetensors::save(&tensors, weights)?;
    Ok(AltDiffusion::from_source(&ModelSource::directory(directory), DType::F32, &Device::Cpu)?)
}

#[test]
fn they_are_those_of_diffusers() -> TestResult {
    let cases: Vec<Case> = golden_json("given_pictures.json");
    let tensors = golden_tensors("given_pictures.safetensors");
    let (image, mask) = given(&tensors)?;
    for model in MODELS {
        let directory = tempfile::tempdir()?;
        let plain = load(model, None, directory.path())?;
        let inpainting = load(model, tensors.get(&format!("{model}.conv_in.weight")), directory.path())?;
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
    let (image, _) = given(&golden_tensors("given_pictures.safetensors"))?;
    let pipeline = load(MODELS[0], None, Path::new(""))?;
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
    let (image, mask) = given(&golden_tensors("given_pictures.safetensors"))?;
    let tensors = golden_tensors("given_pictures.safetensors");
    let plain = load(MODELS[0], None, Path::new(""))?;
    let directory = tempfile::tempdir()?;
    let inpainting =
        load(MODELS[0], tensors.get(&format!("{}.conv_in.weight", MODELS[0])), directory.path())?;
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
        let message = pipeline.generate(&options).err().map(|error| error.to_string()).unwrap_or_default();
        for part in parts {
            assert!(message.contains(part), "expected {part:?} in {message:?}");
        }
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    Ok(())
}
