//! Rejects invalid options, and files that cannot be read or written.

use crate::common::{ModelCopy, golden_model, run, run_with_input};
use crate::place::{Place, refused};
use candle_core::{DType, Device, Tensor, safetensors};
use std::fs;
use std::path::Path;
use test_support::TestResult;

const VAE: &str = "vae/diffusion_pytorch_model.safetensors";

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
        ("--rng", "tpu", "cpu or cuda"),
        ("--eta", "2", "from 0 to 1"),
        ("--timesteps", "x", "whole numbers"),
        ("--sigmas", "x", "numbers, such as"),
        ("--dtype", "f64", "f32, f16, bf16 or int8"),
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
        ("latents", zeros(&[0, 4, 8, 8])?, ["images", "0"]),
    ] {
        safetensors::save(&[(name, tensor)].into(), &file)?;
        place.generate_refused(&model, &options, 1, &parts)?;
    }
    safetensors::save(&[("latents", zeros(&[1, 4, 8, 8])?)].into(), &file)?;
    let sized = [options.as_slice(), &["--width", "72"]].concat();
    place.generate_refused(&model, &sized, 1, &["latents", "[1, 4, 8, 8]", "72"])?;
    let counted = [options.as_slice(), &["--num-images", "2"]].concat();
    place.generate_refused(&model, &counted, 1, &["latents", "[1, 4, 8, 8]", "2 images"])?;
    fs::write(&file, "no tensors")?;
    place.generate_refused(&model, &options, 1, &["noise", "safetensors"])
}

/// The model is missing too: errors are reported in the order of the checks.
#[test]
fn images_that_cannot_be_started_from() -> TestResult {
    let place = Place::new()?;
    let model = golden_model("alt_diffusion")?;
    let inputs = tempfile::tempdir()?;
    let file = |name: &str| inputs.path().join(name).display().to_string();
    fs::write(file("text.png"), "not an image")?;
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
        (&["--image", &file("text.png")], 1, ["--image", "not an image"]),
        (&["--image", &file("cut.png")], 1, ["--image", "cut.png"]),
        (&["--image", &file("missing.png")], 1, ["--image", "missing.png"]),
        (&["--image", &file("black.png"), "--mask", &file("text.png")], 1, ["--mask", "not an image"]),
    ] {
        place.generate_refused(&model, arguments, code, &parts)?;
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

/// Every step attends to all tokens of a prompt with weights.
#[test]
fn a_prompt_of_a_whole_book_is_refused() -> TestResult {
    let prompt = "a cat, ".repeat(5000);
    let output = run(Place::new()?.path(), &["generate", "--prompt-weights", "--steps", "1", &prompt])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("tokens long, expected at most 64"), "{stderr}");
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1));
    Ok(())
}

#[cfg(unix)]
#[test]
fn devices_are_not_replaced() -> TestResult {
    let place = Place::new()?;
    let arguments = ["generate", "a cat", "--steps", "1", "--timings", "/dev/null"];
    assert!(run(place.path(), &arguments)?.status.success());
    assert!(!Path::new("/dev/null").is_file());
    Ok(())
}

#[test]
fn an_old_image_survives_a_failure() -> TestResult {
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

/// As other programs take them.
#[test]
fn arguments_without_an_option_are_told_which() -> TestResult {
    let place = Place::new()?;
    for (arguments, tip) in [
        (
            &["embed", "photos"][..],
            "tip: write --image before an image or a directory, and --text before a text",
        ),
        (
            &["--quiet", "similarity", "a.png", "cat"],
            "tip: write --image before each image, and --text before each text",
        ),
    ] {
        let output = run(place.path(), arguments)?;
        let stderr = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.starts_with("error: unexpected argument '") && stderr.contains(tip), "{stderr}");
    }
    let unknown = String::from_utf8(run(place.path(), &["embed", "--photos"])?.stderr)?;
    assert!(!unknown.contains("write --image"), "{unknown}");
    Ok(())
}
