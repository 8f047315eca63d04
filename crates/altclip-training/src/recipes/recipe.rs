//! Defines what all recipes share: reading their file, and training.

use crate::error::Result;
use crate::parallel::Communicator;
use crate::run::Observer;
use crate::settings::{self, SettingChange};
use candle_core::Device;
use serde::de::DeserializeOwned;
use std::path::Path;

/// A training run described by a configuration file.
pub trait TrainingRecipe: DeserializeOwned {
    /// Reads the settings from a TOML file, and applies changes.
    ///
    /// # Errors
    /// If the file cannot be read, lacks a setting, or has an unknown one.
    fn load(path: &Path, changes: &[SettingChange]) -> Result<Self> {
        settings::load(path, changes)
    }

    /// Trains, resuming an earlier run, and writes into the folder `output`.
    ///
    /// # Errors
    /// If a file cannot be read or written, a setting does not fit the model, a loss is not finite, or a rank is lost.
    fn train(
        &self,
        output: &Path,
        device: &Device,
        ranks: &dyn Communicator,
        observer: &mut dyn Observer,
    ) -> Result<()>;
}
