//! Opens a GPU.

use candle_core::{Device, Result};

/// The CUDA device of this number, for models that only compute: as [`Device::new_cuda`], but it keeps memory that is
/// freed for who asks next, and makes no events for every tensor, of which candle never waits for one.
///
/// Every thread of the host has its own stream on it: before a thread works on what another one has just made, that one has
/// to [`synchronize`](Device::synchronize). No other streams may be made on it.
///
/// # Errors
/// If there is no such device, or this build has no CUDA.
pub fn cuda_device(ordinal: usize) -> Result<Device> {
    #[cfg(feature = "cuda")]
    return crate::cuda::runtime::cuda_device(ordinal);
    #[cfg(not(feature = "cuda"))]
    Device::new_cuda(ordinal)
}
