//! Tests images and lists found in practice: rare endings, transparency, coloured masks, and files that are not what
//! they should be.

mod common;

use std::fs;
use std::path::Path;

use common::{golden_model, run, succeeded, tensor};
use image::{GrayImage, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use serde_json::Value;
use test_support::{TestResult, relative_error};

/// The program's standard error, after it ended as expected.
fn complaint(directory: &Path, arguments: &[&str], succeeds: bool) -> TestResult<String> {
    let output = run(directory, arguments)?;
    let stderr = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(if succeeds { 0 } else { 1 }), "{stderr}");
    Ok(stderr)
}

#[test]
fn directories_are_searched_for_images_of_every_ending() -> TestResult {
    let directory = tempfile::tempdir()?;
    let photo = RgbImage::from_fn(20, 16, |x, y| Rgb([x as u8 * 12, y as u8 * 15, 90]));
    for (name, format) in [
        ("a.jpg", image::ImageFormat::Jpeg),
        ("b.jfif", image::ImageFormat::Jpeg),
        ("c.JPE", image::ImageFormat::Jpeg),
        ("d.mpo", image::ImageFormat::Jpeg),
        ("e.apng", image::ImageFormat::Png),
        ("f.tif", image::ImageFormat::Png),
    ] {
        photo.save_with_format(directory.path().join(name), format)?;
    }
    fs::write(directory.path().join("g.ppm"), b"P6 1 1 255 abc")?;
    fs::write(directory.path().join("h.jxl"), b"\xff\x0a\xfa\x7f")?;
    fs::write(directory.path().join("notes.txt"), "")?;
    let place = tempfile::tempdir()?;
    let output = place.path().join("o.safetensors").display().to_string();
    let printed = succeeded(&run(directory.path(), &["embed", "--image", ".", "--output", &output])?);
    let expected = "7 images; left out: 1 .jxl, 1 .txt (convert such images to PNG or JPEG)\n";
    assert!(printed.ends_with(expected), "{printed}");

    // A file named explicitly is not skipped.
    let error = complaint(directory.path(), &["similarity", "--image", "h.jxl", "--text", "a"], false)?;
    assert_eq!(
        error,
        "error: --image: h.jxl: a JPEG XL image, which is not read here: convert such images to PNG or JPEG\n"
    );
    Ok(())
}

/// The same drawing, opaque on white and transparent with wild colours around it.
fn drawings(directory: &Path) -> TestResult {
    let is_drawn = |x: u32, y: u32| (x as i32 - 32).pow(2) + (y as i32 - 32).pow(2) < 400;
    let red = [220, 30, 30];
    RgbImage::from_fn(64, 64, |x, y| Rgb(if is_drawn(x, y) { red } else { [255; 3] }))
        .save(directory.join("white.png"))?;
    RgbaImage::from_fn(64, 64, |x, y| match is_drawn(x, y) {
        true => Rgba([red[0], red[1], red[2], 255]),
        false => Rgba([(x * 7) as u8, (y * 5) as u8, 0, 0]),
    })
    .save(directory.join("transparent.png"))?;
    Ok(())
}

#[test]
fn transparent_images_lie_on_the_background_of_the_model_or_of_the_option() -> TestResult {
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    drawings(root)?;
    let vectors = |name: &str, more: &[&str], says: &str| -> TestResult<candle_core::Tensor> {
        let images = ["embed", "--image", "white.png", "--image", "transparent.png", "-o", name];
        let printed = complaint(root, &[&images[..], more].concat(), true)?;
        assert_eq!(printed.lines().last().unwrap_or_default(), says, "{more:?}");
        tensor(&root.join(name), "image_embeds")
    };
    let apart = |vectors: &candle_core::Tensor| -> TestResult<f64> {
        Ok(relative_error(&vectors.narrow(0, 1, 1)?, &vectors.narrow(0, 0, 1)?))
    };
    // White for the model in the program: the same as the opaque one.
    assert_eq!(apart(&vectors("a.safetensors", &[], "")?)?, 0.0);
    assert_eq!(apart(&vectors("b.safetensors", &["--background", "#fff"], "")?)?, 0.0);
    assert!(apart(&vectors("c.safetensors", &["--background", "black"], "")?)? > 0.1);
    let bare = vectors("d.safetensors", &["--background", "none"], "")?;
    assert!(apart(&bare)? > 0.1);
    // A published model is used like in the reference, with a warning.
    let model = golden_model("dual_encoders/chinese_clip")?;
    let warning = "warning: 1 image has transparency; the colours under it are used, as the reference implementations \
                   do; --background white composites them";
    assert!(apart(&vectors("e.safetensors", &["--model", &model], warning)?)? > 0.0);
    assert_eq!(apart(&vectors("f.safetensors", &["--model", &model, "--background", "white"], "")?)?, 0.0);

    // A search uses the background of its index.
    let score = |index: &str| -> TestResult<f64> {
        let output = run(root, &["search", index, "--image", "transparent.png", "--top", "2", "--json"])?;
        let hits: Vec<Value> = serde_json::from_str(&succeeded(&output))?;
        let own = hits.iter().find(|hit| hit["item"] == "transparent.png").ok_or("not found")?;
        Ok(own["score"].as_f64().ok_or("no score")?)
    };
    for index in ["a.safetensors", "c.safetensors", "d.safetensors"] {
        assert!((score(index)? - 1.0).abs() < 1e-5, "{index}");
    }
    let refused = run(root, &["embed", "--image", "white.png", "-o", "x.npy", "--background", "pink"])?;
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8(refused.stderr)?.contains("expected white, black, #rrggbb, or none"));
    Ok(())
}

/// Grey follows Rec. 601 as in Pillow: this green is black in a mask, and this orange white.
#[test]
fn coloured_masks_are_grey_as_for_diffusers() -> TestResult {
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    RgbImage::from_fn(41, 53, |x, y| Rgb([x as u8 * 6, y as u8 * 4, 128])).save(root.join("given.png"))?;
    let halves = |name: &str, left: [u8; 3]| {
        RgbImage::from_fn(41, 53, |x, _| Rgb(if x < 16 { left } else { [0; 3] })).save(root.join(name))
    };
    halves("green.png", [0, 200, 0])?;
    halves("orange.png", [255, 100, 0])?;
    halves("violet.png", [250, 60, 255])?;
    GrayImage::from_fn(41, 53, |x, _| Luma([if x < 16 { 255 } else { 0 }])).save(root.join("white.png"))?;
    GrayImage::new(41, 53).save(root.join("black.png"))?;
    // The hidden colour is white, but not on black.
    RgbaImage::from_fn(41, 53, |x, _| Rgba([255, 255, 255, if x < 16 { 255 } else { 0 }]))
        .save(root.join("cut.png"))?;
    let model = golden_model("alt_diffusion")?;
    let latents = |mask: &str, more: &[&str]| -> TestResult<candle_core::Tensor> {
        let fixed =
            ["generate", "cat", "--model", &model, "--steps", "2", "--seed", "1", "--image", "given.png"];
        let all = [&fixed[..], &["--save-latents", "final", "--mask", mask], more].concat();
        complaint(root, &all, true)?;
        tensor(&root.join("final"), "latents")
    };
    let (white, black) = (latents("white.png", &[])?, latents("black.png", &[])?);
    assert!(relative_error(&white, &black) > 1e-3);
    assert_eq!(relative_error(&latents("green.png", &[])?, &black), 0.0);
    for mask in ["orange.png", "violet.png"] {
        assert_eq!(relative_error(&latents(mask, &[])?, &white), 0.0, "{mask}");
    }
    assert_eq!(relative_error(&latents("cut.png", &["--background", "black"])?, &white), 0.0);
    // The image records the background too.
    complaint(root, &["generate", "--like", "out.png", "--model", &model, "--save-latents", "again"], true)?;
    assert_eq!(relative_error(&tensor(&root.join("again"), "latents")?, &white), 0.0);
    assert!(relative_error(&latents("cut.png", &["--background", "none"])?, &white) > 0.0);
    Ok(())
}

#[test]
fn the_most_pixels_can_be_chosen() -> TestResult {
    let directory = tempfile::tempdir()?;
    drawings(directory.path())?;
    let arguments = ["classify", "white.png", "--label", "a", "--max-pixels", "4095"];
    let error = complaint(directory.path(), &arguments, false)?;
    assert!(error.contains("white.png: 64×64 pixels, expected 1 to 4095 in all"), "{error}");
    let arguments = ["classify", "white.png", "--label", "a", "--max-pixels", "4096"];
    succeeded(&run(directory.path(), &arguments)?);
    Ok(())
}

#[test]
fn lists_are_read_whatever_wrote_them() -> TestResult {
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    drawings(root)?;
    fs::write(root.join("labels.txt"), "\u{feff}red\r\n\r\nblue\r\n")?;
    let output = run(root, &["classify", "white.png", "--labels", "labels.txt", "--json"])?;
    let found: Value = serde_json::from_str(&succeeded(&output))?;
    let mut labels: Vec<&str> = Vec::new();
    labels.extend(
        found[0]["labels"].as_array().ok_or("no list")?.iter().filter_map(|label| label["label"].as_str()),
    );
    labels.sort_unstable();
    assert_eq!(labels, ["blue", "red"]);

    fs::create_dir(root.join("a"))?;
    fs::create_dir(root.join("b"))?;
    fs::copy(root.join("white.png"), root.join("a/1.png"))?;
    fs::copy(root.join("white.png"), root.join("b/1.jfif"))?;
    fs::write(root.join("classes.txt"), "\u{feff}a\tred\r\nb\tblue\r\n")?;
    let printed = succeeded(&run(
        root,
        &["eval", "zero-shot", ".", "--classes", "classes.txt", "--template", "{}", "--json"],
    )?);
    assert_eq!(serde_json::from_str::<Value>(&printed)?[0]["images"], 2);

    // The list's actual error, a truncated line, not that the list changed.
    fs::write(root.join("images.jsonl"), "{\"image\": \"white.png\"}\n{\"image\": 3}\n")?;
    let error = complaint(root, &["embed", "--images", "images.jsonl", "-o", "o.npy"], false)?;
    assert_eq!(
        error,
        "error: --images images.jsonl: line 2: column \"image\": expected a string, found a number\n"
    );
    #[cfg(target_os = "linux")]
    {
        let error = complaint(root, &["embed", "--texts", "/dev/zero", "-o", "o.npy"], false)?;
        assert_eq!(error, "error: --texts /dev/zero: expected a file, found a device\n");
    }
    Ok(())
}
