//! Opens a GPU.

use candle_core::{Device, Result};

/// The CUDA device with this number, for inference: like [`Device::new_cuda`], but it keeps freed memory for reuse,
/// and records no events per tensor, which candle never waits for.
///
/// Every host thread has its own stream on it. Before another thread uses a thread's results, that thread has to
/// [`synchronize`](Device::synchronize). No other streams may be created on it.
///
/// # Errors
/// If there is no such device, or this build has no CUDA.
pub fn cuda_device(ordinal: usize) -> Result<Device> {
    #[cfg(feature = "cuda")]
    return crate::cuda::runtime::cuda_device(ordinal);
    #[cfg(not(feature = "cuda"))]
    Device::new_cuda(ordinal)
}
