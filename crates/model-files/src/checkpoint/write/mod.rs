//! Writes a checkpoint's tensors to new files, optionally converted.

mod gguf;
mod in_memory;
mod plan;
mod safetensors;

pub use gguf::write_gguf;
pub use in_memory::save_tensors;
pub use plan::{NumberType, TensorToWrite};
pub use safetensors::write_safetensors;
