//! Computes on NVIDIA GPUs.
//!
//! `launch` turns shapes and addresses into launches without depending on a device, so that tests can run them
//! without one. `runtime` wraps the driver, cuBLASLt and cuDNN, `tune` chooses between kernels for the same
//! operation, and `ops` connects these to candle's tensors. A function of `ops` returns `None` where no kernel covers
//! its arguments or gradients are needed; an event says why, and the caller takes the reference path.

mod launch;
pub(crate) mod ops;
pub(crate) mod runtime;
mod tune;
