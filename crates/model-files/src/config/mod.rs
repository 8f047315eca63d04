//! Reads configuration files, JSON as Python writes it, into serde structures, and checks their fields.

// Its numbers come from files and networks: none may be cut.
#![cfg_attr(not(test), warn(clippy::cast_possible_truncation))]

mod fields;
mod json;
mod text;

pub use fields::{Accepted, ConfigFile, FieldTable, Refusal, parse_config};
pub use json::{from_shared_fields, parse_json, read_json};
pub use text::without_byte_order_mark;
