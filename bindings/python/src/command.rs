//! Runs the command `altdiffusion`, which the package installs.

#![allow(unsafe_code, reason = "runs a function that needs to be the first")]

use std::ffi::OsString;

use pyo3::prelude::*;

/// Runs the command with its arguments, the first of which is its name, and returns the exit code. It is for programs
/// that do nothing else: it handles signals, and sets environment variables.
#[pyfunction]
pub(crate) fn run_command(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    // SAFETY: the script that calls it has started no thread.
    py.detach(|| unsafe { altdiffusion::run(arguments) })
}
