//! Measures how long launches take.

use super::super::runtime::Graph;
use super::super::runtime::kernels::Kernels;
use super::launched::Launched;
use candle_core::Result;
use candle_core::cuda::WrapErr;
use candle_core::cuda::cudarc::driver::CudaStream;
use candle_core::cuda::cudarc::driver::sys::{CUevent_flags, CUstreamCaptureStatus};

/// Runs of a graph, and how often they are measured.
const RUNS: usize = 8;
const MEASUREMENTS: usize = 3;

/// Whether what is put into a stream is recorded and not done.
pub(super) fn is_recorded(stream: &CudaStream) -> bool {
    // A stream that cannot say so is no place to try things either.
    stream.capture_status().ok() != Some(CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE)
}

/// The time of one run, the shortest of some measurements: of a graph of several, so that no kernel waits for the host.
pub(super) fn milliseconds(kernels: &Kernels, run: impl Fn() -> Result<()>) -> Result<f32> {
    let stream = kernels.stream();
    let event = || stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).w();
    // What is loaded the first time is.
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

/// That no kernel covers a shape is an error like any other.
pub(super) fn done(launched: Launched) -> Result<()> {
    launched.unwrap_or_else(|reason| candle_core::bail!("{}", reason.0))
}
