//! Times launches.

use super::super::runtime::Graph;
use super::super::runtime::kernels::Kernels;
use super::launched::Launched;
use candle_core::Result;
use candle_core::cuda::WrapErr;
use candle_core::cuda::cudarc::driver::CudaStream;
use candle_core::cuda::cudarc::driver::sys::{CUevent_flags, CUstreamCaptureStatus};

/// Runs per graph, and the number of measurements.
const RUNS: usize = 8;
const MEASUREMENTS: usize = 3;

/// Whether a stream is recording instead of running its work.
pub(super) fn is_recorded(stream: &CudaStream) -> bool {
    // If a stream cannot tell, do not experiment on it.
    stream.capture_status().ok() != Some(CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE)
}

/// The time of one run, the shortest of several measurements. The runs form a graph, so that no kernel waits for the
/// host.
pub(super) fn milliseconds(kernels: &Kernels, run: impl Fn() -> Result<()>) -> Result<f32> {
    let stream = kernels.stream();
    let event = || stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).w();
    // Warms up.
    run()?;
    let runs = Graph::capture(kernels.device(), || (0..RUNS).try_for_each(|_| run()))?;
    runs.launch()?;
    let mut shortest = f32::INFINITY;
    for _ in 0..MEASUREMENTS {
        let begin = event()?;
        runs.launch()?;
        let end = event()?;
        shortest = shortest.min(begin.elapsed_ms(&end).w()? / RUNS as f32);
    }
    Ok(shortest)
}

/// Treats a shape that no kernel covers as an error.
pub(super) fn done(launched: Launched) -> Result<()> {
    launched.unwrap_or_else(|reason| candle_core::bail!("{}", reason.0))
}
