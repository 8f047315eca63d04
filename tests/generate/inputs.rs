//! Draws from images, adapters, ControlNets and image prompts.

use std::fs;

use image::RgbImage;

use crate::common::{altdiffusion, golden_model, run, succeeded, tensor};
use crate::{MODEL, generate, image};
use test_support::{TestResult, golden, relative_error};

/// An image determines the size, and a mask what is kept: the golden values are the library's.
#[test]
fn an_image_to_begin_with() -> TestResult {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    let given = RgbImage::from_fn(41, 53, |x, y| image::Rgb([x as u8 * 6, y as u8 * 4, 128]));
    given.save(path("given.png"))?;
    // White on the left: only there anything changes.
    image::GrayImage::from_fn(41, 53, |x, _| image::Luma([if x < 16 { 255 } else { 0 }]))
        .save(path("mask.png"))?;
    let model = golden_model(MODEL)?;
    let draw = |prompt: &str, more: &[&str]| -> TestResult<candle_core::Tensor> {
        let fixed =
            ["generate", prompt, "--model", &model, "--steps", "4", "--seed", "1", "--image", "given.png"];
        let all = [&fixed[..], &["--save-latents", "final"], more].concat();
        let printed = succeeded(&run(directory.path(), &all)?);
        assert!(printed.starts_with("out.png: 40 × 48 pixels"), "{printed}");
        tensor(&path("final"), "latents")
    };
    let (little, much) = (draw("a cat", &["--strength", "0.25"])?, draw("a cat", &["--strength", "1"])?);
    assert!(relative_error(&much, &little) > 0.1);
    let (one, other) = (draw("a cat", &["--mask", "mask.png"])?, draw("两座房子", &["--mask", "mask.png"])?);
    assert_eq!(relative_error(&one.narrow(3, 2, 3)?, &other.narrow(3, 2, 3)?), 0.0);
    assert!(relative_error(&one.narrow(3, 0, 2)?, &other.narrow(3, 0, 2)?) > 1e-3);
    Ok(())
}

#[test]
fn adapters_change_the_image_and_are_named_in_it() -> TestResult {
    let directory = tempfile::tempdir()?;
    let adapter = |name: &str| golden("adapters").join(name).display().to_string();
    let lora = format!("{}:0.5", adapter("alt_diffusion.kohya.safetensors"));
    let word = format!("{}:<窗>", adapter("webui.pt"));
    let latents = |name: &str, arguments: &[&str]| -> TestResult<candle_core::Tensor> {
        let mut all = vec!["一只<窗>猫", "--seed", "1", "--output", "out.png", "--save-latents", name];
        all.extend(arguments);
        generate(directory.path(), &all)?;
        tensor(&directory.path().join(name), "latents")
    };
    let plain = latents("plain", &[])?;
    let cases: [(&str, &[&str]); 4] = [
        ("lora", &["--lora", &lora]),
        ("word", &["--embedding", &word]),
        ("skip", &["--clip-skip", "1"]),
        ("panorama", &["--panorama=32"]),
    ];
    for (name, arguments) in cases {
        assert!(relative_error(&latents(name, arguments)?, &plain) > 1e-3, "{name}");
    }
    assert_eq!(relative_error(&latents("low", &["--low-memory"])?, &plain), 0.0);
    latents("named", &["--lora", &lora, "--clip-skip", "1"])?;
    let file = fs::read(directory.path().join("out.png"))?;
    let text = String::from_utf8_lossy(&file);
    assert!(text.contains("LoRA 0: \"Model: alt_diffusion.kohya.safetensors, Weight: 0.5, Hash: "), "{text}");
    Ok(())
}

/// Another autoencoder decodes the same latents, and is recorded: a file with its hash, and used again by `--like`.
#[test]
fn another_autoencoder_decodes() -> TestResult {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    let vae = "diffusion_pytorch_model.safetensors";
    for file in ["config.json", vae] {
        fs::copy(golden("alt_diffusion_m18/vae").join(file), path(file))?;
    }
    let draw = |arguments: &[&str]| -> TestResult<(candle_core::Tensor, Vec<u8>)> {
        let all = [&["a cat", "--seed", "1", "--save-latents", "final"], arguments].concat();
        generate(directory.path(), &all)?;
        Ok((tensor(&path("final"), "latents")?, image(&path("out.png"))?.into_raw()))
    };
    let (latents, plain) = draw(&[])?;
    let (same, decoded) = draw(&["--vae", vae])?;
    assert_eq!(relative_error(&same, &latents), 0.0);
    assert_ne!(decoded, plain);
    let file = fs::read(path("out.png"))?;
    assert!(String::from_utf8_lossy(&file).contains(&format!("VAE: {vae}, VAE hash: ")));
    let again = ["generate", "--like", "out.png", "--output", "again.png"];
    succeeded(&run(directory.path(), &[&again[..], &["--model", &golden_model(MODEL)?]].concat())?);
    assert_eq!(image(&path("again.png"))?.into_raw(), decoded);
    Ok(())
}

/// Two ControlNets with their images, by options; the image records them like web interfaces do.
#[test]
fn images_are_followed() -> TestResult {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    for (name, size) in [("a.png", (72, 48)), ("b.png", (72, 48))] {
        let shade = |x, y| image::Rgb([(x * 3) as u8, if name == "a.png" { (y * 5) as u8 } else { 9 }, 7]);
        RgbImage::from_fn(size.0, size.1, shade).save(path(name))?;
    }
    let net = golden_model("controlnet/sd1")?;
    let draw = |arguments: &[&str]| -> TestResult<Vec<u8>> {
        let model = golden_model(MODEL)?;
        let all = ["generate", "a cat", "--model", &model, "--steps", "2", "--seed", "1"];
        succeeded(&run(directory.path(), &[&all, arguments].concat())?);
        Ok(image(&path("out.png"))?.into_raw())
    };
    let one = ["--controlnet", net.as_str(), "--control-image", "a.png"];
    let two = [&one[..], &["--controlnet", &net, "--control-image", "b.png"]].concat();
    let plain = draw(&["--width", "72", "--height", "48"])?;
    let followed = draw(&one)?;
    assert_eq!(followed.len(), plain.len());
    assert_ne!(followed, plain);
    assert_ne!(draw(&two)?, followed);
    assert_ne!(draw(&[&one[..], &["--guess-mode"]].concat())?, followed);
    assert_eq!(draw(&[&two[..], &["--control-scale", "1", "--control-scale", "0"]].concat())?, followed);
    let file = fs::read(path("out.png"))?;
    let recorded = "ControlNet 1: \"Module: none, Model: sd1, Weight: 0, Guidance Start: 0, Guidance End: 1, \
                Control Mode: Balanced, Image: b.png, Image hash: ";
    assert!(String::from_utf8_lossy(&file).contains(recorded));
    Ok(())
}

/// Image prompts, with the encoder beside the adapter or elsewhere.
#[test]
fn images_are_prompts() -> TestResult {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    for (name, shade) in [("a.png", 40), ("b.png", 200)] {
        RgbImage::from_fn(40, 30, |x, y| image::Rgb([shade, (x * 5) as u8, (y * 8) as u8]))
            .save(path(name))?;
    }
    fs::copy(golden("ip_adapter/plus.safetensors"), path("alone.safetensors"))?;
    let draw = |arguments: &[&str]| -> TestResult<Vec<u8>> {
        generate(directory.path(), &[&["a cat", "--seed", "1"], arguments].concat())?;
        Ok(image(&path("out.png"))?.into_raw())
    };
    let adapter = golden_model("ip_adapter/plus.safetensors")?;
    let one = ["--ip-adapter", adapter.as_str(), "--ip-image", "a.png"];
    let plain = draw(&[])?;
    let illustrated = draw(&one)?;
    assert_ne!(illustrated, plain);
    assert_ne!(draw(&[&one[..], &["--ip-image", "b.png"]].concat())?, illustrated);
    assert_eq!(draw(&[&one[..], &["--ip-scale", "0"]].concat())?, plain);
    let encoder = golden_model("ip_adapter/image_encoder")?;
    let elsewhere = ["--ip-adapter", "alone.safetensors", "--ip-image", "a.png", "--ip-encoder", &encoder];
    assert_eq!(draw(&elsewhere)?, illustrated);
    let file = fs::read(path("out.png"))?;
    let recorded = "ControlNet 0: \"Module: ip-adapter-auto, Model: alone.safetensors, Weight: 1, Encoder: image_encoder, ";
    assert!(String::from_utf8_lossy(&file).contains(recorded));
    Ok(())
}

/// Downloaded files are found by the names people type, with a path in the repository or without.
#[test]
fn nets_and_adapters_come_from_the_hub() -> TestResult {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    RgbImage::from_fn(64, 64, |x, y| image::Rgb([40, (x * 4) as u8, (y * 4) as u8])).save(path("a.png"))?;
    let cached = |repository: &str, files: &[(&str, &str)]| -> TestResult {
        let folder = path("home/hub").join(format!("models--{}", repository.replace('/', "--")));
        fs::create_dir_all(folder.join("refs"))?;
        fs::write(folder.join("refs/main"), "0123")?;
        for (file, source) in files {
            let file = folder.join("snapshots/0123").join(file);
            fs::create_dir_all(file.parent().ok_or("a folder")?)?;
            fs::copy(golden(source), file)?;
        }
        Ok(())
    };
    cached(
        "someone/adapters",
        &[
            ("models/ip-adapter_sd15.safetensors", "ip_adapter/plus.safetensors"),
            ("models/full.safetensors", "ip_adapter/full.safetensors"),
            ("models/image_encoder/config.json", "ip_adapter/image_encoder/config.json"),
            ("models/image_encoder/model.safetensors", "ip_adapter/image_encoder/model.safetensors"),
        ],
    )?;
    const WEIGHTS: &str = "diffusion_pytorch_model.fp16.safetensors";
    cached(
        "someone/net",
        &[("config.json", "controlnet/sd1/config.json"), (WEIGHTS, &format!("controlnet/sd1/{WEIGHTS}"))],
    )?;
    let draw = |arguments: &[&str]| -> TestResult<Vec<u8>> {
        let model = golden_model(MODEL)?;
        let mut command = altdiffusion(directory.path());
        command.env("HF_HOME", path("home")).env("HF_HUB_OFFLINE", "1");
        command.args(["generate", "a cat", "--model", &model, "--steps", "2", "--seed", "1"]);
        command.args(["--width", "64", "--height", "64"]).args(arguments);
        succeeded(&command.output()?);
        Ok(image(&path("out.png"))?.into_raw())
    };
    for (on_hub, here) in [
        ("someone/adapters", "plus"),
        ("someone/adapters@main", "plus"),
        ("someone/adapters/models/full.safetensors", "full"),
    ] {
        let here = golden_model(&format!("ip_adapter/{here}.safetensors"))?;
        let named = |adapter| draw(&["--ip-adapter", adapter, "--ip-image", "a.png"]);
        assert_eq!(named(on_hub)?, named(&here)?, "{on_hub}");
    }
    let named = |net| draw(&["--controlnet", net, "--control-image", "a.png"]);
    assert_eq!(named("someone/net")?, named(&golden_model("controlnet/sd1")?)?);
    Ok(())
}
