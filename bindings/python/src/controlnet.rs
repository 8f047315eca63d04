//! Holds a ControlNet for a model.

use std::sync::Arc;

use altdiffusion_pipeline::controlnet::ControlNetModel;
use pyo3::prelude::*;

/// A ControlNet for a model.
#[pyclass(frozen)]
pub(crate) struct ControlNet(pub(crate) Arc<ControlNetModel>);
