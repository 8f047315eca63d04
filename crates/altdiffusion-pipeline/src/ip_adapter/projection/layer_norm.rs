//! Says what the layer norms of all projections add to the variance.

/// What is added to the variance.
pub(super) const LAYER_NORM_EPS: f64 = 1e-5;
