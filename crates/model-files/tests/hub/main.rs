//! Tests downloads from a small hub on this machine, which can also misbehave.

mod cached;
mod files;
#[path = "../common/mock_hub/mod.rs"]
mod mock_hub;
mod place;
mod servers;
mod trust;
