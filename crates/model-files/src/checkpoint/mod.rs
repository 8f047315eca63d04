//! Reads published weights: safetensors in one file or shards, PyTorch's pickles, MindSpore's checkpoints, and GGUF,
//! which may be quantized.
//!
//! Opening a [`Checkpoint`] reads and checks its table of contents. Tensors stay in the memory-mapped files until a
//! model asks for them, by name and shape, through candle's [`VarBuilder`](candle_nn::VarBuilder).

// Its numbers come from files and networks: none may be cut.
#![cfg_attr(not(test), warn(clippy::cast_possible_truncation))]

mod backend;
mod contents;
mod convert;
mod element;
pub(crate) mod find;
mod float8;
mod format;
mod gguf;
mod int8;
mod legacy_names;
mod mindspore;
mod pickle;
mod safetensors;
mod scales;
mod sharded;
mod stored;
mod survey_backend;
mod tables;
mod tensors;
mod write;

pub use crate::survey::{Misshapen, Missing, PartReport, Survey, Unreadable};
pub use int8::is_sensitive_to_int8;
pub use sharded::ShardIndex;
pub use tensors::Checkpoint;
pub use write::{NumberType, TensorToWrite, save_tensors, write_gguf, write_safetensors};
