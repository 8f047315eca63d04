//! Runs the command `altdiffusion`.

#![allow(unsafe_code, reason = "runs a function that needs to be the first")]

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: altdiffusion::Allocator = altdiffusion::Allocator;

fn main() -> ExitCode {
    // SAFETY: this is the first thing the program does; no other thread exists yet.
    unsafe { altdiffusion::run(std::env::args_os().collect()) }.into()
}
