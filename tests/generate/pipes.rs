//! Draws through pipes: prompts and images from standard input, an image to standard output.

use std::fs;

use serde_json::Value;

use crate::common::{altdiffusion, run, run_with_input, succeeded};
use test_support::TestResult;

const STEPS: [&str; 4] = ["--steps", "2", "--seed", "7"];

#[test]
fn a_prompt_comes_and_an_image_goes_through_pipes() -> TestResult {
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    let piped = run_with_input(
        root,
        &[&["generate", "-", "--output", "-"], &STEPS[..]].concat(),
        "\n  一只猫\r\n".as_bytes(),
    )?;
    assert!(piped.status.success() && piped.stderr.is_empty(), "{}", String::from_utf8_lossy(&piped.stderr));
    assert_eq!(fs::read_dir(root)?.count(), 0);

    succeeded(&run(root, &[&["generate", "一只猫"], &STEPS[..]].concat())?);
    assert!(piped.stdout == fs::read(root.join("out.png"))?);
    Ok(())
}

#[test]
fn an_image_to_begin_with_comes_through_a_pipe() -> TestResult {
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([4 * x as u8, 4 * y as u8, 9]))
        .save(root.join("in.png"))?;
    let bytes = fs::read(root.join("in.png"))?;
    let drawn = |image: &str, output: &str| -> TestResult<Value> {
        let arguments =
            ["generate", "一只猫", "--strength", "0.5", "--json", "--image", image, "--output", output];
        let printed = run_with_input(root, &[&arguments, &STEPS[..]].concat(), &bytes)?;
        Ok(serde_json::from_str(&succeeded(&printed))?)
    };
    let (named, piped) = (drawn("in.png", "named.png")?, drawn("-", "piped.png")?);
    assert!(image::open(root.join("named.png"))? == image::open(root.join("piped.png"))?);
    let parameters = |drawn: &Value| drawn["parameters"].as_str().unwrap_or_default().to_owned();
    assert_eq!(parameters(&piped), parameters(&named).replace("Image: in.png", "Image: -"));

    // A record cannot make the program read standard input.
    let again = run_with_input(root, &["generate", "--like", "piped.png"], &bytes)?;
    let error = String::from_utf8(again.stderr)?;
    assert!(
        !again.status.success() && error.contains("drawn with --image -, which is neither here"),
        "{error}"
    );
    let given = ["generate", "--like", "piped.png", "--image", "-", "--output", "again.png"];
    succeeded(&run_with_input(root, &given, &bytes)?);
    assert!(image::open(root.join("again.png"))? == image::open(root.join("piped.png"))?);
    Ok(())
}

#[test]
fn what_pipes_cannot_take_is_one_line() -> TestResult {
    let directory = tempfile::tempdir()?;
    let cases: [(&[&str], &[u8], &str); 7] = [
        (&["-"], b" \n", "error: PROMPT standard input: expected a text, found none\n"),
        (&["-"], b"\xff", "error: PROMPT standard input: expected text in UTF-8\n"),
        (
            &["-", "--image", "-"],
            b"a cat",
            "error: PROMPT - and --image -: only one of them can be standard input\n",
        ),
        (&["a", "--image", "-"], b"a cat", "error: --image: standard input: not an image: expected"),
        (
            &["a", "-n", "2", "--output", "-"],
            b"",
            "error: --output -: 2 images, of which standard output takes one",
        ),
        (
            &["a", "b", "--output", "-"],
            b"",
            "error: --output -: 2 images, of which standard output takes one",
        ),
        (
            &["a", "--json", "--output", "-"],
            b"",
            "error: --output -: the image has standard output for itself",
        ),
    ];
    for (arguments, input, expected) in cases {
        let output = run_with_input(directory.path(), &[&["generate"], arguments].concat(), input)?;
        let error = String::from_utf8(output.stderr)?;
        assert!(error.starts_with(expected), "{arguments:?}: {error}");
        assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{arguments:?}: {error}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    Ok(())
}

/// As with `generate --output - | head -0`, and on a full disk.
#[test]
#[cfg(target_os = "linux")]
fn an_image_that_cannot_be_written_is_an_error_unless_nobody_wants_it() -> TestResult {
    let directory = tempfile::tempdir()?;
    let arguments = [&["generate", "一只猫", "--output", "-"], &STEPS[..]].concat();
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let gone = altdiffusion(directory.path()).args(&arguments).stdout(writer).status()?;
    assert_eq!(gone.code(), Some(0));
    let full = fs::OpenOptions::new().write(true).open("/dev/full")?;
    let full = altdiffusion(directory.path())
        .args(&arguments)
        .stdout(full)
        .stderr(std::process::Stdio::piped())
        .output()?;
    let error = String::from_utf8(full.stderr)?;
    assert_eq!(full.status.code(), Some(1));
    assert!(error.starts_with("error: standard output cannot be written to: "), "{error}");
    Ok(())
}
