//! Classifier-free guidance.

use candle_core::Tensor;

use crate::Result;

/// How the predictions with and without the prompt are combined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guidance {
    /// How far each step goes beyond what the prompt says, away from the negative prompt (Ho and Salimans 2022,
    /// <https://arxiv.org/abs/2207.12598>). 1 and less means no guidance.
    pub scale: f64,
    /// From 0, nothing, to 1: how much of the contrast that guidance adds is taken back (Lin et al. 2023, section 3.4,
    /// <https://arxiv.org/abs/2305.08891>).
    pub rescale: f64,
}

impl Guidance {
    /// Of this scale, without rescaling.
    pub fn new(scale: f64) -> Self {
        Self { scale, rescale: 0.0 }
    }

    /// Predictions (2 · images, …), the unconditioned ones first, to (images, …):
    /// `unconditioned + scale · (conditioned − unconditioned)`, rescaled.
    pub(crate) fn combine(&self, predictions: &Tensor) -> Result<Tensor> {
        let images = predictions.dim(0)? / 2;
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
