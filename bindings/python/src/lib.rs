//! Computes for the Python package `altdiffusion`. `python/altdiffusion` has the interface, which passes plain data
//! here: texts, the bytes of images, arrays, and options as JSON.

#![warn(missing_docs, unreachable_pub)]

mod arrays;
mod command;
mod controlnet;
mod embedder;
mod errors;
mod generate;
mod model;
mod pipeline;
mod questions;
mod streams;
mod text_encoder;
mod work;

use pyo3::prelude::*;

#[global_allocator]
static ALLOCATOR: altdiffusion::Allocator = altdiffusion::Allocator;

#[pymodule]
fn _altdiffusion(module: &Bound<'_, PyModule>) -> PyResult<()> {
    spare_candle_its_threads(module.py())?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("BUILT_IN_STEPS", altdiffusion::BUILT_IN_STEPS)?;
    module.add("BUILT_IN_GUIDANCE_SCALE", altdiffusion::BUILT_IN_GUIDANCE_SCALE)?;
    module.add("BUILT_IN_SCALE", altdiffusion::BUILT_IN_SCALE)?;
    module.add_class::<embedder::Embedder>()?;
    module.add_class::<streams::TextStream>()?;
    module.add_class::<streams::ImageStream>()?;
    module.add_class::<text_encoder::TextEncoder>()?;
    module.add_class::<pipeline::Pipeline>()?;
    module.add_class::<controlnet::ControlNet>()?;
    module.add_function(wrap_pyfunction!(command::run_command, module)?)
}

/// Sets what the command sets, unless the user has: before candle's first use, which reads it once. Through Python's
/// own mapping, because Python has threads that may read the environment.
fn spare_candle_its_threads(py: Python<'_>) -> PyResult<()> {
    let environment = py.import("os")?.getattr("environ")?;
    environment.call_method1("setdefault", altdiffusion::THREADS_OF_CANDLE)?;
    Ok(())
}
