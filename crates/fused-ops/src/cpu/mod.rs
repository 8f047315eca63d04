//! The fused CPU kernels.
