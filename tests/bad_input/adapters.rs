//! Rejects images to follow, adapters and learned words that do not fit.

use crate::common::golden_model;
use crate::place::Place;
use std::fs;
use test_support::{TestResult, golden};

/// The model is missing too: errors are reported in the order of the checks.
#[test]
fn images_that_cannot_be_followed() -> TestResult {
    let place = Place::new()?;
    let inputs = tempfile::tempdir()?;
    let file = |name: &str| inputs.path().join(name).display().to_string();
    fs::write(file("text.png"), "not an image")?;
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
            ["--control-image", "not an image"],
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
            [
                "control image: is 500 × 300, the generated image 512 × 512",
                "resize it, or give width and height",
            ],
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
fn images_that_cannot_be_prompts() -> TestResult {
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
        (&["--ip-adapter", &adapter, "--ip-image", &adapter], ["--ip-image", "not an image"]),
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
    one_step(
        &["--embedding", &latents],
        1,
        &["--embedding", "expected 1 to 75 vectors of the text encoder's width"],
    )?;
    one_step(&["--clip-skip", "3"], 1, &["clip skip: expected to skip fewer than the 3 layers"])?;
    one_step(&["--panorama=12"], 2, &["--panorama", "8 divides"])
}
