//! Wraps the driver, cuBLASLt and cuDNN.

pub(super) mod cublaslt;
pub(super) mod cudnn;
mod device;
mod graph;
pub(super) mod kernels;
mod params;
mod readback;
pub(super) mod storage;

pub(crate) use device::cuda_device;
pub(crate) use graph::Graph;
pub(crate) use readback::Pinned;

/// For `cudnn`, which tests compile with the launches only.
use super::launch;
