//! Parses prompts: their weights and chunks.

mod chunks;
mod reading;
mod syntax;

pub(crate) use chunks::chunks;
pub use reading::PromptReading;
pub use syntax::{PromptSegment, parse_prompt};
