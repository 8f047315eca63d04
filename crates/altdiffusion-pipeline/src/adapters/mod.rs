//! Reads adapters: LoRA and its relatives, and textual inversion.

mod adapter_file;
mod change;
mod input_rotation;
mod layer_tensors;
mod lora;
mod merge;
mod names;
mod patterns;
mod peft_config;
mod product;
mod rotation;
mod textual_inversion;
mod unsupported;

pub(crate) use adapter_file::{Found, is_file_name, open as open_file};
pub use lora::Lora;
pub(crate) use merge::Merge;
pub use textual_inversion::TextualInversion;
