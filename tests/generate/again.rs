//! Draws images again from their own records: random options, and the same pixels from the image alone.

use std::fs;
use std::path::{Path, PathBuf};

use image::RgbImage;

use crate::common::{run, succeeded};
use crate::random_options::{RandomOptions, place};
use test_support::{TestResult, golden};

/// The number of option sets to draw with, unless this variable overrides it.
const DRAWS: &str = "ALTDIFFUSION_DRAWS";
const DEFAULT_DRAWS: u64 = 24;

fn files_beginning(directory: &Path, start: &str) -> TestResult<Vec<PathBuf>> {
    let files = fs::read_dir(directory)?.map(|file| Ok(file?.path())).collect::<std::io::Result<Vec<_>>>()?;
    let mut files: Vec<_> = files
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start)))
        .collect();
    files.sort();
    Ok(files)
}

/// `ALTDIFFUSION_DRAWS=200 cargo test --test generate again` draws more.
#[test]
fn random_options_are_read_from_the_image_alone() -> TestResult {
    let draws = std::env::var(DRAWS).ok().map(|draws| draws.parse()).transpose()?.unwrap_or(DEFAULT_DRAWS);
    let place = place()?;
    let mut images = 0;
    for draw in 0..draws {
        let arguments = RandomOptions::new(draw).draw();
        let ending = ["png", "jpg", "webp"][draw as usize % 3];
        let (first, again) = (format!("first-{draw}.{ending}"), format!("again.{ending}"));
        let all = [vec!["generate".to_owned(), format!("--output={first}")], arguments.clone()].concat();
        let printed = run(place.path(), &all)?;
        assert!(printed.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&printed.stderr));
        let found = files_beginning(place.path(), &format!("first-{draw}"))?;
        assert!(!found.is_empty(), "{arguments:?}");
        for file in found {
            let name = file.display().to_string();
            let output = run(place.path(), &["generate", "--like", &name, "--output", &again, "--json"])?;
            let stderr = String::from_utf8_lossy(&output.stderr);
            // A machine without Chinese fonts says so of a sheet.
            let mut said =
                stderr.lines().filter(|line| !line.starts_with("warning: no system font can draw"));
            assert!(output.status.success() && said.next().is_none(), "{draw}: {arguments:?}: {stderr}");
            let drawn = image::open(place.path().join(&again))?;
            assert!(
                image::open(&file)? == drawn,
                "{draw}: {arguments:?}: {}",
                String::from_utf8_lossy(&output.stdout)
            );
            images += 1;
        }
    }
    println!("{draws} sets of options, {images} images drawn again with the same pixels");
    Ok(())
}

/// Command-line options override the image's, and `--leave-out` ignores recorded ones.
#[test]
fn the_command_line_beats_the_image() -> TestResult {
    let place = place()?;
    let text = |arguments: &[&str]| -> TestResult<String> {
        let output = succeeded(&run(
            place.path(),
            &[&["generate", "--json", "--output", "b.png"], arguments].concat(),
        )?);
        let drawn: serde_json::Value = serde_json::from_str(&output)?;
        Ok(drawn["parameters"].as_str().unwrap_or_default().to_owned())
    };
    let first = [
        "generate",
        "a cat",
        "--model",
        "models/m9",
        "--seed",
        "5",
        "--steps",
        "2",
        "--scheduler",
        "euler",
        "--karras",
        "--lora",
        "ink, new.safetensors:0.5",
        "--width",
        "64",
        "--height",
        "48",
        "--negative-prompt",
        "dogs",
        "--output",
        "a.png",
        "--prompt-weights",
    ];
    succeeded(&run(place.path(), &first)?);
    let like = ["--like", "a.png"];
    let recorded = text(&like)?;
    for part in
        ["a cat\n", "dogs", "Steps: 2", "Euler", "Karras", "Seed: 5", "64x48", "ink, new", "Prompt weights"]
    {
        assert!(recorded.contains(part), "{part}: {recorded}");
    }
    for (arguments, there, gone) in [
        (&["a dog"] as &[&str], "a dog\n", "a cat"),
        (&["--negative-prompt", "x"], "prompt: x", "dogs"),
        (&["--steps", "3"], "Steps: 3", "Steps: 2"),
        (&["--scheduler", "ddim"], "DDIM", "Karras"),
        (&["--sigma-spacing", "beta"], "Schedule type: Beta", "Karras"),
        (&["--timesteps", "999,500,1"], "Timesteps", "Karras"),
        (&["--seed", "6"], "Seed: 6", "Seed: 5"),
        (&["--height", "64"], "64x64", "64x48"),
        (&["--leave-out", "lora,prompt-weights"], "a cat", "ink"),
        (&["--leave-out=--prompt-weights"], "ink", "Prompt weights"),
    ] {
        let recorded = text(&[&like[..], arguments].concat())?;
        assert!(recorded.contains(there) && !recorded.contains(gone), "{arguments:?}: {recorded}");
    }
    Ok(())
}

/// An image of a batch, by its own seed or by its position in a shared stream.
#[test]
fn an_image_of_several_can_be_had_alone() -> TestResult {
    let place = place()?;
    let draw = |arguments: &[&str]| -> TestResult<String> {
        let fixed =
            ["generate", "--model", "models/m9", "--steps", "2", "--scheduler", "euler-a", "--width", "48"];
        Ok(succeeded(&run(place.path(), &[&fixed[..], &["--height", "48"], arguments].concat())?))
    };
    let same = |a: &str, b: &str| -> TestResult<bool> {
        Ok(image::open(place.path().join(a))? == image::open(place.path().join(b))?)
    };
    let printed = draw(&["a cat", "-n", "3", "--seed", "7", "--output", "c.png"])?;
    assert!(printed.contains("c-2.png: 48 × 48 pixels, seed 8\n"), "{printed}");
    draw(&["a cat", "--seed", "9", "--output", "alone.png"])?;
    assert!(same("c-3.png", "alone.png")? && !same("c-2.png", "alone.png")?);

    let stream = ["a cat", "a dog", "-n", "2", "--seed", "7", "--seeds", "stream"];
    let printed = draw(&[&stream[..], &["--output", "s.png"]].concat())?;
    assert!(printed.contains("s-3.png: 48 × 48 pixels, seed 7, image 3 of 4\n"), "{printed}");
    draw(&[&stream[..], &["--only", "3", "--output", "alone.png"]].concat())?;
    assert!(same("s-3.png", "alone.png")? && !same("s-4.png", "alone.png")?);
    // From a sheet, too.
    draw(&["a cat", "-n", "3", "--seed", "7", "--grid", "--output", "sheet.webp"])?;
    succeeded(&run(
        place.path(),
        &["generate", "--like", "sheet.webp", "--only", "3", "--output", "alone.png"],
    )?);
    assert!(same("c-3.png", "alone.png")?);
    let output = run(place.path(), &["generate", "a cat", "-n", "2", "--only", "3"])?;
    assert!(String::from_utf8_lossy(&output.stderr).contains("--only 3: expected"), "{output:?}");
    Ok(())
}

/// Whatever an image names but this machine lacks is one clear line.
#[test]
fn what_is_not_here_is_named() -> TestResult {
    let place = place()?;
    let path = |name: &str| place.path().join(name);
    let first = [
        "generate",
        "a cat",
        "--model",
        "models/m9",
        "--steps",
        "2",
        "--lora",
        "ink, new.safetensors",
        "--image",
        "photo: one.png",
        "--strength",
        "1",
        "--output",
        "a.png",
    ];
    succeeded(&run(place.path(), &first)?);
    let line = |code: i32, arguments: &[&str]| -> TestResult<String> {
        let all = [&["generate", "--like", "a.png", "--output", "b.png"], arguments].concat();
        let output = run(place.path(), &all)?;
        let stderr = String::from_utf8(output.stderr)?;
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(code), 1), "{stderr}");
        Ok(stderr)
    };
    // Changed files.
    RgbImage::new(83, 61).save(path("photo: one.png"))?;
    let warning = line(0, &[])?;
    assert!(
        warning.starts_with("warning: --like a.png: --image photo: one.png is not the file that"),
        "{warning}"
    );
    let lora = fs::read(golden("adapters/alt_diffusion.kohya.safetensors"))?;
    fs::write(path("ink, new.safetensors"), [&lora[..lora.len() - 1], &[lora[lora.len() - 1] ^ 1]].concat())?;
    let warning = line(0, &["--image", "photo: one.png"])?;
    assert!(warning.contains("--lora ink, new.safetensors is not the file"), "{warning}");
    // Another model.
    let vae = path("models/m9/vae/diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&vae)?;
    *bytes.last_mut().ok_or("an empty file")? ^= 1;
    fs::write(vae, bytes)?;
    let warning = line(0, &["--image", "photo: one.png", "--leave-out", "lora"])?;
    assert!(warning.contains("drawn with another model, whose hash is "), "{warning}");
    // Files that are gone.
    fs::remove_file(path("ink, new.safetensors"))?;
    let error = line(1, &[])?;
    assert!(
        error.contains("drawn with --lora ink, new.safetensors, which is neither here nor beside it"),
        "{error}"
    );
    fs::remove_file(path("photo: one.png"))?;
    let error = line(1, &["--leave-out", "lora"])?;
    assert!(error.contains("--image photo: one.png"), "{error}");
    Ok(())
}

/// A prompt of 70 000 characters: a .jpg has no room for it, which is reported; others do.
#[test]
fn prompts_that_are_longer_than_a_format_holds() -> TestResult {
    let place = place()?;
    let prompt = "a cat, ".repeat(10_000);
    for name in ["a.png", "a.webp", "a.jpg"] {
        let arguments =
            ["generate", &prompt, "--model", "models/m9", "--steps", "2", "--width", "48", "--output", name];
        let output = run(place.path(), &arguments)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        let is_warned = stderr.starts_with("warning: the prompt is too long for a .jpg");
        assert!(output.status.success() && is_warned == (name == "a.jpg"), "{stderr}");
        let again = run(place.path(), &["generate", "--like", name, "--output", "b.png"])?;
        assert_eq!(again.status.success(), name != "a.jpg", "{again:?}");
        assert!(image::open(place.path().join(name)).is_ok());
    }
    Ok(())
}
