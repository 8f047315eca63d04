//! Provides candle tensor helpers for the operations.

pub(crate) mod compute_dtype;
#[cfg(any(feature = "cuda", test))]
pub(crate) mod conv2d_layout;
pub(crate) mod slices;
