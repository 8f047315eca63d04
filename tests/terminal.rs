//! Tests output that only appears at a terminal.
#![cfg(target_os = "linux")]

mod common;

use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use common::{altdiffusion, run, succeeded};
use test_support::TestResult;

/// The program's output at a terminal of 100 columns, made by util-linux's `script`, and its exit code.
fn at_terminal(directory: &Path, arguments: &str) -> TestResult<Option<(String, Option<i32>)>> {
    let program = altdiffusion(directory);
    let line = format!("stty cols 100; exec '{}' {arguments}", program.get_program().to_string_lossy());
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).current_dir(directory);
    script.env_clear().env("PATH", "/usr/bin:/bin").env("TERM", "xterm").env("LC_ALL", "C.UTF-8");
    script.env("ALTDIFFUSION_CONFIG", "/dev/null");
    match script.output() {
        Ok(output) => Ok(Some((String::from_utf8(output.stdout)?, output.status.code()))),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("SKIPPED: terminals, since `script` is not installed");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

#[test]
fn tables_are_aligned_under_a_header() -> TestResult {
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    succeeded(&run(root, &["embed", "--text", "一只猫", "--text", "a dog", "--output", "i.safetensors"])?);
    if let Some((printed, code)) = at_terminal(root, "search i.safetensors 一只猫 --quiet")? {
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!(code, Some(0), "{printed:?}");
        assert_eq!(lines.len(), 3, "{printed:?}");
        assert_eq!(lines[..2], ["rank   score  kind  item", "   1  1.0000  text  一只猫"], "{printed:?}");
        assert!(lines[2].starts_with("   2  ") && lines[2].ends_with("  text  a dog"), "{printed:?}");
    }
    Ok(())
}

#[test]
fn a_text_that_competes_with_none_is_noted() -> TestResult {
    let directory = tempfile::tempdir()?;
    image::RgbImage::new(9, 9).save(directory.path().join("a.png"))?;
    for (arguments, is_noted) in [
        ("similarity --image a.png --text cat", true),
        ("similarity --image a.png --text cat --text dog", false),
        ("classify a.png --label cat", true),
    ] {
        if let Some((printed, _)) = at_terminal(directory.path(), arguments)? {
            let noted = printed.contains("one text or label alone always gets 100 %");
            assert_eq!(noted, is_noted, "{arguments}: {printed:?}");
        }
    }
    Ok(())
}

#[test]
fn an_image_is_not_written_to_a_terminal() -> TestResult {
    let directory = tempfile::tempdir()?;
    if let Some((printed, code)) = at_terminal(directory.path(), "generate 一只猫 --output -")? {
        assert_eq!(code, Some(1), "{printed:?}");
        assert!(
            printed.contains("--output -: standard output is a terminal, expected a file or a pipe"),
            "{printed:?}"
        );
        assert_eq!(printed.lines().count(), 1, "{printed:?}");
    }
    Ok(())
}

#[test]
fn errors_and_help_are_coloured() -> TestResult {
    let directory = tempfile::tempdir()?;
    for (arguments, expected) in [
        ("inspect missing", "\u{1b}[1m\u{1b}[31merror\u{1b}[0m: "),
        ("generate -h", "\u{1b}[1m\u{1b}[4mUsage:"),
    ] {
        if let Some((printed, _)) = at_terminal(directory.path(), arguments)? {
            assert!(printed.contains(expected), "{arguments}: {printed:?}");
        }
    }
    Ok(())
}
