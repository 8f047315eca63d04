//! Names what an index is about: its kinds of items, and how their vectors were made.

use std::fmt;

use altclip_encoder::images::Background;
use serde::{Deserialize, Serialize};

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ItemKind {
    /// A text.
    Text,
    /// An image.
    Image,
}

impl fmt::Display for ItemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Text => "text",
            Self::Image => "image",
        })
    }
}

/// How the vectors of an index were made, as its file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct IndexInfo {
    /// The name of the model.
    pub model: String,
    /// Whether all vectors are of length 1.
    pub normalized: bool,
    /// What transparent images were laid on. Files of the earliest releases do not say.
    #[serde(default)]
    pub background: Option<Background>,
}
