//! Reports the steps of a run, while a GPU may already be running the next one.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Duration;

use candle_core::{Device, Tensor};
use fused_ops::Readbacks;
use web_time::Instant;

use crate::latents::zero_if_finite;
use crate::{Error, Result};

/// A completed step.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// Its index, from 0.
    pub index: usize,
    /// The number of steps: one per call of the UNet, which with some schedulers is more than were requested.
    pub total: usize,
    /// The UNet's timestep.
    pub timestep: f64,
    /// The latents after it, (images, channels, height, width), f32, at the noise level of the next step.
    pub latents: &'a Tensor,
}

/// The progress of a run.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// Prompts and images are encoded, and the first step begins.
    Denoising {
        /// The number of steps: calls of the UNet.
        steps: usize,
    },
    /// A step was completed.
    Step(Step<'a>),
    /// Decoding of an image begins.
    Decoding {
        /// Its index, from 0.
        image: usize,
        /// The number of images.
        images: usize,
    },
}

/// Reports steps when they are complete.
pub(crate) struct StepReports<F> {
    on_step: F,
    total: usize,
    /// How many steps may be in flight after one is added.
    lag: usize,
    /// Index, timestep and latents of the steps in flight.
    pending: VecDeque<(usize, f64, Tensor)>,
    /// Whether their latents are finite.
    finite: Readbacks,
    since: Instant,
    times: Vec<Duration>,
}

impl<F: FnMut(Step<'_>) -> ControlFlow<()>> StepReports<F> {
    pub(crate) fn new(total: usize, device: &Device, on_step: F) -> Self {
        Self {
            on_step,
            total,
            lag: usize::from(device.is_cuda()),
            pending: VecDeque::new(),
            finite: Readbacks::default(),
            since: Instant::now(),
            times: Vec::with_capacity(total),
        }
    }

    /// Adds a step that was queued on the device.
    pub(crate) fn add(&mut self, step: usize, timestep: f64, latents: &Tensor) -> Result<()> {
        self.finite.ask(&zero_if_finite(latents)?)?;
        self.pending.push_back((step, timestep, latents.clone()));
        while self.pending.len() > self.lag {
            self.report()?;
        }
        Ok(())
    }

    /// Waits for all steps and returns their durations.
    pub(crate) fn finish(mut self) -> Result<Vec<Duration>> {
        while !self.pending.is_empty() {
            self.report()?;
        }
        Ok(self.times)
    }

    /// Waits for the oldest step in flight, and reports it.
    fn report(&mut self) -> Result<()> {
        let (received, Some((step, timestep, latents))) = (self.finite.receive()?, self.pending.pop_front())
        else {
            return Ok(());
        };
        let total = self.total;
        if received != Some(0.0) {
            return Err(Error::NotFinite {
                place: format!("the latents after step {} of {total} are", step + 1),
                remedy: "f16 may have overflowed, use bf16 or f32; or the weights are damaged",
            });
        }
        self.times.push(self.since.elapsed());
        if (self.on_step)(Step { index: step, total, timestep, latents: &latents }).is_break() {
            return Err(Error::Cancelled { completed: step + 1, total, latents: Some(latents) });
        }
        self.since = Instant::now();
        Ok(())
    }
}
