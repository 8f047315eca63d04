//! Records launches as CUDA graphs, which the device then does without the host.

use candle_core::cuda::WrapErr;
use candle_core::cuda::cudarc::driver::result::device;
use candle_core::cuda::cudarc::driver::sys::{
    CUdevice, CUgraphInstantiate_flags, CUstreamCaptureMode, cuDeviceGraphMemTrim,
};
use candle_core::cuda::cudarc::driver::{CudaGraph, CudaStream, DriverError};
use candle_core::{CudaDevice, Result};
use std::sync::Arc;

/// A graph, with the addresses of the tensors that its launches read and write.
pub(crate) struct Graph {
    /// There until the drop.
    graph: Option<CudaGraph>,
    device: CUdevice,
}

// SAFETY: a graph may be used by one thread after another, and what owns it is not shared between threads.
unsafe impl Send for Graph {}

impl Graph {
    /// Records what `work` puts into this thread's stream, without doing it.
    ///
    /// # Errors
    /// If the work fails, which a copy from the host to the device does: a graph would read that memory again, when it
    /// is long gone. And if the device has no room for the graph.
    pub(crate) fn capture(device: &CudaDevice, work: impl FnOnce() -> Result<()>) -> Result<Self> {
        let stream = device.cuda_stream();
        let number = i32::try_from(stream.context().ordinal()).map_err(candle_core::Error::wrap)?;
        let number = device::get(number).w()?;
        // With this guard candle takes copies from a store, which is empty, and fails while work is recorded.
        let _no_copies = device.enable_cuda_graph_htod_cache();
        let capture = Capture::begin(&stream)?;
        let worked = work();
        let graph = capture.end();
        if worked.is_err() || graph.is_err() {
            // What could not be freed while nothing could be done; it would be the error of whoever comes next.
            let _ = stream.context().check_err();
        }
        worked?;
        let graph = graph.w()?.ok_or_else(|| candle_core::Error::msg("the device recorded no work"))?;
        let graph = Self { graph: Some(graph), device: number };
        // Its memory is asked for here, and not by the first launch, which nobody could do without.
        graph.get()?.upload().w()?;
        Ok(graph)
    }

    /// Puts everything that was recorded into the stream of the thread that calls.
    pub(crate) fn launch(&self) -> Result<()> {
        self.get()?.launch().w()
    }

    fn get(&self) -> Result<&CudaGraph> {
        self.graph.as_ref().ok_or_else(|| candle_core::Error::msg("a graph that was dropped"))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        self.graph = None;
        // The memory of graphs is a pool of its own, which the driver keeps otherwise.
        // SAFETY: it is a device that the driver knows, and memory that a graph still has is not given back.
        if let Err(error) = unsafe { cuDeviceGraphMemTrim(self.device) }.result() {
            tracing::debug!(%error, "the memory of a graph is kept");
        }
    }
}

/// A stream that records. It does not do so for longer than this lives, whatever happens meanwhile.
struct Capture<'a> {
    stream: &'a Arc<CudaStream>,
    is_over: bool,
}

impl<'a> Capture<'a> {
    fn begin(stream: &'a Arc<CudaStream>) -> Result<Self> {
        // Of this thread alone: others go on with their own streams.
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).w()?;
        Ok(Self { stream, is_over: false })
    }

    fn end(mut self) -> std::result::Result<Option<CudaGraph>, DriverError> {
        self.is_over = true;
        self.stream.end_capture(CUgraphInstantiate_flags(0))
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            let _ = self.stream.end_capture(CUgraphInstantiate_flags(0));
        }
    }
}
