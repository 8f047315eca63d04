//! `altdiffusion generate`, through the program itself.

mod common;

use std::fs;
use std::path::Path;

use candle_core::safetensors;
use common::{
    TestResult, altdiffusion, golden, golden_model, relative_error, run, succeeded, tensor, tensors,
};
use image::{GenericImageView, RgbImage};
use serde_json::Value;

/// The largest relative error ‖a − b‖/‖b‖ of the latents.
const TOLERANCE: f32 = 1e-4;

const MODEL: &str = "alt_diffusion";

/// Runs `altdiffusion generate` on a tiny model, in two steps and 64 × 64 pixels if nothing else is said.
fn generate(directory: &Path, arguments: &[&str]) -> TestResult<String> {
    let model = golden_model(MODEL)?;
    let mut all = vec!["generate", "--model", &model];
    if !arguments.contains(&"--steps") {
        all.extend(["--steps", "2"]);
    }
    if !arguments.contains(&"--width") && !arguments.contains(&"--initial-latents") {
        all.extend(["--width", "64", "--height", "64"]);
    }
    all.extend(arguments);
    Ok(succeeded(&run(directory, &all)?))
}

fn image(path: &Path) -> TestResult<RgbImage> {
    Ok(image::open(path)?.to_rgb8())
}

#[test]
fn a_prompt_is_enough() -> TestResult {
    let directory = tempfile::tempdir()?;
    let said = succeeded(&run(directory.path(), &["generate", "一只猫"])?);
    assert!(said.starts_with("out.png: 64 × 64 pixels, seed "), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(image(&directory.path().join("out.png"))?.dimensions(), (64, 64));
    assert_eq!(fs::read_dir(directory.path())?.count(), 1);
    Ok(())
}

#[test]
fn latents_are_those_of_diffusers() -> TestResult {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    let expected = tensors(&golden("pipeline.safetensors"))?;
    let cases: Vec<Value> = serde_json::from_slice(&fs::read(golden("pipeline.json"))?)?;
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
        let said = succeeded(&command.output()?);
        assert_eq!(said.contains("seed"), !is_given, "{said}");

        let error = relative_error(&tensor(&path("final"), "latents")?, of_case("latents")?)?;
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
    let said = generate(directory.path(), &["a cat", "-n", "3", "--seed", "7", "--output", "cat.png"])?;
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines, [1, 2, 3].map(|i| format!("cat-{i}.png: 64 × 64 pixels, seed {}", i + 6)));
    assert!(!path("cat.png").exists());

    let said = generate(directory.path(), &["a cat", "--seed", "7", "--output", "alone.png"])?;
    assert_eq!(said, "alone.png: 64 × 64 pixels, seed 7\n");
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
    // The number and the size of the images are those of the latents.
    let said = generate(directory.path(), &["a cat", "--initial-latents", "first", "--output", "b.png"])?;
    assert_eq!(said, "b-1.png: 48 × 64 pixels\nb-2.png: 48 × 64 pixels\n");
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
fn every_scheduler_and_type_draws() -> TestResult {
    let directory = tempfile::tempdir()?;
    for kind in [
        "ddpm",
        "ddim",
        "pndm",
        "lms",
        "heun",
        "euler",
        "euler-a",
        "dpm++-2m",
        "dpm++-2m-sde",
        "dpm++-s",
        "unipc",
        "lcm",
    ] {
        generate(directory.path(), &["a cat", "--device", "cpu", "--scheduler", kind])?;
    }
    for dtype in ["f16", "bf16"] {
        generate(directory.path(), &["a cat", "--device", "cpu", "--dtype", dtype])?;
    }
    Ok(())
}

#[test]
fn the_way_of_drawing_changes_the_image() -> TestResult {
    let directory = tempfile::tempdir()?;
    let bytes = |arguments: &[&str]| -> TestResult<Vec<u8>> {
        generate(directory.path(), &[&["a cat", "--seed", "3"], arguments].concat())?;
        Ok(image(&directory.path().join("out.png"))?.into_raw())
    };
    assert_ne!(bytes(&[])?, bytes(&["--rng", "cuda"])?);
    let ddim = ["--scheduler", "ddim"];
    assert_ne!(bytes(&ddim)?, bytes(&[&ddim, ["--eta", "1"].as_slice()].concat())?);
    assert_ne!(bytes(&ddim)?, bytes(&[&ddim, ["--timestep-spacing", "trailing"].as_slice()].concat())?);
    let euler = ["--scheduler", "euler", "--steps", "3"];
    let karras = bytes(&[euler.as_slice(), &["--karras"]].concat())?;
    assert_ne!(bytes(&euler)?, karras);
    assert_eq!(karras, bytes(&[euler.as_slice(), &["--sigma-spacing", "karras"]].concat())?);
    let model = golden_model(MODEL)?;
    for steps in [["--timesteps", "999,500,1"], ["--sigmas", "14.6,1.6,0.03,0"]] {
        let mut arguments = vec!["generate", "a cat", "--model", &model, "--scheduler", "euler"];
        arguments.extend(["--width", "64", "--height", "64", "--timings", "t.json"]);
        arguments.extend(steps);
        succeeded(&run(directory.path(), &arguments)?);
        let timings: Value = serde_json::from_slice(&fs::read(directory.path().join("t.json"))?)?;
        assert_eq!(timings["steps_s"].as_array().map(Vec::len), Some(3), "{steps:?}");
    }
    Ok(())
}

#[test]
fn weights_are_read_where_they_are_asked_for() -> TestResult {
    let directory = tempfile::tempdir()?;
    let bytes = |prompt: &str, arguments: &[&str]| -> TestResult<Vec<u8>> {
        generate(directory.path(), &[&[prompt, "--seed", "3"], arguments].concat())?;
        Ok(image(&directory.path().join("out.png"))?.into_raw())
    };
    let weights = ["--prompt-weights"];
    assert_eq!(bytes("a red cat", &[])?, bytes("a red cat", &weights)?);
    assert_ne!(bytes("a red cat", &weights)?, bytes("a (red:1.5) cat", &weights)?);
    assert_eq!(bytes("a (red:1.5) cat", &weights)?, bytes("a （red：1.5） cat", &weights)?);
    assert_ne!(bytes("a (red:1.5) cat", &weights)?, bytes("a (red:1.5) cat", &[])?);
    Ok(())
}

#[test]
fn verbosity_is_asked_for() -> TestResult {
    let directory = tempfile::tempdir()?;
    let model = golden_model("alt_diffusion_m18")?;
    let output = run(directory.path(), &["-v", "generate", "--steps", "1", "--model", &model, "a cat"])?;
    assert!(output.status.success());
    assert!(!output.stderr.is_empty());
    Ok(())
}

#[test]
fn help_is_prose_with_examples() -> TestResult {
    let directory = tempfile::tempdir()?;
    let help = succeeded(&run(directory.path(), &["generate", "--help"])?);
    for part in ["一只猫", "BAAI/AltDiffusion-m9", "--negative-prompt", "--initial-latents", "--timings"] {
        assert!(help.contains(part), "no {part} in {help}");
    }
    assert!(succeeded(&run(directory.path(), &["--help"])?).contains("altdiffusion generate 一只猫"));
    Ok(())
}

/// An image decides the size, and a mask what stays of it: the golden values are those of the library.
#[test]
fn an_image_to_begin_with() -> TestResult {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    let given = RgbImage::from_fn(41, 53, |x, y| image::Rgb([x as u8 * 6, y as u8 * 4, 128]));
    given.save(path("given.png"))?;
    // Left half white: only there something new appears.
    image::GrayImage::from_fn(41, 53, |x, _| image::Luma([if x < 16 { 255 } else { 0 }]))
        .save(path("mask.png"))?;
    let model = golden_model(MODEL)?;
    let draw = |prompt: &str, more: &[&str]| -> TestResult<candle_core::Tensor> {
        let fixed =
            ["generate", prompt, "--model", &model, "--steps", "4", "--seed", "1", "--image", "given.png"];
        let all = [&fixed[..], &["--save-latents", "final"], more].concat();
        let said = succeeded(&run(directory.path(), &all)?);
        assert!(said.starts_with("out.png: 40 × 48 pixels"), "{said}");
        tensor(&path("final"), "latents")
    };
    let (little, much) = (draw("a cat", &["--strength", "0.25"])?, draw("a cat", &["--strength", "1"])?);
    assert!(relative_error(&much, &little)? > 0.1);
    let (one, other) = (draw("a cat", &["--mask", "mask.png"])?, draw("两座房子", &["--mask", "mask.png"])?);
    assert_eq!(relative_error(&one.narrow(3, 2, 3)?, &other.narrow(3, 2, 3)?)?, 0.0);
    assert!(relative_error(&one.narrow(3, 0, 2)?, &other.narrow(3, 0, 2)?)? > 1e-3);
    Ok(())
}

#[test]
fn several_images_in_one_and_the_way_there() -> TestResult {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    let said = generate(
        directory.path(),
        &[
            "一只猫",
            "--seed",
            "3",
            "--num-images",
            "3",
            "--grid",
            "--save-steps",
            "steps.gif",
            "--steps",
            "4",
        ],
    )?;
    assert!(said.starts_with("out.png: 134 × 134 pixels, seed 3"), "{said}");
    assert_eq!(fs::read_dir(directory.path())?.count(), 2);
    let gif =
        image::codecs::gif::GifDecoder::new(std::io::BufReader::new(fs::File::open(path("steps.gif"))?))?;
    let frames = image::AnimationDecoder::into_frames(gif).collect_frames()?;
    assert!(frames.len() > 4, "a frame for each call of the model, and the finished image");
    assert!(frames.iter().all(|frame| frame.buffer().dimensions() == (134, 134)));
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
    let told = text(&arguments)?.ok_or("nothing told")?;
    let expected = "一只猫\nNegative prompt: 模糊\nSteps: 2, Sampler: Euler, Schedule type: Karras, CFG scale: 7.5, \
                    Seed: 3, Size: 64x64, Model hash: ";
    assert!(told.starts_with(expected) && told.contains(", Model: alt_diffusion, "), "{told}");
    assert_eq!(text(&[&arguments[..], &["--no-parameters"]].concat())?, None);
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
    // The corner belongs to one tile, whose other edges are far.
    assert!(
        whole != tiled
            && whole.get_pixel(0, 0).0.iter().zip(tiled.get_pixel(0, 0).0).all(|(a, b)| a.abs_diff(b) < 64)
    );
    assert_eq!(draw(&["--vae-tiling=64"])?, whole);
    Ok(())
}

#[test]
fn several_prompts_are_numbered_on() -> TestResult {
    let directory = tempfile::tempdir()?;
    let said = generate(directory.path(), &["一只猫", "a house", "--seed", "3", "--num-images", "2"])?;
    assert_eq!(said.lines().count(), 4, "{said}");
    assert_eq!(fs::read_dir(directory.path())?.count(), 4);
    let text = |number: usize| -> TestResult<String> {
        let bytes = fs::read(directory.path().join(format!("out-{number}.png")))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    assert!(text(2)?.contains("一只猫\n") && text(3)?.contains("a house\n"));
    Ok(())
}

/// Ctrl-C, and what else ends programs, leaves nothing half done, in the middle of a step too.
#[test]
#[cfg(unix)]
fn an_interrupt_leaves_nothing_behind() -> TestResult {
    for (signal, size) in [("-INT", "64"), ("-TERM", "256"), ("-HUP", "256")] {
        let directory = tempfile::tempdir()?;
        let (code, said) =
            interrupted(directory.path(), "exec \"$@\"", signal, &["--width", size, "--steps", "900"])?;
        assert_eq!(code, Some(130), "{said}");
        assert!(said.starts_with("error: cancelled ") && !said.contains('\n'), "{said}");
        assert_eq!(fs::read_dir(directory.path())?.count(), 0);
    }
    Ok(())
}

/// What whoever started the program ignores stays ignored, as of `nohup`.
#[test]
#[cfg(unix)]
fn a_signal_that_is_ignored_is_no_interrupt() -> TestResult {
    let directory = tempfile::tempdir()?;
    let (code, said) = interrupted(
        directory.path(),
        "trap '' HUP; exec \"$@\"",
        "-HUP",
        &["--width", "64", "--steps", "9"],
    )?;
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert!(directory.path().join("out.png").exists());
    Ok(())
}

/// Runs the program in a shell, and sends it a signal when it has begun. Returns its exit code and what it said then.
#[cfg(unix)]
fn interrupted(
    directory: &Path,
    shell: &str,
    signal: &str,
    arguments: &[&str],
) -> TestResult<(Option<i32>, String)> {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let program = altdiffusion(directory);
    let mut command = Command::new("sh");
    command.current_dir(directory).args(["-c", shell, "sh"]).arg(program.get_program());
    command.args(["generate", "a cat", "--scheduler", "ddim", "--verbose"]).args(arguments);
    command.env("RUST_LOG", "altdiffusion=debug");
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = common::obeying_signals(&mut command).spawn()?;
    let stderr = BufReader::new(child.stderr.take().ok_or("no standard error")?);
    let mut said = None;
    for line in stderr.lines() {
        let line = line?;
        match &mut said {
            Some(said) if !line.contains(" DEBUG ") && !line.contains(" INFO ") => *said += line.as_str(),
            // The options are told when the work begins.
            None if line.contains("GenerateOptions") => {
                Command::new("kill").args([signal, &child.id().to_string()]).status()?;
                said = Some(String::new());
            }
            _ => {}
        }
    }
    Ok((child.wait()?.code(), said.ok_or("it never began")?))
}

/// Wider than high and higher than wide, with a row for each of several prompts.
#[test]
fn sheets_of_images_that_are_not_square() -> TestResult {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    for (width, height) in [(72u32, 48u32), (48, 72)] {
        let (wide, high) = (width.to_string(), height.to_string());
        let fixed = ["一只猫", "a house", "--seed", "3", "-n", "3", "--width", &wide, "--height", &high];
        generate(directory.path(), &[&fixed[..], &["--output", "one.png"]].concat())?;
        let sheet = ["--grid", "--save-steps", "steps.gif", "--output", "sheet.png"];
        // It may warn that there are no fonts for the texts.
        let model = golden_model(MODEL)?;
        let drawn = ["generate", "--model", &model, "--steps", "2"];
        let said = String::from_utf8(run(directory.path(), &[&drawn, &fixed[..], &sheet].concat())?.stdout)?;
        // A line of text above each row has 20 pixels.
        let size = (3 * (width + 2) + 2, 2 * (height + 20 + 2) + 2);
        assert!(said.starts_with(&format!("sheet.png: {} × {} pixels, seed 3\n", size.0, size.1)), "{said}");
        let sheet = image(&path("sheet.png"))?;
        for index in 0..6 {
            let one = image(&path(&format!("one-{}.png", index + 1)))?;
            let (left, top) = (2 + index % 3 * (width + 2), 22 + index / 3 * (height + 20 + 2));
            assert_eq!(
                image::imageops::crop_imm(&sheet, left, top, width, height).to_image(),
                one,
                "{index}"
            );
        }
        let gif = std::io::BufReader::new(fs::File::open(path("steps.gif"))?);
        let gif = image::codecs::gif::GifDecoder::new(gif)?;
        let frames = image::AnimationDecoder::into_frames(gif).collect_frames()?;
        assert!(frames.len() > 2 && frames.iter().all(|frame| frame.buffer().dimensions() == size));
    }
    Ok(())
}

/// What the format of a file has no place for is refused before anything is drawn.
#[test]
fn sheets_that_no_file_can_hold_are_refused_first() -> TestResult {
    let directory = tempfile::tempdir()?;
    let model = golden_model(MODEL)?;
    for (more, expected) in [
        (["--output", "a.jpg", "--grid", "--seed=1"], "a.jpg: 65602 × 65602 pixels"),
        (["--output", "a.webp", "--grid", "--seed=1"], "at most 16383"),
        (["--save-steps", "a.gif", "--grid", "--seed=1"], "a.gif: 65602 × 65602 pixels, of which .gif"),
    ] {
        let all =
            ["generate", "a cat", "--model", &model, "-n", "1000", "--width", "2048", "--height", "2048"];
        let output = run(directory.path(), &[&all[..], &more].concat())?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && stderr.contains(expected), "{stderr}");
        assert_eq!(fs::read_dir(directory.path())?.count(), 0);
    }
    Ok(())
}

/// The names that web interfaces, stable-diffusion.cpp and diffusers have for the same.
#[test]
fn options_of_other_programs_are_known() -> TestResult {
    let directory = tempfile::tempdir()?;
    let model = golden_model(MODEL)?;
    let told = |arguments: &[&str]| -> TestResult<String> {
        let output = run(directory.path(), &[&["generate", "--json"], arguments].concat())?;
        let drawn: Value = serde_json::from_str(&succeeded(&output))?;
        let last = drawn.as_array().and_then(|drawn| drawn.last()).ok_or("nothing was drawn")?;
        Ok(last["parameters"].as_str().unwrap_or_default().to_owned())
    };
    let ours = told(&[
        "a cat",
        "--model",
        &model,
        "--seed",
        "6",
        "--steps",
        "2",
        "--scheduler",
        "dpm++-2m",
        "--karras",
        "--guidance-scale",
        "3",
        "--width",
        "64",
        "--height",
        "48",
        "--negative-prompt",
        "dogs",
    ])?;
    let size = ["-W", "64", "-H", "48", "--seed", "5", "--negative-prompt", "dogs"];
    for arguments in [
        [
            "-p",
            "a cat",
            "-m",
            &model,
            "--sampling-method",
            "dpm++2m",
            "--schedule",
            "karras",
            "--cfg-scale",
            "3",
            "-b",
            "2",
            "--steps",
            "2",
        ],
        [
            "--prompt",
            "a cat",
            "--ckpt",
            &model,
            "--sampler",
            "DPM++ 2M",
            "--scheduler",
            "karras",
            "--cfg",
            "3",
            "--batch-size",
            "2",
            "--steps",
            "2",
        ],
        [
            "--prompt",
            "a cat",
            "--model",
            &model,
            "--sampler-name",
            "DPM++ 2M Karras",
            "--rng",
            "cpu",
            "--guidance-scale",
            "3",
            "--n-iter",
            "2",
            "--num-inference-steps",
            "2",
        ],
    ] {
        assert_eq!(told(&[&arguments[..], &size].concat())?, ours);
    }
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
        assert!(relative_error(&latents(name, arguments)?, &plain)? > 1e-3, "{name}");
    }
    assert_eq!(relative_error(&latents("low", &["--low-memory"])?, &plain)?, 0.0);
    latents("named", &["--lora", &lora, "--clip-skip", "1"])?;
    let file = fs::read(directory.path().join("out.png"))?;
    let text = String::from_utf8_lossy(&file);
    assert!(text.contains("LoRA 0: \"Model: alt_diffusion.kohya.safetensors, Weight: 0.5, Hash: "), "{text}");
    Ok(())
}

/// Two nets and their images, through the options; what web interfaces would tell about them is in the image.
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
    let told = "ControlNet 1: \"Module: none, Model: sd1, Weight: 0, Guidance Start: 0, Guidance End: 1, \
                Control Mode: Balanced, Image: b.png, Image hash: ";
    assert!(String::from_utf8_lossy(&file).contains(told));
    Ok(())
}

/// Images beside the text, with the encoder beside the adapter or elsewhere.
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
    let told = "ControlNet 0: \"Module: ip-adapter-auto, Model: alone.safetensors, Weight: 1, Encoder: image_encoder, ";
    assert!(String::from_utf8_lossy(&file).contains(told));
    Ok(())
}

/// What was downloaded before is found by the names that a person would type, with a path in the repository or without.
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
