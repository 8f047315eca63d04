//! The kernels on a device, and the memory of tensors as they see it.

use super::Launched;
use super::choice::{Attentions, Convolutions};
use super::launches::attention::{Attention, AttentionParams};
use super::launches::convolution::{Convolution, ConvolutionParams};
use super::launches::denoise::{BytesParams, GuidedStepParams, TimestepParams};
use super::launches::epilogue::{EpilogueParams, GegluParams};
use super::launches::group_norm::GroupNormParams;
use super::launches::launch::{Address, Launch};
use super::launches::layer_norm::LayerNormParams;
use super::product::{Product, Products};
use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::cuda::cudarc::driver::sys::{CUdevice_attribute_enum, CUfunction_attribute_enum};
use candle_core::cuda::cudarc::driver::{
    CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr, LaunchConfig,
    PushKernelArg, SyncOnDrop,
};
use candle_core::cuda::cudarc::nvrtc::Ptx;
use candle_core::cuda::{CudaStorageSlice, DeviceId, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Layout, Result, Shape, Storage, StorageRef, Tensor};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// Machine code of every kernel for every architecture; see `build.rs`.
const FAT_BINARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin"));

/// The shared memory that a block has without asking for more.
const USUAL_SHARED_BYTES: u32 = 48 * 1024;

/// The kernels of a device, loaded once.
pub(super) struct Kernels {
    device: CudaDevice,
    stream: Arc<CudaStream>,
    module: Arc<CudaModule>,
    multiprocessors: usize,
    functions: Mutex<HashMap<String, CudaFunction>>,
    attentions: Mutex<Attentions>,
    products: Mutex<Products>,
    /// Of cuDNN, if they are to be used.
    convolutions: Option<Mutex<Convolutions>>,
}

/// A map is whole whatever happened to the thread that held it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kernels {
    /// Loads the kernels, if this is the first time.
    ///
    /// # Errors
    /// If the device is of none of the architectures that they were compiled for.
    pub fn of(device: &CudaDevice) -> Result<Arc<Self>> {
        static LOADED: LazyLock<Mutex<HashMap<DeviceId, Arc<Kernels>>>> = LazyLock::new(Mutex::default);
        let mut loaded = lock(&LOADED);
        if let Some(kernels) = loaded.get(&device.id()) {
            return Ok(kernels.clone());
        }
        let stream = device.cuda_stream();
        let context = stream.context();
        let count = CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let is_hopper = context.compute_capability().w()? == (9, 0);
        let attentions = Attentions::open(is_hopper)?;
        context.bind_to_thread().w()?;
        let convolutions = Convolutions::open(&stream)?;
        let kernels = Arc::new(Self {
            device: device.clone(),
            module: context.load_module(Ptx::from_binary(FAT_BINARY.to_vec())).w()?,
            multiprocessors: context.attribute(count).w()?.unsigned_abs() as usize,
            functions: Mutex::default(),
            attentions: Mutex::new(attentions),
            products: Mutex::new(Products::new()?),
            convolutions: convolutions.map(Mutex::new),
            stream,
        });
        loaded.insert(device.id(), kernels.clone());
        Ok(kernels)
    }

    pub fn stream(&self) -> &CudaStream {
        &self.stream
    }

    pub fn device(&self) -> &CudaDevice {
        &self.device
    }

    pub fn multiprocessors(&self) -> usize {
        self.multiprocessors
    }

    /// Puts attention into the device's stream.
    pub fn launch_attention(&self, op: &Attention) -> Launched {
        lock(&self.attentions).launch(self, op)
    }

    /// Puts a product into the device's stream.
    pub fn launch_product(&self, product: &Product) -> Launched {
        lock(&self.products).launch(self, product)
    }

    /// Puts a convolution into the device's stream: cuDNN's, or the one that `own` puts there.
    pub fn launch_convolution(&self, op: &Convolution, own: impl Fn() -> Launched) -> Launched {
        match &self.convolutions {
            Some(convolutions) => lock(convolutions).launch(self, op, own),
            None => own(),
        }
    }

    /// Puts a launch into the device's stream.
    pub fn launch<P: DeviceRepr>(&self, launch: &Launch<P>) -> Result<()> {
        let function = self.function(launch)?;
        let [x, y, z] = launch.grid;
        let config = LaunchConfig {
            grid_dim: (x, y, z),
            block_dim: (launch.threads, 1, 1),
            shared_mem_bytes: launch.shared_bytes,
        };
        let mut builder = self.stream.launch_builder(&function);
        builder.arg(&launch.params);
        // SAFETY: the parameters are laid out as the kernel's, and their addresses are those of tensors that are held
        // until the launch is in the stream, of sizes that the launch was made for.
        unsafe { builder.launch(config) }.w()?;
        Ok(())
    }

    fn function<P>(&self, launch: &Launch<P>) -> Result<CudaFunction> {
        let mut functions = lock(&self.functions);
        if let Some(function) = functions.get(&launch.kernel) {
            return Ok(function.clone());
        }
        let function = self.module.load_function(&launch.kernel).w()?;
        if launch.shared_bytes > USUAL_SHARED_BYTES {
            let most = CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(most, launch.shared_bytes.cast_signed()).w()?;
        }
        functions.insert(launch.kernel.clone(), function.clone());
        Ok(function)
    }

    /// Memory for so many f32 values between two launches.
    pub fn scratch(&self, len: usize) -> Result<Scratch> {
        // SAFETY: the first launch writes what the second reads.
        Ok(Scratch(unsafe { self.device.alloc(len) }?))
    }
}

/// Memory that only kernels see.
pub(super) struct Scratch(CudaSlice<f32>);

impl Scratch {
    pub fn address<'a>(&'a self, stream: &'a CudaStream) -> (Address, SyncOnDrop<'a>) {
        self.0.device_ptr(stream)
    }
}

/// A tensor that a kernel reads.
pub(super) struct Reading<'a> {
    storage: StorageRef<'a>,
    layout: &'a Layout,
}

impl<'a> Reading<'a> {
    pub fn new(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage, layout }
    }

    /// The address of the first value. What comes with it is kept until the launch is in the stream.
    pub fn address<'b>(&'b self, stream: &'b CudaStream) -> Result<(Address, SyncOnDrop<'b>)> {
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
pub(super) struct Writing(CudaStorage);

impl Writing {
    pub fn new(device: &CudaDevice, shape: &[usize], dtype: DType) -> Result<Self> {
        // SAFETY: it becomes a tensor only after a kernel that writes all of it is in the stream.
        Ok(Self(unsafe { device.alloc_uninit(&Shape::from(shape), dtype) }?))
    }

    /// The address of the first value. What comes with it is kept until the launch is in the stream.
    pub fn address<'a>(&'a mut self, stream: &'a CudaStream) -> Result<(Address, SyncOnDrop<'a>)> {
        let dtype = self.0.dtype();
        match &mut self.0.slice {
            CudaStorageSlice::F16(slice) => Ok(slice.device_ptr_mut(stream)),
            CudaStorageSlice::BF16(slice) => Ok(slice.device_ptr_mut(stream)),
            CudaStorageSlice::F32(slice) => Ok(slice.device_ptr_mut(stream)),
            CudaStorageSlice::U8(slice) => Ok(slice.device_ptr_mut(stream)),
            _ => candle_core::bail!("a CUDA kernel cannot write a tensor of type {dtype:?}"),
        }
    }

    pub fn into_tensor(self, shape: &[usize]) -> Tensor {
        Tensor::from_storage(Storage::Cuda(self.0), shape, BackpropOp::none(), false)
    }
}

/// Says that a struct is laid out as its kernel's parameters: `repr(C)`, of plain numbers, in the same order. The tests
/// that run the kernels on the host pass the same structs.
macro_rules! params {
    ($($name:ty),*) => {
        $(
            // SAFETY: see above.
            unsafe impl DeviceRepr for $name {}
        )*
    };
}

params!(
    AttentionParams,
    BytesParams,
    ConvolutionParams,
    EpilogueParams,
    GegluParams,
    GroupNormParams,
    GuidedStepParams,
    LayerNormParams,
    TimestepParams
);
