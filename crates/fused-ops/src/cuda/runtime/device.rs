//! Opens a GPU.

use candle_core::cuda::WrapErr;
use candle_core::cuda::cudarc::driver::result::{device, mem_pool};
use candle_core::cuda::cudarc::driver::sys::CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
use candle_core::{Device, Result};

/// See [`crate::cuda_device()`].
pub(crate) fn cuda_device(ordinal: usize) -> Result<Device> {
    let opened = Device::new_cuda(ordinal)?;
    if let Device::Cuda(cuda) = &opened {
        // SAFETY: every thread of the host has its own stream on such a device, and as no other is made, candle's bindings
        // record events but never wait for one: without them nothing is less in order. Work of one thread on what another
        // one made is for their owners to order, as before.
        unsafe { cuda.disable_event_tracking() };
    }
    if let Err(error) = keep_freed_memory(ordinal) {
        tracing::debug!(%error, "freed memory is returned to the system");
    }
    Ok(opened)
}

/// Keeps freed memory in the device's pool, which by default is emptied whenever the host synchronizes.
fn keep_freed_memory(ordinal: usize) -> Result<()> {
    let ordinal = i32::try_from(ordinal).map_err(candle_core::Error::wrap)?;
    let device = device::get(ordinal).w()?;
    let mut threshold = u64::MAX;
    let value = std::ptr::from_mut(&mut threshold).cast();
    // SAFETY: it is a device that the driver knows, and the attribute is a number of this size.
    unsafe {
        let pool = device::get_default_mem_pool(device).w()?;
        mem_pool::set_attribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, value).w()
    }
}
