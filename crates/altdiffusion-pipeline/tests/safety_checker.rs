//! Compares the safety checker's flags with diffusers' `StableDiffusionSafetyChecker`.

use std::fs;

use altdiffusion_pipeline::{AltDiffusion, GenerateOptions, LoadOptions, ModelParts};
use candle_core::{DType, Device};
use image::RgbImage;
use model_files::source::ModelSource;
use test_support::{TestResult, copy_directory, golden, golden_tensors};

/// A model with a safety checker.
fn model() -> TestResult<(tempfile::TempDir, ModelSource)> {
    let folder = tempfile::tempdir()?;
    copy_directory(&golden("alt_diffusion"), folder.path())?;
    for part in ["safety_checker", "feature_extractor"] {
        copy_directory(&golden("safety_checker").join(part), &folder.path().join(part))?;
    }
    let source = ModelSource::directory(folder.path());
    Ok((folder, source))
}

#[test]
fn the_reference_flags_the_same_images() -> TestResult {
    let tensors = golden_tensors("safety_checker/golden.safetensors");
    let (count, height, width, _) = tensors["pictures"].dims4()?;
    let bytes = tensors["pictures"].flatten_all()?.to_vec1::<u8>()?;
    let images = bytes
        .chunks_exact(bytes.len() / count)
        .map(|bytes| RgbImage::from_raw(width as u32, height as u32, bytes.to_vec()).ok_or("a size"))
        .collect::<Result<Vec<_>, _>>()?;
    let expected: Vec<bool> = tensors["flagged"].to_vec1::<u8>()?.into_iter().map(|flag| flag != 0).collect();

    let (_folder, source) = model()?;
    let pipeline = AltDiffusion::from_source(&source, DType::F32, &Device::Cpu)?;
    let checker = pipeline.safety_checker()?.ok_or("the model has no safety checker")?;
    assert_eq!(checker.check(&images)?, expected);
    Ok(())
}

/// Flagged images are black, and the others unchanged.
#[test]
fn flagged_images_are_black() -> TestResult {
    let (_folder, source) = model()?;
    let load = |checked: bool| {
        let options = LoadOptions::new(DType::F32, &Device::Cpu).safety_checker(checked);
        AltDiffusion::load(ModelParts::in_folders(&source)?, options)
    };
    let options =
        GenerateOptions::new("a cat").steps(1).guidance_scale(1.0).width(40).height(32).images(16).seed(1);
    let (plain, checked) = (load(false)?.generate(&options)?, load(true)?.generate(&options)?);
    assert_eq!(plain.flagged, None);
    let flagged = checked.flagged.ok_or("nothing was checked")?;
    assert!(flagged.contains(&true) && flagged.contains(&false), "{flagged:?}");
    for ((plain, checked), flagged) in plain.images.iter().zip(&checked.images).zip(flagged) {
        match flagged {
            true => assert!(checked.iter().all(|value| *value == 0)),
            false => assert_eq!(plain, checked),
        }
    }
    Ok(())
}

#[test]
fn a_damaged_checker_is_an_error() -> TestResult {
    let (folder, source) = model()?;
    fs::remove_file(folder.path().join("feature_extractor/preprocessor_config.json"))?;
    let error =
        AltDiffusion::from_source(&source, DType::F32, &Device::Cpu).err().map(|error| error.to_string());
    assert!(error.is_some_and(|error| error.contains("feature_extractor/preprocessor_config.json")));
    Ok(())
}
