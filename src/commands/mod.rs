//! Defines the subcommands, a file each: options with their help, and what they do.

pub mod classify;
pub mod convert;
pub mod download;
pub mod embed;
pub mod encode;
pub mod eval;
pub mod generate;
pub mod index;
pub mod inspect;
pub mod machine;
pub mod manual;
pub mod models;
pub mod search;
pub mod serve;
pub mod similarity;
pub mod train;
