//! Texts and images to vectors of one space: AltCLIP, and the models that are built like it.
//!
//! An [`Embedder`](embedder::Embedder) is all that most programs need. It loads a model from a directory or from the
//! Hugging Face hub, of whichever [family](dual_encoder) it is: AltCLIP, CLIP, Chinese-CLIP, Taiyi-CLIP, or the small
//! model of this project, which this example uses.
//!
//! ```
//! use altclip_encoder::embedder::Embedder;
//! use candle_core::{DType, Device};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
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
//! # Ok(())
//! # }
//! ```
//!
//! What does not fit into memory goes through streams, which work ahead on threads of their own:
//!
//! ```
//! # use altclip_encoder::embedder::Embedder;
//! # use candle_core::{DType, Device};
//! # use std::path::PathBuf;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))?;
//! # let embedder = Embedder::from_pretrained("models/emoji", DType::F32, &Device::Cpu)?;
//! let files = ["a.png", "b.jpg"].map(PathBuf::from);
//! for (file, vector) in embedder.image_stream(files.into_iter()) {
//!     match vector {
//!         Ok(vector) => println!("{}: {} numbers", file.display(), vector.len()),
//!         Err(error) => eprintln!("left out: {error}"), // an image that cannot be read does not end the stream
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Beneath it, every part can be used alone: where files come from ([`source`], [`checkpoint`]), texts to ids
//! ([`tokenizer`]), images to pixels ([`images`], [`image_processor`]), the models ([`dual_encoder`]) and their towers
//! ([`xlm_roberta`], [`bert`], [`clip_text`], [`vision`]), and the text encoder of the AltDiffusion models
//! ([`text_encoder`]).

pub mod activation;
pub mod altclip;
mod batches;
pub mod bert;
mod clip_layer;
pub mod clip_text;
pub mod dual_encoder;
pub mod embedder;
pub mod error;
pub mod image_processor;
pub mod images;
mod layer_shape;
mod padding;
pub mod text_encoder;
pub mod tokenizer;
mod transformers_fields;
pub mod vision;
pub mod xlm_roberta;

pub use error::{Error, Result};
pub use model_files::{checkpoint, config, source};
