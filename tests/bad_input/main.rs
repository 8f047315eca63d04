//! Bad input ends in one line that says what was wrong and where, in exit code 1 (2 for options that cannot be), and
//! leaves nothing behind. Everything goes through the program itself.

mod adapters;
#[path = "../common/mod.rs"]
mod common;
mod models;
mod options;
mod place;
