//! Gives a model another model's autoencoder, and compares what it decodes with golden values of diffusers 0.31.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

use altdiffusion_pipeline::ModelParts;
use altdiffusion_pipeline::vae::AutoencoderKl;
use candle_core::{DType, Device, safetensors};
use model_files::source::ModelSource;
use test_support::{MODULE_TOLERANCE, TestResult, error_message, golden, golden_tensors, relative_error};

/// The model, and the one whose autoencoder it gets, which has other widths and another factor.
const MODEL: &str = "alt_diffusion";
const OTHER: &str = "alt_diffusion_m18";
/// The factors of latents of both.
const FACTOR: f64 = 0.18215;
const OTHER_FACTOR: f64 = 0.2;

fn parts(model: &str) -> TestResult<ModelParts> {
    Ok(ModelParts::in_folders(&ModelSource::directory(golden(model)))?)
}

fn text(path: &Path) -> TestResult<&str> {
    path.to_str().ok_or_else(|| "a path that is no text".into())
}

/// Writes a model in one file.
fn write(parts: &ModelParts, path: &Path) -> TestResult {
    parts.write_single_file(path, None, &mut |_, _| ControlFlow::Continue(()))?;
    Ok(())
}

/// Checks that it is the other model's autoencoder.
fn check(what: &str, vae: &AutoencoderKl, factor: f64) {
    let golden = golden_tensors("vae.safetensors");
    let value = |name: &str| &golden[&format!("{OTHER}.wide.{name}")];
    let decoded = vae.decode(value("latents")).unwrap();
    let error = relative_error(&decoded, value("decoded"));
    assert!(error <= MODULE_TOLERANCE, "{what}: {error:.1e}");
    let mean = vae.encode(value("picture")).unwrap().mode().clone();
    assert!(relative_error(&mean, value("mean")) <= MODULE_TOLERANCE, "{what}");
    assert_eq!(vae.scaling_factor(), factor, "{what}");
}

#[test]
fn every_form_is_read() -> TestResult {
    let place = tempfile::tempdir()?;
    let path = |name: &str| place.path().join(name);
    let other = golden(OTHER);
    // In latent diffusion's names, within a model and alone; and in diffusers', away from its configuration.
    write(&parts(OTHER)?, &path("whole.safetensors"))?;
    let whole = safetensors::load(path("whole.safetensors"), &Device::Cpu)?;
    let alone = whole
        .into_iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix("first_stage_model.")?.to_owned(), tensor)));
    std::fs::create_dir(path("folder"))?;
    safetensors::save(&alone.collect::<HashMap<_, _>>(), path("folder/alone.safetensors"))?;
    let weights = other.join("vae/diffusion_pytorch_model.safetensors");
    std::fs::copy(&weights, path("renamed.safetensors"))?;
    for (vae, factor) in [
        (other.join("vae"), OTHER_FACTOR),
        (other.clone(), OTHER_FACTOR),
        (weights, OTHER_FACTOR),
        (path("whole.safetensors"), OTHER_FACTOR),
        (path("folder/alone.safetensors"), FACTOR),
        (path("folder"), FACTOR),
        (path("renamed.safetensors"), FACTOR),
    ] {
        let name = text(&vae)?;
        let parts = parts(MODEL)?.with_vae(name)?;
        check(name, &parts.load_vae(DType::F32, &Device::Cpu)?, factor);
    }
    Ok(())
}

/// In one file, it replaces the file's own, also where the model is written again. Images still name the model alike.
#[test]
fn it_replaces_the_one_in_a_file() -> TestResult {
    let place = tempfile::tempdir()?;
    let path = |name: &str| place.path().join(name);
    let source = ModelSource::directory(golden(MODEL));
    write(&parts(MODEL)?, &path("model.safetensors"))?;
    let own = ModelParts::in_single_file(&path("model.safetensors"), Some(&source))?;
    let hash = own.hasher()()?;
    let changed = own.with_vae(text(&golden(OTHER).join("vae"))?)?;
    assert_eq!(changed.hasher()()?, hash);
    write(&changed, &path("changed.safetensors"))?;
    let again = ModelParts::in_single_file(&path("changed.safetensors"), Some(&source))?;
    check("in a file", &again.load_vae(DType::F32, &Device::Cpu)?, OTHER_FACTOR);
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused() -> TestResult {
    let unet = golden(MODEL).join("unet/diffusion_pytorch_model.safetensors");
    for (vae, problem) in [
        (
            golden("variants/vae_three_levels"),
            "expected an autoencoder for this model, with 4 channels of latents, found 3",
        ),
        (unet, "expected an autoencoder of diffusers (AutoencoderKL) or latent diffusion"),
        (golden("none.safetensors"), "no such file, expected an autoencoder"),
    ] {
        let error = error_message(parts(MODEL)?.with_vae(text(&vae)?));
        assert!(error.contains(problem) && !error.contains('\n'), "{error}");
    }
    Ok(())
}
