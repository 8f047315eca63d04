//! Gives kernels access to the memory of tensors.

use super::super::launch::description::Address;
use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::cuda::CudaStorageSlice;
use candle_core::cuda::cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DevicePtrMut, SyncOnDrop};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Layout, Result, Shape, Storage, StorageRef, Tensor};

/// Memory that only kernels access.
pub(crate) struct Scratch(CudaSlice<f32>);

impl Scratch {
    /// Uninitialized memory for `len` values.
    pub(super) fn new(device: &CudaDevice, len: usize) -> Result<Self> {
        // SAFETY: kernels alone see it, and the first launch writes what the second reads.
        Ok(Self(unsafe { device.alloc(len) }?))
    }

    pub(crate) fn address<'a>(&'a self, stream: &'a CudaStream) -> (Address, SyncOnDrop<'a>) {
        self.0.device_ptr(stream)
    }
}

/// A tensor that a kernel reads.
pub(crate) struct Reading<'a> {
    storage: StorageRef<'a>,
    layout: &'a Layout,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage, layout }
    }

    /// The address of the first value. Keep the guard until the launch is queued.
    pub(crate) fn address<'b>(&'b self, stream: &'b CudaStream) -> Result<(Address, SyncOnDrop<'b>)> {
        let Storage::Cuda(storage) = &*self.storage else {
            candle_core::bail!("a CUDA kernel needs all of its tensors on the GPU")
        };
        let (address, guard) = match &storage.slice {
            CudaStorageSlice::F16(slice) => slice.device_ptr(stream),
            CudaStorageSlice::BF16(slice) => slice.device_ptr(stream),
            CudaStorageSlice::F32(slice) => slice.device_ptr(stream),
            CudaStorageSlice::I32(slice) => slice.device_ptr(stream),
            _ => candle_core::bail!("a CUDA kernel got a tensor of type {:?}", storage.dtype()),
        };
        Ok((address + (self.layout.start_offset() * storage.dtype().size_in_bytes()) as Address, guard))
    }
}

/// A tensor that a kernel writes.
pub(crate) struct Writing(CudaStorage);

impl Writing {
    pub(crate) fn new(device: &CudaDevice, shape: &[usize], dtype: DType) -> Result<Self> {
        // SAFETY: it only becomes a tensor once its values are guaranteed.
        Ok(Self(unsafe { device.alloc_uninit(&Shape::from(shape), dtype) }?))
    }

    /// The address of the first value. Keep the guard until the launch is queued.
    pub(crate) fn address<'a>(&'a mut self, stream: &'a CudaStream) -> Result<(Address, SyncOnDrop<'a>)> {
        let dtype = self.0.dtype();
        match &mut self.0.slice {
            CudaStorageSlice::F16(slice) => Ok(slice.device_ptr_mut(stream)),
            CudaStorageSlice::BF16(slice) => Ok(slice.device_ptr_mut(stream)),
            CudaStorageSlice::F32(slice) => Ok(slice.device_ptr_mut(stream)),
            CudaStorageSlice::U8(slice) => Ok(slice.device_ptr_mut(stream)),
            _ => candle_core::bail!("a CUDA kernel cannot write a tensor of type {dtype:?}"),
        }
    }

    /// The tensor.
    ///
    /// # Safety
    /// A kernel that writes all of its values has been queued.
    pub(crate) unsafe fn into_tensor(self, shape: &[usize]) -> Tensor {
        Tensor::from_storage(Storage::Cuda(self.0), shape, BackpropOp::none(), false)
    }
}
