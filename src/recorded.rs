//! Records the files that an image was drawn with.

use std::path::{Component, Path};

use anyhow::{Context, Result};
use model_files::{hex, open_input};
use sha2::{Digest, Sha256};

use altdiffusion_pipeline::image_metadata::ParameterFields;

use crate::standard_input;

/// Adds a file's name and SHA-256.
///
/// # Errors
/// If it cannot be read.
pub fn add_file(fields: &mut ParameterFields, name: &str, path: &Path) -> Result<()> {
    fields.add(name, recorded_name(path));
    fields.add(format!("{name} hash"), digest(path)?);
    Ok(())
}

/// The SHA-256 of a file, or of standard input.
///
/// # Errors
/// If it cannot be read.
pub fn digest(path: &Path) -> Result<String> {
    if let Some(bytes) = standard_input::content().filter(|_| standard_input::is_named_by(path)) {
        return Ok(hex(&Sha256::digest(bytes)));
    }
    let mut digest = Sha256::new();
    let mut file = open_input(path).with_context(|| path.display().to_string())?;
    std::io::copy(&mut file, &mut digest).with_context(|| path.display().to_string())?;
    Ok(hex(&digest.finalize()))
}

/// A file's name for an image's record: its path if given relative to the current directory, otherwise only its name,
/// since home directories do not belong in images.
pub fn recorded_name(path: &Path) -> String {
    let is_below = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_string_lossy()),
        _ => None,
    });
    match is_below {
        true => parts.collect::<Vec<_>>().join("/"),
        false => path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
    }
}

/// The name of a file, directory or hub repository for an image's record.
pub fn recorded_source(name: &str) -> String {
    let path = Path::new(name);
    if path.exists() || path.is_absolute() { recorded_name(path) } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_no_more_than_they_must() {
        for (path, name) in [
            ("a.png", "a.png"),
            ("./images/a.png", "images/a.png"),
            ("/home/someone/a.png", "a.png"),
            ("../secret/a.png", "a.png"),
        ] {
            assert_eq!(recorded_name(Path::new(path)), name);
        }
        assert_eq!(recorded_source("BAAI/AltDiffusion-m9@main"), "BAAI/AltDiffusion-m9@main");
        assert_eq!(recorded_source("/models/mine"), "mine");
    }
}
