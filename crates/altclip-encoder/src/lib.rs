//! Turns texts and images into vectors of a joint space, and prompts into hidden states for diffusion models:
//! AltCLIP, AltDiffusion's text encoder, and models built like them.
//!
//! # Vectors
//!
//! An [`Embedder`] loads a model of any supported [family](dual_encoder) from a directory or the Hugging Face hub:
//! AltCLIP, CLIP, SigLIP, OpenCLIP, Chinese-CLIP and others, or this project's small model, which the examples
//! use.
//!
//! ```
//! # #[cfg(feature = "images")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use altclip_encoder::{Embedder, RowOutcome};
//! use candle_core::{DType, Device};
//!
//! # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))?;
//! let embedder = Embedder::from_pretrained("models/emoji", DType::F32, &Device::Cpu)?; // or "BAAI/AltCLIP"
//!
//! let texts = embedder.embed_texts(&["一只猫", "a cat", "消防车"])?; // (3, 128)
//! let alike = embedder.similarity(&texts, &texts)?.to_vec2::<f32>()?;
//! assert!(alike[0][1] > alike[0][2], "the cats are more alike than a cat and a fire engine");
//!
//! // An image would come from images::open("cat.png", DecodeOptions::default())?.
//! let image = image::DynamicImage::new_rgb8(100, 80);
//! let images = embedder.embed_images(&[image])?; // (1, 128)
//! let probabilities = candle_nn::ops::softmax(&embedder.similarity(&images, &texts)?, 1)?;
//! assert_eq!(probabilities.dims(), [1, 3]);
//!
//! // A column with nulls goes into a buffer of the caller's, without a copy of its texts.
//! let column = [Some("一只猫"), None];
//! let mut vectors = vec![0.0; column.len() * embedder.projection_dim()];
//! let outcomes = embedder.embed_into(column, &mut vectors)?;
//! assert!(matches!(outcomes[..], [RowOutcome::Embedded, RowOutcome::Null]));
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "images"))]
//! # fn main() {}
//! ```
//!
//! Data larger than memory goes through streams, which work ahead on their own threads and can be sent to others:
//! [`text_stream`](Embedder::text_stream), [`row_stream`](Embedder::row_stream) and
//! [`image_stream`](Embedder::image_stream).
//!
//! # Hidden states
//!
//! A [`PromptEncoder`] is the text side of a diffusion model. Its hidden states suit any UNet with cross-attention of
//! the same width.
//!
//! ```
//! use altclip_encoder::PromptEncoder;
//! use candle_core::{DType, Device};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))?;
//! let encoder = PromptEncoder::from_pretrained("models/emoji", DType::F32, &Device::Cpu)?; // or "BAAI/AltDiffusion-m9"
//! let prompts = encoder.encode(&["", "一只戴帽子的小狗"])?; // the negative prompt, and what to draw
//! assert_eq!(prompts.hidden_states.dims(), [2, 77, 128]);
//! # Ok(())
//! # }
//! ```
//!
//! # Parts
//!
//! Every part can be used alone:
//!
//! | | |
//! |---|---|
//! | finding and reading files | [`source`], [`checkpoint`], [`config`] |
//! | texts to ids | [`tokenizer`] |
//! | image files to pixels, and to model input | `images`, `image_processor` |
//! | dual encoders | [`dual_encoder`], [`altclip`] |
//! | towers | [`xlm_roberta`], [`bert`], [`clip_text`], [`vision`], [`siglip`] |
//! | diffusion models' text encoders | [`conditioner`], [`prompt_encoder`] |
//! | dual encoders for other programs | `onnx` |
//!
//! # Features
//!
//! * `images`, on by default: decodes and prepares images. Without it an [`Embedder`] embeds texts only.
//! * `tokenizer-json`, on by default: WordPiece, BPE and `tokenizer.json` through the `tokenizers` crate. Without it
//!   only SentencePiece files are read, which AltCLIP and AltDiffusion have.
//! * `onnx`: writes dual encoders as ONNX, for photo servers.
//! * `avif`, `heic`, `heic-bundled`: more image formats.
//! * `cuda`, `cudnn`, `metal`, `mkl`, `accelerate`: candle's backends.

#![warn(missing_docs, unreachable_pub)]

pub mod activation;
pub mod altclip;
mod batches;
pub mod bert;
mod checked;
mod clip_layer;
pub mod clip_text;
pub mod conditioner;
pub mod dual_encoder;
pub mod embedder;
pub mod error;
#[cfg(feature = "images")]
pub mod image_processor;
#[cfg(feature = "images")]
pub mod images;
mod layer_shape;
mod m2m100;
#[cfg(feature = "onnx")]
pub mod onnx;
pub mod open_clip_names;
mod padding;
pub mod prompt_encoder;
pub mod siglip;
mod sync;
pub mod tokenizer;
mod transformers_fields;
pub mod vision;
mod word_table;
pub mod xlm_roberta;

pub use candle_core;
#[cfg(feature = "images")]
pub use image;

pub use conditioner::{Conditioner, ConditionerConfig, TextEncoder, TextEncoderConfig};
pub use dual_encoder::{DualEncoder, Family};
pub use embedder::{Embedder, RowOutcome};
pub use error::{Error, Result};
pub use model_files::checkpoint::Checkpoint;
pub use model_files::source::ModelSource;
pub use model_files::{ErrorKind, checkpoint, config, source};
pub use prompt_encoder::{EncodedPrompts, PromptEncoder};
pub use tokenizer::{PROMPT_TOKENS, Tokenizer};
