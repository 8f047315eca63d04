//! Reads models from the Hugging Face hub, or from a server that speaks its protocol, through the cache that all Hugging
//! Face libraries share.
//!
//! [`HubOptions`] says where the hub is and how to get there. A [`HubRepository`] is one repository at one commit. It asks
//! through [`client`], keeps files through [`cache`], and [`transfer`] brings one into the other.

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
