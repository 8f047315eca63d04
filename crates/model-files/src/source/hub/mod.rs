//! Loads models from the Hugging Face hub, or a server with its protocol, through the cache that all Hugging Face
//! libraries share.
//!
//! [`HubOptions`] says where the hub is and how to reach it. A [`HubRepository`] is a repository at one commit. It
//! sends requests through [`client`] and stores files in [`cache`]; [`transfer`] downloads a file into it.

pub(crate) mod bar;
mod cache;
mod cached_models;
mod client;
pub(crate) mod decimal_bytes;
mod digest;
mod environment;
mod failure;
mod folders;
mod listing;
mod names;
mod network;
mod options;
mod proxy;
mod repository;
mod transfer;
mod url;

pub use cached_models::{CachedModel, CachedModels};
pub use options::{HubOptions, Notice};
pub use proxy::Proxies;
pub(crate) use repository::HubRepository;
