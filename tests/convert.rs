//! `altdiffusion convert`, and models in one file, through the program itself.

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor, pickle, safetensors};
use common::{
    ModelCopy, TestResult, altdiffusion, golden, golden_model, relative_error, run, succeeded, tensor,
    tensors,
};
use tempfile::TempDir;

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
const VAE: &str = "vae/diffusion_pytorch_model.safetensors";
const TEXT_ENCODER: &str = "text_encoder/model.safetensors";

/// A place to work in.
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

    /// What the program complains of.
    #[track_caller]
    fn refused(&self, arguments: &[&str]) -> TestResult<String> {
        let before = fs::read_dir(self.0.path())?.count();
        let output = run(self.0.path(), arguments)?;
        let stderr = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert_eq!(fs::read_dir(self.0.path())?.count(), before, "something is left");
        Ok(stderr)
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

/// The bytes of all tensors of a file.
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
        let said = place.convert(&[&source, "one.safetensors"])?;
        assert!(said.starts_with("one.safetensors: ") && said.ends_with(" tensors\n"), "{said}");
        place.convert(&["one.safetensors", "folders", "--config", &source])?;
        for file in [UNET, VAE] {
            let (there, back) = (golden(model).join(file), place.path("folders").join(file));
            assert_eq!(contents(&there)?, contents(&back)?, "{file}");
        }
        let there = if model == "alt_diffusion" { TEXT_ENCODER } else { "text_encoder/pytorch_model.bin" };
        let back = place.path("folders").join(TEXT_ENCODER);
        assert_eq!(contents(&golden(model).join(there))?, contents(&back)?);
        // And once more, from one file to one file by way of the folders, byte for byte.
        place.convert(&["folders", "two.safetensors"])?;
        assert_eq!(fs::read(place.path("one.safetensors"))?, fs::read(place.path("two.safetensors"))?);
        // It draws the same in each.
        let drawn = place.draw(&["--model", &source])?;
        let config = &["--model", "one.safetensors", "--config", &source];
        assert_eq!(relative_error(&place.draw(config)?, &drawn)?, 0.0);
        assert_eq!(relative_error(&place.draw(&["--model", "folders"])?, &drawn)?, 0.0);
    }
    Ok(())
}

#[test]
fn a_checkpoint_of_a_training_run_draws() -> TestResult {
    let place = Place::new()?;
    let config = golden_model("alt_diffusion_m18")?;
    let file = golden_model("single_file/m18.ckpt")?;
    let drawn = place.draw(&["--model", &config])?;
    assert_eq!(relative_error(&place.draw(&["--model", &file, "--config", &config])?, &drawn)?, 0.0);
    // The names are those of the reference, and what belongs to the training is left out.
    let said = place.convert(&[&file, "m18.safetensors", "--config", &config])?;
    assert!(said.contains("2 others left out: betas, model_ema.decay"), "{said}");
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
    // A directory that is there is not written into.
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
    // bf16 can.
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
    assert!(relative_error(&half, &full)? > 0.0, "rounding changes nothing, and the test tells nothing");
    assert_eq!(relative_error(&place.draw(&["--model", "both"])?, &full)?, 0.0);
    assert_eq!(relative_error(&place.draw(&["--model", "both", "--variant", "fp16"])?, &half)?, 0.0);
    assert_eq!(relative_error(&place.draw(&["--model", "alone"])?, &half)?, 0.0);
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

/// The cosines that a conversion has printed.
fn cosines(said: &str) -> TestResult<Vec<f64>> {
    let of_line = |line: &str| Some(line.split("cosine ").nth(1)?.split(',').next()?.to_owned());
    Ok(said.lines().filter_map(of_line).map(|cosine| cosine.parse()).collect::<Result<_, _>>()?)
}

#[test]
fn blocks_draw_nearly_the_same() -> TestResult {
    let place = Place::new()?;
    // A model that was trained, and whose rows are whole blocks of 32.
    let source = format!("{}/models/emoji", env!("CARGO_MANIFEST_DIR"));
    let drawn = place.draw(&["--model", &source])?;
    for (dtype, bits) in [("q8_0", 8), ("q5_0", 5), ("q4_0", 4)] {
        let said = place.convert(&[&source, "one.gguf", "--dtype", dtype])?;
        assert!(said.starts_with("one.gguf: 529 tensors\n"), "{said}");
        // The largest number of a block is 2^(bits − 1) steps, and of 32 normal numbers it is about twice their root mean
        // square. Rounding is uniform over a step, which makes the error 1/√12 of one: relative to the numbers, and so to
        // what a layer computes from them, 2 / (2^(bits − 1) √12). A path through the model has some 64 layers, whose
        // errors add up by their squares.
        let tolerance = 64f64.sqrt() * 2.0 / (f64::from(1 << (bits - 1)) * 12f64.sqrt());
        let cosines = cosines(&said)?;
        assert_eq!(cosines.len(), 4, "{said}");
        for cosine in cosines {
            // 1 − cos is half the square of a small angle.
            assert!(cosine < 1.0 && cosine > 1.0 - tolerance * tolerance / 2.0, "{dtype}: {said}");
        }
        let config = ["--model", "one.gguf", "--config", &source];
        let error = f64::from(relative_error(&place.draw(&config)?, &drawn)?);
        assert!(error > 0.0 && error < tolerance, "{dtype}: {error}, at most {tolerance} expected");
    }
    Ok(())
}

#[test]
fn a_gguf_file_of_numbers_is_the_model() -> TestResult {
    let place = Place::new()?;
    let source = golden_model("alt_diffusion")?;
    place.convert(&[&source, "one.gguf"])?;
    // With its configurations: there is no other.
    place.convert(&["one.gguf", "back.safetensors"])?;
    place.convert(&[&source, "one.safetensors"])?;
    assert_eq!(fs::read(place.path("back.safetensors"))?, fs::read(place.path("one.safetensors"))?);
    let drawn = place.draw(&["--model", &source])?;
    let from_file = place.draw(&["--model", "one.gguf", "--config", &source])?;
    assert_eq!(relative_error(&from_file, &drawn)?, 0.0);
    Ok(())
}

#[test]
fn blocks_become_numbers_again() -> TestResult {
    let place = Place::new()?;
    let source = golden_model("alt_diffusion")?;
    place.convert(&[&source, "one.gguf", "--dtype", "q8_0", "--skip-loss"])?;
    place.convert(&["one.gguf", "one.safetensors"])?;
    // The layers compute with the same numbers, in the same order up to the length of a part.
    let blocks = place.draw(&["--model", "one.gguf", "--config", &source])?;
    let numbers = place.draw(&["--model", "one.safetensors", "--config", &source])?;
    let error = relative_error(&blocks, &numbers)?;
    assert!(error < 1e-4, "{error}");
    // The same blocks, not new ones of the numbers.
    place.convert(&["one.gguf", "two.gguf", "--dtype", "q8_0", "--skip-loss"])?;
    assert_eq!(fs::read(place.path("one.gguf"))?, fs::read(place.path("two.gguf"))?);
    Ok(())
}

#[test]
fn what_blocks_a_file_has_is_told() -> TestResult {
    let place = Place::new()?;
    let source = golden_model("alt_diffusion")?;
    let said = place.convert(&[&source, "one.gguf", "--dtype", "q4_k"])?;
    assert!(said.contains(" of them as q8_0 because their rows are no whole blocks"), "{said}");
    let said = succeeded(&run(place.0.path(), &["inspect", "one.gguf"])?);
    for expected in ["AltDiffusion pipeline in one file", "q8_0 × ", "F32 × ", "unet", "text_encoder", "vae"]
    {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let said = succeeded(&run(place.0.path(), &["inspect", "one.gguf", "--json"])?);
    assert!(said.contains("\"missing\": []") && said.contains("\"misshapen\": []"), "{said}");
    Ok(())
}

/// The emoji model, which has an image encoder.
#[test]
fn folders_hold_parts_in_blocks() -> TestResult {
    let place = Place::new()?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/emoji").display().to_string();
    let said = place.convert(&[&source, "folders", "--dtype", "q8_0"])?;
    assert!(said.contains("the UNet's output beside that of"), "{said}");
    for (there, absent) in [
        ("unet/diffusion_pytorch_model.gguf", "unet/diffusion_pytorch_model.safetensors"),
        ("text_encoder/model.gguf", "text_encoder/model.safetensors"),
        ("image_encoder/model.gguf", "image_encoder/model.safetensors"),
        ("vae/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.gguf"),
        ("feature_extractor/preprocessor_config.json", "safety_checker/config.json"),
    ] {
        assert!(place.path("folders").join(there).exists(), "{there}");
        assert!(!place.path("folders").join(absent).exists(), "{absent}");
    }
    // The same blocks as in one file, and so the same images.
    place.convert(&[&source, "one.gguf", "--dtype", "q8_0", "--skip-loss"])?;
    let draw = |arguments: &[&str]| -> TestResult<Vec<u8>> {
        let all =
            [&["generate", "一只猫", "--steps", "2", "--seed", "3", "-o", "out.png", "--model"], arguments]
                .concat();
        let output = run(place.0.path(), &all)?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(image::open(place.path("out.png"))?.into_rgb8().into_raw())
    };
    assert!(draw(&["folders"])? == draw(&["one.gguf", "--config", &source])?, "other images");
    // Images and texts are embedded with it as well, and it can be converted on.
    let compared =
        run(place.0.path(), &["similarity", "--model", "folders", "--image", "out.png", "--text", "猫"])?;
    assert!(compared.status.success(), "{}", String::from_utf8_lossy(&compared.stderr));
    place.convert(&["folders", "plain", "--dtype", "f16"])?;
    place.convert(&["folders", "again"])?;
    let blocks = |folder: &str| fs::read(place.path(folder).join("unet/diffusion_pytorch_model.gguf"));
    assert!(blocks("folders")? == blocks("again")?, "other blocks");
    Ok(())
}

/// What is in the program is made by `scripts/embed-model.sh`.
#[test]
fn the_model_in_the_program_is_that_beside_it() -> TestResult {
    let place = Place::new()?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/emoji");
    place.convert(&[&source.display().to_string(), "blocks", "--dtype", "q5_1", "--skip-loss"])?;
    for (part, file) in [
        ("text_encoder", "model.gguf"),
        ("unet", "diffusion_pytorch_model.gguf"),
        ("image_encoder", "model.gguf"),
    ] {
        let embedded = fs::read(source.join("embedded").join(part).with_extension("gguf"))?;
        assert!(embedded == fs::read(place.path("blocks").join(part).join(file))?, "{part}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_in_blocks_is_said_in_one_line() -> TestResult {
    let place = Place::new()?;
    let source = golden_model("alt_diffusion")?;
    let error = place.refused(&["convert", &source, "one.safetensors", "--dtype", "q8_0"])?;
    assert!(error.contains("--dtype q8_0: only GGUF files hold blocks"), "{error}");
    let output = run(place.0.path(), &["convert", &source, "one.gguf", "--dtype", "q9"])?;
    let error = String::from_utf8(output.stderr)?;
    assert!(error.contains("'q9'") && error.contains("expected one of f32, f16, bf16, q4_0"), "{error}");
    assert_eq!(output.status.code(), Some(2));

    place.convert(&[&source, "one.gguf", "--dtype", "q4_0", "--skip-loss"])?;
    let bytes = fs::read(place.path("one.gguf"))?;
    fs::write(place.path("cut.gguf"), &bytes[..bytes.len() / 2])?;
    let error = place.refused(&["generate", "a cat", "--model", "cut.gguf", "--config", &source])?;
    assert!(error.starts_with("error: cut.gguf: the file is truncated: tensor "), "{error}");
    let text_encoder = golden_model("alt_diffusion/text_encoder/model.safetensors")?;
    let error = place.refused(&["convert", &text_encoder, "part.gguf", "--dtype", "q8_0"])?;
    assert!(error.contains("only a part of a model"), "{error}");

    // A language model.
    let mut llama = b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    let name = b"blk.0.attn_q.weight";
    llama.extend((name.len() as u64).to_le_bytes());
    llama.extend(name);
    llama.extend(1u32.to_le_bytes());
    llama.extend(32u64.to_le_bytes());
    llama.extend(8u32.to_le_bytes());
    llama.resize(llama.len().next_multiple_of(32) + 64, 0);
    fs::write(place.path("llama.gguf"), llama)?;
    for arguments in
        [&["generate", "a cat", "--model", "llama.gguf", "--config", &source][..], &["inspect", "llama.gguf"]]
    {
        let error = place.refused(arguments)?;
        assert!(error.starts_with("error: llama.gguf: holds no UNet: expected a whole model"), "{error}");
    }
    Ok(())
}

/// To blocks nothing can be added, so that a LoRA is computed beside them: as if it were merged into their numbers.
#[test]
fn a_lora_goes_with_blocks() -> TestResult {
    let place = Place::new()?;
    let source = format!("{}/models/emoji", env!("CARGO_MANIFEST_DIR"));
    let normal = |shape: &[usize]| Tensor::randn(0f32, 1.5, shape, &Device::Cpu);
    let layer = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_v";
    let lora = [("lora_A", normal(&[2, 128])?), ("lora_B", normal(&[128, 2])?)];
    let lora = lora.map(|(role, matrix)| (format!("{layer}.{role}.weight"), matrix));
    safetensors::save(&lora.into_iter().collect(), place.path("lora.safetensors"))?;

    place.convert(&[&source, "blocks.gguf", "--dtype", "q8_0", "--skip-loss"])?;
    place.convert(&["blocks.gguf", "numbers.safetensors", "--dtype", "f32"])?;
    let draw =
        |model: &str, with: &[&str]| place.draw(&[&["--model", model, "--config", &source], with].concat());
    let with: &[&str] = &["--lora", "lora.safetensors"];
    let (beside, merged) = (draw("blocks.gguf", with)?, draw("numbers.safetensors", with)?);
    let error = relative_error(&beside, &merged)?;
    assert!(error < 1e-4, "{error:e}");
    assert!(relative_error(&beside, &draw("blocks.gguf", &[])?)? > 0.01);
    Ok(())
}
