//! Combines conditional and unconditional predictions: classifier-free guidance.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How conditional and unconditional predictions are combined.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Guidance {
    /// How far each step follows the prompt and moves away from the negative prompt (Ho and Salimans 2022,
    /// <https://arxiv.org/abs/2207.12598>). 1 or less means no guidance.
    pub scale: f64,
    /// How much of the contrast added by guidance is removed, from 0 (none) to 1 (Lin et al. 2023, section 3.4,
    /// <https://arxiv.org/abs/2305.08891>).
    pub rescale: f64,
}

/// diffusers' default scale, without rescaling.
impl Default for Guidance {
    fn default() -> Self {
        Self::new(Self::SCALE)
    }
}

impl Guidance {
    /// The default scale.
    pub const SCALE: f64 = 7.5;

    /// Guides with this scale, without rescaling.
    pub fn new(scale: f64) -> Self {
        Self { scale, rescale: 0.0 }
    }

    /// Combines predictions (2 · images, channels, height, width), unconditional ones first, into (images, channels,
    /// height, width): `unconditioned + scale · (conditioned − unconditioned)`, rescaled.
    ///
    /// # Errors
    /// If there is no second half, or a tensor operation fails.
    pub fn combine(&self, predictions: &Tensor) -> Result<Tensor> {
        let batch = predictions.dim(0)?;
        if batch == 0 || !batch.is_multiple_of(2) {
            return Err(Error::Shape {
                tensor: "predictions",
                expected: "(2 · images, channels, height, width)".to_owned(),
                found: format!("{:?}", predictions.dims()),
            });
        }
        let images = batch / 2;
        let unconditioned = predictions.narrow(0, 0, images)?;
        let conditioned = predictions.narrow(0, images, images)?;
        let guided = (&unconditioned + ((&conditioned - &unconditioned)? * self.scale)?)?;
        if self.rescale == 0.0 {
            return Ok(guided);
        }
        let ratio = (deviations(&conditioned)? / deviations(&guided)?)?;
        let rescaled = guided.broadcast_mul(&ratio)?;
        Ok(((rescaled * self.rescale)? + (guided * (1.0 - self.rescale))?)?)
    }
}

/// The standard deviation of each image's values, (images, 1, 1, 1).
fn deviations(x: &Tensor) -> Result<Tensor> {
    let (images, ..) = x.dims4()?;
    let rows = x.flatten_from(1)?;
    Ok(rows.var_keepdim(1)?.sqrt()?.reshape((images, 1, 1, 1))?)
}
