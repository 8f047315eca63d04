//! Compares the safety checker's flags with diffusers' `StableDiffusionSafetyChecker`.

use std::fs;
use std::path::{Path, PathBuf};

use altdiffusion_pipeline::{AltDiffusion, GenerateOptions, LoadOptions, ModelParts};
use candle_core::{DType, Device, safetensors};
use image::RgbImage;
use model_files::source::ModelSource;

type TestResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() { copy(&from, &to)? } else { fs::copy(&from, &to).map(|_| ())? }
    }
    Ok(())
}

/// A model with a safety checker.
fn model() -> TestResult<(tempfile::TempDir, ModelSource)> {
    let folder = tempfile::tempdir()?;
    copy(&golden("alt_diffusion"), folder.path())?;
    for part in ["safety_checker", "feature_extractor"] {
        copy(&golden("safety_checker").join(part), &folder.path().join(part))?;
    }
    let source = ModelSource::directory(folder.path());
    Ok((folder, source))
}

#[test]
fn the_reference_flags_the_same_images() -> TestResult {
    let tensors = safetensors::load(golden("safety_checker/golden.safetensors"), &Device::Cpu)?;
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
