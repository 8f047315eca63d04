//! Rejects models that are missing, damaged, or contradict themselves.

use crate::common::{ModelCopy, altdiffusion, golden_model, run};
use crate::place::{Place, refused};
use candle_core::{DType, Device, Tensor};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use test_support::{TestResult, golden};

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
const VAE: &str = "vae/diffusion_pytorch_model.safetensors";
const TEXT_ENCODER: &str = "text_encoder/model.safetensors";
const PICKLE: &str = "text_encoder/pytorch_model.bin";
const TOKENIZER: &str = "tokenizer/sentencepiece.bpe.model";
const SCHEDULER: &str = "scheduler/scheduler_config.json";

/// Runs the program on a copy of a tiny model, changed like this.
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

/// With a typing error, not an id on the hub.
#[test]
fn a_model_in_one_file_that_is_nowhere() -> TestResult {
    let (place, golden) = (Place::new()?, golden_model("alt_diffusion")?);
    for arguments in [&["--steps", "1"][..], &["--config", golden.as_str()]] {
        let parts = ["models/mistyped.safetensors", "no such file"];
        place.generate_refused("models/mistyped.safetensors", arguments, 1, &parts)?;
    }
    Ok(())
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
        // Weights have several possible names; the error gives the first.
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
    let malicious = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/model-files/tests/data/malicious.bin");
    fs::write(model.path(PICKLE), fs::read(malicious)?)?;
    // Anything it made would be in this folder.
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
        (
            "unet/config.json",
            "\"in_channels\": 4",
            "\"in_channels\": 5",
            ["unet", "is 5, but `latent_channels` of vae/config.json is 4: expected 4, or 9"],
        ),
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
    for (file, name, part) in [(UNET, "conv_in.bias", "step 1"), (VAE, "decoder.conv_in.bias", "image")] {
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
fn a_hub_that_does_not_answer() -> TestResult {
    let place = Place::new()?;
    // A port that was free a moment ago, so that nobody is listening.
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
fn encode_names_what_is_damaged_as_well() -> TestResult {
    let place = Place::new()?;
    let model = ModelCopy::of("alt_diffusion")?;
    // Texts do not need it.
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
