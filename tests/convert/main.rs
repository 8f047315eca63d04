//! Tests `altdiffusion convert`, and models in one file.

#[path = "../common/mod.rs"]
mod common;
mod onnx;
mod quantized;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor, pickle, safetensors};
use common::{ModelCopy, altdiffusion, failed, golden_model, run, succeeded, tensor, tensors};
use tempfile::TempDir;
use test_support::{TestResult, golden, relative_error};

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
const VAE: &str = "vae/diffusion_pytorch_model.safetensors";
const TEXT_ENCODER: &str = "text_encoder/model.safetensors";

/// A temporary working directory.
struct Place(TempDir);

impl Place {
    fn new() -> TestResult<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    #[track_caller]
    fn convert(&self, arguments: &[&str]) -> TestResult<String> {
        Ok(succeeded(&run(self.0.path(), &[&["convert"], arguments].concat())?))
    }

    /// The program's complaint.
    #[track_caller]
    fn refused(&self, arguments: &[&str]) -> TestResult<String> {
        let before = fs::read_dir(self.0.path())?.count();
        let error = failed(run(self.0.path(), arguments)?)?;
        assert_eq!(fs::read_dir(self.0.path())?.count(), before, "something is left");
        Ok(error)
    }

    /// The latents of an image in two steps.
    #[track_caller]
    fn draw(&self, model: &[&str]) -> TestResult<Tensor> {
        let all = [
            &["generate", "一只猫", "--steps", "2", "--width", "64", "--height", "64", "--seed", "5"],
            &["--save-latents", "latents.safetensors", "--output", "out.png"][..],
            model,
        ];
        succeeded(&run(self.0.path(), &all.concat())?);
        tensor(&self.path("latents.safetensors"), "latents")
    }
}

/// The bytes of all tensors in a file.
type Contents = HashMap<String, (DType, Vec<usize>, Vec<u8>)>;

fn contents(path: &Path) -> TestResult<Contents> {
    let bytes = |tensor: &Tensor| -> candle_core::Result<Vec<u8>> {
        let flat = tensor.flatten_all()?;
        Ok(match tensor.dtype() {
            DType::I64 => flat.to_vec1::<i64>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
            _ => flat.to_vec1::<f32>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
        })
    };
    let read = if path.extension().is_some_and(|ending| ending == "safetensors") {
        tensors(path)?
    } else {
        pickle::read_all(path)?.into_iter().collect()
    };
    let mut all = HashMap::new();
    for (name, tensor) in read {
        all.insert(name, (tensor.dtype(), tensor.dims().to_vec(), bytes(&tensor)?));
    }
    Ok(all)
}

#[test]
fn there_and_back_are_the_same_bytes() -> TestResult {
    for model in ["alt_diffusion", "alt_diffusion_m18"] {
        let place = Place::new()?;
        let source = golden_model(model)?;
        let printed = place.convert(&[&source, "one.safetensors"])?;
        assert!(printed.starts_with("one.safetensors: ") && printed.ends_with(" tensors\n"), "{printed}");
        place.convert(&["one.safetensors", "folders", "--config", &source])?;
        for file in [UNET, VAE] {
            let (there, back) = (golden(model).join(file), place.path("folders").join(file));
            assert_eq!(contents(&there)?, contents(&back)?, "{file}");
        }
        let there = if model == "alt_diffusion" { TEXT_ENCODER } else { "text_encoder/pytorch_model.bin" };
        let back = place.path("folders").join(TEXT_ENCODER);
        assert_eq!(contents(&golden(model).join(there))?, contents(&back)?);
        // Converting from one file to folders and back gives the same bytes.
        place.convert(&["folders", "two.safetensors"])?;
        assert_eq!(fs::read(place.path("one.safetensors"))?, fs::read(place.path("two.safetensors"))?);
        // Each draws the same.
        let drawn = place.draw(&["--model", &source])?;
        let config = &["--model", "one.safetensors", "--config", &source];
        assert_eq!(relative_error(&place.draw(config)?, &drawn), 0.0);
        assert_eq!(relative_error(&place.draw(&["--model", "folders"])?, &drawn), 0.0);
    }
    Ok(())
}

#[test]
fn a_checkpoint_of_a_training_run_draws() -> TestResult {
    let place = Place::new()?;
    let config = golden_model("alt_diffusion_m18")?;
    let file = golden_model("single_file/m18.ckpt")?;
    let drawn = place.draw(&["--model", &config])?;
    assert_eq!(relative_error(&place.draw(&["--model", &file, "--config", &config])?, &drawn), 0.0);
    // The names are the reference's, and training state is left out.
    let printed = place.convert(&[&file, "m18.safetensors", "--config", &config])?;
    assert!(printed.contains("2 others left out: betas, model_ema.decay"), "{printed}");
    place.convert(&[&config, "ours.safetensors"])?;
    assert_eq!(contents(&place.path("m18.safetensors"))?, contents(&place.path("ours.safetensors"))?);
    Ok(())
}

#[test]
fn numbers_are_converted() -> TestResult {
    let place = Place::new()?;
    let source = golden_model("alt_diffusion")?;
    place.convert(&[&source, "half", "--dtype", "f16"])?;
    place.convert(&[&source, "one.safetensors", "--dtype", "bf16"])?;
    let half = tensors(&place.path("half").join(UNET))?;
    for (name, expected) in tensors(&golden("alt_diffusion").join(UNET))? {
        let found = half.get(&name).ok_or("a tensor is lost")?;
        assert_eq!(found.dtype(), DType::F16);
        let difference = (found - expected.to_dtype(DType::F16)?)?.to_dtype(DType::F32)?.abs()?;
        assert_eq!(difference.max_all()?.to_scalar::<f32>()?, 0.0, "{name}");
    }
    assert!(tensors(&place.path("one.safetensors"))?.values().all(|tensor| tensor.dtype() == DType::BF16));
    Ok(())
}

#[test]
fn weights_alone_keep_their_names() -> TestResult {
    let place = Place::new()?;
    let file = golden_model("alt_diffusion_m18/text_encoder/pytorch_model.bin")?;
    place.convert(&[&file, "model.safetensors"])?;
    assert_eq!(contents(Path::new(&file))?, contents(&place.path("model.safetensors"))?);
    let error = place.refused(&["convert", &file, "folders"])?;
    assert!(error.contains("only a part of a model"), "{error}");
    Ok(())
}

/// From a folder and from a file of its own, which also holds a tensor of its training, into a file and a folder.
#[test]
fn another_autoencoder_takes_the_place_of_the_models() -> TestResult {
    const OTHER: &str = "alt_diffusion_m18";
    let place = Place::new()?;
    let source = golden_model("alt_diffusion")?;
    let vae = golden_model("alt_diffusion_m18/vae")?;
    place.convert(&[&golden_model(OTHER)?, "other.safetensors"])?;

    place.convert(&[&source, "one.safetensors", "--vae", &vae])?;
    let written = contents(&place.path("one.safetensors"))?;
    let mut own = contents(&place.path("other.safetensors"))?;
    own.retain(|name, _| name.starts_with("first_stage_model."));
    assert!(!own.is_empty() && own.iter().all(|(name, tensor)| written.get(name) == Some(tensor)));

    place.convert(&[&source, "folders", "--vae", &vae])?;
    let there = golden(OTHER);
    assert_eq!(contents(&place.path("folders").join(VAE))?, contents(&there.join(VAE))?);
    let config = "vae/config.json";
    assert_eq!(fs::read(place.path("folders").join(config))?, fs::read(there.join(config))?);

    let mut alone: HashMap<String, Tensor> = tensors(&place.path("other.safetensors"))?
        .into_iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix("first_stage_model.")?.to_owned(), tensor)))
        .collect();
    alone.insert("loss.logvar".to_owned(), Tensor::zeros(1, DType::F32, &Device::Cpu)?);
    safetensors::save(&alone, place.path("alone.safetensors"))?;
    place.convert(&[&source, "model.safetensors"])?;
    let arguments = ["model.safetensors", "again", "--config", &source, "--vae", "alone.safetensors"];
    let printed = place.convert(&arguments)?;
    assert!(printed.ends_with("1 others left out: first_stage_model.loss.logvar\n"), "{printed}");
    assert_eq!(contents(&place.path("again").join(VAE))?, contents(&there.join(VAE))?);

    let unet = golden(OTHER).join(UNET).display().to_string();
    let error = place.refused(&["convert", &source, "x.safetensors", "--vae", &unet])?;
    assert!(error.contains("--vae: ") && error.contains("expected an autoencoder"), "{error}");
    let error = place.refused(&["convert", &unet, "x.safetensors", "--vae", &vae])?;
    assert!(error.contains("--vae: is for a whole model"), "{error}");
    Ok(())
}

#[test]
fn old_names_become_those_of_today() -> TestResult {
    let place = Place::new()?;
    let model = ModelCopy::of("alt_diffusion")?;
    model.change_tensors(VAE, |tensors| {
        for (today, old) in [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")]
        {
            for half in ["encoder", "decoder"] {
                for kind in ["weight", "bias"] {
                    let name = |layer| format!("{half}.mid_block.attentions.0.{layer}.{kind}");
                    if let Some(mut tensor) = tensors.remove(&name(today)) {
                        if kind == "weight" && half == "decoder" {
                            tensor = tensor.unsqueeze(2)?.unsqueeze(3)?;
                        }
                        tensors.insert(name(old), tensor);
                    }
                }
            }
        }
        Ok(())
    })?;
    place.convert(&[&model.argument(), "folders"])?;
    let today = golden("alt_diffusion").join(VAE);
    assert_eq!(contents(&place.path("folders").join(VAE))?, contents(&today)?);
    place.convert(&[&model.argument(), "one.safetensors"])?;
    let one = tensors(&place.path("one.safetensors"))?;
    let query = one.get("first_stage_model.encoder.mid.attn_1.q.weight").ok_or("no query")?;
    assert_eq!(query.dims()[2..], [1, 1]);
    Ok(())
}

#[test]
fn what_is_missing_is_said_in_one_line() -> TestResult {
    let place = Place::new()?;
    let source = golden_model("alt_diffusion")?;
    place.convert(&[&source, "one.safetensors"])?;
    let draw = ["generate", "a cat", "--model", "one.safetensors"];
    let error = place.refused(&draw)?;
    assert!(error.contains("--config BAAI/AltDiffusion-m9"), "{error}");
    let error = place.refused(&["convert", "one.safetensors", "folders"])?;
    assert!(error.contains("--config BAAI/AltDiffusion-m9"), "{error}");
    let vae = golden_model("alt_diffusion/vae/diffusion_pytorch_model.safetensors")?;
    let error = place.refused(&["generate", "a cat", "--model", &vae, "--config", &source])?;
    assert!(error.contains("found no tensor model.diffusion_model.*"), "{error}");
    let error = place.refused(&["generate", "a cat", "--model", &source, "--config", &source])?;
    assert!(error.contains("--config"), "{error}");
    let error = place.refused(&["convert", &source, "one.safetensors/x"])?;
    assert!(error.contains("one.safetensors"), "{error}");
    // An existing directory is not written into.
    fs::create_dir(place.path("there"))?;
    let error = place.refused(&["convert", &source, "there"])?;
    assert!(error.contains("is there already"), "{error}");
    Ok(())
}

#[test]
fn a_failed_conversion_leaves_nothing() -> TestResult {
    let place = Place::new()?;
    let model = ModelCopy::of("alt_diffusion")?;
    model.change_tensors(VAE, |tensors| {
        let large = Tensor::full(1e6f32, 3, &Device::Cpu)?;
        tensors.insert("decoder.conv_out.bias".to_owned(), large);
        Ok(())
    })?;
    for output in ["half", "half.safetensors"] {
        let error = place.refused(&["convert", &model.argument(), output, "--dtype", "f16"])?;
        assert!(error.contains("decoder.conv_out.bias holds 1000000, which f16 cannot"), "{error}");
    }
    // bf16 holds it.
    place.convert(&[&model.argument(), "bf16.safetensors", "--dtype", "bf16"])?;
    Ok(())
}

#[test]
fn variants_are_read_when_asked_for_or_alone() -> TestResult {
    let place = Place::new()?;
    let source = golden_model("alt_diffusion")?;
    place.convert(&[&source, "half", "--dtype", "f16"])?;
    place.convert(&[&source, "both"])?;
    place.convert(&[&source, "alone"])?;
    for file in [UNET, VAE, TEXT_ENCODER] {
        let variant = file.replace(".safetensors", ".fp16.safetensors");
        for model in ["both", "alone"] {
            fs::copy(place.path("half").join(file), place.path(model).join(&variant))?;
        }
        fs::remove_file(place.path("alone").join(file))?;
    }
    let half = place.draw(&["--model", "half"])?;
    let full = place.draw(&["--model", &source])?;
    assert!(relative_error(&half, &full) > 0.0, "rounding changes nothing, and the test tells nothing");
    assert_eq!(relative_error(&place.draw(&["--model", "both"])?, &full), 0.0);
    assert_eq!(relative_error(&place.draw(&["--model", "both", "--variant", "fp16"])?, &half), 0.0);
    assert_eq!(relative_error(&place.draw(&["--model", "alone"])?, &half), 0.0);
    place.convert(&["both", "one.safetensors", "--variant", "fp16"])?;
    assert!(tensors(&place.path("one.safetensors"))?.values().all(|tensor| tensor.dtype() == DType::F16));

    let error = place.refused(&["convert", &source, "x.safetensors", "--variant", "fp16"])?;
    assert!(error.contains("no file text_encoder/model.fp16.safetensors"), "{error}");
    let error = place.refused(&["convert", &source, "x.safetensors", "--variant", "../x"])?;
    assert!(error.contains("--variant") && error.contains("expected a name such as fp16"), "{error}");
    let error = place.refused(&["convert", "one.safetensors", "x.safetensors", "--variant", "fp16"])?;
    assert!(error.contains("--variant: is for a SOURCE in folders"), "{error}");
    Ok(())
}

#[test]
fn a_damaged_file_is_named() -> TestResult {
    let place = Place::new()?;
    fs::write(place.path("bad.ckpt"), b"PK\x03\x04 nothing")?;
    let output = altdiffusion(place.0.path()).args(["convert", "bad.ckpt", "x.safetensors"]).output()?;
    let stderr = String::from_utf8(output.stderr)?;
    assert!(stderr.starts_with("error: bad.ckpt: "), "{stderr}");
    assert_eq!(fs::read_dir(place.0.path())?.count(), 1);
    Ok(())
}
