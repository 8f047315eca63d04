//! Builds the emoji model that ships with the program: data set, captions, tokenizer, training recipe and evaluation.
//!
//! * [`dataset`]: emoji images with names in 18 languages, [prepared](dataset::prepare) from npm packages;
//!   [`DataSplit`](dataset::DataSplit) defines what is held out from training
//! * [`captions`]: the names, in phrases that people might type
//! * [`tokenizer`]: training of a SentencePiece unigram model
//! * [`EmojiRecipe`]: all training stages, from one TOML file. Contrastive and teacher learning and re-alignment are
//!   in [`altclip_training::stages`], the others in [`stages`]
//! * [`EmojiEvaluation`]: how often the model draws what it is asked for
//! * [`KnownConcepts`]: what a model draws, and whether a prompt is about something else
//! * [`export_model`]: writes the trained model in the layout that every loader of AltDiffusion reads
//!
//! Other models can be trained without this crate.
//!
//! # Examples
//!
//! What is held out from training:
//!
//! ```
//! use emoji_model::dataset::{SPLIT_FILE, DataSplit};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // `train prepare` writes this file beside the images.
//! let folder = tempfile::tempdir()?;
//! let text = r#"{"compositions": ["1F9D1-1F3FD"], "keywords": [], "images": [{"concept": "1F408", "vendor": "twitter"}]}"#;
//! std::fs::write(folder.path().join(SPLIT_FILE), text)?;
//!
//! let split = DataSplit::load(folder.path())?;
//! assert_eq!(split.compositions, ["1F9D1-1F3FD"]);
//! assert_eq!(split.images[0].vendor, "twitter");
//! # Ok(())
//! # }
//! ```
//!
//! A tokenizer for a few texts:
//!
//! ```
//! use altclip_encoder::tokenizer::Tokenizer;
//! use emoji_model::tokenizer::train_unigram;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let texts = ["a cat", "a dog", "一只猫", "一只狗"];
//! let model = train_unigram(texts.map(str::to_owned), 40)?;
//! let tokenizer = Tokenizer::from_sentencepiece_bytes(&model, "trained")?;
//! // Between the marks of the beginning and the end.
//! assert!(tokenizer.encode("一只猫")?.len() > 2);
//! # Ok(())
//! # }
//! ```

#![warn(missing_docs, unreachable_pub)]

pub mod captions;
mod coverage;
pub mod dataset;
mod error;
mod evaluation;
mod export;
mod fidelity;
mod known;
pub mod pixels;
mod recipe;
pub mod stages;
pub mod tokenizer;
mod weights;

pub use coverage::Coverage;
pub use error::{Error, Result};
pub use evaluation::{EmojiEvaluation, EmojiScore, EvaluatedImage, LanguageScore, VARIED_PROMPTS, Variety};
pub use export::{TrainedUnet, export_autoencoder, export_dual_encoder, export_model};
pub use fidelity::Fidelity;
pub use known::{FalseAlarms, KNOWN_CONCEPTS_FILE, KnownConcepts, Script};
pub use recipe::{DrawnStage, EmojiRecipe};

pub use {altclip_training, candle_core, image};
