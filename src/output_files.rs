//! Checks a subcommand's output files before the work, and writes them atomically afterwards.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf, is_separator};

use anyhow::{Context, Result, anyhow, bail};
use candle_core::Tensor;
use model_files::checkpoint::save_tensors;
use model_files::{Target, Temporary, write_whole};
use serde::Serialize;

use crate::standard_streams;

/// Checks that a file can be written at `path`, so that no work is wasted. `option` is the option that named it. A
/// symbolic link is followed, and a pipe or a device written to; if that is standard output, reports go elsewhere.
///
/// # Errors
/// If the directory does not exist or is not writable, or `path` is something other than a file or a stream.
pub fn check_writable(option: &str, path: &Path) -> Result<()> {
    let shown = path.display();
    if path.is_dir() || path.as_os_str().to_string_lossy().ends_with(is_separator) {
        bail!("{option} {shown}: expected the name of a file, found that of a directory");
    }
    if path.parent().is_none() {
        bail!("{option}: expected the name of a file, found {shown:?}");
    }
    match Target::of(path).map_err(|error| anyhow!("{option} {error}"))? {
        Target::File(file) => check_place(option, path, &file)?,
        Target::Stream => {}
        Target::StandardOutput => {
            standard_streams::check(standard_streams::check_open())?;
            standard_streams::give_away();
        }
    }
    Ok(())
}

/// Checks that a directory can be made at `path`, or put in the place of the one that is there. `option` is the option
/// that named it.
///
/// # Errors
/// If the directory that it is to be in does not exist or is not writable, or `path` has no name.
pub fn check_writable_folder(option: &str, path: &Path) -> Result<()> {
    if path.file_name().is_none() {
        bail!("{option}: expected the name of a directory, found {:?}", path.display());
    }
    check_place(option, path, path)
}

/// Checks the directory that an output is to be in, which is called `path` and is `target`.
fn check_place(option: &str, path: &Path, target: &Path) -> Result<()> {
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    if let Err(error) = Temporary::file(directory) {
        let (shown, directory) = (path.display(), directory.display());
        bail!("{option} {shown}: cannot be written to {directory}: {}", error.kind());
    }
    Ok(())
}

/// The names of `count` images: just `out.png`, or `out-1.png`, `out-2.png` …
pub fn numbered(path: &Path, count: usize) -> Vec<PathBuf> {
    if count == 1 {
        return vec![path.to_owned()];
    }
    let name = |number: usize| {
        let mut name = path.file_stem().map_or_else(OsString::new, OsString::from);
        name.push(format!("-{number}"));
        if let Some(extension) = path.extension() {
            name.push(".");
            name.push(extension);
        }
        path.with_file_name(name)
    };
    (1..=count).map(name).collect()
}

/// Writes named tensors as safetensors.
///
/// # Errors
/// If the file cannot be written.
pub fn write_tensors(path: &Path, tensors: &BTreeMap<&str, Tensor>) -> Result<()> {
    save_tensors(path, tensors, None).context("--output")
}

/// Writes timings as JSON.
///
/// # Errors
/// If the file cannot be written.
pub fn write_timings(path: &Path, timings: &impl Serialize) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(timings).context("--timings")?;
    json.push(b'\n');
    write_whole(path, |temporary| fs::write(temporary, json)).context("--timings")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_images_are_numbered_before_the_ending() {
        let names = |path: &str, count| numbered(Path::new(path), count);
        assert_eq!(names("a/out.png", 1), [Path::new("a/out.png")]);
        assert_eq!(names("a/out.png", 2), [Path::new("a/out-1.png"), Path::new("a/out-2.png")]);
        assert_eq!(names("猫.v1.webp", 2)[1], Path::new("猫.v1-2.webp"));
    }
}
