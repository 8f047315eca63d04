//! Bad input ends in one line that says what was wrong and where, in exit code 1 (2 for options that cannot be), and
//! leaves nothing behind. Everything goes through the program itself.

mod common;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;

use candle_core::{DType, Device, Tensor, safetensors};
use common::{ModelCopy, TestResult, altdiffusion, golden, golden_model, run, run_with_input};
use tempfile::TempDir;

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
const VAE: &str = "vae/diffusion_pytorch_model.safetensors";
const TEXT_ENCODER: &str = "text_encoder/model.safetensors";
const PICKLE: &str = "text_encoder/pytorch_model.bin";
const TOKENIZER: &str = "tokenizer/sentencepiece.bpe.model";
const SCHEDULER: &str = "scheduler/scheduler_config.json";

/// Asserts that the program gave up with `code` and a line that holds all of `parts`.
#[track_caller]
fn refused(output: &Output, code: i32, parts: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    let line = stderr.lines().next().unwrap_or_default();
    assert!(line.starts_with("error: "), "{stderr}");
    for part in parts {
        assert!(line.contains(part), "no {part:?} in {stderr}");
    }
    // Clap adds a hint to its line.
    let others = stderr.lines().skip(1).filter(|line| !line.is_empty());
    let unexpected: Vec<_> = others.filter(|line| code == 1 || !line.contains("--help")).collect();
    assert!(unexpected.is_empty(), "{stderr}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A directory to write into, of which nothing must be made.
struct Place(TempDir);

impl Place {
    fn new() -> TestResult<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Tries to draw with a model.
    #[track_caller]
    fn generate_refused(&self, model: &str, arguments: &[&str], code: i32, parts: &[&str]) -> TestResult {
        let all = [&["generate", "a cat", "--model", model], arguments].concat();
        self.refused(&all, code, parts)
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], code: i32, parts: &[&str]) -> TestResult {
        let files = || -> TestResult<usize> { Ok(fs::read_dir(self.path())?.count()) };
        let before = files()?;
        refused(&run(self.path(), arguments)?, code, parts);
        assert_eq!(files()?, before, "{arguments:?} left a file behind");
        Ok(())
    }
}

/// What happens with a copy of a tiny model to which this was done.
#[track_caller]
fn damaged(name: &str, damage: impl FnOnce(&ModelCopy) -> TestResult, parts: &[&str]) -> TestResult {
    let model = ModelCopy::of(name)?;
    damage(&model)?;
    Place::new()?.generate_refused(&model.argument(), &["--steps", "1"], 1, parts)
}

#[test]
fn a_model_that_is_nowhere() -> TestResult {
    let place = Place::new()?;
    place.generate_refused("no/such/model", &[], 1, &["no/such/model", "no such directory"])?;
    fs::write(place.path().join("model.ckpt"), "a file")?;
    place.generate_refused("model.ckpt", &[], 1, &["model.ckpt", "holds no tokenizer", "--config"])?;
    let golden = golden_model("alt_diffusion")?;
    let arguments = ["--config", golden.as_str()];
    place.generate_refused("model.ckpt", &arguments, 1, &["model.ckpt"])
}

#[test]
fn a_missing_file_is_named() -> TestResult {
    for file in [
        UNET,
        VAE,
        TEXT_ENCODER,
        TOKENIZER,
        SCHEDULER,
        "unet/config.json",
        "vae/config.json",
        "text_encoder/config.json",
    ] {
        let remove = |model: &ModelCopy| Ok(fs::remove_file(model.path(file))?);
        let (folder, name) = file.split_once('/').ok_or("a file in a folder")?;
        // Weights go by several names, of which the error tells the first.
        let name = if name.starts_with("diffusion_pytorch_model") { "model.safetensors" } else { name };
        damaged("alt_diffusion", remove, &[folder, name])?;
    }
    Ok(())
}

#[test]
fn a_damaged_safetensors_file_is_named() -> TestResult {
    for file in [UNET, VAE, TEXT_ENCODER] {
        for length in [0, 4, 100, 20_000] {
            let truncate = |model: &ModelCopy| model.change(file, |bytes| bytes.truncate(length));
            damaged("alt_diffusion", truncate, &[file])?;
        }
        damaged(
            "alt_diffusion",
            |model| {
                model.change(file, |bytes| {
                    bytes.pop();
                })
            },
            &[file],
        )?;
        damaged("alt_diffusion", |model| model.change(file, |bytes| bytes[..16].fill(0xff)), &[file])?;
        damaged("alt_diffusion", |model| model.change(file, |bytes| bytes[8..40].fill(b'{')), &[file])?;
    }
    Ok(())
}

#[test]
fn a_damaged_pickle_is_named() -> TestResult {
    const MODEL: &str = "alt_diffusion_m18";
    for keep in [0, 10, 3_000, 100_000] {
        let truncate = |model: &ModelCopy| model.change(PICKLE, |bytes| bytes.truncate(keep));
        damaged(MODEL, truncate, &[PICKLE])?;
    }
    damaged(
        MODEL,
        |model| {
            model.change(PICKLE, |bytes| {
                bytes.pop();
            })
        },
        &[PICKLE],
    )?;
    damaged(MODEL, |model| model.change(PICKLE, |bytes| bytes.fill(b'P')), &[PICKLE])
}

#[test]
fn a_pickle_is_not_executed() -> TestResult {
    let model = ModelCopy::of("alt_diffusion_m18")?;
    let malicious =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/altclip-encoder/tests/data/malicious.bin");
    fs::write(model.path(PICKLE), fs::read(malicious)?)?;
    // What it would make, would be made here, and is counted.
    Place::new()?.generate_refused(&model.argument(), &[], 1, &[PICKLE, "posix.system"])
}

#[test]
fn a_config_that_contradicts_the_weights() -> TestResult {
    for (file, old, new, parts) in [
        ("unet/config.json", "\"layers_per_block\": ", "\"layers_per_block\": 1", ["unet", "tensor"]),
        (
            "unet/config.json",
            "\"cross_attention_dim\": 20",
            "\"cross_attention_dim\": 24",
            ["cross_attention_dim", "24"],
        ),
        ("unet/config.json", "\"in_channels\": 4", "\"in_channels\": 5", ["unet", "5"]),
        ("vae/config.json", "\"latent_channels\": 4", "\"latent_channels\": 6", ["vae", "6"]),
        ("text_encoder/config.json", "\"vocab_size\": 3002", "\"vocab_size\": 4000", [TEXT_ENCODER, "4000"]),
        ("text_encoder/config.json", "\"project_dim\": 20", "\"project_dim\": 24", ["project_dim", "24"]),
    ] {
        damaged("alt_diffusion", |model| model.replace(file, old, new), &parts)?;
    }
    Ok(())
}

#[test]
fn a_config_that_cannot_be() -> TestResult {
    for (file, old, new, parts) in [
        ("unet/config.json", "{", "{,", ["unet/config.json", "line 1"]),
        (
            "unet/config.json",
            "\"layers_per_block\": ",
            "\"layers_per_block\": -",
            ["unet/config.json", "layers_per_block"],
        ),
        ("unet/config.json", "DownBlock2D", "UpsideDownBlock2D", ["down_block_types", "UpsideDownBlock2D"]),
        ("vae/config.json", "\"latent_channels\": 4", "\"latent_channels\": 0", ["latent_channels", "0"]),
        (
            "vae/config.json",
            "\"latent_channels\": 4",
            "\"latent_channels\": \"4\"",
            ["vae/config.json", "latent_channels"],
        ),
        (
            "text_encoder/config.json",
            "\"vocab_size\": ",
            "\"vocab_size\": -",
            ["text_encoder/config.json: vocab_size", "`-3002`"],
        ),
        (SCHEDULER, "PNDMScheduler", "MagicScheduler", [SCHEDULER, "MagicScheduler"]),
        (SCHEDULER, "scaled_linear", "crooked", [SCHEDULER, "crooked"]),
        (
            SCHEDULER,
            "\"num_train_timesteps\": 1000",
            "\"num_train_timesteps\": 0",
            [SCHEDULER, "num_train_timesteps"],
        ),
    ] {
        damaged("alt_diffusion", |model| model.replace(file, old, new), &parts)?;
    }
    Ok(())
}

#[test]
fn a_missing_or_wrongly_shaped_tensor_is_named() -> TestResult {
    for (file, name) in [
        (UNET, "conv_in.weight"),
        (VAE, "decoder.conv_out.bias"),
        (TEXT_ENCODER, "roberta.embeddings.word_embeddings.weight"),
    ] {
        let remove = |model: &ModelCopy| {
            model.change_tensors(file, |tensors| {
                tensors.remove(name);
                Ok(())
            })
        };
        damaged("alt_diffusion", remove, &[file, name])?;
        let reshape = |model: &ModelCopy| {
            model.change_tensors(file, |tensors| {
                let wrong = Tensor::zeros((3, 5), DType::F32, &Device::Cpu)?;
                tensors.insert(name.to_owned(), wrong);
                Ok(())
            })
        };
        damaged("alt_diffusion", reshape, &[file, name, "[3, 5]", "expected"])?;
    }
    Ok(())
}

#[test]
fn weights_that_are_no_numbers() -> TestResult {
    for (file, name, part) in [(UNET, "conv_in.bias", "step 1"), (VAE, "decoder.conv_in.bias", "picture")] {
        let poison = |model: &ModelCopy| {
            model.change_tensors(file, |tensors| {
                let nan = tensors.get(name).map(|tensor| tensor * f64::NAN).transpose()?;
                tensors.extend(nan.map(|nan| (name.to_owned(), nan)));
                Ok(())
            })
        };
        damaged("alt_diffusion", poison, &["not finite", part])?;
    }
    Ok(())
}

#[test]
fn a_damaged_tokenizer_is_named() -> TestResult {
    let file = "sentencepiece.bpe.model";
    damaged("alt_diffusion", |model| model.change(TOKENIZER, |bytes| bytes.truncate(1_000)), &[file])?;
    damaged("alt_diffusion", |model| model.change(TOKENIZER, Vec::clear), &[file])?;
    damaged("alt_diffusion", |model| model.change(TOKENIZER, |bytes| bytes.fill(0xff)), &[file])
}

#[test]
fn options_that_cannot_be() -> TestResult {
    let place = Place::new()?;
    for (option, value, expected) in [
        ("--width", "100", "8"),
        ("--height", "0", "8"),
        ("--height", "-8", "8"),
        ("--steps", "0", "at least 1"),
        ("--steps", "many", "at least 1"),
        ("--num-images", "0", "from 1"),
        ("--num-images", "1000000000", "from 1"),
        ("--seed", "lucky", "whole number"),
        ("--seed", "-1", "whole number"),
        ("--guidance-scale", "NaN", "number"),
        ("--scheduler", "magic", "ddim, pndm, lms, heun, euler, euler-a"),
        ("--sigma-spacing", "even", "karras, exponential, beta"),
        ("--timestep-spacing", "even", "linspace, leading, trailing"),
        ("--rng", "gpu", "cpu or cuda"),
        ("--eta", "2", "from 0 to 1"),
        ("--timesteps", "x", "whole numbers"),
        ("--sigmas", "x", "numbers, such as"),
        ("--dtype", "f64", "f32, f16 or bf16"),
        ("--device", "abacus", "cpu"),
    ] {
        place.refused(&["generate", "a cat", option, value], 2, &[option, value, expected])?;
    }
    Ok(())
}

#[test]
fn more_steps_than_the_model_has() -> TestResult {
    let model = golden_model("alt_diffusion")?;
    Place::new()?.generate_refused(&model, &["--steps", "2000"], 1, &["steps", "2000", "1000"])
}

#[test]
fn a_device_that_this_build_cannot_use() -> TestResult {
    let place = Place::new()?;
    for (device, feature, built) in
        [("cuda", "cuda", cfg!(feature = "cuda")), ("metal:1", "metal", cfg!(feature = "metal"))]
    {
        if !built {
            let expected = format!("--features {feature}");
            place.refused(&["generate", "a cat", "--device", device], 1, &["--device", &expected])?;
        }
    }
    Ok(())
}

#[test]
fn latents_that_cannot_be_started_from() -> TestResult {
    let place = Place::new()?;
    let file = place.path().join("noise");
    let model = golden_model("alt_diffusion")?;
    let options = ["--initial-latents", "noise", "--steps", "1"];
    place.generate_refused(&model, &options, 1, &["--initial-latents", "noise"])?;
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
    for (name, tensor, parts) in [
        ("latents", (zeros(&[1, 4, 8, 8])? * f64::NAN)?, ["noise", "NaN"]),
        ("latents", (zeros(&[1, 4, 8, 8])? + f64::INFINITY)?, ["noise", "infinity"]),
        ("latents", zeros(&[4, 8, 8])?, ["noise", "[4, 8, 8]"]),
        ("latents", zeros(&[1, 4, 8, 8])?.to_dtype(DType::F16)?, ["noise", "f16"]),
        ("latent", zeros(&[1, 4, 8, 8])?, ["noise", "`latents`"]),
        ("latents", zeros(&[1, 3, 8, 8])?, ["latents", "[1, 3, 8, 8]"]),
        ("latents", zeros(&[0, 4, 8, 8])?, ["pictures", "0"]),
    ] {
        safetensors::save(&[(name, tensor)].into(), &file)?;
        place.generate_refused(&model, &options, 1, &parts)?;
    }
    safetensors::save(&[("latents", zeros(&[1, 4, 8, 8])?)].into(), &file)?;
    let sized = [options.as_slice(), &["--width", "72"]].concat();
    place.generate_refused(&model, &sized, 1, &["latents", "[1, 4, 8, 8]", "72"])?;
    let counted = [options.as_slice(), &["--num-images", "2"]].concat();
    place.generate_refused(&model, &counted, 1, &["latents", "[1, 4, 8, 8]", "2 pictures"])?;
    fs::write(&file, "no tensors")?;
    place.generate_refused(&model, &options, 1, &["noise", "safetensors"])
}

/// The model is missing as well: what is said first is what was looked at first.
#[test]
fn pictures_that_cannot_be_started_from() -> TestResult {
    let place = Place::new()?;
    let model = golden_model("alt_diffusion")?;
    let inputs = tempfile::tempdir()?;
    let file = |name: &str| inputs.path().join(name).display().to_string();
    fs::write(file("text.png"), "not a picture")?;
    image::RgbImage::new(16, 16).save(file("black.png"))?;
    let whole = fs::read(file("black.png"))?;
    fs::write(file("cut.png"), &whole[..whole.len() / 2])?;
    for (arguments, code, parts) in [
        (&["--mask", &file("black.png")] as &[&str], 1, ["--mask", "--image"]),
        (&["--strength", "0.5"], 1, ["--strength", "--image"]),
        (&["--image", &file("black.png"), "--strength", "1.5"], 2, ["--strength", "from 0 to 1"]),
        (
            &["--image", &file("black.png"), "--strength", "0.1", "--steps", "5"],
            1,
            ["strength: 0.1 of 5", "leaves none"],
        ),
        (&["--image", &file("text.png")], 1, ["--image", "not a picture"]),
        (&["--image", &file("cut.png")], 1, ["--image", "cut.png"]),
        (&["--image", &file("missing.png")], 1, ["--image", "missing.png"]),
        (&["--image", &file("black.png"), "--mask", &file("text.png")], 1, ["--mask", "not a picture"]),
    ] {
        place.generate_refused(&model, arguments, code, &parts)?;
    }
    Ok(())
}

/// Where the model is missing as well, what is said first is what was looked at first.
#[test]
fn pictures_that_cannot_be_followed() -> TestResult {
    let place = Place::new()?;
    let inputs = tempfile::tempdir()?;
    let file = |name: &str| inputs.path().join(name).display().to_string();
    fs::write(file("text.png"), "not a picture")?;
    let (small, large) = (file("small.png"), file("large.png"));
    image::RgbImage::new(64, 64).save(&small)?;
    image::RgbImage::new(500, 300).save(&large)?;
    let (net, m18) = (golden_model("controlnet/sd1")?, golden_model("controlnet/sd2")?);

    let nowhere = "no/such/model";
    for (arguments, code, parts) in [
        (&["--control-image", &small] as &[&str], 1, ["--control-image", "expected a --controlnet"]),
        (&["--control-scale", "0.5"], 1, ["--control-scale", "expected a --controlnet"]),
        (&["--control-start", "0.5"], 1, ["--control-start", "expected a --controlnet"]),
        (&["--guess-mode"], 1, ["--guess-mode", "expected a --controlnet"]),
        (&["--controlnet", &net], 1, ["--control-image", "as many as there are --controlnet, 1, found 0"]),
        (
            &["--controlnet", &net, "--control-image", &small, "--control-image", &small],
            1,
            ["--control-image", "found 2"],
        ),
        (
            &["--controlnet", &net, "--control-image", &small, "--control-end", "1", "--control-end", "1"],
            1,
            ["--control-end: expected one", "found 2"],
        ),
        (
            &["--controlnet", &net, "--control-image", &small, "--control-end", "1.5"],
            2,
            ["--control-end", "from 0 to 1"],
        ),
        (
            &["--controlnet", &net, "--control-image", &file("text.png")],
            1,
            ["--control-image", "not a picture"],
        ),
        (&["--controlnet", &net, "--control-image", &small], 1, [nowhere, "no such directory"]),
    ] {
        place.generate_refused(nowhere, arguments, code, &parts)?;
    }

    let model = golden_model("alt_diffusion")?;
    for (arguments, parts) in [
        (
            &["--controlnet", &net, "--control-image", &large, "--width", "512", "--height", "512"]
                as &[&str],
            ["control image: is 500 × 300, the picture 512 × 512", "resize it, or give width and height"],
        ),
        (
            &["--controlnet", &net, "--control-image", &large],
            ["control image: is 500 × 300", "such as to 496 × 296"],
        ),
        (
            &["--controlnet", &m18, "--control-image", &small],
            [&m18, "`block_out_channels` is [8, 12, 12, 16]; expected [8, 12, 16, 16]"],
        ),
        (
            &["--controlnet", &golden_model("alt_diffusion/unet")?, "--control-image", &small],
            ["--controlnet", "expected \"ControlNetModel\""],
        ),
        (&["--controlnet", &small, "--control-image", &small], ["--controlnet", "small.png"]),
        (
            &["--controlnet", "no/such/net", "--control-image", &small],
            ["--controlnet no/such/net", "no such directory"],
        ),
        (
            &[
                "--controlnet",
                &net,
                "--control-image",
                &small,
                "--control-start",
                "0.5",
                "--control-end",
                "0.4",
            ],
            ["control range: from 0.5 to 0.4", "growing"],
        ),
    ] {
        place.generate_refused(&model, arguments, 1, &parts)?;
    }
    Ok(())
}

#[test]
fn pictures_that_cannot_be_prompts() -> TestResult {
    let place = Place::new()?;
    let inputs = tempfile::tempdir()?;
    let file = |name: &str| inputs.path().join(name).display().to_string();
    let black = file("black.png");
    image::RgbImage::new(16, 16).save(&black)?;
    let (adapter, alone) = (golden_model("ip_adapter/plain.bin")?, file("alone.bin"));
    fs::write(&alone, fs::read(&adapter)?)?;
    let nowhere = "no/such/model";
    for (arguments, parts) in [
        (&["--ip-image", &black] as &[&str], ["--ip-image", "expected an --ip-adapter"]),
        (&["--ip-scale", "1"], ["--ip-scale", "expected an --ip-adapter"]),
        (&["--ip-encoder", "a"], ["--ip-encoder", "expected an --ip-adapter"]),
        (&["--ip-adapter", &adapter], ["--ip-adapter", "expected an --ip-image"]),
        (&["--ip-adapter", &adapter, "--ip-image", &adapter], ["--ip-image", "not a picture"]),
        (&["--ip-adapter", &adapter, "--ip-image", &black], [nowhere, "no such directory"]),
    ] {
        place.generate_refused(nowhere, arguments, 1, &parts)?;
    }
    let (model, m18) = (golden_model("alt_diffusion")?, golden_model("alt_diffusion_m18")?);
    for (model, adapter, rest, parts) in [
        (&model, &black, None, ["--ip-adapter", "black.png"]),
        (&model, &alone, None, ["no folder image_encoder beside it", "--ip-encoder"]),
        (&model, &alone, Some("no/such/encoder"), ["--ip-encoder", "no/such"]),
        (
            &model,
            &alone,
            Some(golden_model("image_tower/gelu")?.as_str()),
            ["--ip-encoder: image encoder", "vectors of width 24"],
        ),
        (&m18, &adapter, None, ["--ip-adapter", "ip_adapter."]),
        (&model, &"nowhere".to_owned(), None, ["--ip-adapter", "nowhere"]),
    ] {
        let mut arguments = vec!["--ip-adapter", adapter, "--ip-image", &black];
        arguments.extend(rest.into_iter().flat_map(|encoder| ["--ip-encoder", encoder]));
        place.generate_refused(model, &arguments, 1, &parts)?;
    }
    Ok(())
}

#[test]
fn outputs_are_looked_at_before_the_work() -> TestResult {
    let place = Place::new()?;
    fs::create_dir(place.path().join("folder.png"))?;
    fs::write(place.path().join("file"), "")?;
    for (arguments, parts) in [
        (["--output", "missing/out.png"], ["missing", "not a directory"]),
        (["--output", "file/out.png"], ["file/out.png", "not a directory"]),
        (["--output", "folder.png"], ["folder.png", "found that of a directory"]),
        (["--output", "new.png/"], ["new.png/", "found that of a directory"]),
        (["--output", "out.gif"], ["out.gif", ".png, .jpg, .jpeg or .webp"]),
        (["--output", "out"], ["--output out", ".png, .jpg, .jpeg or .webp"]),
        (["--save-latents", "missing/latents"], ["--save-latents", "not a directory"]),
        (["--timings", "missing/timings.json"], ["--timings", "not a directory"]),
        (["--timings", "out.png"], ["--timings", "expected another file"]),
    ] {
        place.generate_refused("no/such/model", &arguments, 1, &parts)?;
    }
    for (arguments, parts) in [
        (["--output", "missing/a", "--timings", "t"], ["--output", "not a directory"]),
        (["--output", "a", "--timings", "missing/t"], ["--timings", "not a directory"]),
        (["--output", "a", "--timings", "a"], ["--timings", "expected another file"]),
    ] {
        let all = [&["encode", "a cat", "--model", "no/such/model"], arguments.as_slice()].concat();
        place.refused(&all, 1, &parts)?;
    }
    Ok(())
}

#[cfg(unix)]
#[test]
fn devices_are_not_replaced() -> TestResult {
    Place::new()?.generate_refused(
        "no/such/model",
        &["--timings", "/dev/null"],
        1,
        &["/dev/null", "no ordinary file"],
    )?;
    assert!(!Path::new("/dev/null").is_file());
    Ok(())
}

#[test]
fn an_old_picture_survives_a_failure() -> TestResult {
    let place = Place::new()?;
    let old = place.path().join("out.png");
    fs::write(&old, "old")?;
    let model = ModelCopy::of("alt_diffusion")?;
    model.change(VAE, |bytes| bytes.truncate(100))?;
    place.generate_refused(&model.argument(), &[], 1, &[VAE])?;
    assert_eq!(fs::read_to_string(old)?, "old");
    Ok(())
}

#[test]
fn a_hub_that_does_not_answer() -> TestResult {
    let place = Place::new()?;
    // A port that was free a moment ago, and that nobody listens at.
    let endpoint = format!("http://{}", TcpListener::bind("127.0.0.1:0")?.local_addr()?);
    let home = tempfile::tempdir()?;
    let output = altdiffusion(place.path())
        .args(["generate", "a cat", "--model", "someone/model"])
        .env("HF_ENDPOINT", &endpoint)
        .env("HF_HOME", home.path())
        .output()?;
    refused(&output, 1, &["someone/model", "cannot reach the hub", &endpoint]);

    let output = altdiffusion(place.path())
        .args(["encode", "a cat", "--output", "a.safetensors", "--model", "someone/model"])
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", home.path())
        .output()?;
    refused(&output, 1, &["someone/model", "offline"]);
    assert_eq!(fs::read_dir(place.path())?.count(), 0);
    Ok(())
}

#[test]
fn texts_that_cannot_be_read() -> TestResult {
    let place = Place::new()?;
    let model = golden_model("alt_diffusion")?;
    let arguments = ["encode", "--model", &model, "--output", "a.safetensors", "--texts", "texts.txt"];
    place.refused(&arguments, 1, &["--texts texts.txt"])?;
    fs::write(place.path().join("texts.txt"), "")?;
    place.refused(&arguments, 1, &["--texts texts.txt", "empty"])?;
    fs::write(
        place.path().join("texts.txt"),
        "one\n\u{732b}\n\u{732b}".as_bytes().split_last().ok_or("bytes")?.1,
    )?;
    place.refused(&arguments, 1, &["--texts texts.txt", "line 3", "UTF-8"])?;

    let from_input = ["encode", "--model", &model, "--output", "a.safetensors", "--texts", "-"];
    refused(&run_with_input(place.path(), &from_input, b"")?, 1, &["standard input", "empty"]);
    refused(&run_with_input(place.path(), &from_input, b"\xff")?, 1, &["standard input", "line 1"]);
    assert!(!place.path().join("a.safetensors").exists());
    Ok(())
}

#[test]
fn texts_must_be_given_once() -> TestResult {
    let place = Place::new()?;
    let none = run(place.path(), &["encode", "--output", "a.safetensors"])?;
    assert_eq!(none.status.code(), Some(2));
    let both = run(place.path(), &["encode", "--output", "a.safetensors", "--texts", "-", "a cat"])?;
    assert_eq!(both.status.code(), Some(2));
    assert_eq!(run(place.path(), &["generate"])?.status.code(), Some(2));
    assert_eq!(run(place.path(), &["paint", "a cat"])?.status.code(), Some(2));
    Ok(())
}

#[test]
fn encode_names_what_is_damaged_as_well() -> TestResult {
    let place = Place::new()?;
    let model = ModelCopy::of("alt_diffusion")?;
    // Not needed for texts, and so not missed.
    fs::remove_dir_all(model.path("unet"))?;
    let argument = model.argument();
    let arguments = ["encode", "a cat", "--model", &argument, "--output", "a.safetensors"];
    assert!(run(place.path(), &arguments)?.status.success());
    fs::remove_file(place.path().join("a.safetensors"))?;
    model.change(TEXT_ENCODER, |bytes| bytes.truncate(5_000))?;
    place.refused(&arguments, 1, &[TEXT_ENCODER])?;
    assert!(golden("alt_diffusion").join(TEXT_ENCODER).metadata()?.len() > 5_000);
    Ok(())
}

#[test]
fn adapters_that_do_not_fit() -> TestResult {
    let place = Place::new()?;
    let model = golden_model("alt_diffusion")?;
    let adapter = |name: &str| golden("adapters").join(name).display().to_string();
    let other = adapter("alt_diffusion_m18.kohya.safetensors");
    let latents = golden("pipeline.safetensors").display().to_string();
    let one_step = |arguments: &[&str], code: i32, parts: &[&str]| {
        place.generate_refused(&model, &[&["--steps", "1"], arguments].concat(), code, parts)
    };
    one_step(
        &["--lora", &other],
        1,
        &[&other, "for another architecture", "expected a LoRA for this model"],
    )?;
    one_step(&["--lora", "ink.safetensors"], 1, &["--lora: ink.safetensors: no such file, expected a LoRA"])?;
    one_step(&["--lora", &latents], 1, &["--lora", "expected a LoRA, found the tensor"])?;
    one_step(&["--lora", &format!("{other}:inf")], 1, &["--lora", "inf, expected a number"])?;
    one_step(&["--embedding", "x.pt"], 1, &["--embedding: x.pt: no such file, expected a learned word"])?;
    one_step(&["--embedding", &latents], 1, &["--embedding", "expected a textual inversion of one word"])?;
    one_step(&["--clip-skip", "3"], 1, &["clip skip: expected to skip fewer than the 3 layers"])?;
    one_step(&["--panorama=12"], 2, &["--panorama", "8 divides"])
}
