//! AltCLIP's multilingual text encoder and image tower: prompts and pictures to vectors and hidden states

pub mod activation;
pub mod altclip;
pub mod bert;
pub mod checkpoint;
mod clip_layer;
pub mod clip_text;
pub mod config;
pub mod dual_encoder;
pub mod error;
pub mod image_processor;
mod layer_shape;
mod padding;
pub mod source;
pub mod text_encoder;
pub mod tokenizer;
pub mod vision;
pub mod xlm_roberta;

pub use error::{Error, Result};
