//! Says how the text of a prompt is read.

use serde::{Deserialize, Serialize};

/// How the text of a prompt is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptReading {
    /// As it stands, cut to the tokens that the text encoder takes, as in diffusers.
    #[default]
    Plain,
    /// With the weights of [`parse_prompt`](crate::parse_prompt), and in as many chunks as it needs. A text that has no
    /// weights and fits into one chunk is read as it stands.
    Weighted,
}
