//! Compares the upscaler with golden values of PyTorch, and draws with it.

mod common;

use altdiffusion_pipeline::upscaler::{PixelShuffleUpscaler, UpscalerConfig};
use altdiffusion_pipeline::{
    AltDiffusion, Error, ErrorKind, GenerateOptions, ModelParts, ModelSource, to_images,
};
use candle_core::{DType, Device};
use candle_nn::{VarBuilder, VarMap};
use common::{assert_gradient_is_slope, model};
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};
use tempfile::TempDir;
use test_support::{
    MODULE_TOLERANCE, TestResult, assert_close, copy_directory, golden, golden_tensors, normal,
};

fn load(name: &str) -> PixelShuffleUpscaler {
    let (config, weights) = model::<UpscalerConfig>(&format!("upscaler/{name}"));
    PixelShuffleUpscaler::new(&config, weights).unwrap()
}

/// A model that draws, with an upscaler of factor 4.
fn model_with_upscaler() -> TestResult<(TempDir, ModelSource)> {
    let folder = tempfile::tempdir()?;
    copy_directory(&golden("alt_diffusion"), folder.path())?;
    copy_directory(&golden("upscaler/four"), &folder.path().join("upscaler"))?;
    let source = ModelSource::directory(folder.path());
    Ok((folder, source))
}

fn options() -> GenerateOptions {
    GenerateOptions::new("a cat").steps(1).guidance_scale(1.0).width(24).height(16).seed(1)
}

#[test]
fn enlarges_as_the_reference() {
    for name in ["four", "three"] {
        let golden = golden_tensors(&format!("upscaler/{name}/golden.safetensors"));
        let enlarged = load(name).forward(&golden["pixels"]).unwrap();
        assert_close(name, &enlarged, &golden["enlarged"], MODULE_TOLERANCE);
    }
}

#[test]
fn every_weight_can_be_trained() {
    let config = UpscalerConfig { hidden_channels: 4, num_hidden_layers: 1, scale_factor: 2 };
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let upscaler = PixelShuffleUpscaler::new(&config, vb).unwrap();
    let (pixels, expected) = (normal(1, &[2, 4, 5, 3]), normal(2, &[2, 8, 10, 3]));
    assert_gradient_is_slope(&variables, || {
        let enlarged = upscaler.forward_channels_last(&pixels).unwrap();
        (enlarged - &expected).unwrap().sqr().unwrap().mean_all().unwrap()
    });
}

#[test]
fn bad_configurations_and_tensors_are_named() {
    let (config, weights) = model::<UpscalerConfig>("upscaler/four");
    let message =
        |config: UpscalerConfig| PixelShuffleUpscaler::new(&config, weights.clone()).unwrap_err().to_string();
    for scale_factor in [0, 1, 9, usize::MAX] {
        let found = message(UpscalerConfig { scale_factor, ..config.clone() });
        assert!(found.contains("`scale_factor` is") && found.contains("2 to 8"), "{found}");
    }
    assert!(message(UpscalerConfig { hidden_channels: 0, ..config.clone() }).contains("`hidden_channels`"));
    assert!(message(UpscalerConfig { num_hidden_layers: usize::MAX, ..config.clone() }).contains("_layers`"));
    assert!(message(UpscalerConfig { num_hidden_layers: 3, ..config.clone() }).contains("convs.2"));
    assert!(message(UpscalerConfig { scale_factor: 3, ..config }).contains("conv_out"));
    let error = load("four").forward(&normal(0, &[1, 4, 2, 2])).unwrap_err();
    assert!(matches!(error, Error::Shape { tensor: "pixels", .. }), "{error}");
}

#[test]
fn drawn_images_are_enlarged_by_the_models_upscaler() -> TestResult {
    let (_folder, source) = model_with_upscaler()?;
    let pipeline = AltDiffusion::from_source(&source, DType::F32, &Device::Cpu)?;
    let small = &pipeline.generate(&options())?.images[0];
    let generated = pipeline.generate(&options().scale(4))?;
    assert_eq!(generated.latents.dims(), [1, 4, 2, 3]);
    let large = &generated.images[0];
    let upscaler = pipeline.upscaler()?.ok_or("the model has no upscaler")?;
    let values: Vec<f32> = small.as_raw().iter().map(|&byte| f32::from(byte) / 127.5 - 1.0).collect();
    let pixels = candle_core::Tensor::from_vec(values, (1, 16, 24, 3), &Device::Cpu)?;
    let expected = to_images(&upscaler.enlarge(&pixels.permute((0, 3, 1, 2))?.contiguous()?)?)?;
    assert_eq!(large.dimensions(), (96, 64));
    let difference = |a: &u8, b: &u8| a.abs_diff(*b);
    let largest = large.as_raw().iter().zip(expected[0].as_raw()).map(|(a, b)| difference(a, b)).max();
    // A sum in another order may round to the next level.
    assert!(largest <= Some(1), "{largest:?}");
    // Other factors come from there.
    let twice = &pipeline.generate(&options().scale(2))?.images[0];
    assert_eq!(*twice, imageops::resize(large, 48, 32, FilterType::Lanczos3));
    Ok(())
}

/// The edges of an image are computed as if it went on: a part of one colour gives the same wherever it is cut.
#[test]
fn edges_are_as_within_an_image() -> TestResult {
    let upscaler = load("four");
    let pixels = |side: usize| candle_core::Tensor::full(0.5f32, (1, 3, side, side), &Device::Cpu);
    let within = upscaler.forward(&pixels(24)?)?.narrow(2, 32, 32)?.narrow(3, 32, 32)?;
    assert_close("edges", &upscaler.enlarge(&pixels(8)?)?, &within, MODULE_TOLERANCE);
    Ok(())
}

#[test]
fn without_an_upscaler_images_are_interpolated() -> TestResult {
    let pipeline = common::load("alt_diffusion")?;
    let image = RgbImage::from_fn(6, 4, |x, y| Rgb([x as u8 * 40, y as u8 * 60, 128]));
    assert_eq!(pipeline.enlarge(vec![image.clone()], 1)?, std::slice::from_ref(&image));
    let large = imageops::resize(&image, 18, 12, FilterType::Lanczos3);
    assert_eq!(pipeline.enlarge(vec![image], 3)?, [large]);
    for scale in [0, 5, usize::MAX] {
        let error = pipeline.generate(&options().scale(scale)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        assert_eq!(error.to_string(), format!("scale: {scale}, expected a whole number from 1 to 4"));
    }
    Ok(())
}

/// Converting a model keeps the part, with its images.
#[test]
fn a_converted_model_keeps_its_upscaler() -> TestResult {
    let (folder, source) = model_with_upscaler()?;
    let converted = folder.path().join("converted");
    let mut go_on = |_: usize, _: usize| std::ops::ControlFlow::Continue(());
    ModelParts::in_folders(&source)?.write_folders(&converted, None, &mut go_on)?;
    let index = std::fs::read_to_string(converted.join("model_index.json"))?;
    assert!(index.contains("PixelShuffleUpscaler"), "{index}");
    let copy = ModelSource::directory(&converted);
    let draw = |source: &ModelSource| -> TestResult<RgbImage> {
        let pipeline = AltDiffusion::from_source(source, DType::F32, &Device::Cpu)?;
        Ok(pipeline.generate(&options().scale(4))?.images.remove(0))
    };
    assert_eq!(draw(&copy)?, draw(&source)?);
    Ok(())
}
