//! Defines what all recipes have in common: they are read from a file, and train.

use crate::error::Result;
use crate::parallel::Communicator;
use crate::run::Observer;
use crate::settings::{self, SettingChange};
use candle_core::Device;
use serde::de::DeserializeOwned;
use std::path::Path;

/// A training run that one configuration file describes.
pub trait TrainingRecipe: DeserializeOwned {
    /// Reads the settings from a TOML file, with changes made to them.
    ///
    /// # Errors
    /// If the file cannot be read, or lacks a setting, or has one that is unknown.
    fn load(path: &Path, changes: &[SettingChange]) -> Result<Self> {
        settings::load(path, changes)
    }

    /// Trains, going on where an earlier run stopped, and writes into the folder `output`.
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
