//! Loads the kernels onto a device, and queues launches.

use super::super::launch::description::Launch;
use super::storage::Scratch;
use candle_core::cuda::WrapErr;
use candle_core::cuda::cudarc::driver::sys::{CUdevice_attribute_enum, CUfunction_attribute_enum};
use candle_core::cuda::cudarc::driver::{
    CudaFunction, CudaModule, CudaStream, DeviceRepr, LaunchConfig, PushKernelArg,
};
use candle_core::cuda::cudarc::nvrtc::Ptx;
use candle_core::{CudaDevice, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Machine code of every kernel for every architecture; see `build.rs`.
const FAT_BINARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin"));

/// Shared memory per block without opting in to more.
const DEFAULT_SHARED_BYTES: u32 = 48 * 1024;

/// A device's kernels.
pub(crate) struct Kernels {
    device: CudaDevice,
    stream: Arc<CudaStream>,
    module: Arc<CudaModule>,
    multiprocessors: usize,
    functions: Mutex<HashMap<String, CudaFunction>>,
}

/// Locks a map, which stays consistent even if a thread panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kernels {
    /// Loads the kernels.
    ///
    /// # Errors
    /// If the kernels were not compiled for the device's architecture.
    pub(crate) fn load(device: &CudaDevice) -> Result<Self> {
        let stream = device.cuda_stream();
        let context = stream.context();
        let count = CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        Ok(Self {
            device: device.clone(),
            module: context.load_module(Ptx::from_binary(FAT_BINARY.to_vec())).w()?,
            multiprocessors: context.attribute(count).w()?.unsigned_abs() as usize,
            functions: Mutex::default(),
            stream,
        })
    }

    pub(crate) fn stream(&self) -> &CudaStream {
        &self.stream
    }

    pub(crate) fn device(&self) -> &CudaDevice {
        &self.device
    }

    pub(crate) fn multiprocessors(&self) -> usize {
        self.multiprocessors
    }

    /// Queues a launch on the device's stream.
    ///
    /// # Safety
    /// The addresses in the launch are those of memory of the expected sizes, valid until it is queued, and not
    /// written by anything else before it has run.
    ///
    /// # Errors
    /// If the driver refuses it.
    pub(crate) unsafe fn launch<P: DeviceRepr>(&self, launch: &Launch<P>) -> Result<()> {
        let function = self.function(launch)?;
        let [x, y, z] = launch.grid;
        let config = LaunchConfig {
            grid_dim: (x, y, z),
            block_dim: (launch.threads, 1, 1),
            shared_mem_bytes: launch.shared_bytes,
        };
        let mut builder = self.stream.launch_builder(&function);
        builder.arg(&launch.params);
        // SAFETY: the parameters are laid out as the kernel's, and the caller guarantees their addresses.
        unsafe { builder.launch(config) }.w()?;
        Ok(())
    }

    fn function<P>(&self, launch: &Launch<P>) -> Result<CudaFunction> {
        let mut functions = lock(&self.functions);
        if let Some(function) = functions.get(&launch.kernel) {
            return Ok(function.clone());
        }
        let function = self.module.load_function(&launch.kernel).w()?;
        if launch.shared_bytes > DEFAULT_SHARED_BYTES {
            let most = CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(most, launch.shared_bytes.cast_signed()).w()?;
        }
        functions.insert(launch.kernel.clone(), function.clone());
        Ok(function)
    }

    /// Temporary memory for f32 values between two launches.
    pub(crate) fn scratch(&self, len: usize) -> Result<Scratch> {
        Scratch::new(&self.device, len)
    }
}
