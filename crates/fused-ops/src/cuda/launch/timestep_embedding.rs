//! Launches timesteps as sinusoids.

use super::description::{Address, Element, Launch, NotCovered, elementwise, size};
use crate::shapes::Sinusoids;

/// As in `kernels/timestep_embedding.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct TimestepEmbeddingParams {
    pub timesteps: Address,
    pub out: Address,
    pub batch: i32,
    pub channels: i32,
    pub step: f32,
    pub cosines_first: i32,
}

/// Sines and cosines of timesteps, (batch) to (batch, channels), as in diffusers' `get_timestep_embedding`.
#[derive(Debug, Clone, Copy)]
pub struct TimestepEmbeddingOperands {
    pub element: Element,
    pub batch: usize,
    pub sinusoids: Sinusoids,
    /// f32
    pub timesteps: Address,
    pub out: Address,
}

impl TimestepEmbeddingOperands {
    /// The launch.
    ///
    /// # Errors
    /// If no kernel covers the shape.
    pub fn launch(&self) -> Result<Launch<TimestepEmbeddingParams>, NotCovered> {
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
