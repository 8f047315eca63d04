//! A training run's one configuration file.

use crate::error::{Error, Result};
use crate::stages::vae::VaeStage;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Every setting of the emoji model's training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Seed of all weights and all draws.
    pub seed: u64,
    /// Languages of the captions, by their codes.
    pub languages: Vec<String>,
    /// Drawing styles to learn, such as `google`.
    pub vendors: Vec<String>,
    pub vae: VaeStage,
}

impl Recipe {
    /// Reads a recipe from a TOML file.
    ///
    /// # Errors
    /// If the file cannot be read, or lacks a setting, or has one that is unknown.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        toml::from_str(&text).map_err(|e| Error::format(path, e.message()))
    }
}
