//! Defines how a prompt is read.

use serde::{Deserialize, Serialize};

/// How a prompt is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptReading {
    /// Literally, truncated to the text encoder's length, as in diffusers.
    #[default]
    Plain,
    /// With the weights of [`parse_prompt`](crate::parse_prompt), and in as many chunks as needed. A text without
    /// weights that fits into one chunk is read literally.
    Weighted,
}
