//! Reads adapters: LoRA and its relatives, and textual inversion.

mod adapter_file;
mod change;
mod layer_tensors;
mod lora;
mod merge;
mod names;
mod patterns;
mod peft_config;
mod product;
mod textual_inversion;
mod unsupported;

pub use lora::Lora;
pub(crate) use merge::Merge;
pub use textual_inversion::TextualInversion;
