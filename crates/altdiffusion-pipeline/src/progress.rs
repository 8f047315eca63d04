//! Reports the steps of a run, while a GPU may already be at the next one.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Duration;

use candle_core::{Device, Tensor};
use fused_ops::Readbacks;
use web_time::Instant;

use crate::latents::zero_if_finite;
use crate::{Error, Result};

/// A step that has been done, as a callback sees it.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// Its number, from 0.
    pub index: usize,
    /// How many there are: one for each call of the UNet, which are more than were asked for with some schedulers.
    pub total: usize,
    /// The timestep that the UNet was called with.
    pub timestep: f64,
    /// The latents after it, (images, channels, height, width), f32, at the noise level of the next step.
    pub latents: &'a Tensor,
}

/// How far a run is, as a callback hears of it.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// The texts and images have been read, and the first step begins.
    Denoising {
        /// How many steps there will be: calls of the UNet.
        steps: usize,
    },
    /// A step has been done.
    Step(Step<'a>),
    /// The decoder begins with an image.
    Decoding {
        /// Its number, from 0.
        image: usize,
        /// How many there are.
        images: usize,
    },
}

/// Reports steps when they are done.
pub(crate) struct StepReports<F> {
    on_step: F,
    total: usize,
    /// How many steps may be under way after one was put there.
    lag: usize,
    /// Number, timestep and latents of the steps that are.
    pending: VecDeque<(usize, f64, Tensor)>,
    /// Whether their latents are numbers.
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

    /// A step was put into the device's stream.
    pub(crate) fn add(&mut self, step: usize, timestep: f64, latents: &Tensor) -> Result<()> {
        self.finite.ask(&zero_if_finite(latents)?)?;
        self.pending.push_back((step, timestep, latents.clone()));
        while self.pending.len() > self.lag {
            self.report()?;
        }
        Ok(())
    }

    /// The time of each step.
    pub(crate) fn finish(mut self) -> Result<Vec<Duration>> {
        while !self.pending.is_empty() {
            self.report()?;
        }
        Ok(self.times)
    }

    /// Waits for the earliest step that is under way.
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
