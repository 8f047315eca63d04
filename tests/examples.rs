//! Runs every example of this package with a small model, and checks its output.

mod common;

use std::env::{self, consts::EXE_SUFFIX};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{EMOJI, golden_model, succeeded};
use image::{Rgb, RgbImage};
use test_support::TestResult;

/// Runs an example in a folder and checks the result.
type Case = fn(&Example) -> TestResult;

/// The examples by name. One that is in the folder but not here fails the test.
const CASES: [(&str, Case); 10] = [
    ("altclip", altclip),
    ("another_unet", another_unet),
    ("arrow_batches", arrow_batches),
    ("encode_prompts", encode_prompts),
    ("generate", generate),
    ("image_to_image", image_to_image),
    ("inpaint", inpaint),
    ("lora", lora),
    ("own_denoiser", own_denoiser),
    ("server", server),
];

#[test]
fn every_example_does_what_it_says() -> TestResult {
    let names = names_in_folder()?;
    let known: Vec<&str> = CASES.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, known, "the examples in the folder, and those that are run here");
    for (name, case) in CASES {
        let folder = tempfile::tempdir()?;
        println!("{name}");
        case(&Example { name, folder: folder.path() }).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

/// The examples' names, in order: files, or folders with a `main.rs`.
fn names_in_folder() -> TestResult<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "rs") || path.join("main.rs").exists() {
            names.push(path.file_stem().ok_or("a name")?.to_str().ok_or("a name in UTF-8")?.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// An example, and an empty folder to run it in.
struct Example<'a> {
    name: &'a str,
    folder: &'a Path,
}

impl Example<'_> {
    /// The example's output for these arguments. It must succeed without complaints.
    fn run(&self, arguments: &[&str]) -> TestResult<String> {
        self.run_in(self.folder, arguments)
    }

    /// The same in the package's folder, for examples that read its model and write nothing.
    fn run_in_package(&self, arguments: &[&str]) -> TestResult<String> {
        self.run_in(Path::new(env!("CARGO_MANIFEST_DIR")), arguments)
    }

    fn run_in(&self, folder: &Path, arguments: &[&str]) -> TestResult<String> {
        let mut command = Command::new(program(self.name)?);
        Ok(succeeded(&command.current_dir(folder).args(arguments).output()?))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// An image written by the example, which must have more than one colour.
    fn image(&self, name: &str) -> TestResult<RgbImage> {
        let image = image::open(self.path(name))?.into_rgb8();
        let first = image.get_pixel(0, 0);
        assert!(image.pixels().any(|pixel| pixel != first), "{name} is of one colour");
        Ok(image)
    }

    /// Writes an input image: red on the left, green on the right.
    fn write_image(&self, name: &str) -> TestResult<RgbImage> {
        let image =
            RgbImage::from_fn(64, 64, |x, _| if x < 32 { Rgb([200, 30, 40]) } else { Rgb([20, 180, 60]) });
        image.save(self.path(name))?;
        Ok(image)
    }
}

/// Cargo builds examples beside the folder of this test.
fn program(name: &str) -> TestResult<PathBuf> {
    let test = env::current_exe()?;
    let folder = test.parent().and_then(Path::parent).ok_or("a test in target/debug/deps")?;
    let program = folder.join("examples").join(format!("{name}{EXE_SUFFIX}"));
    if !program.exists() {
        let shown = program.display();
        return Err(format!(
            "{shown} is not built: `cargo test` builds the examples, and of `cargo test --test examples` alone they \
             must be built before, by `cargo build --workspace --examples`"
        )
        .into());
    }
    Ok(program)
}

/// The mean difference between two images in some columns, of 255.
fn difference(a: &RgbImage, b: &RgbImage, columns: std::ops::Range<u32>) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    let pixels = a.enumerate_pixels().filter(|(x, _, _)| columns.contains(x));
    let differences: Vec<f64> = pixels
        .flat_map(|(x, y, pixel)| {
            let other = b.get_pixel(x, y);
            (0..3).map(move |channel| f64::from(pixel[channel].abs_diff(other[channel])))
        })
        .collect();
    differences.iter().sum::<f64>() / differences.len() as f64
}

fn altclip(example: &Example) -> TestResult {
    example.write_image("a.png")?;
    let texts = ["一个红色的苹果", "a green tree"];
    let printed = example.run(&[&["a.png", EMOJI][..], &texts].concat())?;
    let lines: Vec<(&str, &str)> = printed.lines().filter_map(|line| line.split_once(' ')).collect();
    assert_eq!(lines.iter().map(|(_, text)| *text).collect::<Vec<_>>(), texts, "{printed}");
    let probabilities = lines.iter().map(|(number, _)| number.parse()).collect::<Result<Vec<f64>, _>>()?;
    assert!((probabilities.iter().sum::<f64>() - 1.).abs() < 1e-4, "{printed}");
    Ok(())
}

fn encode_prompts(example: &Example) -> TestResult {
    let printed = example.run(&[EMOJI, "一只猫", "a cat", "消防车"])?;
    let mut lines = printed.lines();
    let shape = lines.next().unwrap_or_default();
    assert!(shape.starts_with("hidden states: [3, 77, "), "{printed}");
    let rows = lines.map(|line| {
        let numbers = line.split(['[', ']']).nth(1).ok_or("no numbers")?;
        Ok(numbers.split(", ").map(str::parse).collect::<Result<Vec<f32>, _>>()?)
    });
    let rows: Vec<Vec<f32>> = rows.collect::<TestResult<_>>()?;
    let (cats, cat_and_engine) = (rows[0][1], rows[0][2]);
    assert!(rows.len() == 3 && rows[1][1] == 1. && cats > cat_and_engine, "{printed}");
    Ok(())
}

fn generate(example: &Example) -> TestResult {
    assert_eq!(example.run(&["一只猫", "cat.png", EMOJI])?, "cat.png\n");
    assert_eq!(example.image("cat.png")?.dimensions(), (64, 64));
    Ok(())
}

fn image_to_image(example: &Example) -> TestResult {
    let given = example.write_image("given.png")?;
    assert_eq!(example.run(&["given.png", "a red apple", "apple.png", EMOJI])?, "apple.png\n");
    let drawn = example.image("apple.png")?;
    assert!(difference(&given, &drawn, 0..64) > 1.);
    Ok(())
}

/// The left half is kept, and the right half redrawn.
fn inpaint(example: &Example) -> TestResult {
    let given = example.write_image("given.png")?;
    assert_eq!(example.run(&["given.png", "a red apple", "half.png", EMOJI])?, "half.png\n");
    let drawn = example.image("half.png")?;
    let (left, right) = (difference(&given, &drawn, 0..24), difference(&given, &drawn, 40..64));
    assert!(left < right, "{left} {right}");
    Ok(())
}

fn lora(example: &Example) -> TestResult {
    let model = golden_model("alt_diffusion")?;
    let lora = golden_model("adapters/alt_diffusion.kohya.safetensors")?;
    let word = golden_model("adapters/webui.pt")?;
    assert_eq!(example.run(&[&model, &lora, "一只猫", &word])?, "out.png\n");
    example.image("out.png")?;
    Ok(())
}

/// With random weights, candle-transformers' UNet and ours predict the same; the example checks that itself.
fn another_unet(example: &Example) -> TestResult {
    let printed = example.run_in_package(&["一只猫"])?;
    let mut lines = printed.lines();
    assert!(lines.next().is_some_and(|line| line.starts_with("hidden states: [2, 77, ")), "{printed}");
    assert!(lines.next().is_some_and(|line| line.starts_with("prediction: [2, 4, 16, 16], ")), "{printed}");
    Ok(())
}

/// A null row has a null vector, in whole batches and in a stream.
fn arrow_batches(example: &Example) -> TestResult {
    let printed = example.run(&[EMOJI])?;
    let mut lines = printed.lines();
    for batch in ["3 rows, 1 of them null: ", "4 rows, 1 of them null: "] {
        assert!(lines.next().is_some_and(|line| line.starts_with(batch)), "{printed}");
    }
    let rows: Vec<&str> = lines.collect();
    let is_null = |row: &&str| row.starts_with("batch 0, row 1: ") || row.starts_with("batch 1, row 2: ");
    assert_eq!(rows.len(), 7, "{printed}");
    for row in rows {
        assert_eq!(row.ends_with("Null"), is_null(&row), "{row}");
        assert_eq!(row.ends_with("Embedded"), !is_null(&row), "{row}");
    }
    Ok(())
}

/// A text in another language finds the memorized image; the example checks that itself.
fn own_denoiser(example: &Example) -> TestResult {
    let output = example.path("memory.png").display().to_string();
    let printed = example.run_in_package(&[&output])?;
    for line in
        ["a cat: Some(\"一只猫\")", "一个红苹果: Some(\"a red apple\")", "消防车: Some(\"a fire engine\")"]
    {
        assert!(printed.contains(line), "{printed}");
    }
    assert!(printed.ends_with(&format!("{output}\n")), "{printed}");
    example.image("memory.png")?;
    Ok(())
}

/// Each request is answered with the status for its error.
fn server(example: &Example) -> TestResult {
    let printed = example.run_in_package(&[])?;
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines.first().is_some_and(|line| line.contains("/no/such/model")), "{printed}");
    let statuses: Vec<&str> =
        lines.iter().rev().take(5).rev().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(statuses, ["200", "200", "400", "400", "499"], "{printed}");
    Ok(())
}
