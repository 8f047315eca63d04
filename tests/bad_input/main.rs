//! Checks that bad input ends with one line that says what was wrong and where, with exit code 1 (2 for invalid
//! options), and leaves nothing behind. Everything runs the program itself.

mod adapters;
#[path = "../common/mod.rs"]
mod common;
mod models;
mod options;
mod place;
