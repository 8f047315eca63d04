//! Reading a model's `config.json`.

use std::path::Path;

use candle_core::{Error, Result};
use serde::de::DeserializeOwned;

/// Reads `path` as JSON and hands what it holds to `check`.
///
/// # Errors
/// Names the file if it cannot be read, is not JSON, has a field of the wrong kind, or fails the check.
pub(crate) fn read_config<T: DeserializeOwned>(
    path: &Path,
    check: impl FnOnce(&T) -> Result<()>,
) -> Result<T> {
    let context = |error: &dyn std::fmt::Display| Error::Msg(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| context(&error))?;
    let config = serde_json::from_str(&text).map_err(|error| context(&error))?;
    check(&config).map_err(|error| context(&error))?;
    Ok(config)
}
