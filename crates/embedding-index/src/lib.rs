//! Embeds many texts and images with CLIP-like models in resumable jobs, and searches the results.
//!
//! A [`Job`] reads texts and images from lists, tables, patterns and folders, embeds them with an
//! [`Embedder`](altclip_encoder::embedder::Embedder), and writes their vectors to a file. An [`Index`] opens such a
//! file and finds what is nearest to a vector.
//!
//! ```
//! use altclip_encoder::embedder::Embedder;
//! use candle_core::{DType, Device};
//! use embedding_index::{Index, Job, SearchOptions};
//! use embedding_index::readers::{ImageInputs, ListFile, TextInputs};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))?;
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! std::fs::write(folder.join("captions.jsonl"), r#"{"caption": "消防车"}"#)?;
//! image::RgbImage::from_pixel(64, 64, image::Rgb([220, 20, 30])).save(folder.join("red.png"))?;
//!
//! let captions = ListFile::open(&folder.join("captions.jsonl"), Some("caption"))?;
//! let output = folder.join("index.safetensors");
//! let mut job = Job::new(&output)
//!     .texts(TextInputs::new(vec!["一只猫".to_owned(), "a red apple".to_owned()], Some(captions)))
//!     .images(ImageInputs::from_iter([folder.display().to_string()])); // all images of a folder
//! job.check()?; // finds errors in the inputs before the model is loaded
//!
//! let embedder = Embedder::from_pretrained("models/emoji", DType::F32, &Device::Cpu)?; // or "BAAI/AltCLIP"
//! let summary = job.run(&embedder, "models/emoji", &mut ())?; // if killed, the next run resumes
//! assert_eq!((summary.texts, summary.images), (3, 1));
//!
//! let index = Index::open(&output)?;
//! let query: Vec<f32> = embedder.embed_texts(&["一只小猫"])?.flatten_all()?.to_vec1()?;
//! let hits = index.search(&query, SearchOptions { images: false, ..SearchOptions::default() })?;
//! assert_eq!((hits.len(), hits[0].item.as_str()), (3, "一只猫"));
//! # Ok(())
//! # }
//! ```
//!
//! A [`library::ImageLibrary`] follows folders of images instead, in a database.
//!
//! A [`JobObserver`] receives progress and what is skipped, and can stop the job. The [`OutputFormat`]s are
//! safetensors, the only one that can be searched, npy and Parquet, in one file or many. With the feature `postgres`,
//! a job may also write to a table of PostgreSQL with pgvector, a `PostgresTable`. The [`readers`] can be used alone:
//! columns of texts, captioned images, WebDataset archives, and data sets of the Hugging Face hub.

#![warn(missing_docs, unreachable_pub)]

mod error;
pub mod hash;
mod index;
mod item;
mod job;
pub mod library;
mod output;
#[cfg(feature = "postgres")]
mod pgvector;
pub mod readers;
mod vector;

pub use altclip_encoder;

pub use error::{Error, JobDifference, Result};
pub use index::{Hit, Index, SearchOptions};
pub use item::{IndexInfo, ItemKind};
pub use job::{Job, JobObserver, JobSummary};
pub use output::OutputFormat;
#[cfg(feature = "postgres")]
pub use pgvector::PostgresTable;
pub use vector::unit_vector;

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
