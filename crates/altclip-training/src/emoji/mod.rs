//! The emoji data set: a real, parallel corpus of pictures and their names in 18 languages.
//!
//! Pictures are Noto Emoji (Apache-2.0) and Twemoji (CC-BY 4.0), names and keywords the Unicode CLDR annotations
//! (Unicode licence), all from npm packages. [`prepare`] turns the packages into a [`Dataset`] on disk,
//! [`CaptionSampler`] wraps the names in the phrases that people type (and gives the texts for the tokenizer), and
//! [`evaluation_prompts`] asks for what was learned.

mod captions;
mod cldr;
mod dataset;
mod error;
mod evaluation;
mod held_out;
mod packages;
mod parallel;
mod pictures;
mod prepare;
mod selection;
mod split;

pub use captions::{Caption, CaptionSampler, DrawnCaption};
pub use cldr::{LANGUAGES, Label};
pub use dataset::{CONCEPTS_FILE, Composition, Concept, Dataset, FOLDS, PICTURES_FILE, PictureRef};
pub use error::{Error, Result};
pub use evaluation::evaluation_prompts;
pub use parallel::{PictureCaptions, TeacherTexts, Translations};
pub use pictures::{PICTURE_BYTES, PICTURE_SIZE};
pub use prepare::{PrepareOptions, PrepareReport, VENDORS, prepare};
pub use selection::SKIN_TONES;
pub use split::{HeldOutKeyword, HeldOutPicture, SPLIT_FILE, Split};
