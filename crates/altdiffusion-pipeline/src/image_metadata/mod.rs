//! Reads and writes how an image was drawn in its file, as Stable Diffusion's web interfaces do.
//!
//! [`GenerationParameters`] hold a prompt, a negative prompt and fields such as `Steps` and `Seed`, and format them
//! as text. An [`ImageFileFormat`] writes that text into a file, and [`read_parameters_text`] reads it from files of
//! this project, stable-diffusion-webui, Forge and stable-diffusion.cpp.
//!
//! ```
//! use altdiffusion_pipeline::image_metadata::{GenerationParameters, ImageFileFormat, read_parameters_text};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("cat.png");
//! let image = image::RgbImage::new(64, 64);
//! let mut parameters = GenerationParameters { prompt: "一只猫".to_owned(), ..GenerationParameters::default() };
//! for (name, value) in [("Steps", "20"), ("Sampler", "Euler"), ("Seed", "7")] {
//!     parameters.fields.add(name, value);
//! }
//! assert_eq!(parameters.to_text(), "一只猫\nSteps: 20, Sampler: Euler, Seed: 7");
//!
//! let format = ImageFileFormat::from_path(&path)?;
//! std::fs::write(&path, format.encode(&image, Some(&parameters.to_text()))?)?;
//!
//! let read = GenerationParameters::parse(&read_parameters_text(&path)?);
//! assert_eq!((read.prompt.as_str(), read.fields.get("Seed")), ("一只猫", Some("7")));
//! # Ok(())
//! # }
//! ```

// Its numbers come from files and networks: none may be cut.
#![cfg_attr(not(test), warn(clippy::cast_possible_truncation))]

mod exif;
mod fields;
mod format;
mod parameters;
mod png_text;
mod read;

pub use fields::ParameterFields;
pub use format::ImageFileFormat;
pub use parameters::GenerationParameters;
pub use read::{parameters_text_of, read_parameters_text};

/// The keyword of the PNG text chunk that holds the parameters.
const KEYWORD: &str = "parameters";

/// The longest text read, in bytes.
const LONGEST_TEXT: usize = 4 << 20;

/// What is wrong with part of a file; the caller adds the file's name.
type Problem = Box<dyn std::error::Error + Send + Sync>;

fn too_long() -> String {
    format!("the text `{KEYWORD}` is damaged or has more than {LONGEST_TEXT} bytes")
}
