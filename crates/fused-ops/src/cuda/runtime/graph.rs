//! Records launches as CUDA graphs, which the device replays without the host.

use candle_core::cuda::WrapErr;
use candle_core::cuda::cudarc::driver::result::device;
use candle_core::cuda::cudarc::driver::sys::{
    CUdevice, CUgraphInstantiate_flags, CUstreamCaptureMode, cuDeviceGraphMemTrim,
};
use candle_core::cuda::cudarc::driver::{CudaGraph, CudaStream, DriverError};
use candle_core::{CudaDevice, Result};
use std::sync::Arc;

/// A graph, with the addresses of the tensors it uses.
pub(crate) struct Graph {
    /// Set until dropped.
    graph: Option<CudaGraph>,
    device: CUdevice,
}

// SAFETY: a graph may be used by one thread after another, and what owns it is not shared between threads.
unsafe impl Send for Graph {}

impl Graph {
    /// Records what `work` queues on this thread's stream, without running it.
    ///
    /// # Errors
    /// If the work fails, as any copy from the host does: a graph would read that memory again after it is gone. Also
    /// if the device has no room for the graph.
    pub(crate) fn capture(device: &CudaDevice, work: impl FnOnce() -> Result<()>) -> Result<Self> {
        let stream = device.cuda_stream();
        let number = i32::try_from(stream.context().ordinal()).map_err(candle_core::Error::wrap)?;
        let number = device::get(number).w()?;
        // With this guard candle takes copies from a cache, which is empty, and so fails during recording.
        let _no_copies = device.enable_cuda_graph_htod_cache();
        let capture = Capture::begin(&stream)?;
        let worked = work();
        let graph = capture.end();
        if worked.is_err() || graph.is_err() {
            // Clear errors of frees that were impossible during recording, or the next caller would get them.
            let _ = stream.context().check_err();
        }
        worked?;
        let graph = graph.w()?.ok_or_else(|| candle_core::Error::msg("the device recorded no work"))?;
        let graph = Self { graph: Some(graph), device: number };
        // Allocates its memory now; the first launch could not recover from a failure.
        graph.get()?.upload().w()?;
        Ok(graph)
    }

    /// Queues everything recorded on the calling thread's stream.
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
        // Graphs have a separate memory pool, which the driver would keep.
        // SAFETY: it is a device that the driver knows, and memory that a graph still has is not given back.
        if let Err(error) = unsafe { cuDeviceGraphMemTrim(self.device) }.result() {
            tracing::debug!(%error, "the memory of a graph is kept");
        }
    }
}

/// A stream that is recording. Recording ends when this is dropped, whatever happens.
struct Capture<'a> {
    stream: &'a Arc<CudaStream>,
    is_over: bool,
}

impl<'a> Capture<'a> {
    fn begin(stream: &'a Arc<CudaStream>) -> Result<Self> {
        // This thread only: others continue with their own streams.
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
