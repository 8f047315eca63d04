//! Tests `altdiffusion similarity` and `classify`.

mod common;

use std::fs;
use std::path::Path;

use altclip_encoder::altclip::normalize;
use candle_core::{D, Tensor};
use common::{EMOJI, emoji, run, run_with_input, succeeded};
use image::{DynamicImage, Rgb, RgbImage};
use serde_json::Value;
use test_support::TestResult;

/// The numbers go through decimal JSON and back.
const TOLERANCE: f64 = 1e-5;

/// Three different images, by name.
fn images(directory: &Path) -> TestResult<Vec<(String, DynamicImage)>> {
    let draw = |background: [u8; 3], disc: [u8; 3]| {
        RgbImage::from_fn(80, 64, |x, y| {
            let (dx, dy) = (f64::from(x) - 40., f64::from(y) - 32.);
            Rgb(if dx * dx + dy * dy < 500. { disc } else { background })
        })
    };
    let drawn = [
        ("red.png", draw([255; 3], [220, 30, 20])),
        ("green.png", draw([255; 3], [20, 160, 40])),
        ("night.png", draw([10, 10, 40], [240; 3])),
    ];
    let save = |(name, image): (&str, RgbImage)| {
        image.save(directory.join(name))?;
        Ok((name.to_owned(), image.into()))
    };
    drawn.into_iter().map(save).collect()
}

fn close(found: &Value, expected: f32) -> bool {
    found.as_f64().is_some_and(|found| (found - f64::from(expected)).abs() <= TOLERANCE)
}

#[test]
fn similarities_are_those_of_the_library() -> TestResult {
    let directory = tempfile::tempdir()?;
    let images = images(directory.path())?;
    let texts = ["一个红苹果", "a green apple", "月亮"];
    let mut arguments = vec!["similarity", "--model", EMOJI, "--json"];
    arguments.extend(images.iter().flat_map(|(name, _)| ["--image", name]));
    arguments.extend(texts.iter().flat_map(|text| ["--text", text]));
    let found: Value = serde_json::from_str(&succeeded(&run(directory.path(), &arguments)?))?;

    let embedder = emoji()?;
    let opened: Vec<DynamicImage> = images.iter().map(|(_, image)| image.clone()).collect();
    let (image_embeds, text_embeds) = (embedder.embed_images(&opened)?, embedder.embed_texts(&texts)?);
    let logits = embedder.similarity(&image_embeds, &text_embeds)?;
    let probabilities = candle_nn::ops::softmax(&logits, D::Minus1)?.to_vec2::<f32>()?;
    let cosines = normalize(&image_embeds)?.matmul(&normalize(&text_embeds)?.t()?)?.to_vec2::<f32>()?;
    assert_eq!(found.as_array().map(Vec::len), Some(3));
    for (i, (name, _)) in images.iter().enumerate() {
        assert_eq!(found[i]["image"], name.as_str());
        for (j, text) in texts.iter().enumerate() {
            let row = &found[i]["texts"][j];
            assert_eq!(row["text"], *text);
            assert!(close(&row["probability"], probabilities[i][j]), "{row} {}", probabilities[i][j]);
            assert!(close(&row["cosine"], cosines[i][j]), "{row} {}", cosines[i][j]);
        }
    }
    Ok(())
}

#[test]
fn the_table_has_a_row_for_each_image() -> TestResult {
    let directory = tempfile::tempdir()?;
    images(directory.path())?;
    let arguments =
        ["similarity", "--image", "red.png", "--image", "night.png", "--text", "苹果", "--text", "月亮"];
    let table = succeeded(&run(directory.path(), &arguments)?);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    assert!(lines[0].starts_with("red.png\t") && lines[0].matches(" %").count() == 2, "{table}");
    assert!(lines[1].starts_with("night.png\t"), "{table}");

    // Programs find the image in every line.
    let arguments = ["classify", "red.png", "night.png", "--label", "苹果", "--label", "月亮"];
    let table = succeeded(&run(directory.path(), &arguments)?);
    let images: Vec<&str> = table.lines().filter_map(|line| line.split('\t').next()).collect();
    assert_eq!(images, ["red.png", "red.png", "night.png", "night.png"], "{table}");
    Ok(())
}

/// Templates are averaged as unit vectors.
#[test]
fn classes_are_the_means_of_their_templates() -> TestResult {
    let directory = tempfile::tempdir()?;
    let images = images(directory.path())?;
    let labels = ["苹果", "月亮", "汽车"];
    fs::write(directory.path().join("labels.txt"), labels.join("\n"))?;
    let templates = ["一张{}的图片", "{}"];
    let arguments = [
        "classify",
        "--model",
        EMOJI,
        "red.png",
        "night.png",
        "--labels",
        "labels.txt",
        "--template",
        templates[0],
        "--template",
        templates[1],
        "--top",
        "3",
        "--json",
    ];
    let found: Value = serde_json::from_str(&succeeded(&run(directory.path(), &arguments)?))?;

    let embedder = emoji()?;
    for (i, (name, image)) in [&images[0], &images[2]].into_iter().enumerate() {
        let vector = embedder.embed_images(std::slice::from_ref(image))?;
        let class = |label: &str| -> TestResult<Tensor> {
            let texts = templates.map(|template| template.replace("{}", label));
            Ok(normalize(&embedder.embed_texts(&texts)?)?.sum_keepdim(0)?)
        };
        let classes = labels.iter().map(|label| class(label)).collect::<TestResult<Vec<_>>>()?;
        let logits = embedder.similarity(&vector, &Tensor::cat(&classes, 0)?)?;
        let probabilities: Vec<f32> = candle_nn::ops::softmax(&logits, D::Minus1)?.squeeze(0)?.to_vec1()?;
        assert_eq!(found[i]["image"], name.as_str());
        let rows = found[i]["labels"].as_array().ok_or("labels")?;
        assert_eq!(rows.len(), labels.len());
        let mut before = f64::INFINITY;
        for row in rows {
            let label = labels.iter().position(|label| row["label"] == *label).ok_or("a known label")?;
            assert!(close(&row["probability"], probabilities[label]), "{row}");
            let share = row["probability"].as_f64().ok_or("a number")?;
            assert!(share <= before, "{found}");
            before = share;
        }
    }
    Ok(())
}

#[test]
fn an_image_that_cannot_be_read_is_left_out_and_counted() -> TestResult {
    let directory = tempfile::tempdir()?;
    images(directory.path())?;
    fs::write(directory.path().join("broken.png"), b"no image")?;
    let labels = ["--label", "苹果", "--label", "月亮"];
    let output = run(directory.path(), &[&["classify", "broken.png", "red.png"], &labels[..]].concat())?;
    let errors = String::from_utf8(output.stderr)?;
    assert!(output.status.success(), "{errors}");
    assert_eq!(errors.lines().count(), 2, "{errors}");
    assert!(errors.starts_with("skipped: broken.png: "), "{errors}");
    assert!(errors.ends_with("1 of 2 images skipped\n"), "{errors}");
    assert!(String::from_utf8(output.stdout)?.contains("red.png"));

    let output = run(directory.path(), &[&["classify", "broken.png"], &labels[..]].concat())?;
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr)?;
    assert!(errors.ends_with("error: none of the images could be read\n"), "{errors}");
    Ok(())
}

/// Windows' shells leave patterns to the program, and a folder may hold more images than a command line.
#[test]
fn directories_and_patterns_stand_for_their_images() -> TestResult {
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    images(root)?;
    fs::create_dir_all(root.join("photos/night"))?;
    fs::create_dir(root.join("empty"))?;
    fs::rename(root.join("red.png"), root.join("photos/red.png"))?;
    fs::rename(root.join("night.png"), root.join("photos/night/night.png"))?;
    fs::write(root.join("photos/notes.txt"), "")?;
    let arguments = ["classify", "photos", "*.png", "empty", "*.gif", "--label", "苹果", "--label", "月亮"];
    let output = run(root, &[&arguments[..], &["--top", "1", "--json"]].concat())?;
    let errors = String::from_utf8(output.stderr)?;
    assert!(output.status.success(), "{errors}");
    let errors: Vec<&str> = errors.lines().collect();
    assert_eq!(errors.len(), 4, "{errors:?}");
    assert_eq!(errors[0], "photos: left out: 1 .txt");
    assert!(errors[1].starts_with("skipped: empty: no images in this directory"), "{errors:?}");
    assert_eq!(errors[2..], ["skipped: *.gif: no file fits this pattern", "2 of 5 images skipped"]);
    let found: Value = serde_json::from_slice(&output.stdout)?;
    let names: Vec<&str> =
        found.as_array().into_iter().flatten().filter_map(|image| image["image"].as_str()).collect();
    assert_eq!(names, ["photos/night/night.png", "photos/red.png", "green.png"]);
    Ok(())
}

#[test]
fn an_image_on_standard_input_is_labelled() -> TestResult {
    let directory = tempfile::tempdir()?;
    images(directory.path())?;
    let red = fs::read(directory.path().join("red.png"))?;
    let labels = ["--label", "苹果", "--label", "月亮"];
    let table = |image: &str| -> TestResult<String> {
        let arguments = [&["classify", image], &labels[..]].concat();
        Ok(succeeded(&run_with_input(directory.path(), &arguments, &red)?))
    };
    assert_eq!(table("-")?, table("red.png")?.replace("red.png", "-"));
    let arguments = ["classify", "-", "--labels", "-"];
    let output = run_with_input(directory.path(), &arguments, "苹果\n".as_bytes())?;
    let errors = String::from_utf8(output.stderr)?;
    assert!(errors.ends_with("--labels - and image -: only one of them can be standard input\n"), "{errors}");
    Ok(())
}

#[test]
fn what_cannot_be_compared_is_one_line() -> TestResult {
    let directory = tempfile::tempdir()?;
    images(directory.path())?;
    for (arguments, parts) in [
        (&["similarity", "--image", "no.png", "--text", "a"][..], ["no.png", ""]),
        (&["classify", "red.png", "--label", "a", "--template", "an image"], ["--template", "{}"]),
        (&["classify", "red.png", "--labels", "no.txt"], ["--labels no.txt", ""]),
    ] {
        let output = run(directory.path(), arguments)?;
        let error = String::from_utf8(output.stderr)?;
        assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
        assert!(error.starts_with("error: ") && parts.iter().all(|part| error.contains(part)), "{error}");
    }
    let output = run(directory.path(), &["similarity", "--image", "red.png"])?;
    assert_eq!(output.status.code(), Some(2));
    Ok(())
}
