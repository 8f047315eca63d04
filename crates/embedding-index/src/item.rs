//! Defines the kinds of items in an index, and how their vectors were made.

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

/// How an index's vectors were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct IndexInfo {
    /// The name of the model.
    pub model: String,
    /// The commit of its repository, if it came from one. Earlier releases did not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Whether all vectors are normalised.
    pub normalized: bool,
    /// The background of transparent images. The earliest releases did not record it.
    #[serde(default)]
    pub background: Option<Background>,
}
