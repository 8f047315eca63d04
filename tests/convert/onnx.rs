//! Tests `altdiffusion convert --to onnx`.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use image::{Rgb, RgbImage};
use test_support::TestResult;

use crate::Place;
use crate::common::{EMOJI, golden_model, run, succeeded};

/// Embeds texts and an image with a model, in `vectors.safetensors`.
fn embed(place: &Place, model: &str) -> TestResult {
    let image = RgbImage::from_fn(100, 80, |x, y| Rgb([2 * x as u8, 3 * y as u8, 90]));
    image.save(place.path("photo.png"))?;
    let texts =
        ["--text", "一只戴帽子的小狗", "--text", "a  red apple", "--text", "", "--image", "photo.png"];
    let arguments = [&["embed", "--model", model, "--output", "vectors.safetensors"], &texts[..]].concat();
    succeeded(&run(place.0.path(), &arguments)?);
    Ok(())
}

/// From ids and pixels on, as photo servers do it. Needs Python with onnxruntime, numpy, tokenizers and pillow;
/// `ONNX_PYTHON` may name it. What is missing is said aloud.
#[test]
fn a_photo_server_gets_the_vectors_of_the_command() -> TestResult {
    let place = Place::new()?;
    let said = place.convert(&[EMOJI, "onnx", "--to", "onnx"])?;
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("onnx: ") && lines[0].ends_with(" tensors"), "{said}");
    assert_eq!(lines[1], "texts of 77 tokens and images of 64×64 pixels become vectors of 128 values");
    embed(&place, EMOJI)?;
    let python = std::env::var("ONNX_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/check-onnx.py");
    let mut command = Command::new(&python);
    command.args([script, "onnx", "vectors.safetensors"]).current_dir(place.0.path()).stdin(Stdio::null());
    let Ok(output) = command.output() else {
        std::io::stderr().write_all(format!("SKIPPED: ONNX: {python} cannot be run\n").as_bytes())?;
        return Ok(());
    };
    let said = String::from_utf8_lossy(&output.stdout);
    if said.starts_with("SKIPPED") {
        std::io::stderr().write_all(said.as_bytes())?;
        return Ok(());
    }
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.matches("ok: ").count() == 2, "{said}{problem}");
    Ok(())
}

#[test]
fn onnx_in_json_and_in_f16() -> TestResult {
    let place = Place::new()?;
    let said = place.convert(&[EMOJI, "full", "--to", "onnx", "--json"])?;
    let report: serde_json::Value = serde_json::from_str(&said)?;
    assert_eq!(report["path"], "full");
    assert_eq!(report["left_out"], serde_json::json!([]));
    assert!(report["tensors"].as_u64().is_some_and(|tensors| tensors > 50), "{said}");
    place.convert(&[EMOJI, "half", "--to", "onnx", "--dtype", "f16"])?;
    let size = |name: &str| fs::metadata(place.path(name).join("visual/model.onnx")).map(|file| file.len());
    let (full, half) = (size("full")?, size("half")?);
    assert!(half > full * 2 / 5 && half < full * 3 / 5, "{half} of {full} bytes");
    Ok(())
}

#[test]
fn what_does_not_go_with_onnx_is_refused() -> TestResult {
    let place = Place::new()?;
    let diffusion = golden_model("alt_diffusion")?;
    let r2d2 = golden_model("r2d2/r2d2")?;
    let file = golden_model("single_file/m18.ckpt")?;
    let cases: [(&[&str], &str); 7] = [
        (&[EMOJI, "onnx", "--dtype", "q8_0"], "--dtype q8_0: expected f32 or f16 with --to onnx"),
        (&[EMOJI, "onnx", "--dtype", "bf16"], "--dtype bf16: expected f32 or f16"),
        (&[EMOJI, "onnx", "--config", EMOJI], "--config: is for a SOURCE in one file"),
        (&[EMOJI, "."], "OUTPUT .: is there already, expected a new directory"),
        (&[&diffusion, "onnx"], "without an image encoder it is no dual encoder"),
        (&[&r2d2, "onnx"], "R2D2 cannot be written as ONNX"),
        (&[&file, "onnx"], "expected the directory or the repository"),
    ];
    for (arguments, expected) in cases {
        let error = place.refused(&[&["convert"], arguments, &["--to", "onnx"]].concat())?;
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    Ok(())
}
