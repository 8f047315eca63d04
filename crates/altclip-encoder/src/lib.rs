//! AltCLIP's multilingual text encoder and image tower: prompts and pictures to vectors and hidden states

pub mod activation;
pub mod altclip;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod image_processor;
mod padding;
pub mod picture;
pub mod source;
pub mod text_encoder;
pub mod tokenizer;
pub mod vision;
pub mod xlm_roberta;

pub use error::{Error, Result};
