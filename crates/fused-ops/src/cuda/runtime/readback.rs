//! Copies numbers from the device to the host.

use candle_core::cuda::cudarc::driver::PinnedHostSlice;
use candle_core::cuda::{CudaStorageSlice, WrapErr};
use candle_core::{Device, Result, Storage, Tensor};

/// A number in page-locked memory, which the device can write to.
pub(crate) struct Pinned(PinnedHostSlice<f32>);

impl Pinned {
    /// Starts copying an f32 scalar into `spare`, or into new memory; `None` if the tensor is not on a CUDA device.
    pub(crate) fn copy(scalar: &Tensor, spare: Option<Self>) -> Result<Option<Self>> {
        let Device::Cuda(device) = scalar.device() else { return Ok(None) };
        let (storage, layout) = scalar.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else {
            candle_core::bail!("a tensor of a CUDA device has its values elsewhere")
        };
        let (CudaStorageSlice::F32(values), 1) = (&storage.slice, scalar.elem_count()) else {
            candle_core::bail!(
                "expected a scalar of type f32, found {:?} of {:?}",
                scalar.shape(),
                scalar.dtype()
            )
        };
        let stream = device.cuda_stream();
        let mut pinned = match spare {
            Some(spare) => spare,
            // SAFETY: it is read only after the copy has written it.
            None => Self(unsafe { stream.context().alloc_pinned(1) }.w()?),
        };
        let first = layout.start_offset();
        stream.memcpy_dtoh(&values.slice(first..first + 1), &mut pinned.0).w()?;
        Ok(Some(pinned))
    }

    /// Waits for the number.
    pub(crate) fn wait(&self) -> Result<f32> {
        let values = self.0.as_slice().w()?;
        values.first().copied().ok_or_else(|| candle_core::Error::msg("pinned memory of no numbers"))
    }
}
