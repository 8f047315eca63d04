//! Finds a model's files, and reads what is in them.
//!
//! A [`ModelSource`] is a directory, a repository on the Hugging Face hub, or files in the program itself. A [`Checkpoint`] gives
//! the tensors of one part of a model, whichever of the published forms its weights have: safetensors, PyTorch's pickles, or
//! GGUF.
//!
//! ```
//! use candle_core::{DType, Device};
//! use model_files::{Checkpoint, ModelSource};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))?;
//! let model = ModelSource::open("models/emoji")?; // or "BAAI/AltDiffusion-m9"
//! let config: serde_json::Value = model.read_json("unet/config.json")?;
//! println!("{} channels", config["in_channels"]);
//!
//! let weights = Checkpoint::open(&model, "unet")?;
//! for name in weights.names() {
//!     println!("{name}: {:?}", weights.shape(name)); // conv_in.bias: Some([128])
//! }
//! // Memory-mapped until here; this tensor alone is read.
//! let bias = weights.tensor("conv_in.bias", DType::F32, &Device::Cpu)?; // (channels,)
//! assert_eq!(Some(bias.dims()), weights.shape("conv_in.bias"));
//!
//! // A model of candle asks for its weights by their names, and an error says what is not as it should be.
//! let vb = weights.var_builder(DType::F32, &Device::Cpu)?;
//! let error = vb.pp("conv_in").get(7, "bias").map_err(model_files::Error::from).unwrap_err();
//! assert!(error.to_string().contains("expected [7]"), "{error}");
//! # Ok(())
//! # }
//! ```
//!
//! Configurations are read by [`config`], which knows what Python writes and which fields matter. [`write_whole`] writes files
//! that are there whole or not at all, and [`foreign::parse`] stands around decoders that panic.
//!
//! # Features
//!
//! `hub` (default) reads from the hub, and `progress` (default) shows bars while it downloads. Without them the crate needs no
//! network and builds for `wasm32-unknown-unknown`.
//!
//! # Errors
//!
//! Each [`Error`] is one line that says what was expected, what was found, and where. Its [kind](Error::kind) says whose fault
//! it is, for programs that answer each in another way.

#![warn(missing_docs, unreachable_pub)]

pub mod candle_error;
pub mod checkpoint;
pub mod config;
#[cfg(feature = "hub")]
mod download;
mod error;
mod error_kind;
mod file_data;
pub mod foreign;
mod relative_path;
pub mod source;
mod survey;
mod whole_file;

pub use checkpoint::Checkpoint;
#[cfg(feature = "hub")]
pub use download::Downloaded;
pub use error::{Error, Result};
pub use error_kind::ErrorKind;
pub use file_data::FileData;
pub use relative_path::in_folder;
pub use source::ModelSource;
pub use survey::{Misshapen, Missing, PartReport, Survey, Unreadable};
pub use whole_file::{WholeFile, write_whole};
