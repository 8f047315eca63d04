//! Defines the epsilon of the projections' layer norms.

/// Added to the variance.
pub(super) const LAYER_NORM_EPS: f64 = 1e-5;
