//! Draws several images into one file, and animations of the steps.

use std::fs;

use crate::common::{golden_model, run};
use crate::{MODEL, generate, image};
use test_support::TestResult;

#[test]
fn several_images_in_one_and_the_way_there() -> TestResult {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    let printed = generate(
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
    assert!(printed.starts_with("out.png: 134 × 134 pixels, seed 3"), "{printed}");
    assert_eq!(fs::read_dir(directory.path())?.count(), 2);
    let gif =
        image::codecs::gif::GifDecoder::new(std::io::BufReader::new(fs::File::open(path("steps.gif"))?))?;
    let frames = image::AnimationDecoder::into_frames(gif).collect_frames()?;
    assert!(frames.len() > 4, "a frame for each call of the model, and the finished image");
    assert!(frames.iter().all(|frame| frame.buffer().dimensions() == (134, 134)));
    Ok(())
}

/// Landscape and portrait, with a row per prompt.
#[test]
fn sheets_of_images_that_are_not_square() -> TestResult {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    for (width, height) in [(72u32, 48u32), (48, 72)] {
        let (wide, high) = (width.to_string(), height.to_string());
        let fixed = ["一只猫", "a house", "--seed", "3", "-n", "3", "--width", &wide, "--height", &high];
        generate(directory.path(), &[&fixed[..], &["--output", "one.png"]].concat())?;
        let sheet = ["--grid", "--save-steps", "steps.gif", "--output", "sheet.png"];
        // It may warn about missing fonts.
        let model = golden_model(MODEL)?;
        let drawn = ["generate", "--model", &model, "--steps", "2"];
        let printed =
            String::from_utf8(run(directory.path(), &[&drawn, &fixed[..], &sheet].concat())?.stdout)?;
        // The caption above each row has 20 pixels.
        let size = (3 * (width + 2) + 2, 2 * (height + 20 + 2) + 2);
        assert!(
            printed.starts_with(&format!("sheet.png: {} × {} pixels, seed 3\n", size.0, size.1)),
            "{printed}"
        );
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

/// What a file's format cannot hold is refused before drawing.
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
