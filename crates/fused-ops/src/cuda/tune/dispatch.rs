//! Queues operations on a device's stream, with the chosen kernels.

use super::super::launch::attention::AttentionOperands;
use super::super::launch::conv2d::Conv2dOperands;
use super::super::runtime::cublaslt::LinearOperands;
use super::super::runtime::kernels::{Kernels, lock};
use super::attention::AttentionTuner;
use super::conv2d::Conv2dTuner;
use super::launched::Launched;
use super::linear::LinearTuner;
use crate::settings::Settings;
use candle_core::cuda::{DeviceId, WrapErr};
use candle_core::{CudaDevice, Result};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

/// A device's kernels and choices.
pub(crate) struct Dispatch {
    kernels: Kernels,
    attention: Mutex<AttentionTuner>,
    linear: Mutex<LinearTuner>,
    /// Convolutions by cuDNN, if used.
    conv2d: Option<Mutex<Conv2dTuner>>,
}

impl Dispatch {
    /// The device's kernels, loaded on the first call.
    ///
    /// # Errors
    /// If the kernels were not compiled for the device's architecture, or the [settings](crate::Settings) ask for
    /// what it cannot do.
    pub(crate) fn of(device: &CudaDevice) -> Result<Arc<Self>> {
        static READY: LazyLock<Mutex<HashMap<DeviceId, Arc<Dispatch>>>> = LazyLock::new(Mutex::default);
        let mut ready = lock(&READY);
        if let Some(dispatch) = ready.get(&device.id()) {
            return Ok(dispatch.clone());
        }
        let settings = Settings::current()?;
        let stream = device.cuda_stream();
        let context = stream.context();
        let is_hopper = context.compute_capability().w()? == (9, 0);
        let attention = AttentionTuner::new(settings.attention, is_hopper)?;
        context.bind_to_thread().w()?;
        let conv2d = Conv2dTuner::new(settings.convolution, &stream)?;
        let dispatch = Arc::new(Self {
            kernels: Kernels::load(device)?,
            attention: Mutex::new(attention),
            linear: Mutex::new(LinearTuner::new()?),
            conv2d: conv2d.map(Mutex::new),
        });
        ready.insert(device.id(), dispatch.clone());
        Ok(dispatch)
    }

    /// The kernels.
    pub(crate) fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// Queues attention on the device's stream.
    ///
    /// # Safety
    /// See [`Kernels::launch`].
    pub(crate) unsafe fn attention(&self, op: &AttentionOperands) -> Launched {
        // SAFETY: the caller guarantees the addresses.
        unsafe { lock(&self.attention).launch(&self.kernels, op) }
    }

    /// Queues a product on the device's stream.
    ///
    /// # Safety
    /// See [`Kernels::launch`].
    pub(crate) unsafe fn linear(&self, product: &LinearOperands) -> Launched {
        // SAFETY: the caller guarantees the addresses.
        unsafe { lock(&self.linear).launch(&self.kernels, product) }
    }

    /// Queues a convolution on the device's stream.
    ///
    /// # Safety
    /// See [`Kernels::launch`].
    pub(crate) unsafe fn conv2d(&self, op: &Conv2dOperands) -> Launched {
        // SAFETY: the caller guarantees the addresses.
        unsafe {
            match &self.conv2d {
                Some(conv2d) => lock(conv2d).launch(&self.kernels, op),
                None => super::conv2d::launch_own(&self.kernels, op),
            }
        }
    }
}
