//! Compares retrieval and zero-shot scores with clip-benchmark, and reads files of data sets.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use altclip_training::evaluation::{
    CaptionedImages, Classes, LabelledImages, RetrievalScores, retrieval, zero_shot,
};
use candle_core::{Device, Tensor};
use serde_json::Value;
use test_support::{TestResult, golden_json, golden_tensors};

/// The largest difference between shares: the reference averages in f32.
const ROUNDING: f64 = 1e-6;

fn scores() -> (Value, HashMap<String, Tensor>) {
    (golden_json("evaluation.json"), golden_tensors("evaluation.safetensors"))
}

fn unit(rows: &Tensor) -> candle_core::Result<Tensor> {
    rows.broadcast_div(&rows.sqr()?.sum_keepdim(1)?.sqrt()?)
}

fn numbers(tensor: &Tensor) -> TestResult<Vec<usize>> {
    Ok(tensor.to_vec1::<i64>()?.into_iter().map(usize::try_from).collect::<Result<_, _>>()?)
}

fn assert_is(found: f64, expected: &Value) {
    let expected = expected.as_f64().unwrap_or(f64::NAN);
    assert!((found - expected).abs() < ROUNDING, "{found}, expected {expected}");
}

#[test]
fn recall_is_that_of_clip_benchmark() -> TestResult {
    let (scores, tensors) = scores();
    let (images, texts) = (unit(&tensors["images"])?, unit(&tensors["texts"])?);
    let owners = numbers(&tensors["owners"])?;
    let check = |found: RetrievalScores, expected: &Value| {
        for (index, k) in [1, 5, 10].into_iter().enumerate() {
            assert_is(found.text_to_image[index], &expected[format!("image_retrieval_recall@{k}")]);
            assert_is(found.image_to_text[index], &expected[format!("text_retrieval_recall@{k}")]);
        }
        let mean: f64 =
            expected.as_object().into_iter().flatten().filter_map(|(_, share)| share.as_f64()).sum();
        assert!((found.mean_recall() - mean / 6.0).abs() < ROUNDING);
    };
    check(retrieval(&images, &texts, &owners)?, &scores["retrieval"]);
    let first: Vec<u32> = (0..images.dim(0)?)
        .filter_map(|image| owners.iter().position(|&owner| owner == image))
        .map(|place| place as u32)
        .collect();
    let texts = texts.index_select(&Tensor::new(first.as_slice(), &Device::Cpu)?, 0)?;
    let owners: Vec<usize> = (0..first.len()).collect();
    check(retrieval(&images, &texts, &owners)?, &scores["retrieval_of_one"]);
    Ok(())
}

#[test]
fn zero_shot_scores_are_those_of_clip_benchmark() -> TestResult {
    let (scores, tensors) = scores();
    let (class_texts, shown) = (&tensors["class_texts"], unit(&tensors["shown"])?);
    let targets = numbers(&tensors["targets"])?;
    let (classes, templates, width) = class_texts.dims3()?;
    let texts = unit(&class_texts.reshape((classes * templates, width))?)?;
    let classes = unit(&texts.reshape((classes, templates, width))?.mean(1)?)?;

    let found = zero_shot(&shown, &classes, &targets)?;
    let expected = &scores["zero_shot"];
    assert_is(found.top1, &expected["acc1"]);
    assert_is(found.top5.ok_or("no top-5")?, &expected["acc5"]);
    assert_is(found.mean_per_class, &expected["mean_per_class_recall"]);

    let few: Vec<usize> = targets.iter().copied().filter(|&target| target < 4).collect();
    let places = targets.iter().zip(0u32..).filter(|(target, _)| **target < 4).map(|(_, place)| place);
    let shown = shown.index_select(&Tensor::from_iter(places, &Device::Cpu)?, 0)?;
    let found = zero_shot(&shown, &classes.narrow(0, 0, 4)?, &few)?;
    assert_is(found.top1, &scores["zero_shot_of_four"]["acc1"]);
    assert_eq!(found.top5, None);
    Ok(())
}

/// A model that gives everything the same vector is no better than chance.
#[test]
fn equal_scores_are_no_finds() -> TestResult {
    let same = Tensor::ones((20, 3), candle_core::DType::F32, &Device::Cpu)?;
    let found = retrieval(&same, &same, &(0..20).collect::<Vec<_>>())?;
    assert_eq!((found.text_to_image, found.image_to_text), ([0.05, 0.25, 0.5], [0.05, 0.25, 0.5]));
    let nan = (same.clone() * f64::NAN)?;
    assert!(retrieval(&nan, &same, &[0; 20]).is_err() && zero_shot(&nan, &same, &[0; 20]).is_err());
    assert!(retrieval(&same, &same, &[20; 20]).is_err() && zero_shot(&same, &same, &[]).is_err());
    Ok(())
}

fn write(folder: &Path, files: &[(&str, &str)]) -> TestResult<PathBuf> {
    for (name, content) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().ok_or("a path without folder")?)?;
        fs::write(path, content)?;
    }
    Ok(folder.to_owned())
}

#[test]
fn captions_are_read_from_tables_and_folders() -> TestResult {
    let folder = tempfile::tempdir()?;
    let table = r#"{"image": "images/1.jpg", "captions": ["一只猫", " ", "猫在睡觉"]}

{"image": "images/2.jpg", "caption": "一只狗"}
{"image": "images/1.jpg", "caption": "小猫", "other": 3}"#;
    let files = [
        ("zh.jsonl", table),
        ("en/b.png", ""),
        ("en/b.txt", "a dog\n\nthe dog\n"),
        ("en/a.PNG", ""),
        ("en/a.txt", "a cat"),
        ("en/c.png", ""),
    ];
    let path = write(folder.path(), &files)?;

    let zh = CaptionedImages::read(&path, "zh", usize::MAX)?;
    assert_eq!(zh.images, [path.join("images/1.jpg"), path.join("images/2.jpg")]);
    assert_eq!(zh.captions, ["一只猫", "猫在睡觉", "一只狗", "小猫"]);
    assert_eq!(zh.owners, [0, 0, 1, 0]);
    let one = CaptionedImages::read(&path.join("zh.jsonl"), "de", 1)?;
    assert_eq!((one.captions, one.owners), (vec!["一只猫".to_owned(), "一只狗".to_owned()], vec![0, 1]));

    let en = CaptionedImages::read(&path, "en", usize::MAX)?;
    assert_eq!(en.images, [path.join("en/a.PNG"), path.join("en/b.png")]);
    assert_eq!(
        (en.captions.as_slice(), en.owners.as_slice()),
        (["a cat", "a dog", "the dog"].map(str::to_owned).as_slice(), [0, 1, 1].as_slice())
    );
    let left = en.only(&[false, true]);
    assert_eq!((left.captions, left.owners), (vec!["a dog".to_owned(), "the dog".to_owned()], vec![0, 0]));
    Ok(())
}

/// A file that evaluation once rejected.
#[test]
fn a_byte_order_mark_belongs_to_no_caption() -> TestResult {
    let folder = tempfile::tempdir()?;
    let files = [
        ("en.jsonl", "\u{feff}{\"image\": \"a/0.png\", \"captions\": [\"c 0\"]}\r\n"),
        ("zh/1.png", ""),
        ("zh/1.txt", "\u{feff}一只猫\r\n"),
    ];
    let path = write(folder.path(), &files)?;
    let set = CaptionedImages::read(&path, "en", 5)?;
    assert_eq!((set.captions, set.images), (vec!["c 0".to_owned()], vec![path.join("a/0.png")]));
    assert_eq!(CaptionedImages::read(&path, "zh", 5)?.captions, ["一只猫"]);
    Ok(())
}

#[test]
fn damaged_data_sets_are_errors_that_name_the_place() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = write(
        folder.path(),
        &[
            ("a.jsonl", "{\"image\": \"1.jpg\", \"caption\": \"x\"}\n{\"caption\": \"y\"}"),
            ("b.jsonl", "{\"image\": \"1.jpg\", \"captions\": [\" \"]}"),
            ("c/1.png", ""),
            ("c/1.txt", "\n"),
            ("classes/cat/1.png", ""),
        ],
    )?;
    let refused = |language: &str| match CaptionedImages::read(&path, language, 5) {
        Ok(set) => format!("{set:?}"),
        Err(error) => error.to_string(),
    };
    assert!(
        refused("a")
            .contains("a.jsonl: line 2: expected an object with `image` and `captions`, found no image")
    );
    assert!(refused("b").contains("b.jsonl: line 1: expected captions, found none"));
    assert!(refused("c").contains("1.txt: expected a caption on each line, found none"));
    assert!(refused("d").contains("expected captions in a file d.jsonl"));

    let classes = |names: &str| Classes::parse(names, Path::new("classes.txt"));
    let found = LabelledImages::read(&path.join("classes"), &classes("cat\t猫")?)?;
    assert_eq!((found.images.len(), found.targets), (1, vec![0]));
    let error = LabelledImages::read(&path.join("classes"), &classes("cat\ndog")?).err().ok_or("no error")?;
    assert!(error.to_string().contains("expected a folder dog"), "{error}");
    Ok(())
}
