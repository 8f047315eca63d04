//! AltCLIP's multilingual text encoder and image tower: prompts and pictures to vectors and hidden states

pub mod checkpoint;
pub mod config;
pub mod error;
pub mod source;

pub use error::{Error, Result};
