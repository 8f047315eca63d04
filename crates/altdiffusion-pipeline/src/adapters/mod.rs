//! Reads small files that change a model: LoRA and its relatives, and textual inversion.

mod change;
mod find;
mod foreign;
mod lora;
mod merge;
mod names;
mod patterns;
mod peft_config;
mod pieces;
mod product;
mod textual_inversion;

pub use lora::Lora;
pub(crate) use merge::Merge;
pub use textual_inversion::TextualInversion;
