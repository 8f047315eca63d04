//! Tests similarities that are no products of vectors: R2D2's ranker, `--rerank` of `similarity`, `search` and `eval
//! retrieval`, and Wukong's comparison of tokens.

mod common;

use std::fs;
use std::path::Path;

use altclip_encoder::{Embedder, ModelSource};
use candle_core::{DType, Device};
use common::{EMOJI, golden_model, run, succeeded};
use image::RgbImage;
use serde_json::Value;
use test_support::{TestResult, golden, golden_json, golden_tensors};

/// The two images, by name, and the texts of the golden values.
fn inputs(directory: &Path) -> TestResult<([&'static str; 2], Vec<String>)> {
    let images = golden_tensors("r2d2/images.safetensors");
    let names = ["0.png", "1.png"];
    for (name, file) in ["0", "1"].into_iter().zip(names) {
        let (height, width, _) = images[name].dims3()?;
        let bytes = images[name].flatten_all()?.to_vec1::<u8>()?;
        let image =
            RgbImage::from_raw(width as u32, height as u32, bytes).ok_or("expected three bytes a pixel")?;
        image.save(directory.join(file))?;
    }
    Ok((names, golden_json("r2d2/texts.json")))
}

/// The scores of the authors: (images, texts).
fn expected() -> TestResult<Vec<Vec<f32>>> {
    Ok(golden_tensors("r2d2/r2d2/golden.safetensors")["scores"].to_vec2()?)
}

#[test]
fn similarities_may_be_matches() -> TestResult {
    let directory = tempfile::tempdir()?;
    let (images, texts) = inputs(directory.path())?;
    let model = golden_model("r2d2/r2d2")?;
    let mut arguments = vec!["similarity", "--model", &model, "--json", "--rerank"];
    arguments.extend(images.iter().flat_map(|image| ["--image", image]));
    arguments.extend(texts.iter().flat_map(|text| ["--text", text.as_str()]));
    let found: Value = serde_json::from_str(&succeeded(&run(directory.path(), &arguments)?))?;
    for (image, expected) in expected()?.iter().enumerate() {
        for (text, expected) in expected.iter().enumerate() {
            let found = found[image]["texts"][text]["probability"].as_f64().ok_or("expected a number")?;
            assert!(
                (found - f64::from(*expected)).abs() < 1e-4,
                "{image}, {text}: {found}, expected {expected}"
            );
        }
    }
    Ok(())
}

#[test]
fn results_are_ranked_again_by_cosine_and_match() -> TestResult {
    let directory = tempfile::tempdir()?;
    let (images, texts) = inputs(directory.path())?;
    let model = golden_model("r2d2/r2d2")?;
    let mut arguments = vec!["embed", "--model", &model, "--output", "index.safetensors"];
    arguments.extend(images.iter().flat_map(|image| ["--image", image]));
    arguments.extend(texts.iter().flat_map(|text| ["--text", text.as_str()]));
    succeeded(&run(directory.path(), &arguments)?);

    let search = |more: &[&str]| -> TestResult<Vec<(String, f64)>> {
        let arguments = [&["search", "--model", &model, "index.safetensors", "--json"], more].concat();
        let found: Vec<Value> = serde_json::from_str(&succeeded(&run(directory.path(), &arguments)?))?;
        let hit = |hit: &Value| Some((hit["item"].as_str()?.to_owned(), hit["score"].as_f64()?));
        Ok(found.iter().filter_map(hit).collect())
    };
    let expected = expected()?;
    // Of a text, images.
    let cosines = search(&[&texts[0], "--among", "images"])?;
    let matches = |item: &str| match images.iter().position(|image| item.ends_with(image)) {
        Some(image) => f64::from(expected[image][0]),
        None => f64::NAN,
    };
    let mut ranked: Vec<(String, f64)> =
        cosines.into_iter().map(|(item, cosine)| (item.clone(), cosine + matches(&item))).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    let found = search(&[&texts[0], "--rerank", "2"])?;
    assert_eq!(found.len(), 2);
    for ((item, score), (ranked, _)) in found.iter().zip(&ranked) {
        assert_eq!(item, ranked);
        assert!((score - matches(item)).abs() < 1e-4, "{item}: {score}");
    }
    // Of an image, texts: fewer than were ranked.
    let found = search(&["--image", images[1], "--rerank", "5", "--top", "3"])?;
    assert_eq!(found.len(), 3);
    for (item, score) in found {
        let text = texts.iter().position(|text| *text == item).ok_or("expected one of the texts")?;
        assert!((score - f64::from(expected[1][text])).abs() < 1e-4, "{item}: {score}");
    }
    Ok(())
}

#[test]
fn retrieval_is_measured_in_one_step_and_in_two() -> TestResult {
    let directory = tempfile::tempdir()?;
    let (images, texts) = inputs(directory.path())?;
    let lines = images
        .iter()
        .zip(&texts)
        .map(|(image, text)| serde_json::json!({ "image": image, "captions": [text] }).to_string() + "\n");
    fs::write(directory.path().join("zh.jsonl"), lines.collect::<String>())?;
    let model = golden_model("r2d2/r2d2")?;
    let arguments =
        ["eval", "retrieval", ".", "--language", "zh", "--json", "--rerank", "64", "--model", &model];
    let both = [&arguments[..], &["--model", EMOJI]].concat();
    let found: Vec<Value> = serde_json::from_str(&succeeded(&run(directory.path(), &both)?))?;
    let names: Vec<&str> = found.iter().filter_map(|row| row["model"].as_str()).collect();
    assert_eq!(names, ["r2d2", "r2d2, reranked", "emoji"]);
    Ok(())
}

#[test]
fn tokens_are_compared_where_a_model_has_no_vectors() -> TestResult {
    let directory = tempfile::tempdir()?;
    let (images, texts) = inputs(directory.path())?;
    let model = golden_model("wukong/filip")?;
    let similarity = [
        "similarity",
        "--model",
        &model,
        "--json",
        "--image",
        images[0],
        "--text",
        &texts[0],
        "--text",
        &texts[1],
    ];
    let found: Value = serde_json::from_str(&succeeded(&run(directory.path(), &similarity)?))?;
    let source = ModelSource::directory(golden("wukong/filip"));
    let embedder = Embedder::from_source(&source, DType::F32, &Device::Cpu)?;
    let image = image::open(directory.path().join(images[0]))?;
    let compared = embedder.token_similarities(&[image], &texts[..2])?;
    for (text, expected) in compared.of_images.get(0)?.to_vec1::<f32>()?.into_iter().enumerate() {
        let cosine = found[0]["texts"][text]["cosine"].as_f64().ok_or("expected a number")?;
        assert!((cosine - f64::from(expected)).abs() < 1e-5, "{cosine}, expected {expected}");
    }

    let lines = images
        .iter()
        .zip(&texts)
        .map(|(image, text)| serde_json::json!({ "image": image, "captions": [text] }).to_string() + "\n");
    fs::write(directory.path().join("zh.jsonl"), lines.collect::<String>())?;
    let r2d2 = golden_model("r2d2/r2d2")?;
    let table = ["eval", "retrieval", ".", "--language", "zh", "--json", "--model", &model, "--model", &r2d2];
    let found: Vec<Value> = serde_json::from_str(&succeeded(&run(directory.path(), &table)?))?;
    let names: Vec<&str> = found.iter().filter_map(|row| row["model"].as_str()).collect();
    assert_eq!(names, ["filip", "r2d2"]);

    for (class, image) in ["猫", "狗"].into_iter().zip(images) {
        fs::create_dir_all(directory.path().join("pictures").join(class))?;
        fs::copy(directory.path().join(image), directory.path().join("pictures").join(class).join(image))?;
    }
    fs::write(directory.path().join("classes.txt"), "猫\n狗\n")?;
    let zero_shot = [
        "eval",
        "zero-shot",
        "pictures",
        "--classes",
        "classes.txt",
        "--language",
        "zh",
        "--json",
        "--model",
        &model,
    ];
    let found: Vec<Value> = serde_json::from_str(&succeeded(&run(directory.path(), &zero_shot)?))?;
    assert_eq!((found.len(), found[0]["images"].as_u64()), (1, Some(2)));
    Ok(())
}

#[test]
fn models_without_a_ranker_say_so() -> TestResult {
    let directory = tempfile::tempdir()?;
    let (images, _) = inputs(directory.path())?;
    let similarity =
        ["similarity", "--model", EMOJI, "--rerank", "--image", images[0], "--text", "a", "--text", "b"];
    let output = run(directory.path(), &similarity)?;
    let error = String::from_utf8(output.stderr)?;
    assert!(!output.status.success() && error.contains("has no ranker, expected R2D2"), "{error}");
    Ok(())
}
