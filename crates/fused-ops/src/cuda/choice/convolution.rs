//! Which convolution runs: the crate's own kernel, or one of cuDNN's.

use super::{done, is_recorded, milliseconds};
use crate::cuda::Launched;
use crate::cuda::cudnn::graph::Shape;
use crate::cuda::cudnn::library::{Failure, Library};
use crate::cuda::cudnn::plan::Plan;
use crate::cuda::cudnn::target::Target;
use crate::cuda::device::Kernels;
use crate::cuda::launches::convolution::Convolution;
use candle_core::Result;
use candle_core::cuda::cudarc::driver::CudaStream;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// This variable of the environment says whose convolutions run in f16 and bf16:
///
/// * `own`: the kernels of this crate.
/// * `cudnn`: those that cuDNN itself believes to be the fastest, where it has one; always the same for a shape.
/// * `measured`: for each shape the fastest of both, measured the first time that it is asked for. Another run may choose
///   others where they are close, and so differ in the last bits.
///
/// Without it, `cudnn` if there is such a library, else `own`.
const CONVOLUTION: &str = "FUSED_OPS_CONVOLUTION";

/// Plans of cuDNN's that are tried or measured, the best in its own opinion.
const CANDIDATES: usize = 8;

/// cuDNN on a device, and what was chosen there.
pub(crate) struct Convolutions {
    library: &'static Library,
    is_measured: bool,
    chosen: HashMap<Shape, Option<Arc<Plan>>>,
    /// After the plans, which are made for it.
    target: Target,
}

impl Convolutions {
    /// cuDNN for a stream of the current context, if it is to be used.
    ///
    /// # Errors
    /// If the variable says something else than above, or asks for a library that is not there.
    pub fn open(stream: &CudaStream) -> Result<Option<Self>> {
        static LIBRARY: OnceLock<std::result::Result<Library, Failure>> = OnceLock::new();
        let way = std::env::var_os(CONVOLUTION);
        let is_measured = match way.as_ref().map(|way| way.to_str()) {
            Some(Some("own")) => return Ok(None),
            Some(Some("cudnn")) | None => false,
            Some(Some("measured")) => true,
            Some(_) => candle_core::bail!(
                "{CONVOLUTION} is own, cudnn or measured, not {}",
                way.unwrap_or_default().display()
            ),
        };
        let opened = LIBRARY.get_or_init(Library::open).as_ref().map_err(Clone::clone);
        let opened = opened.and_then(|library| Ok((library, library.handle(stream.cu_stream() as u64)?)));
        match opened {
            Ok((library, handle)) => {
                tracing::debug!(version = library.version(), is_measured, "cuDNN has convolutions");
                let target = Target::Present(handle);
                Ok(Some(Self { library, is_measured, chosen: HashMap::new(), target }))
            }
            Err(failure) if way.is_some() => candle_core::bail!("{CONVOLUTION} asks for cuDNN: {failure}"),
            Err(failure) => {
                tracing::debug!(%failure, "without cuDNN, convolutions take the crate's own kernels");
                Ok(None)
            }
        }
    }

    /// Puts a convolution into the stream of `kernels`; `own` does that with the crate's kernel.
    pub fn launch(&mut self, kernels: &Kernels, op: &Convolution, own: impl Fn() -> Launched) -> Launched {
        let Some(shape) = Shape::of(op) else { return own() };
        let chosen = match self.chosen.get(&shape) {
            Some(chosen) => chosen.clone(),
            // Nothing can be tried while work is recorded.
            None if is_recorded(kernels.stream()) => return own(),
            None => {
                let chosen = self.choose(kernels, &shape, op, &own).map(Arc::new);
                self.chosen.insert(shape, chosen.clone());
                chosen
            }
        };
        match chosen {
            Some(plan) => Ok(self.run(kernels, &plan, &shape, op)),
            None => own(),
        }
    }

    /// The plan that is taken from now on, or none for the crate's own kernel.
    fn choose(
        &self,
        kernels: &Kernels,
        shape: &Shape,
        op: &Convolution,
        own: impl Fn() -> Launched,
    ) -> Option<Plan> {
        let plans = Plan::best(self.library, &self.target, shape, CANDIDATES).unwrap_or_else(|failure| {
            tracing::debug!(%failure, "cuDNN failed");
            Vec::new()
        });
        let time = |plan: &Plan| {
            // Where nothing is measured, the first one that runs is the fastest.
            let run = || self.run(kernels, plan, shape, op);
            if self.is_measured { milliseconds(kernels, run) } else { run().map(|()| 0.) }
        };
        let mut times = plans.into_iter().filter_map(|plan| match time(&plan) {
            Ok(time) => Some((time, plan)),
            Err(error) => {
                tracing::debug!(%error, "a plan of cuDNN's fails");
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

    fn run(&self, kernels: &Kernels, plan: &Plan, shape: &Shape, op: &Convolution) -> Result<()> {
        let Target::Present(handle) = &self.target else {
            candle_core::bail!("a device that is only described")
        };
        let workspace = match plan.workspace_bytes {
            0 => None,
            bytes => Some(kernels.scratch(bytes.div_ceil(size_of::<f32>()))?),
        };
        let workspace = workspace.as_ref().map(|workspace| workspace.address(kernels.stream()));
        let address = workspace.as_ref().map_or(0, |(address, _)| *address);
        // SAFETY: the addresses of `op` are those of its tensors, which are held until its launch is in the stream, and
        // the shape is its shape.
        unsafe { plan.execute(handle, &shape.addresses(op), address) }.map_err(candle_core::Error::wrap)
    }
}
