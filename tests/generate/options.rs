//! Draws with many kinds of options, under their own names and those of other programs.

use std::fs;

use serde_json::Value;

use crate::common::{golden_model, run, succeeded};
use crate::{MODEL, generate, image};
use test_support::TestResult;

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
    for dtype in ["f16", "bf16", "int8"] {
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

/// The names of the same options in web interfaces, stable-diffusion.cpp and diffusers.
#[test]
fn options_of_other_programs_are_known() -> TestResult {
    let directory = tempfile::tempdir()?;
    let model = golden_model(MODEL)?;
    let recorded = |arguments: &[&str]| -> TestResult<String> {
        let output = run(directory.path(), &[&["generate", "--json"], arguments].concat())?;
        let drawn = succeeded(&output);
        let last: Value = serde_json::from_str(drawn.lines().last().ok_or("nothing was drawn")?)?;
        Ok(last["parameters"].as_str().unwrap_or_default().to_owned())
    };
    let ours = recorded(&[
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
        assert_eq!(recorded(&[&arguments[..], &size].concat())?, ours);
    }
    Ok(())
}
