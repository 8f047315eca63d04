//! Draws images from prompts: numbers, seeds, formats and latents.

use std::fs;

use candle_core::safetensors;
use image::imageops::{self, FilterType};
use image::{GenericImageView, RgbImage};
use serde_json::{Value, json};

use crate::common::{altdiffusion, golden_model, run, succeeded, tensor};
use crate::{MODEL, generate, image};
use test_support::{TestResult, golden_json, golden_tensors, relative_error};

/// The largest relative error ‖a − b‖/‖b‖ of the latents.
const TOLERANCE: f64 = 1e-4;

#[test]
fn a_prompt_is_enough() -> TestResult {
    let directory = tempfile::tempdir()?;
    let printed = succeeded(&run(directory.path(), &["generate", "一只猫"])?);
    assert!(printed.starts_with("out.png: 256 × 256 pixels, seed "), "{printed}");
    assert_eq!(printed.lines().count(), 1, "{printed}");
    assert_eq!(image(&directory.path().join("out.png"))?.dimensions(), (256, 256));
    assert_eq!(fs::read_dir(directory.path())?.count(), 1);
    Ok(())
}

#[test]
fn latents_are_those_of_diffusers() -> TestResult {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    let expected = golden_tensors("pipeline.safetensors");
    let cases: Vec<Value> = golden_json("pipeline.json");
    for case in &cases {
        let name = case["name"].as_str().ok_or("a case without name")?;
        let of_case = |part: &str| {
            expected.get(&format!("{MODEL}.{name}.{part}")).ok_or_else(|| format!("{name}: no {part}"))
        };
        let mut command = altdiffusion(directory.path());
        command.args(["generate", "--model", &golden_model(MODEL)?]);
        command.args(["--save-latents", "final", "--output", "out.png", "--seeds", "stream"]);
        let is_given = case["seed"].is_null();
        if is_given {
            safetensors::save(&[("latents", of_case("initial_latents")?.clone())].into(), path("initial"))?;
            command.args(["--initial-latents", "initial"]);
        }
        for (option, field) in [
            ("--negative-prompt", "negative_prompt"),
            ("--guidance-scale", "guidance_scale"),
            ("--steps", "num_inference_steps"),
            ("--num-images", "num_images_per_prompt"),
            ("--height", "height"),
            ("--width", "width"),
            ("--seed", "seed"),
            ("--eta", "eta"),
            ("--guidance-rescale", "guidance_rescale"),
        ] {
            match &case[field] {
                Value::Null => {}
                Value::String(text) => drop(command.args([option, text])),
                number => drop(command.args([option, &number.to_string()])),
            }
        }
        let scheduler: &[&str] = match case["scheduler"].as_str() {
            Some("DPMSolverMultistepScheduler") => &["--scheduler", "dpm++-2m-sde", "--karras"],
            Some(class) => &["--scheduler", class],
            None => &[],
        };
        command.args(scheduler);
        command.arg(case["prompt"].as_str().ok_or("a case without prompt")?);
        let printed = succeeded(&command.output()?);
        assert_eq!(printed.contains("seed"), !is_given, "{printed}");

        let error = relative_error(&tensor(&path("final"), "latents")?, of_case("latents")?);
        println!("{name}: {error:e}");
        assert!(error <= TOLERANCE, "{name}: {error}");

        let images = of_case("picture")?.dims().first().copied().unwrap_or(0);
        for index in 0..images {
            let file = if images == 1 { "out.png".to_owned() } else { format!("out-{}.png", index + 1) };
            let expected = of_case("picture")?.get(index)?.permute((1, 2, 0))?.affine(255.0, 0.0)?;
            let expected = expected.flatten_all()?.to_vec1::<f32>()?;
            let found = image(&path(&file))?;
            assert_eq!(found.len(), expected.len(), "{name}");
            for (byte, expected) in found.iter().zip(&expected) {
                assert!((f32::from(*byte) - expected).abs() < 0.6, "{name}: {byte} {expected}");
            }
        }
    }
    Ok(())
}

#[test]
fn several_images_are_numbered_and_have_seeds_of_their_own() -> TestResult {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    let printed = generate(directory.path(), &["a cat", "-n", "3", "--seed", "7", "--output", "cat.png"])?;
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines, [1, 2, 3].map(|i| format!("cat-{i}.png: 64 × 64 pixels, seed {}", i + 6)));
    assert!(!path("cat.png").exists());

    let printed = generate(directory.path(), &["a cat", "--seed", "7", "--output", "alone.png"])?;
    assert_eq!(printed, "alone.png: 64 × 64 pixels, seed 7\n");
    let difference = |a: &str, b: &str| -> TestResult<u8> {
        let (a, b) = (image(&path(a))?, image(&path(b))?);
        Ok(a.iter().zip(b.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0))
    };
    assert!(difference("cat-1.png", "alone.png")? == 0);
    assert!(difference("cat-1.png", "cat-2.png")? > 1);
    Ok(())
}

#[test]
fn a_seed_repeats_an_image_and_a_run_without_one_does_not() -> TestResult {
    let directory = tempfile::tempdir()?;
    let bytes = |arguments: &[&str]| -> TestResult<Vec<u8>> {
        generate(directory.path(), arguments)?;
        Ok(image(&directory.path().join("out.png"))?.into_raw())
    };
    assert_eq!(bytes(&["a cat", "--seed", "3"])?, bytes(&["a cat", "--seed", "3"])?);
    assert_ne!(bytes(&["a cat", "--seed", "3"])?, bytes(&["a dog", "--seed", "3"])?);
    assert_ne!(bytes(&["a cat"])?, bytes(&["a cat"])?);
    Ok(())
}

#[test]
fn several_prompts_are_numbered_on() -> TestResult {
    let directory = tempfile::tempdir()?;
    let printed = generate(directory.path(), &["一只猫", "a house", "--seed", "3", "--num-images", "2"])?;
    assert_eq!(printed.lines().count(), 4, "{printed}");
    assert_eq!(fs::read_dir(directory.path())?.count(), 4);
    let text = |number: usize| -> TestResult<String> {
        let bytes = fs::read(directory.path().join(format!("out-{number}.png")))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    assert!(text(2)?.contains("一只猫\n") && text(3)?.contains("a house\n"));
    Ok(())
}

#[test]
fn the_ending_decides_the_format() -> TestResult {
    let directory = tempfile::tempdir()?;
    for (name, format) in [
        ("a.png", image::ImageFormat::Png),
        ("a.JPG", image::ImageFormat::Jpeg),
        ("a.webp", image::ImageFormat::WebP),
    ] {
        let size = ["--width", "48", "--height", "32"];
        generate(directory.path(), &[&["a cat", "--output", name], size.as_slice()].concat())?;
        let bytes = fs::read(directory.path().join(name))?;
        assert_eq!(image::guess_format(&bytes)?, format);
        assert_eq!(image::load_from_memory(&bytes)?.dimensions(), (48, 32), "{name}");
    }
    Ok(())
}

#[test]
fn saved_latents_can_be_started_from() -> TestResult {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    let size = ["--width", "48", "--height", "64"];
    generate(
        directory.path(),
        &[&["a cat", "-n", "2", "--save-latents", "first"], size.as_slice()].concat(),
    )?;
    assert_eq!(tensor(&path("first"), "latents")?.dims(), [2, 4, 8, 6]);
    // The latents determine the number and size of the images.
    let printed = generate(directory.path(), &["a cat", "--initial-latents", "first", "--output", "b.png"])?;
    assert_eq!(printed, "b-1.png: 48 × 64 pixels\nb-2.png: 48 × 64 pixels\n");
    Ok(())
}

#[test]
fn timings_are_written() -> TestResult {
    let directory = tempfile::tempdir()?;
    generate(directory.path(), &["a cat", "--steps", "3", "--scheduler", "ddim", "--timings", "t.json"])?;
    let timings: Value = serde_json::from_slice(&fs::read(directory.path().join("t.json"))?)?;
    let seconds = |field: &str| timings[field].as_f64().unwrap_or(-1.0);
    let steps: Vec<f64> =
        timings["steps_s"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
    assert_eq!(steps.len(), 3, "{timings}");
    let parts = [seconds("load_s"), seconds("text_s"), seconds("decode_s")];
    assert!(parts.iter().chain(&steps).all(|part| *part > 0.0), "{timings}");
    assert!(parts.iter().chain(&steps).sum::<f64>() <= seconds("total_s"), "{timings}");
    Ok(())
}

#[test]
fn an_image_may_be_decoded_in_tiles() -> TestResult {
    let directory = tempfile::tempdir()?;
    let draw = |more: &[&str]| -> TestResult<RgbImage> {
        generate(directory.path(), &[&["a cat", "--seed", "3"], more].concat())?;
        image(&directory.path().join("out.png"))
    };
    let (whole, tiled) = (draw(&[])?, draw(&["--vae-tiling=32"])?);
    assert_eq!(tiled.dimensions(), (64, 64));
    // The corner belongs to one tile, whose other edges are far away.
    assert!(
        whole != tiled
            && whole.get_pixel(0, 0).0.iter().zip(tiled.get_pixel(0, 0).0).all(|(a, b)| a.abs_diff(b) < 64)
    );
    assert_eq!(draw(&["--vae-tiling=64"])?, whole);
    Ok(())
}

#[test]
fn an_image_may_be_enlarged() -> TestResult {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("out.png");
    let draw = |more: &[&str]| generate(directory.path(), &[&["a cat", "--seed", "3"], more].concat());
    draw(&[])?;
    let small = image(&path)?;
    let printed = draw(&["--scale", "3"])?;
    assert!(printed.starts_with("out.png: 192 × 192 pixels, seed 3"), "{printed}");
    let large = image(&path)?;
    // This model has no network for it.
    assert_eq!(large, imageops::resize(&small, 192, 192, FilterType::Lanczos3));

    // The record has the size that was drawn, and what follows it draws the same.
    let drawn: Value = serde_json::from_str(&draw(&["--scale", "3", "--json"])?)?;
    assert_eq!((&drawn["width"], &drawn["height"]), (&json!(192), &json!(192)));
    let recorded = drawn["parameters"].as_str().ok_or("nothing recorded")?;
    assert!(recorded.contains(", Size: 64x64, ") && recorded.contains(", Scale: 3, "), "{recorded}");
    let model = golden_model(MODEL)?;
    for (more, expected) in [(&[][..], &large), (&["--scale", "1"][..], &small)] {
        let like = ["generate", "--like", "out.png", "--model", &model, "--output", "again.png"];
        succeeded(&run(directory.path(), &[&like[..], more].concat())?);
        assert_eq!(image(&directory.path().join("again.png"))?, *expected, "{more:?}");
    }

    // Sheets, their animations and the limits of formats count what is written.
    draw(&["--scale", "2", "--num-images", "2", "--grid", "--save-steps", "steps.gif"])?;
    assert_eq!(image(&path)?.dimensions(), (2 * 128 + 6, 128 + 4));
    Ok(())
}

#[test]
fn a_png_tells_how_it_was_made_unless_that_is_not_wanted() -> TestResult {
    let directory = tempfile::tempdir()?;
    let text = |arguments: &[&str]| -> TestResult<Option<String>> {
        generate(directory.path(), arguments)?;
        let file = std::io::BufReader::new(fs::File::open(directory.path().join("out.png"))?);
        let reader = png::Decoder::new(file).read_info()?;
        let chunk = reader.info().utf8_text.first().map(png::text_metadata::ITXtChunk::get_text);
        Ok(chunk.transpose()?)
    };
    let arguments =
        ["一只猫", "--negative-prompt", "模糊", "--seed", "3", "--scheduler", "euler", "--karras"];
    let recorded = text(&arguments)?.ok_or("nothing recorded")?;
    let expected = "一只猫\nNegative prompt: 模糊\nSteps: 2, Sampler: Euler, Schedule type: Karras, CFG scale: 7.5, \
                    Seed: 3, Size: 64x64, Model hash: ";
    assert!(recorded.starts_with(expected) && recorded.contains(", Model: alt_diffusion, "), "{recorded}");
    assert_eq!(text(&[&arguments[..], &["--no-parameters"]].concat())?, None);
    Ok(())
}
