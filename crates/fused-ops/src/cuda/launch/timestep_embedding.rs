//! Launches the sinusoidal embedding of timesteps.

use super::description::{Address, Element, Launch, NotCovered, elementwise, size};
use crate::shapes::Sinusoids;

/// As in `kernels/timestep_embedding.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct TimestepEmbeddingParams {
    pub(crate) timesteps: Address,
    pub(crate) out: Address,
    pub(crate) batch: i32,
    pub(crate) channels: i32,
    pub(crate) step: f32,
    pub(crate) cosines_first: i32,
}

/// Sines and cosines of timesteps, (batch) to (batch, channels), as in diffusers' `get_timestep_embedding`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimestepEmbeddingOperands {
    pub(crate) element: Element,
    pub(crate) batch: usize,
    pub(crate) sinusoids: Sinusoids,
    /// f32
    pub(crate) timesteps: Address,
    pub(crate) out: Address,
}

impl TimestepEmbeddingOperands {
    /// The launch.
    ///
    /// # Errors
    /// If no kernel covers the shape.
    pub(crate) fn launch(&self) -> Result<Launch<TimestepEmbeddingParams>, NotCovered> {
        let Sinusoids { channels, flip_sin_to_cos, freq_shift } = self.sinusoids;
        let half = (channels / 2) as f64;
        let params = TimestepEmbeddingParams {
            timesteps: self.timesteps,
            out: self.out,
            batch: size(self.batch)?,
            channels: size(channels)?,
            step: (-Sinusoids::MAX_PERIOD.log2() / (half - freq_shift)) as f32,
            cosines_first: flip_sin_to_cos.into(),
        };
        size(self.batch * channels)?;
        elementwise("timestep_embedding", self.element, self.batch * channels, params)
    }
}
