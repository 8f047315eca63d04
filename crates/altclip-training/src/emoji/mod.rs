//! The emoji data set: a real, parallel corpus of images and their names in 18 languages.
//!
//! Images are Noto Emoji (Apache-2.0) and Twemoji (CC-BY 4.0), names and keywords the Unicode CLDR annotations
//! (Unicode licence), all from npm packages. [`prepare`] turns the packages into a [`Dataset`] on disk,
//! [`CaptionSampler`] wraps the names in the phrases that people type (and gives the texts for the tokenizer), and
//! [`evaluation_prompts`] asks for what was learned.

mod captions;
mod cldr;
mod dataset;
mod error;
mod evaluation;
mod held_out;
mod images;
mod packages;
mod parallel;
mod prepare;
mod selection;
mod split;

pub use captions::{Caption, CaptionSampler, DrawnCaption};
pub use cldr::{LANGUAGES, Label};
pub use dataset::{CONCEPTS_FILE, Composition, Concept, Dataset, FOLDS, IMAGES_FILE, ImageRef};
pub use error::{Error, Result};
pub use evaluation::evaluation_prompts;
pub use images::{IMAGE_BYTES, IMAGE_SIZE};
pub use parallel::{ImageCaptions, TeacherTexts, Translations};
pub use prepare::{PrepareOptions, PrepareReport, VENDORS, prepare};
pub use selection::SKIN_TONES;
pub use split::{HeldOutImage, HeldOutKeyword, SPLIT_FILE, Split};
