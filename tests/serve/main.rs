//! Tests `altdiffusion serve` over HTTP: answers equal the command's own output, and bad requests are refused by name.

#[path = "../common/mod.rs"]
mod common;

mod access;
mod clients;
mod embeddings;
mod images;
mod immich;
mod lifetime;
mod log;
mod refusals;
mod server;
mod webui;
