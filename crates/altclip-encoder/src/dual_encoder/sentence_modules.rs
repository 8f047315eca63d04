//! Reads the `modules.json` of sentence-transformers' models.

use serde::Deserialize;

pub(super) const MODULES: &str = "modules.json";

/// An entry of `modules.json`.
#[derive(Debug, Deserialize)]
pub(super) struct Module {
    pub path: String,
    #[serde(rename = "type")]
    class: String,
}

impl Module {
    /// The class without its Python module, which differs between versions.
    pub(super) fn class(&self) -> &str {
        self.class.rsplit('.').next().unwrap_or_default()
    }
}
