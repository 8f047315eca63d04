//! Writes a checkpoint's tensors to new files, optionally converted.

mod gguf;
mod plan;
mod safetensors;

pub use gguf::write_gguf;
pub use plan::{NumberType, TensorToWrite};
pub use safetensors::write_safetensors;
