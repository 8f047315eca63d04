//! Serves images and embeddings over HTTP, in the interfaces that programs already use.
//!
//! | interface | paths |
//! |---|---|
//! | OpenAI's, with Jina's form for images | `/v1/embeddings`, `/v1/images/generations`, `/v1/images/edits`, `/v1/models` |
//! | vectors and conditioning | `/v1/similarity`, `/v1/classify`, `/v1/hidden_states`, `/v1/search` |
//! | stable-diffusion-webui's | `/sdapi/v1/txt2img`, `/sdapi/v1/img2img`, `/sdapi/v1/progress` and what clients ask for |
//! | text-embeddings-inference's | `/embed`, `/info` |
//! | Ollama's for embeddings | `/api/embed`, `/api/tags`, `/api/version` |
//! | immich's machine-learning server | `/ping`, `/predict` |
//! | monitoring | `/health`, `/metrics`, `/openapi.json` |
//! | a page | `/` |
//!
//! A [`Server`] offers [`ImageModel`]s and [`EmbeddingModel`]s, which it loads when they are first needed, each on a
//! thread of its own, and frees when they are idle.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use altclip_encoder::Embedder;
//! use altdiffusion_pipeline::{DType, Device, LoadOptions, ModelSource};
//! use altdiffusion_server::{EmbeddingModel, ImageModel, Models, Server, ServerOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let source = ModelSource::open("models/emoji")?;
//! let drawing = ImageModel::from_source("emoji", source.clone(), LoadOptions::default());
//! let embedding = EmbeddingModel::new("emoji", move || Embedder::from_source(&source, DType::F32, &Device::Cpu));
//! let models = Models::new().image_model(drawing).embedding_model(embedding);
//!
//! let server = Server::bind(models, ServerOptions::default())?;
//! println!("http://{}", server.address());
//! server.run(std::future::pending())?; // until the future ends
//! # Ok(())
//! # }
//! ```
//!
//! Everything is bounded: queues, bodies, images, connections and time ([`Limits`]). A request whose client has gone
//! is cancelled at the next step.

#![warn(missing_docs, unreachable_pub)]

mod access;
mod api;
mod body;
mod connections;
mod drawing;
mod embedding;
mod error;
mod image_data;
mod indexes;
mod limits;
mod metrics;
mod model_thread;
mod models;
mod options;
mod problem;
mod prompt_states;
mod server;
mod state;
mod sync;
mod whole_number;

pub use error::{Error, Result};
pub use limits::Limits;
pub use models::{EmbeddingModel, ImageModel, Models};
pub use options::ServerOptions;
pub use server::{Server, openapi};
