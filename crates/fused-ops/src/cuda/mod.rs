//! Computes on NVIDIA GPUs.
//!
//! `launch` turns shapes and addresses into launches, and knows nothing of a device, so that tests can run the same ones
//! without one. `runtime` knows the driver, cuBLASLt and cuDNN, `tune` decides between several kernels for the same, and
//! `ops` brings these and candle's tensors together. A function of `ops` gives `None` where no kernel covers what it is
//! asked, an event says why, and the caller takes the reference path; the same where somebody wants gradients.

mod launch;
pub(crate) mod ops;
pub(crate) mod runtime;
mod tune;
