//! Tests `altdiffusion search`.

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Output;

use candle_core::{DType, Device, Tensor};
use common::{EMOJI, emoji, failed, run, succeeded, tensors};
use image::{DynamicImage, Rgb, RgbImage};
use serde_json::Value;
use tempfile::TempDir;
use test_support::{TestResult, copy_directory, golden};

const TEXTS: [&str; 5] = ["一只猫", "a red apple", "消防车", "<b>a cat</b>", "两只狗"];
const IMAGES: [&str; 3] = ["red.png", "green.png", "stripes.png"];

fn draw(name: &str) -> DynamicImage {
    DynamicImage::ImageRgb8(RgbImage::from_fn(300, 40, |x, y| match name {
        "red.png" => Rgb([220, 20, 30]),
        "green.png" => Rgb([10, 200, y as u8]),
        _ => Rgb([255 * (x / 10 % 2) as u8; 3]),
    }))
}

/// A directory with images, and `index.safetensors` of them and of texts, by the named model or the built-in one.
fn index(model: &[&str]) -> TestResult<TempDir> {
    let directory = TempDir::new()?;
    for name in IMAGES {
        draw(name).save(directory.path().join(name))?;
    }
    let texts = TEXTS.iter().flat_map(|text| ["--text", text]);
    let images = IMAGES.iter().flat_map(|name| ["--image", name]);
    let arguments = ["embed", "--output", "index.safetensors"].into_iter();
    let arguments: Vec<&str> = arguments.chain(model.iter().copied()).chain(texts).chain(images).collect();
    succeeded(&run(directory.path(), &arguments)?);
    Ok(directory)
}

fn search(directory: &Path, arguments: &[&str]) -> TestResult<Output> {
    Ok(run(directory, &[&["search"], arguments].concat())?)
}

/// Cosines of a vector with others.
fn cosines(query: &Tensor, others: &Tensor) -> TestResult<Vec<f32>> {
    let unit = |x: &Tensor| x.broadcast_div(&x.sqr()?.sum_keepdim(1)?.sqrt()?);
    Ok(unit(others)?.matmul(&unit(query)?.t()?)?.flatten_all()?.to_vec1()?)
}

/// Asserts that JSON lists exactly these items, best first, with these cosines.
fn check(json: &str, kind: &str, names: &[&str], cosines: &[f32]) -> TestResult {
    let hits: Vec<Value> = serde_json::from_str(json)?;
    assert_eq!(hits.len(), names.len());
    let mut expected: Vec<(&str, f32)> = names.iter().copied().zip(cosines.iter().copied()).collect();
    expected.sort_by(|a, b| b.1.total_cmp(&a.1));
    for ((rank, hit), (name, cosine)) in (1..).zip(&hits).zip(expected) {
        assert_eq!((hit["rank"].as_u64(), hit["kind"].as_str()), (Some(rank), Some(kind)));
        assert_eq!(hit["item"].as_str(), Some(name));
        let score = hit["score"].as_f64().ok_or("a score")?;
        assert!((score - f64::from(cosine)).abs() < 1e-5, "{name}: {score}, expected {cosine}");
    }
    Ok(())
}

#[test]
fn ranks_are_those_of_the_librarys_cosines() -> TestResult {
    let directory = index(&["--model", EMOJI])?;
    let root = directory.path();
    let search = |arguments: &[&str]| search(root, &[arguments, &["--model", EMOJI]].concat());
    let embedder = emoji()?;
    let texts = embedder.embed_texts(&TEXTS)?;
    let images = embedder.embed_images(&IMAGES.map(draw))?;
    let text = embedder.embed_texts(&["一只小猫"])?;
    for (among, kind, names, vectors) in
        [("texts", "text", &TEXTS[..], &texts), ("images", "image", &IMAGES[..], &images)]
    {
        let arguments = ["index.safetensors", "一只小猫", "--json", "--among", among];
        check(&succeeded(&search(&arguments)?), kind, names, &cosines(&text, vectors)?)?;
        let arguments = ["index.safetensors", "--image", "green.png", "--json", "--among", among];
        check(&succeeded(&search(&arguments)?), kind, names, &cosines(&images.narrow(0, 1, 1)?, vectors)?)?;
    }

    // Among both, and in columns: the image itself is the best match.
    let table = succeeded(&search(&["index.safetensors", "--image", "stripes.png", "--top", "3"])?);
    assert_eq!(table.lines().count(), 3);
    // As `index search` calls it.
    assert_eq!(table, succeeded(&search(&["index.safetensors", "--image", "stripes.png", "--limit", "3"])?));
    assert_eq!(table.lines().next(), Some("1\t1.0000\timage\tstripes.png"));
    let all = succeeded(&search(&["index.safetensors", "一只猫"])?);
    assert_eq!(all.lines().count(), TEXTS.len() + IMAGES.len());
    assert_eq!(all.lines().next(), Some("1\t1.0000\ttext\t一只猫"));
    Ok(())
}

#[test]
fn the_page_holds_all_that_it_shows() -> TestResult {
    let directory = index(&[])?;
    let root = directory.path();
    fs::remove_file(root.join("green.png"))?;
    succeeded(&search(root, &["index.safetensors", "a <cat>", "--html", "found.html"])?);
    let page = fs::read_to_string(root.join("found.html"))?;
    assert!(
        page.contains("a &lt;cat&gt;") && page.contains("&lt;b&gt;a cat&lt;/b&gt;") && !page.contains("<b>")
    );
    assert_eq!(page.matches("<li>").count(), TEXTS.len() + IMAGES.len());
    assert_eq!(page.matches("src=").count(), 2);
    assert_eq!(page.matches("src=\"data:image/jpeg;base64,").count(), 2);
    assert_eq!(page.matches("cannot be shown: green.png: ").count(), 1);
    Ok(())
}

#[test]
fn another_models_vectors_are_refused_or_warned_of() -> TestResult {
    let directory = index(&[])?;
    let root = directory.path();
    let output = search(root, &["index.safetensors", "一只猫", "--top", "1", "--model", EMOJI])?;
    assert!(output.status.success());
    let stderr = String::from_utf8(output.stderr)?;
    let expected = format!(
        "warning: index.safetensors was made with the built-in model, and is searched with {EMOJI}\n"
    );
    assert_eq!(stderr, expected);

    // By name, before what is looked for is read.
    let clip = golden("dual_encoders/clip").display().to_string();
    let error = failure(root, &["index.safetensors", "一只猫", "--model", &clip])?;
    let expected =
        format!("made with the built-in model, whose vectors have 128 numbers; those of {clip} have 11");
    assert!(error.contains(&expected), "{error}");

    let mut narrow = tensors(&root.join("index.safetensors"))?;
    for name in ["text_embeds", "image_embeds"] {
        let half = narrow[name].narrow(1, 0, 64)?.contiguous()?;
        narrow.insert(name.to_owned(), half);
    }
    candle_core::safetensors::save(&narrow, root.join("narrow.safetensors"))?;
    let error = failure(root, &["narrow.safetensors", "一只猫"])?;
    assert!(
        error.contains("narrow.safetensors: vectors of 64 numbers, and those of the model have 128"),
        "{error}"
    );
    Ok(())
}

/// Only the index knows the model then.
#[test]
fn the_model_is_by_default_the_one_that_made_the_index() -> TestResult {
    let directory = TempDir::new()?;
    let root = directory.path();
    let clip = golden("dual_encoders/clip").display().to_string();
    let embed = ["embed", "--text", "a cat", "--text", "two dogs", "--output", "clip.safetensors", "--model"];
    succeeded(&run(root, &[&embed[..], &[clip.as_str()]].concat())?);
    let own = succeeded(&search(root, &["clip.safetensors", "a cat"])?);
    assert_eq!(own, succeeded(&search(root, &["clip.safetensors", "a cat", "--model", &clip])?));
    assert_eq!(own.lines().next(), Some("1\t1.0000\ttext\ta cat"));

    let moved = root.join("clip");
    copy_directory(Path::new(&clip), &moved)?;
    succeeded(&run(root, &[&embed[..], &["clip"]].concat())?);
    fs::remove_file(moved.join("config.json"))?;
    let error = failure(root, &["clip.safetensors", "a cat"])?;
    assert!(error.contains("clip.safetensors: made with clip: "), "{error}");
    Ok(())
}

#[track_caller]
fn failure(directory: &Path, arguments: &[&str]) -> TestResult<String> {
    failed(search(directory, arguments)?)
}

#[test]
fn what_cannot_be_searched_is_one_clear_line() -> TestResult {
    let directory = TempDir::new()?;
    let root = directory.path();
    succeeded(&run(root, &["embed", "--text", "一只猫", "--output", "texts.safetensors"])?);
    let good = fs::read(root.join("texts.safetensors"))?;
    fs::write(root.join("cut.safetensors"), &good[..good.len() - 9])?;
    fs::write(root.join("empty.safetensors"), "")?;
    let other = HashMap::from([("x", Tensor::zeros(3, DType::F32, &Device::Cpu)?)]);
    candle_core::safetensors::save(&other, root.join("other.safetensors"))?;
    fs::write(root.join("index.db"), b"SQLite format 3\0")?;
    let cases: [(&[&str], &str); 8] = [
        (&["missing.safetensors", "x"], "missing.safetensors: No such file"),
        (&["index.db", "x"], "index.db: an index of folders; search it with `altdiffusion index search"),
        (
            &["cut.safetensors", "x"],
            "cut.safetensors: expected a .safetensors file made by altdiffusion embed",
        ),
        (&["empty.safetensors", "x"], "expected a .safetensors file made by altdiffusion embed"),
        (&["other.safetensors", "x"], "no tensor text_embeds"),
        (&["texts.safetensors", "x", "--among", "images"], "there are no images in this file"),
        (&["texts.safetensors", "--image", "cut.safetensors"], "cut.safetensors: not an image"),
        (
            &["texts.safetensors", "x", "--html", "no/where.html"],
            "--html no/where.html: cannot be written, no is not a directory",
        ),
    ];
    for (arguments, expected) in cases {
        let error = failure(root, arguments)?;
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    for arguments in [&["texts.safetensors"][..], &["texts.safetensors", "x", "--top", "0"]] {
        assert_eq!(search(root, arguments)?.status.code(), Some(2), "{arguments:?}");
    }
    Ok(())
}
