//! CUDA graphs: launches that were recorded once, and that the device then does without the host.

use candle_core::cuda::WrapErr;
use candle_core::cuda::cudarc::driver::CudaGraph;
use candle_core::cuda::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use candle_core::{CudaDevice, Result};

/// A graph, with the addresses of the tensors that its launches read and write.
pub(crate) struct Graph(CudaGraph);

// SAFETY: a graph may be used by one thread after another, and what owns it is not shared between threads.
unsafe impl Send for Graph {}

impl Graph {
    /// Records what `work` puts into the device's stream, without doing it.
    ///
    /// # Errors
    /// If the work fails, which a copy from the host to the device does: a graph would read that memory again, when it
    /// is long gone.
    pub fn capture(device: &CudaDevice, work: impl FnOnce() -> Result<()>) -> Result<Self> {
        let stream = device.cuda_stream();
        // With this guard candle takes copies from a store, which is empty, and fails while work is recorded.
        let _no_copies = device.enable_cuda_graph_htod_cache();
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).w()?;
        let worked = work();
        // Also after a failure, as nothing else can be done in the stream before it.
        let graph = stream.end_capture(CUgraphInstantiate_flags(0));
        if worked.is_err() || graph.is_err() {
            // What could not be freed while nothing could be done; it would be the error of whoever comes next.
            let _ = stream.context().check_err();
        }
        worked?;
        let graph = graph.w()?.ok_or_else(|| candle_core::Error::msg("the device recorded no work"))?;
        Ok(Self(graph))
    }

    /// Puts everything that was recorded into the stream.
    pub fn launch(&self) -> Result<()> {
        self.0.launch().w()
    }
}
