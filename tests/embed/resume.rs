//! Kills and resumes runs.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{altdiffusion, succeeded};
use crate::{draw, embed, failure};
use test_support::TestResult;

/// The longest wait for a run.
const PATIENCE: Duration = Duration::from_secs(120);

/// Starts a run and kills it once `enough` holds for what it has saved.
fn kill_when(root: &Path, arguments: &[&str], partial: &str, enough: impl Fn(&Value) -> bool) -> TestResult {
    let mut command = altdiffusion(root);
    command.arg("embed").args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let start = Instant::now();
    let state = root.join(partial).join("state.json");
    loop {
        // It is replaced atomically, so it is always complete.
        if let Ok(json) = fs::read(&state)
            && enough(&serde_json::from_slice(&json)?)
        {
            break;
        }
        if let Some(status) = child.try_wait()? {
            return Err(format!("it ended before it could be killed: {status}").into());
        }
        if start.elapsed() > PATIENCE {
            child.kill()?;
            return Err("it saved nothing".into());
        }
        sleep(Duration::from_millis(1));
    }
    child.kill()?;
    child.wait()?;
    assert!(state.exists(), "it was done before it was killed");
    Ok(())
}

#[test]
fn a_run_that_was_killed_goes_on_to_the_same_bytes() -> TestResult {
    let directory = TempDir::new()?;
    let root = directory.path();
    let lines: Vec<String> =
        (0..6000).map(|i| format!("{} cats {}\n", i, "and a dog ".repeat(i % 5))).collect();
    fs::write(root.join("texts.txt"), lines.concat())?;
    // A run of more than ten seconds would report progress, which is not a complaint.
    let arguments = ["--quiet", "--texts", "texts.txt", "--output"];
    succeeded(&embed(root, &[&arguments[..], &["whole.safetensors"]].concat())?);

    let arguments = [&arguments[..], &["parts.safetensors"]].concat();
    let partial = "parts.safetensors.partial";
    kill_when(root, &arguments, partial, |state| state["texts"]["rows"].as_u64() >= Some(1024))?;
    assert!(!root.join("parts.safetensors").exists());

    // Other settings must neither resume nor discard it.
    let error = failure(root, &[&arguments[..], &["--raw"]].concat())?;
    assert!(error.contains("parts.safetensors.partial: begun with the other choice of --raw"), "{error}");
    assert!(error.contains("delete this folder to start anew"), "{error}");
    let error = failure(root, &["--text", "another", "--output", "parts.safetensors"])?;
    assert!(error.contains("begun with other texts"), "{error}");

    succeeded(&embed(root, &arguments)?);
    assert!(!root.join(partial).exists());
    assert!(fs::read(root.join("parts.safetensors"))? == fs::read(root.join("whole.safetensors"))?);
    Ok(())
}

/// A named pipe among the images blocks the run until it is killed. Its batch is the fourth, which starts only after
/// the first is saved.
#[cfg(unix)]
#[test]
fn images_are_not_read_again() -> TestResult {
    const PIPE: &str = "50.png";
    let directory = TempDir::new()?;
    let root = directory.path();
    let names: Vec<String> = (0..60).map(|number| format!("{number}.png")).collect();
    for (number, name) in (0..).zip(&names) {
        draw(root, name, number)?;
    }
    fs::write(root.join("5.png"), "damaged")?;
    fs::write(root.join("list.txt"), names.join("\n"))?;
    let arguments = ["--images", "list.txt", "--output"];
    let output = embed(root, &[&arguments[..], &["whole.parquet"]].concat())?;
    assert_eq!(String::from_utf8(output.stdout)?, "whole.parquet: 59 images; 1 image skipped\n");

    fs::rename(root.join(PIPE), root.join("later.png"))?;
    assert!(std::process::Command::new("mkfifo").arg(root.join(PIPE)).status()?.success());
    let arguments = [&arguments[..], &["parts.parquet"]].concat();
    kill_when(root, &arguments, "parts.parquet.partial", |state| {
        state["images"]["done"].as_u64() >= Some(16)
    })?;
    fs::rename(root.join("later.png"), root.join(PIPE))?;
    for name in &names[..16] {
        fs::remove_file(root.join(name))?;
    }
    let printed = succeeded(&embed(root, &arguments)?);
    assert_eq!(printed, "parts.parquet: 59 images; 1 image skipped\n");
    assert!(fs::read(root.join("parts.parquet"))? == fs::read(root.join("whole.parquet"))?);
    Ok(())
}
