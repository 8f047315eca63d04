//! Checks that output which cannot be written is an error, and that untrusted text cannot control the terminal.
#![cfg(unix)]

mod common;

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{altdiffusion, golden_model, run, succeeded};
use image::RgbImage;
use tempfile::TempDir;
use test_support::TestResult;

/// A folder with an image, and an index to search.
fn place() -> TestResult<TempDir> {
    let directory = tempfile::tempdir()?;
    RgbImage::from_fn(64, 48, |x, y| image::Rgb([4 * x as u8, 5 * y as u8, 7]))
        .save(directory.path().join("rgb.png"))?;
    succeeded(&run(
        directory.path(),
        &["embed", "--text", "a cat", "--image", "rgb.png", "--output", "index.safetensors"],
    )?);
    fs::write(directory.path().join("en.jsonl"), r#"{"image": "rgb.png", "caption": "a cat"}"#)?;
    Ok(directory)
}

/// Each subcommand that prints something, and the help.
fn talkative() -> TestResult<Vec<Vec<String>>> {
    let model = golden_model("alt_diffusion")?;
    let size = "--width 64 --height 64 --steps 1".split(' ').collect::<Vec<_>>();
    let lines: Vec<Vec<&str>> = vec![
        vec!["classify", "rgb.png", "--label", "a", "--label", "b"],
        vec!["classify", "rgb.png", "--label", "a", "--label", "b", "--json"],
        vec!["similarity", "--image", "rgb.png", "--text", "a"],
        vec!["similarity", "--image", "rgb.png", "--text", "a", "--json"],
        vec!["search", "index.safetensors", "a"],
        vec!["search", "index.safetensors", "a", "--json"],
        vec!["eval", "retrieval", ".", "--language", "en"],
        vec!["eval", "retrieval", ".", "--language", "en", "--json"],
        vec!["inspect"],
        vec!["inspect", "--json"],
        vec!["encode", "a cat", "--model", &model, "--output", "a.safetensors"],
        vec!["embed", "--text", "a cat", "--output", "b.safetensors"],
        vec!["convert", &model, "model.safetensors"],
        [&["generate", "a cat", "--model", &model], &size[..]].concat(),
        vec!["--help"],
        vec!["generate", "--help"],
        vec!["help", "search"],
        vec!["--version"],
    ];
    Ok(lines.into_iter().map(|line| line.into_iter().map(str::to_owned).collect()).collect())
}

#[track_caller]
fn one_error_line(output: &Output, what: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{what}: {stderr}");
    assert!(stderr.starts_with("error: standard output cannot be written to: "), "{what}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{what}: {stderr}");
}

/// A full disk, as in `classify --json > /dev/full`.
#[test]
#[cfg(target_os = "linux")]
fn full_standard_output() -> TestResult {
    let place = place()?;
    for arguments in talkative()? {
        let full = OpenOptions::new().write(true).open("/dev/full")?;
        let output =
            altdiffusion(place.path()).args(&arguments).stdout(full).stderr(Stdio::piped()).output()?;
        one_error_line(&output, &arguments.join(" "));
    }
    Ok(())
}

/// As in `classify --json >&-`, or a parent that closed it.
#[test]
fn closed_standard_output() -> TestResult {
    let place = place()?;
    for arguments in talkative()? {
        let program = altdiffusion(place.path());
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec \"$0\" \"$@\" >&-"]).arg(program.get_program()).args(&arguments);
        one_error_line(&shell.current_dir(place.path()).output()?, &arguments.join(" "));
    }
    Ok(())
}

/// As in `search … | head -0`: the reader has all it wanted.
#[test]
fn a_reader_that_has_gone() -> TestResult {
    let place = place()?;
    for arguments in talkative()? {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let output =
            altdiffusion(place.path()).args(&arguments).stdout(writer).stderr(Stdio::piped()).output()?;
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    }
    Ok(())
}

/// An unwritable standard error affects neither the exit code nor the work.
#[test]
#[cfg(target_os = "linux")]
fn full_standard_error() -> TestResult {
    let place = place()?;
    let full = || OpenOptions::new().write(true).open("/dev/full");
    let failed = altdiffusion(place.path()).args(["inspect", "missing"]).stderr(full()?).status()?;
    assert_eq!(failed.code(), Some(1));
    let arguments = ["classify", "rgb.png", "missing.png", "--label", "a", "--json"];
    let output =
        altdiffusion(place.path()).args(arguments).stderr(full()?).stdout(Stdio::piped()).output()?;
    assert!(output.status.success() && output.stdout.starts_with(b"["));
    Ok(())
}

/// Some set `RUST_BACKTRACE=1` permanently, which would make candle's errors a page long.
#[test]
fn backtraces_are_no_part_of_errors() -> TestResult {
    let place = place()?;
    let wrong = place.path().join("wrong.safetensors");
    let zeros = candle_core::Tensor::zeros((1, 3, 8, 8), candle_core::DType::F32, &candle_core::Device::Cpu)?;
    candle_core::safetensors::save(&[("latents", zeros)].into(), &wrong)?;
    fs::write(place.path().join("text.png"), "no image")?;
    let model = golden_model("alt_diffusion")?;
    let cases: [&[&str]; 5] = [
        &["generate", "a cat", "--model", &model, "--initial-latents", "wrong.safetensors"],
        &["generate", "a cat", "--model", &model, "--lora", "wrong.safetensors"],
        &["generate", "a cat", "--model", &model, "--image", "text.png"],
        &["encode", "a cat", "--model", "wrong.safetensors", "--output", "out"],
        &["inspect", "text.png"],
    ];
    for arguments in cases {
        for value in ["1", "full"] {
            let mut command = altdiffusion(place.path());
            let output = command.args(arguments).env("RUST_BACKTRACE", value).output()?;
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(
                (output.status.code(), stderr.lines().count()),
                (Some(1), 1),
                "{arguments:?}: {stderr}"
            );
        }
    }
    Ok(())
}

/// Names and texts that would clear the screen, overwrite the line or reverse it, in output, errors, warnings, the
/// log and usage errors.
#[test]
fn what_strangers_wrote_cannot_change_the_terminal() -> TestResult {
    const HOSTILE: &str = "a\u{1b}[2J\u{1b}]0;title\u{7}\r\u{9b}31m\u{202e}gnp.exe";
    const SHOWN: &str = "a\\u{1b}[2J\\u{1b}]0;title\\u{7}\\r\\u{9b}31m\\u{202e}gnp.exe";
    let place = place()?;
    let path = |name: &str| place.path().join(name);
    let image = format!("{HOSTILE}.png");
    fs::copy(path("rgb.png"), path(&image))?;
    let long = "x".repeat(100_000);
    let index = format!("{HOSTILE}.safetensors");
    succeeded(&run(place.path(), &["embed", "--text", HOSTILE, "--text", &long, "--output", &index])?);

    let cases: [(&[&str], bool); 9] = [
        (&["classify", &image, "--label", HOSTILE], true),
        (&["classify", HOSTILE, "rgb.png", "--label", "a"], true),
        (&["similarity", "--image", &image, "--text", HOSTILE], true),
        (&["search", &index, "a"], true),
        (&["search", &index, "a", "--model", HOSTILE], false),
        (&["inspect", HOSTILE], false),
        (&["generate", "a", "--steps", HOSTILE], false),
        (&["generate", "a", "--image", HOSTILE], false),
        (&["--verbose", "generate", HOSTILE, "--steps", "1"], true),
    ];
    for (arguments, succeeds) in cases {
        let output = run(place.path(), arguments)?;
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8(printed)?;
        assert_eq!(output.status.success(), succeeds, "{arguments:?}: {printed}");
        assert!(is_harmless(&printed), "{arguments:?}: {printed:?}");
        // Clap removes escape sequences from what it quotes.
        let is_shown = printed.contains(SHOWN) || arguments.contains(&"--steps");
        assert!(is_shown || printed.contains(&SHOWN.replace('\\', "\\\\")), "{arguments:?}: {printed:?}");
        assert!(printed.lines().all(|line| line.len() < 10_000), "{arguments:?}");
    }
    // Machine-readable output is unfiltered.
    let output = run(place.path(), &["search", &index, "a", "--json"])?;
    let hits: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let items: Vec<&str> =
        hits.as_array().into_iter().flatten().filter_map(|hit| hit["item"].as_str()).collect();
    assert!(items.contains(&HOSTILE) && items.contains(&long.as_str()));
    Ok(())
}

fn is_harmless(printed: &str) -> bool {
    // A tab stands between the columns of a table.
    printed
        .chars()
        .all(|c| matches!(c, '\n' | '\t') || !(c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c)))
}

/// The help of every subcommand can be written to a file.
#[test]
fn help_is_written_to_standard_output() -> TestResult {
    let help = succeeded(&run(Path::new("."), &["help"])?);
    assert!(help.contains("Usage: altdiffusion"), "{help}");
    assert!(succeeded(&run(Path::new("."), &["--version"])?).starts_with("altdiffusion "));
    Ok(())
}

/// Links are followed, pipes and devices written to, and standard output under its other name is a result's alone.
#[test]
#[cfg(target_os = "linux")]
fn outputs_that_are_no_files() -> TestResult {
    let place = place()?;
    let at = |name: &str| place.path().join(name);
    fs::create_dir(at("elsewhere"))?;
    let outputs: [(&str, &[&str]); 3] = [
        ("a.png", &["generate", "a cat", "--steps", "1", "--seed", "1"]),
        ("a.npy", &["embed", "--text", "a cat"]),
        ("a.safetensors", &["encode", "a cat"]),
    ];
    for (name, arguments) in outputs {
        let written = |output: &str| -> TestResult<Output> {
            let arguments = arguments.iter().copied().chain(["--output", output]);
            let output = altdiffusion(place.path()).args(arguments).output()?;
            assert!(output.status.success(), "{output:?}");
            Ok(output)
        };
        written(name)?;
        let expected = fs::read(at(name))?;
        let (link, target) = (format!("link-{name}"), format!("elsewhere/{name}"));
        std::os::unix::fs::symlink(&target, at(&link))?;
        for _ in ["a new file", "an existing one"] {
            written(&link)?;
            assert!(at(&link).is_symlink() && fs::read(at(&target))? == expected, "{link}");
        }
        let pipe = format!("pipe-{name}");
        assert!(Command::new("mkfifo").arg(at(&pipe)).status()?.success());
        let reader = at(&pipe);
        let reader = std::thread::spawn(move || fs::read(reader));
        written(&pipe)?;
        assert!(reader.join().map_err(|_| "the reader panicked")?? == expected, "{pipe}");
        // An index, of which an array is a part.
        let stdout = written("/dev/stdout")?.stdout;
        assert!(if name == "a.npy" { stdout.len() > 512 } else { stdout == expected }, "{name}");
    }
    let left: Vec<_> =
        fs::read_dir(place.path())?.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<_>>()?;
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with('.')), "{left:?}");
    Ok(())
}

/// Devices never end, and on a pipe without a writer reading would wait for ever.
#[test]
#[cfg(target_os = "linux")]
fn inputs_that_are_no_files() -> TestResult {
    let place = place()?;
    assert!(Command::new("mkfifo").arg(place.path().join("pipe")).status()?.success());
    for path in ["/dev/zero", "/dev/random", "pipe"] {
        let inputs: [&[&str]; 8] = [
            &["embed", "--texts", path, "--output", "a.npy"],
            &["embed", "--image", path, "--output", "a.npy"],
            &["encode", "--texts", path, "--output", "a.safetensors"],
            &["classify", "rgb.png", "--labels", path],
            &["generate", "--like", path],
            &["generate", "a cat", "--image", path],
            &["search", path, "a"],
            &["train", "lora", "--config", path, "--output", "run"],
        ];
        // A pipe is awaited for some seconds, so of those that read one only one is tried.
        let tried = inputs
            .iter()
            .filter(|arguments| path != "pipe" || !["encode", "classify", "train"].contains(&arguments[0]));
        for arguments in tried {
            let output = run(place.path(), arguments)?;
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
            let last = stderr.lines().last().unwrap_or_default();
            assert!(
                last.starts_with("error: ") && stderr.contains("expected a file"),
                "{arguments:?}: {stderr}"
            );
        }
    }
    Ok(())
}

/// A file longer than allowed is an error of writing it, not a signal.
#[test]
#[cfg(target_os = "linux")]
fn limits_of_the_system_are_errors() -> TestResult {
    let place = place()?;
    let limited = |limit: &str, command: &str| {
        let program = env!("CARGO_BIN_EXE_altdiffusion");
        let line = format!("ulimit {limit}; exec '{program}' {command}");
        let mut shell = Command::new("bash");
        shell.current_dir(place.path()).args(["-c", &line]).env("ALTDIFFUSION_CONFIG", "/dev/null");
        shell.env("LC_ALL", "C.UTF-8").env_remove("RUST_BACKTRACE").output()
    };
    let model = golden_model("alt_diffusion")?;
    let output = limited("-f 8", &format!("convert '{model}' out.safetensors"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("error: out.safetensors: File too large"), "{stderr}");
    // With little memory a command does its work, or says in a line that it cannot. A test build takes 60 MB itself.
    for kilobytes in (80_000..=240_000).step_by(20_000) {
        for command in
            ["generate 'a cat' --steps 1", "embed --text a --output a.npy", &format!("inspect '{model}'")]
        {
            let output = limited(&format!("-v {kilobytes}"), command)?;
            let stderr = String::from_utf8_lossy(&output.stderr);
            let is_one_line = stderr.lines().count() == 1 && stderr.starts_with("error: ");
            let is_right = output.status.success() || (output.status.code() == Some(1) && is_one_line);
            assert!(is_right, "{kilobytes} kB: {command}: {:?} {stderr}", output.status);
        }
    }
    let left: Vec<_> =
        fs::read_dir(place.path())?.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<_>>()?;
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with('.')), "{left:?}");
    Ok(())
}
