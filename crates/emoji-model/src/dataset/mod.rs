//! Prepares and reads the emoji data set: images with real, parallel names in 18 languages.
//!
//! The images are Noto Emoji (Apache-2.0) and Twemoji (CC-BY 4.0), and names and keywords are Unicode's CLDR
//! annotations (Unicode licence), all from npm packages. [`prepare`] converts the packages to a [`Dataset`] on disk,
//! and [`DataSplit`] defines what is held out from training.

mod cldr;
mod concept;
mod images;
mod large;
mod packages;
mod prepare;
mod prepared;
mod retrieval_sets;
mod selection;
mod split;

pub use cldr::{ConceptLabel, ENGLISH, LANGUAGES};
pub use concept::{Composition, Concept, FOLDS, ImageRef};
pub use images::{IMAGE_BYTES, IMAGE_SIZE};
pub use large::{LARGE_SIZE, LargeImages};
pub use prepare::{PrepareOptions, PrepareReport, VENDORS, prepare};
pub use prepared::{CONCEPTS_FILE, Dataset, IMAGES_FILE};
pub use selection::SKIN_TONES;
pub use split::{DataSplit, HeldOutImage, HeldOutKeyword, SPLIT_FILE};

pub(crate) use concept::{fold_case, hash};
