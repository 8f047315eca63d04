//! Reads how other programs drew their images, and rejects hostile records.

use std::fs;
use std::path::Path;

use crate::common::run;
use crate::random_options::place;
use test_support::TestResult;

/// Texts of stable-diffusion-webui, Forge and stable-diffusion.cpp, in all the places where they store them.
#[test]
fn images_of_other_programs_are_read_as_far_as_they_go() -> TestResult {
    let place = place()?;
    let webui = "a (red:1.2) cat <lora:nothing:0.7>\nNegative prompt: dogs\nSteps: 2, Sampler: DPM++ 2M, Schedule type: \
                 Karras, CFG scale: 3, Seed: 5, Size: 64x48, Model hash: 6ce0161689, Model: v1-5, Clip skip: 2, Hires \
                 upscale: 2, Version: v1.10.1";
    let forge = "a cat\nSteps: 2, Sampler: Euler a, Schedule type: Align Your Steps, CFG scale: 3, Seed: 5, Size: 64x48, \
                 Model: x, Version: f2.0.1";
    let cpp = "a cat\nSteps: 2, CFG scale: 3.000000, Guidance: 3.500000, Eta: 0.000000, Seed: 5, Size: 64x48, Model: \
               sd.ckpt, RNG: cuda, Sampler: dpm++2m karras, Version: stable-diffusion.cpp";
    for (text, recorded, unused) in [
        (
            webui,
            "Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 3, Seed: 5, Size: 64x48",
            "LoRA: nothing, Model: v1-5, Hires upscale: 2",
        ),
        (
            forge,
            "Sampler: Euler a, CFG scale: 3, Seed: 5, Size: 64x48",
            "Schedule type: Align Your Steps, Model: x",
        ),
        (
            cpp,
            "Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 3, Seed: 5, Size: 64x48",
            "Model: sd.ckpt, Guidance: 3.500000",
        ),
    ] {
        for name in ["text.png", "ztxt.png", "itxt.png", "late.png", "text.txt"] {
            write_text(&place.path().join(name), text)?;
            let output = run(place.path(), &["generate", "--like", name, "--json", "--model", "models/m9"])?;
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(stderr, format!("warning: --like {name}: not used: {unused}\n"), "{name}");
            let drawn: serde_json::Value = serde_json::from_slice(&output.stdout)?;
            let parameters = drawn["parameters"].as_str().unwrap_or_default();
            assert!(parameters.contains(recorded) && parameters.contains("RNG: NV"), "{name}: {parameters}");
            assert!(parameters.contains("Prompt weights: True"), "{parameters}");
        }
    }
    Ok(())
}

/// Writes a text as the file's name says: in a kind of chunk, after the pixels, or alone.
fn write_text(path: &Path, text: &str) -> TestResult {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    if path.extension().is_some_and(|ending| ending == "txt") {
        return Ok(fs::write(path, text)?);
    }
    let mut encoder = png::Encoder::new(fs::File::create(path)?, 1, 1);
    match name.as_str() {
        "text" => encoder.add_text_chunk("parameters".to_owned(), text.to_owned())?,
        "ztxt" => encoder.add_ztxt_chunk("parameters".to_owned(), text.to_owned())?,
        "itxt" => encoder.add_itxt_chunk("parameters".to_owned(), text.to_owned())?,
        _ => {}
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&[0])?;
    if name == "late" {
        writer.write_text_chunk(&png::text_metadata::TEXtChunk::new("parameters", text))?;
    }
    Ok(writer.finish()?)
}

/// Untrusted chunks: missing, too long, not text, not numbers, and with paths to other files.
#[test]
fn hostile_chunks_end_in_one_line() -> TestResult {
    let place = place()?;
    let path = |name: &str| place.path().join(name);
    let ours = |fields: &str| {
        format!("a cat\nSteps: 2, Sampler: Euler, Seed: 1, {fields}, Version: altdiffusion 0.1.0")
    };
    write_text(&path("itxt.png"), "")?;
    let many = "ControlNet 0: a, Image: x, LoRA 0: b, ".repeat(90_000);
    let prompts = serde_json::Value::from(vec!["a"; 2000]).to_string();
    let cases: [(&str, String, &str); 10] = [
        ("ztxt.png", "x".repeat(100 << 20), "more than 4194304 bytes"),
        ("text.png", "x".repeat(5 << 20), "more than 4194304 bytes"),
        ("text.txt", "x".repeat(5 << 20), "expected at most"),
        ("none.png", String::new(), "does not say how it was drawn"),
        ("itxt.png", ours("Model: /etc, Size: 64x48"), "drawn with --model /etc"),
        ("itxt.png", ours("Model: ../../etc"), "drawn with --model ../../etc"),
        ("itxt.png", ours("Image: /etc/passwd"), "drawn with --image /etc/passwd"),
        ("itxt.png", ours("LoRA 0: \"Model: \\u001b[2J.safetensors\""), "\\u{1b}[2J.safetensors"),
        ("itxt.png", ours("Prompts: \"[1\""), "Prompts"),
        ("itxt.png", ours(&format!("Prompts: {}", serde_json::Value::from(prompts))), "2000 images"),
    ];
    for (name, text, expected) in cases {
        write_text(&path(name), &text)?;
        let output = run(place.path(), &["generate", "--like", name, "--steps", "1"])?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
        assert!(stderr.contains(expected) && stderr.len() < 1000, "{stderr}");
    }
    fs::write(path("cut.png"), &fs::read(path("itxt.png"))?[..60])?;
    fs::write(path("a.jpg"), [0xff, 0xd8, 0xff, 0xe1, 0xff, 0xff])?;
    for name in ["cut.png", "a.jpg", "missing.png", "net"] {
        let output = run(place.path(), &["generate", "--like", name])?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
        assert!(stderr.starts_with(&format!("error: --like: {name}: ")), "{stderr}");
    }
    // More fields than any program writes.
    write_text(&path("itxt.png"), &ours(&many))?;
    let output = run(place.path(), &["generate", "--like", "itxt.png"])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains(" and 2") && stderr.len() < 1000, "{stderr}");
    // Invalid values are named, and the rest is used.
    write_text(
        &path("itxt.png"),
        &ours("CFG scale: warm, Size: 63x-1, Eta: 9, Batch size: x, Clip skip: 0, More: 1"),
    )?;
    let output = run(place.path(), &["generate", "--like", "itxt.png"])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let unused = "Size: 63, Size: -1, Clip skip: 0, CFG scale: warm, Eta: 9, More: 1";
    assert!(
        output.status.success() && stderr.contains(unused) && stderr.contains("Batch size: x"),
        "{stderr}"
    );
    Ok(())
}
