//! Tests the emoji data set, built from npm packages of a few emoji.

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::Device;
use common::{CONCEPTS, options, png, prepared, write_packages};
use emoji_model::dataset::{
    CONCEPTS_FILE, DataSplit, Dataset, IMAGE_BYTES, IMAGES_FILE, SPLIT_FILE, prepare,
};
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

#[test]
fn packages_become_images_on_white_with_names() {
    let folder = TempDir::new().unwrap();
    write_packages(folder.path());
    let output = folder.path().join("a/new/folder");
    let report = prepare(&options(folder.path(), &output)).unwrap();
    assert_eq!((report.concepts, report.images), (CONCEPTS, 2 * CONCEPTS));
    assert_eq!(report.categories.last(), Some(&("Travel & Places".to_owned(), 2)));

    let dataset = Dataset::load(&output).unwrap();
    let cat = &dataset.concepts()[1];
    assert_eq!((cat.id.as_str(), cat.emoji.as_str(), cat.name("zh")), ("1F408", "🐈", Some("猫")));
    assert_eq!(cat.labels["en"].keywords, ["animal", "pet"]);
    let vendors: Vec<&str> = cat.images.iter().map(|image| image.vendor.as_str()).collect();
    assert_eq!(vendors, ["google", "twitter"]);
    let twitter = dataset.image(cat.images[1].index).unwrap();
    // 30, 200 and 7 at alpha 128 of 255, on 255.
    assert_eq!((twitter.len(), &twitter[..3]), (IMAGE_BYTES, &[142, 227, 131][..]));
    assert_eq!(dataset.owners()[cat.images[1].index], 1);
    let mut files: Vec<_> = fs::read_dir(&output)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["concepts.jsonl", "held_out", "held_out.json", "images.safetensors"]);
}

#[test]
fn archives_give_the_same_bytes_as_folders() {
    let folder = TempDir::new().unwrap();
    write_packages(folder.path());
    let archives = TempDir::new().unwrap();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let package = entry.unwrap();
        let name = format!("{}-48.2.0.tgz", package.file_name().to_string_lossy());
        let file = fs::File::create(archives.path().join(name)).unwrap();
        let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::fast()));
        archive.append_dir_all("package", package.path()).unwrap();
        archive.into_inner().unwrap().finish().unwrap();
    }
    let (from_folders, from_archives) = (folder.path().join("out"), archives.path().join("out"));
    prepare(&options(folder.path(), &from_folders)).unwrap();
    prepare(&options(archives.path(), &from_archives)).unwrap();
    for file in [IMAGES_FILE, CONCEPTS_FILE, SPLIT_FILE] {
        assert_eq!(fs::read(from_folders.join(file)).unwrap(), fs::read(from_archives.join(file)).unwrap());
    }
}

/// The error of `prepare` after a change to the packages.
fn prepare_error(change: impl Fn(&Path)) -> String {
    let folder = TempDir::new().unwrap();
    write_packages(folder.path());
    change(folder.path());
    let output = folder.path().join("data");
    let error = prepare(&options(folder.path(), &output)).unwrap_err().to_string();
    assert!(!output.join(CONCEPTS_FILE).exists());
    assert!(!error.contains('\n'), "{error}");
    error
}

#[test]
fn damaged_packages_are_named() {
    let image = "emoji-datasource-google/img/google/64/1f408.png";
    let error = prepare_error(|folder| fs::remove_dir_all(folder.join("emoji-datasource-twitter")).unwrap());
    assert!(error.contains("expected the npm package emoji-datasource-twitter"), "{error}");
    let error = prepare_error(|folder| fs::write(folder.join(image), b"no image").unwrap());
    assert!(error.contains("1f408.png: expected a PNG image"), "{error}");
    let error = prepare_error(|folder| fs::write(folder.join(image), png(32, [0; 3])).unwrap());
    assert!(error.contains("1f408.png: expected 64 × 64 pixels, found 32 × 32"), "{error}");
    let error =
        prepare_error(|folder| fs::write(folder.join("emoji-datasource-google/emoji.json"), "[{}]").unwrap());
    assert!(error.contains("emoji.json: expected a list of emoji"), "{error}");
    let annotations = "cldr-annotations-full/annotations/zh/annotations.json";
    let error = prepare_error(|folder| fs::remove_file(folder.join(annotations)).unwrap());
    assert!(error.contains("expected the file annotations/zh/annotations.json"), "{error}");
    let error = prepare_error(|folder| {
        fs::remove_dir_all(folder.join("cldr-annotations-full")).unwrap();
        fs::write(folder.join("cldr-annotations-full-48.2.0.tgz"), b"no archive").unwrap();
    });
    assert!(error.contains("cldr-annotations-full-48.2.0.tgz"), "{error}");
}

#[test]
fn unknown_choices_are_refused() {
    let folder = TempDir::new().unwrap();
    let mut options = options(folder.path(), folder.path());
    options.vendors = vec!["apple".to_owned()];
    assert_eq!(
        prepare(&options).unwrap_err().to_string(),
        "vendors: expected some of google, twitter, found apple"
    );
    options.languages.clear();
    assert!(prepare(&options).unwrap_err().to_string().starts_with("languages: expected some of en, zh"));
}

/// Data sets prepared when images were called pictures.
#[test]
fn earlier_data_sets_are_read() {
    let (folder, dataset) = prepared();
    let output = folder.path().join("data");
    let split = DataSplit::load(&output).unwrap();
    for file in [CONCEPTS_FILE, SPLIT_FILE] {
        let text = fs::read_to_string(output.join(file)).unwrap();
        assert!(text.contains("\"images\""), "{file}");
        fs::write(output.join(file), text.replace("\"images\"", "\"pictures\"")).unwrap();
    }
    let images = candle_core::safetensors::load(output.join(IMAGES_FILE), &Device::Cpu).unwrap();
    let earlier = HashMap::from([("pictures", images["images"].clone())]);
    candle_core::safetensors::save(&earlier, output.join("pictures.safetensors")).unwrap();
    fs::remove_file(output.join(IMAGES_FILE)).unwrap();

    let read = Dataset::load(&output).unwrap();
    assert_eq!((read.concepts(), read.pixels()), (dataset.concepts(), dataset.pixels()));
    assert_eq!(DataSplit::load(&output).unwrap(), split);
}

#[test]
fn contradicting_files_are_refused() {
    let (folder, _) = prepared();
    let output = folder.path().join("data");
    let concepts = fs::read_to_string(output.join(CONCEPTS_FILE)).unwrap();
    let load_error = |concepts: &str| {
        fs::write(output.join(CONCEPTS_FILE), concepts).unwrap();
        Dataset::load(&output).unwrap_err().to_string()
    };
    let without_last: Vec<&str> = concepts.lines().take(CONCEPTS - 1).collect();
    let error = load_error(&without_last.join("\n"));
    assert!(error.ends_with("image 8 belongs to no concept"), "{error}");
    let error = load_error(&concepts.replace("\"index\":9", "\"index\":10"));
    assert!(error.ends_with("2B50 has image 10, but there are 10"), "{error}");
    let error = load_error(&concepts.replace("\"index\":9", "\"index\":2"));
    assert!(error.ends_with("1F408 and 2B50 share image 2"), "{error}");
    let error = load_error("{\n");
    assert!(error.contains("concepts.jsonl: line 1: expected an emoji concept"), "{error}");
    assert!(load_error("").contains("expected at least one emoji"));

    fs::write(output.join(CONCEPTS_FILE), &concepts).unwrap();
    let images = fs::read(output.join(IMAGES_FILE)).unwrap();
    fs::write(output.join(IMAGES_FILE), &images[..1000]).unwrap();
    let error = Dataset::load(&output).unwrap_err().to_string();
    assert!(error.contains("images.safetensors: expected a safetensors file"), "{error}");
    fs::remove_file(output.join(IMAGES_FILE)).unwrap();
    assert!(Dataset::load(&output).unwrap_err().to_string().contains("images.safetensors"));
}

#[test]
fn a_filtered_data_set_numbers_its_images_anew() {
    let (_folder, dataset) = prepared();
    let food = dataset.filtered(|concept| concept.category == "Food & Drink").unwrap();
    assert_eq!((food.concepts().len(), food.owners()), (1, &[0, 0][..]));
    let original = dataset.concepts()[2].images[1].index;
    assert_eq!(food.image(1), dataset.image(original));
    assert!(dataset.filtered(|_| false).is_none());
}
