//! Tests `altdiffusion eval retrieval` and `zero-shot`.

mod common;

use std::fs;
use std::path::Path;

use common::{run, succeeded};
use image::{Rgb, RgbImage};
use serde_json::Value;
use test_support::TestResult;

/// Images of one colour, which the small model can tell apart.
fn images(folder: &Path, names: &[(&str, [u8; 3])]) -> TestResult {
    for (name, colour) in names {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().ok_or("no folder")?)?;
        RgbImage::from_pixel(40, 30, Rgb(*colour)).save(path)?;
    }
    Ok(())
}

#[test]
fn retrieval_prints_the_table_of_the_report() -> TestResult {
    let directory = tempfile::tempdir()?;
    images(directory.path(), &[("p/1.png", [250, 0, 0]), ("p/2.png", [0, 0, 250]), ("p/3.png", [9, 9, 9])])?;
    let lines = |captions: [&str; 3]| -> String {
        let lines = captions.iter().zip(1..);
        lines
            .map(|(caption, number)| {
                format!("{{\"image\": \"p/{number}.png\", \"caption\": \"{caption}\"}}\n")
            })
            .collect()
    };
    fs::write(directory.path().join("en.jsonl"), lines(["red", "blue", "black"]))?;
    fs::write(
        directory.path().join("zh.jsonl"),
        lines(["红", "蓝", "黑"]) + "{\"image\": \"p/4.png\", \"caption\": \"绿\"}",
    )?;
    let arguments = ["eval", "retrieval", ".", "--language", "en,zh"];

    let output = run(directory.path(), &arguments)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains("left out: ") && stderr.contains("4.png"), "{stderr}");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 2, "{printed}");
    assert!(lines[0].starts_with("emoji\ten\t3\t3\t") && lines[0].contains("100.0"), "{printed}");
    assert!(lines[1].starts_with("emoji\tzh\t3\t3\t"), "{printed}");

    let output = run(directory.path(), &[&arguments[..], &["--json"]].concat())?;
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    assert_eq!(rows[1]["images"], 3);
    assert_eq!(rows[1]["language"], "zh");
    // With three images, each is among the first five.
    assert_eq!(rows[1]["text_to_image"][1], 1.0);
    assert_eq!(rows[0]["image_to_text"][2], 1.0);
    Ok(())
}

#[test]
fn models_are_evaluated_in_the_type_asked_for() -> TestResult {
    let directory = tempfile::tempdir()?;
    images(&directory.path().join("data"), &[("a/1.png", [250, 0, 0]), ("b/1.png", [0, 0, 250])])?;
    fs::write(directory.path().join("classes.txt"), "a\t红\nb\t蓝\n")?;
    images(directory.path(), &[("pairs/1.png", [250, 0, 0])])?;
    fs::write(directory.path().join("pairs/1.txt"), "red")?;
    let model = format!("{}/models/emoji", env!("CARGO_MANIFEST_DIR"));
    for dtype in ["bf16", "int8"] {
        let options = ["--model", &model, "--dtype", dtype, "--device", "cpu"];
        let zero_shot = ["eval", "zero-shot", "data", "--classes", "classes.txt", "--language", "zh"];
        let printed = succeeded(&run(directory.path(), &[&zero_shot[..], &options].concat())?);
        assert!(printed.starts_with("emoji\tzh\t2\t"), "{printed}");
        let printed =
            succeeded(&run(directory.path(), &[&["eval", "retrieval", "pairs"][..], &options].concat())?);
        assert!(printed.starts_with("emoji\ten\t1\t1\t"), "{printed}");
    }
    Ok(())
}

#[test]
fn zero_shot_tells_classes_from_texts() -> TestResult {
    let directory = tempfile::tempdir()?;
    let colours = [("a/1.png", [250, 0, 0]), ("a/2.png", [220, 30, 20]), ("b/1.png", [0, 0, 250])];
    images(&directory.path().join("data"), &colours)?;
    fs::write(directory.path().join("classes.txt"), "a\t红\nb\t蓝\n")?;
    let arguments = ["eval", "zero-shot", "data", "--classes", "classes.txt", "--language", "zh"];
    let printed = succeeded(&run(directory.path(), &arguments)?);
    let cells: Vec<&str> = printed.trim_end().split('\t').collect();
    assert_eq!((cells.len(), &cells[..3], cells[4]), (6, &["emoji", "zh", "3"][..], "–"), "{printed}");
    let printed = succeeded(&run(directory.path(), &[&arguments[..], &["--json"]].concat())?);
    let rows: Vec<Value> = serde_json::from_str(&printed)?;
    assert_eq!((&rows[0]["images"], &rows[0]["top5"]), (&3.into(), &Value::Null));
    let share = rows[0]["top1"].as_f64().ok_or("no share")?;
    assert!([0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0].iter().any(|possible| (possible - share).abs() < 1e-9));
    Ok(())
}

#[test]
fn subfolders_are_the_classes_of_whoever_names_none() -> TestResult {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    images(&path("data"), &[("fire_truck/1.png", [250, 0, 0]), ("lake/1.png", [0, 0, 250])])?;
    fs::write(path("classes.txt"), "fire_truck\tfire truck\nlake\n")?;
    let printed = |more: &[&str]| -> TestResult<String> {
        let arguments = ["eval", "zero-shot", "data", "--template", "{}", "--json"];
        Ok(succeeded(&run(directory.path(), &[&arguments[..], more].concat())?))
    };
    assert_eq!(printed(&[])?, printed(&["--classes", "classes.txt"])?);

    // The names of these are known in Chinese.
    let names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
    let files = names.map(|name| format!("{name}/1.png"));
    for file in &files {
        images(&path("cifar"), &[(file.as_str(), [250, 0, 0])])?;
    }
    let arguments = ["eval", "zero-shot", "cifar", "--language", "zh", "--json"];
    let found = succeeded(&run(directory.path(), &arguments)?);
    let named = [&arguments[..], &["--classes", "cifar10"]].concat();
    assert_eq!(found, succeeded(&run(directory.path(), &named)?));
    Ok(())
}

/// In folders of classes and folders with captions, and with nothing else.
#[test]
fn images_that_are_not_read_are_counted_and_named() -> TestResult {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    images(&path("data"), &[("a/1.png", [250, 0, 0]), ("b/1.png", [0, 0, 250])])?;
    fs::write(path("data/a/2.jxl"), b"\xff\x0a")?;
    fs::write(path("data/b/notes.md"), "")?;
    fs::write(path("classes.txt"), "a\nb\n")?;
    let zero_shot = ["eval", "zero-shot", "data", "--classes", "classes.txt"];
    let printed = |arguments: &[&str]| -> TestResult<String> {
        Ok(String::from_utf8(run(directory.path(), arguments)?.stderr)?)
    };
    let warning = "skipped 1: data/a/2.jxl: not read here: convert such images to PNG or JPEG\n";
    // Two languages share the folders.
    let both = ["--language", "en,zh", "--template", "{}"];
    assert_eq!(printed(&[&zero_shot[..], &both].concat())?, format!("warning: {warning}"));
    fs::write(path("data/a/1.txt"), "red")?;
    assert_eq!(printed(&["eval", "retrieval", "data/a"])?, format!("warning: {warning}"));
    for name in ["data/a/1.png", "data/b/1.png"] {
        fs::remove_file(path(name))?;
    }
    assert!(printed(&zero_shot)?.ends_with(&format!("found none; {warning}")));
    Ok(())
}

#[test]
fn data_that_is_not_there_is_an_error() -> TestResult {
    let directory = tempfile::tempdir()?;
    let refused = |arguments: &[&str], part: &str| -> TestResult {
        let output = run(directory.path(), &[&["eval"], arguments].concat())?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(
            stderr.starts_with("error: ") && stderr.contains(part) && stderr.lines().count() == 1,
            "{stderr}"
        );
        Ok(())
    };
    refused(&["retrieval", "."], "expected captions in a file en.jsonl")?;
    refused(&["zero-shot", "."], ".: expected a folder with a subfolder for each class, found none")?;
    let cifar10 = ["zero-shot", ".", "--classes", "cifar10"];
    refused(&cifar10, "expected a folder airplane")?;
    refused(&cifar10, "for classes other than cifar10's, use --classes")?;
    refused(&["zero-shot", "none"], "none: expected a folder with a subfolder for each class")?;
    refused(&[&cifar10[..], &["--language", "de"]].concat(), "neither known in de")?;
    fs::create_dir(directory.path().join("cat"))?;
    fs::write(directory.path().join("c.txt"), "cat")?;
    refused(
        &["zero-shot", ".", "--classes", "c.txt", "--language", "de"],
        "expected templates with --template",
    )?;
    refused(&["zero-shot", ".", "--template", "a cat"], "expected {} where the class belongs")
}
