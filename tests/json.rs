//! Tests `--json` of every subcommand: always the same shape, with the fields that its help names.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use common::{golden_model, run, succeeded};
use image::RgbImage;
use serde_json::Value;
use test_support::TestResult;

/// The words of the help of `--json`.
fn documented(subcommand: &[&str]) -> TestResult<BTreeSet<String>> {
    let help = succeeded(&run(Path::new("."), &[subcommand, &["--help"]].concat())?);
    let after = help.split_once("      --json\n").ok_or_else(|| format!("{subcommand:?}: no --json"))?.1;
    let words =
        after.lines().take_while(|line| !line.is_empty()).flat_map(|line| line.split([' ', ',', '.', ':']));
    Ok(words.map(str::to_owned).collect())
}

#[test]
fn the_help_names_the_fields() -> TestResult {
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    RgbImage::from_fn(64, 48, |x, y| image::Rgb([4 * x as u8, 5 * y as u8, 7])).save(root.join("a.png"))?;
    for class in ["cat", "dog"] {
        fs::create_dir_all(root.join("data").join(class))?;
        fs::copy(root.join("a.png"), root.join("data").join(class).join("1.png"))?;
    }
    fs::write(root.join("classes.txt"), "cat\ndog\n")?;
    fs::write(root.join("en.jsonl"), r#"{"image": "a.png", "caption": "a cat"}"#)?;
    let model = golden_model("alt_diffusion")?;
    let cases: [(&[&str], &[&str]); 12] = [
        (&["embed"], &["--text", "a cat", "--image", "a.png", "--output", "index.safetensors"]),
        (&["encode"], &["a cat", "--model", &model, "--output", "states.safetensors"]),
        (&["convert"], &[&model, "model.gguf", "--dtype", "q8_0"]),
        (&["inspect"], &[]),
        (&["machine"], &[]),
        (&["models"], &["--concepts"]),
        (&["similarity"], &["--image", "a.png", "--text", "a cat", "--text", "a dog"]),
        (&["classify"], &["a.png", "--label", "cat", "--label", "dog"]),
        (&["search"], &["index.safetensors", "a cat"]),
        (&["eval", "retrieval"], &["."]),
        (&["eval", "zero-shot"], &["data", "--classes", "classes.txt", "--template", "a {}"]),
        (&["generate"], &["a cat", "--steps", "1", "-n", "2"]),
    ];
    for (subcommand, arguments) in cases {
        let printed = succeeded(&run(root, &[subcommand, arguments, &["--json"]].concat())?);
        let values: Vec<Value> =
            serde_json::Deserializer::from_str(&printed).into_iter().collect::<Result<_, _>>()?;
        let objects = values.iter().map(|value| value.get(0).unwrap_or(value));
        let found: BTreeSet<String> = objects
            .flat_map(|object| object.as_object().into_iter().flatten())
            .map(|(key, _)| key.clone())
            .collect();
        let documented = documented(subcommand)?;
        let unknown: Vec<_> = found.difference(&documented).collect();
        assert!(!found.is_empty() && unknown.is_empty(), "{subcommand:?}: {unknown:?} not in {documented:?}");
        let lines = if subcommand == ["generate"] { 2 } else { 1 };
        assert_eq!(values.len(), lines, "{subcommand:?}: {printed}");
    }
    Ok(())
}
