//! Chooses between this crate's convolutions and cuDNN's.

use super::super::launch::conv2d::Conv2dOperands;
use super::super::runtime::cudnn::graph::Conv2dShape;
use super::super::runtime::cudnn::library::{Failure, Library};
use super::super::runtime::cudnn::plan::Plan;
use super::super::runtime::cudnn::target::Target;
use super::super::runtime::kernels::Kernels;
use super::launched::Launched;
use super::measure::{done, is_recorded, milliseconds};
use crate::settings::ConvolutionKernels;
use candle_core::Result;
use candle_core::cuda::cudarc::driver::CudaStream;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// The number of cuDNN's plans to try or measure, best first.
const CANDIDATES: usize = 8;

/// cuDNN on a device, and the choices made there.
pub(super) struct Conv2dTuner {
    library: &'static Library,
    is_measured: bool,
    chosen: HashMap<Conv2dShape, Option<Arc<Plan>>>,
    /// Dropped after the plans, which refer to it.
    target: Target,
}

impl Conv2dTuner {
    /// cuDNN for a stream of the current context, if the settings ask for it.
    ///
    /// # Errors
    /// If the settings require it, and it is not installed.
    pub(super) fn new(kernels: ConvolutionKernels, stream: &CudaStream) -> Result<Option<Self>> {
        static LIBRARY: OnceLock<std::result::Result<Library, Failure>> = OnceLock::new();
        if kernels == ConvolutionKernels::Own {
            return Ok(None);
        }
        let is_measured = kernels == ConvolutionKernels::Measured;
        let opened = LIBRARY.get_or_init(Library::open).as_ref().map_err(Clone::clone);
        let opened = opened.and_then(|library| {
            // SAFETY: it is the stream of the device, which stays as long as the process, and so does this.
            let handle = unsafe { library.handle(stream.cu_stream() as u64) }?;
            Ok((library, handle))
        });
        match opened {
            Ok((library, handle)) => {
                tracing::debug!(version = library.version(), is_measured, "cuDNN has convolutions");
                let target = Target::Present(handle);
                Ok(Some(Self { library, is_measured, chosen: HashMap::new(), target }))
            }
            Err(failure) if kernels != ConvolutionKernels::Default => {
                candle_core::bail!("FUSED_OPS_CONVOLUTION asks for cuDNN: {failure}")
            }
            Err(failure) => {
                tracing::debug!(%failure, "without cuDNN, convolutions use this crate's kernels");
                Ok(None)
            }
        }
    }

    /// Queues a convolution on the stream of `kernels`.
    ///
    /// # Safety
    /// See [`Kernels::launch`].
    pub(super) unsafe fn launch(&mut self, kernels: &Kernels, op: &Conv2dOperands) -> Launched {
        // SAFETY: the caller guarantees the addresses.
        let own = || unsafe { launch_own(kernels, op) };
        let Some(shape) = Conv2dShape::of(op) else { return own() };
        let chosen = match self.chosen.get(&shape) {
            Some(chosen) => chosen.clone(),
            // Nothing can be tried during recording.
            None if is_recorded(kernels.stream()) => return own(),
            None => {
                // SAFETY: as above.
                let chosen = unsafe { self.choose(kernels, &shape, op, own) }.map(Arc::new);
                self.chosen.insert(shape, chosen.clone());
                chosen
            }
        };
        match chosen {
            // SAFETY: as above.
            Some(plan) => Ok(unsafe { self.run(kernels, &plan, &shape, op) }),
            None => own(),
        }
    }

    /// Picks a plan for all later calls, or none for the crate's own kernel.
    ///
    /// # Safety
    /// See [`Kernels::launch`].
    unsafe fn choose(
        &self,
        kernels: &Kernels,
        shape: &Conv2dShape,
        op: &Conv2dOperands,
        own: impl Fn() -> Launched,
    ) -> Option<Plan> {
        let plans = Plan::best(self.library, &self.target, shape, CANDIDATES).unwrap_or_else(|failure| {
            tracing::debug!(%failure, "cuDNN failed");
            Vec::new()
        });
        let time = |plan: &Plan| {
            // Where nothing is measured, the first one that runs is the fastest.
            // SAFETY: the caller guarantees the addresses.
            let run = || unsafe { self.run(kernels, plan, shape, op) };
            if self.is_measured { milliseconds(kernels, run) } else { run().map(|()| 0.) }
        };
        let mut times = plans.into_iter().filter_map(|plan| match time(&plan) {
            Ok(time) => Some((time, plan)),
            Err(error) => {
                tracing::debug!(%error, "a cuDNN plan failed");
                None
            }
        });
        let fastest =
            if self.is_measured { times.min_by(|(a, _), (b, _)| a.total_cmp(b)) } else { times.next() };
        let Some((time, plan)) = fastest else {
            tracing::debug!(operation = "conv2d", ?shape, "cuDNN has no plan: the crate's own kernel runs");
            return None;
        };
        if !self.is_measured {
            return Some(plan);
        }
        let own = milliseconds(kernels, || done(own()));
        tracing::debug!(?shape, ?own, cudnn = time, "milliseconds of a convolution");
        own.map_or(true, |own| own > time).then_some(plan)
    }

    /// Runs a plan.
    ///
    /// # Safety
    /// See [`Kernels::launch`].
    unsafe fn run(
        &self,
        kernels: &Kernels,
        plan: &Plan,
        shape: &Conv2dShape,
        op: &Conv2dOperands,
    ) -> Result<()> {
        let Target::Present(handle) = &self.target else {
            candle_core::bail!("a device that is only described")
        };
        let workspace = match plan.workspace_bytes {
            0 => None,
            bytes => Some(kernels.scratch(bytes.div_ceil(size_of::<f32>()))?),
        };
        let workspace = workspace.as_ref().map(|workspace| workspace.address(kernels.stream()));
        let address = workspace.as_ref().map_or(0, |(address, _)| *address);
        // SAFETY: the caller guarantees the addresses of `op`, the shape is its shape, and there is as much workspace as the
        // plan asks for.
        unsafe { plan.execute(handle, &shape.addresses(op), address) }.map_err(candle_core::Error::wrap)
    }
}

/// Queues the crate's own convolution kernels.
///
/// # Safety
/// See [`Kernels::launch`].
pub(super) unsafe fn launch_own(kernels: &Kernels, op: &Conv2dOperands) -> Launched {
    let multiprocessors = kernels.multiprocessors();
    // Check before allocating; the address comes later.
    op.launches(0, multiprocessors)?;
    let partial = match op.partial_len(multiprocessors) {
        0 => None,
        len => match kernels.scratch(len) {
            Ok(partial) => Some(partial),
            Err(error) => return Ok(Err(error)),
        },
    };
    let partial = partial.as_ref().map(|partial| partial.address(kernels.stream()));
    let (product, sum) = op.launches(partial.as_ref().map_or(0, |(address, _)| *address), multiprocessors)?;
    // SAFETY: the caller guarantees the operands, and the partial sums have as much memory as both launches were made for.
    let launch = |launch| unsafe { kernels.launch(launch) };
    Ok([Some(&product), sum.as_ref()].into_iter().flatten().try_for_each(launch))
}
