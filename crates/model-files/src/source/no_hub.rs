//! Stands in for the hub without the feature `hub`.

use std::fmt;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// A repository on the hub; there are none here.
pub(crate) enum HubRepository {}

impl HubRepository {
    /// # Errors
    /// Always.
    pub(crate) fn from_environment(name: &str) -> Result<Self> {
        Err(Error::Input(format!(
            "model {name}: no such directory, and this program cannot read from the hub: it was built without the feature \
             `hub`"
        )))
    }

    pub(crate) fn fetch(&self, _: &str) -> Result<Option<PathBuf>> {
        match *self {}
    }

    pub(crate) fn cached(&self, _: &str) -> Result<Option<PathBuf>> {
        match *self {}
    }

    pub(crate) fn has(&self, _: &str) -> Result<bool> {
        match *self {}
    }

    pub(crate) fn files(&self) -> Result<Option<Vec<String>>> {
        match *self {}
    }

    pub(crate) fn missing(&self, _: &str) -> Error {
        match *self {}
    }
}

impl fmt::Display for HubRepository {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl fmt::Debug for HubRepository {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_the_hub_says_what_is_missing() {
        let line = HubRepository::from_environment("BAAI/AltCLIP").unwrap_err().to_string();
        assert!(line.contains("BAAI/AltCLIP") && line.contains("feature `hub`"), "{line}");
    }
}
