//! Prepares and reads the emoji data set: a real, parallel corpus of images and their names in 18 languages.
//!
//! Images are Noto Emoji (Apache-2.0) and Twemoji (CC-BY 4.0), names and keywords the Unicode CLDR annotations
//! (Unicode licence), all from npm packages. [`prepare`] turns the packages into a [`Dataset`] on disk, and [`DataSplit`] says
//! what of it is held out from training.

mod cldr;
mod concept;
mod images;
mod packages;
mod prepare;
mod prepared;
mod retrieval_sets;
mod selection;
mod split;

pub use cldr::{ConceptLabel, ENGLISH, LANGUAGES};
pub use concept::{Composition, Concept, FOLDS, ImageRef};
pub use images::{IMAGE_BYTES, IMAGE_SIZE};
pub use prepare::{PrepareOptions, PrepareReport, VENDORS, prepare};
pub use prepared::{CONCEPTS_FILE, Dataset, IMAGES_FILE};
pub use selection::SKIN_TONES;
pub use split::{DataSplit, HeldOutImage, HeldOutKeyword, SPLIT_FILE};

pub(crate) use concept::fold_case;
