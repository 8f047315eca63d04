//! Draws the prompts of a file: the syntax of lines, the output paths, and what a second run skips.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::common::{altdiffusion, run, run_with_input, succeeded};
use test_support::TestResult;

const PROMPTS: &str = r##"# A comment, and a blank line.

一只猫
{"prompt": "a red apple", "seed": 3, "guidance_scale": 2, "output": "fruit/apple.webp"}
  {"prompt": "# a dog", "num-images": 2, "width": null, "steps": 1}
"##;

const FILES: [&str; 4] = ["0003.png", "0005-1.png", "0005-2.png", "fruit/apple.webp"];

fn draw(root: &Path, more: &[&str]) -> TestResult<Output> {
    let arguments = ["generate", "--prompts", "prompts.txt", "--output", "out", "--steps", "2"];
    Ok(run(root, &[&arguments, more].concat())?)
}

/// The names of all files below a folder.
fn files(folder: &Path) -> TestResult<Vec<String>> {
    let entries = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter();
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type().is_file() {
            files.push(entry.path().strip_prefix(folder)?.display().to_string());
        }
    }
    Ok(files)
}

#[test]
fn every_line_is_drawn_as_it_would_be_alone() -> TestResult {
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    fs::write(root.join("prompts.txt"), PROMPTS)?;
    let printed = succeeded(&draw(root, &["--seed", "7"])?);
    assert_eq!(
        printed.lines().collect::<Vec<_>>(),
        [
            "out/0003.png: 256 × 256 pixels, seed 7",
            "out/fruit/apple.webp: 256 × 256 pixels, seed 3",
            "out/0005-1.png: 256 × 256 pixels, seed 7",
            "out/0005-2.png: 256 × 256 pixels, seed 8",
            "out: 3 drawn, 0 drawn before, 0 failed",
        ]
    );
    assert_eq!(files(&root.join("out"))?, FILES);
    let alone = [
        ("0003.png", &["一只猫", "--steps", "2", "--seed", "7"][..]),
        ("fruit/apple.webp", &["a red apple", "--steps", "2", "--seed", "3", "--guidance-scale", "2"]),
        ("0005-2.png", &["# a dog", "--steps", "1", "--seed", "8"]),
    ];
    for (file, arguments) in alone {
        succeeded(&run(root, &[&["generate", "--output", "alone.png"], arguments].concat())?);
        let (alone, of_file) =
            (image::open(root.join("alone.png"))?, image::open(root.join("out").join(file))?);
        assert!(alone == of_file, "{file}");
    }
    Ok(())
}

#[test]
fn a_second_run_draws_what_is_not_there() -> TestResult {
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    fs::write(root.join("prompts.txt"), PROMPTS)?;
    // Random seeds are kept.
    succeeded(&draw(root, &[])?);
    let bytes = |file: &str| fs::read(root.join("out").join(file));
    let before = FILES.map(|file| bytes(file).unwrap_or_default());
    assert_eq!(succeeded(&draw(root, &[])?), "out: 0 drawn, 3 drawn before, 0 failed\n");

    fs::remove_file(root.join("out/0005-2.png"))?;
    fs::write(root.join("out/0003.png"), b"half of an image")?;
    let printed = succeeded(&draw(root, &["--seed", "9"])?);
    assert!(printed.ends_with("out: 2 drawn, 1 drawn before, 0 failed\n"), "{printed}");
    assert!(printed.starts_with("out/0003.png: 256 × 256 pixels, seed 9\n"), "{printed}");
    assert_eq!(bytes("fruit/apple.webp")?, before[3]);

    // Other settings give another image.
    let printed = succeeded(&draw(root, &["--seed", "9", "--scheduler", "ddim"])?);
    assert!(printed.ends_with("out: 3 drawn, 0 drawn before, 0 failed\n"), "{printed}");
    let printed = succeeded(&draw(root, &["--seed", "9", "--scheduler", "ddim", "--no-parameters"])?);
    assert!(printed.ends_with("out: 3 drawn, 0 drawn before, 0 failed\n"), "{printed}");
    assert_eq!(files(&root.join("out"))?, FILES);
    Ok(())
}

#[test]
fn a_line_that_fails_is_named_and_the_others_go_on() -> TestResult {
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    fs::write(root.join("prompts.txt"), "a cat\n{\"prompt\": \"a\", \"image\": \"gone.png\"}\na dog\n")?;
    let output = draw(root, &["--seed", "7", "--json"])?;
    assert_eq!(output.status.code(), Some(1));
    let printed: Vec<Value> = serde_json::Deserializer::from_slice(&output.stdout)
        .into_iter()
        .collect::<Result<_, serde_json::Error>>()?;
    assert_eq!(printed.len(), 2);
    assert_eq!((&printed[0]["path"], &printed[1]["path"]), (&"out/0001.png".into(), &"out/0003.png".into()));
    assert!(printed[0]["seconds"].as_f64() > Some(0.0) && printed[0]["seed"] == 7);
    let stderr = String::from_utf8(output.stderr)?;
    let errors: Vec<&str> = stderr.lines().collect();
    assert_eq!(errors.len(), 2, "{stderr}");
    assert!(errors[0].starts_with("error: --prompts prompts.txt: line 2: --image: gone.png: "), "{stderr}");
    assert_eq!(errors[1], "error: --prompts prompts.txt: 1 of 3 lines failed");

    // Existing images are reported in the same form, without a time.
    fs::write(root.join("prompts.txt"), "a cat\n\na dog\n")?;
    let again = succeeded(&draw(root, &["--seed", "7", "--json"])?);
    let first: Value = serde_json::from_str(again.lines().next().unwrap_or_default())?;
    assert_eq!(first["seconds"], Value::Null);
    assert_eq!((&first["parameters"], &first["width"]), (&printed[0]["parameters"], &printed[0]["width"]));
    Ok(())
}

#[test]
fn what_cannot_be_drawn_is_told_before_the_work() -> TestResult {
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    fs::write(root.join("file"), "")?;
    let error = |text: &str, more: &[&str]| -> TestResult<(Option<i32>, String)> {
        let arguments = [&["generate", "--prompts", "-"], more].concat();
        let output = run_with_input(root, &arguments, text.as_bytes())?;
        Ok((output.status.code(), String::from_utf8(output.stderr)?))
    };
    let name = "error: --prompts standard input";
    for (text, expected) in [
        ("", format!("{name}: expected at least one line of text, found an empty file")),
        ("# a\n \n", format!("{name}: expected at least one line of text, found none")),
        (
            "a cat\n{a dog}",
            format!("{name}: line 2: expected a prompt, or a JSON object of options: key must be"),
        ),
        (
            "{\"prompt\": \"a\", \"stepz\": 2}",
            format!("{name}: line 1: stepz: there is no option --stepz, did you mean steps?"),
        ),
        ("{\"prompt\": \"a\", \"steps\": 0}", format!("{name}: line 1: steps: invalid value '0'")),
        ("{\"steps\": 2}", format!("{name}: line 1: expected a field `prompt`, found none")),
        (
            "{\"prompt\": \"a\", \"device\": \"cpu\"}",
            format!("{name}: line 1: device: --device is for all lines"),
        ),
        (
            "{\"prompt\": \"a\", \"output\": \"../a.png\"}",
            format!("{name}: line 1: output: expected a path inside"),
        ),
        (
            "{\"prompt\": \"a\", \"output\": \"/a.png\"}",
            format!("{name}: line 1: output: expected a path inside"),
        ),
        (
            "{\"prompt\": \"a\", \"output\": \"a.bmp\"}",
            format!("{name}: line 1: output: out/a.bmp: expected a name"),
        ),
        (
            "a\n{\"prompt\": \"a\", \"output\": \"0001.png\"}",
            format!("{name}: line 2: output: expected another file than that of line 1"),
        ),
        (
            "{\"prompt\": \"a\", \"seed\": 1, \"seed\": 2}",
            format!("{name}: line 1: the argument '--seed <N>' cannot be used multiple times"),
        ),
    ] {
        let (code, printed) = error(text, &["--output", "out"])?;
        assert!(printed.starts_with(&expected), "{text}: {printed}");
        assert_eq!((code, printed.lines().count()), (Some(1), 1), "{text}: {printed}");
    }
    let (code, printed) = error("a cat", &["--output", "file"])?;
    assert_eq!(code, Some(1));
    assert!(printed.starts_with("error: --output file: expected a directory beside --prompts"), "{printed}");
    for more in [&[][..], &["a cat", "--output", "out"], &["--timings", "t", "--output", "out"]] {
        assert_eq!(error("a cat", more)?.0, Some(2), "{more:?}");
    }
    assert_eq!(files(root)?, ["file"]);
    Ok(())
}

/// A run killed at any time leaves only complete images, and the next one resumes.
#[test]
#[cfg(unix)]
fn a_run_that_is_killed_leaves_whole_images() -> TestResult {
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    let lines: Vec<String> = (0..400).map(|number| format!("cat {number}")).collect();
    fs::write(root.join("prompts.txt"), lines.join("\n"))?;
    let arguments = ["generate", "--prompts", "prompts.txt", "--output", "out", "--steps", "1"];
    let mut child = altdiffusion(root).args(arguments).stdout(std::process::Stdio::null()).spawn()?;
    while fs::read_dir(root.join("out")).map_or(0, Iterator::count) < 3 {
        assert!(child.try_wait()?.is_none(), "it ended too early");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill()?;
    child.wait()?;
    let mut whole = 0;
    for file in files(&root.join("out"))?.iter().filter(|file| file.ends_with(".png")) {
        image::open(root.join("out").join(file))?;
        whole += 1;
    }
    assert!(whole >= 2, "{whole}");
    fs::write(root.join("prompts.txt"), lines[..whole].join("\n"))?;
    let printed = succeeded(&run(root, &arguments)?);
    assert_eq!(printed, format!("out: 0 drawn, {whole} drawn before, 0 failed\n"));
    Ok(())
}
/// The `--json` output for an image is a line that draws it again; other fields of the line take precedence.
#[test]
fn a_record_is_fed_back() -> TestResult {
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    image::RgbImage::from_pixel(64, 64, image::Rgb([200, 30, 40])).save(root.join("red.png"))?;
    let first =
        ["a red apple", "--image", "red.png", "--strength", "0.7", "--scheduler", "euler", "--karras"];
    let printed = run(root, &[&["generate", "--steps", "3", "--json", "-n", "2"], &first[..]].concat())?;
    let drawn: Vec<Value> =
        succeeded(&printed).lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let line = |drawn: &Value, more: Value| {
        let mut line = serde_json::json!({ "parameters": drawn["parameters"] });
        for (field, value) in more.as_object().into_iter().flatten() {
            line[field] = value.clone();
        }
        line.to_string()
    };
    let lines = [
        line(&drawn[0], serde_json::json!({ "output": "first.png" })),
        line(&drawn[1], serde_json::json!({ "output": "second.png" })),
        line(&drawn[0], serde_json::json!({ "output": "other.png", "prompt": "a dog", "seed": 1 })),
    ];
    fs::write(root.join("prompts.txt"), lines.join("\n"))?;
    succeeded(&run(root, &["generate", "--prompts", "prompts.txt", "--output", "out"])?);
    for (again, before) in [("out/first.png", "out-1.png"), ("out/second.png", "out-2.png")] {
        assert!(image::open(root.join(again))? == image::open(root.join(before))?, "{again}");
    }
    let other = fs::read(root.join("out/other.png"))?;
    let other = String::from_utf8_lossy(&other).into_owned();
    assert!(other.contains("a dog\nSteps: 3, Sampler: Euler") && other.contains("Seed: 1,"), "{other}");

    // The model and its adapters cannot differ between lines.
    let parameters = "a cat\nSteps: 1, Seed: 2, Size: 64x64, Model hash: 0123456789, Model: other, Version: altdiffusion 0";
    fs::write(root.join("prompts.txt"), serde_json::json!({ "parameters": parameters }).to_string())?;
    let output = run(root, &["generate", "--prompts", "prompts.txt", "--output", "out"])?;
    let stderr = String::from_utf8(output.stderr)?;
    assert!(output.status.success(), "{stderr}");
    let warning = "warning: --prompts prompts.txt: line 1: parameters: drawn with Model hash: 0123456789, so that another";
    assert!(stderr.starts_with(warning) && stderr.lines().count() == 1, "{stderr}");
    Ok(())
}
