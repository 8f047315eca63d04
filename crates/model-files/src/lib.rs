//! Finds a model's files, and reads them.
//!
//! A [`ModelSource`] is a directory, a repository on the Hugging Face hub, or files embedded in the program. A
//! [`Checkpoint`] reads the tensors of a part of a model from any published format: safetensors, PyTorch's pickles,
//! or GGUF.
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
//! // A candle model requests weights by name, and errors say which one is missing or wrong.
//! let vb = weights.var_builder(DType::F32, &Device::Cpu)?;
//! let error = vb.pp("conv_in").get(7, "bias").map_err(model_files::Error::from).unwrap_err();
//! assert!(error.to_string().contains("expected [7]"), "{error}");
//! # Ok(())
//! # }
//! ```
//!
//! [`config`] reads configurations as Python writes them, and checks their fields. [`write_whole`] writes files
//! atomically, and [`foreign::parse`] wraps parsers that may panic.
//!
//! # Features
//!
//! `hub` (default) downloads from the hub, and `progress` (default) shows progress bars. Without them the crate needs
//! no network and builds for `wasm32-unknown-unknown`.
//!
//! # Errors
//!
//! Each [`Error`] is one line that says what was expected, what was found, and where. Its [kind](Error::kind) lets
//! programs respond differently.

#![warn(missing_docs, unreachable_pub)]

mod arithmetic;
pub mod candle_error;
pub mod checkpoint;
pub mod config;
#[cfg(feature = "hub")]
mod download;
mod error;
mod error_kind;
mod file_data;
pub mod foreign;
mod hex;
#[cfg(feature = "hub")]
mod in_parallel;
mod input;
mod relative_path;
pub mod source;
mod survey;
#[cfg(feature = "hub")]
mod sync;
pub mod temporary;
mod whole_file;

pub use arithmetic::Arithmetic;
pub use checkpoint::Checkpoint;
#[cfg(feature = "hub")]
pub use download::Downloaded;
pub use error::{Error, Result};
pub use error_kind::ErrorKind;
pub use file_data::FileData;
pub use hex::hex;
pub use input::{open_file, open_input, read_input};
pub use relative_path::in_folder;
pub use source::ModelSource;
pub use survey::{Misshapen, Missing, PartReport, Survey, Unreadable};
pub use temporary::Temporary;
pub use whole_file::{Target, WholeFile, write_whole};
