//! Reads short lists of texts from files that options name.

use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use embedding_index::readers::{read_short_list, text_file};

use crate::standard_input;

/// The lines of a file, or of standard input for `-`. `option` is the option that named it.
///
/// # Errors
/// If it cannot be read, is empty, or is not UTF-8.
pub fn read_texts(option: &'static str, path: &Path) -> Result<Vec<String>> {
    let from_stdin = standard_input::is_named_by(path);
    let shown = if from_stdin { "standard input".to_owned() } else { path.display().to_string() };
    let name = format!("{option} {shown}");
    let text =
        if from_stdin { text_file::text(standard_input::read(option)?) } else { text_file::open(path) };
    let text = text.map_err(|error| anyhow!("{name}: {error}"))?;
    Ok(read_short_list(&name, text)?)
}

/// The lines of a file, without empty ones.
///
/// # Errors
/// Like [`read_texts`]; also if all lines are empty.
pub fn read_names(option: &'static str, path: &Path) -> Result<Vec<String>> {
    let mut texts = read_texts(option, path)?;
    texts.retain(|text| !text.trim().is_empty());
    ensure!(!texts.is_empty(), "{option} {}: expected at least one line of text, found none", path.display());
    Ok(texts)
}
