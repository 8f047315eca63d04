//! Writes tensors of checkpoints to new files, in other types of numbers if that is wanted.

mod gguf;
mod plan;
mod safetensors;

pub use gguf::write_gguf;
pub use plan::{NumberType, TensorToWrite};
pub use safetensors::write_safetensors;
