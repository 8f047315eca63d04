//! Reads the text of a prompt: how long it may be, its weights, and its chunks.

mod chunks;
mod length;
mod reading;
mod syntax;

pub(crate) use chunks::chunks;
pub use length::PROMPT_TOKENS;
pub(crate) use length::prompt_tokens;
pub use reading::PromptReading;
pub use syntax::{PromptSegment, parse_prompt};
