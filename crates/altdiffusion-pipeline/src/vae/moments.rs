//! Defines the distribution over latents that the encoder returns.

use candle_core::{D, Result, Tensor};

/// The range to which the reference clamps the logarithm of the variance.
const LOG_VARIANCE_RANGE: (f64, f64) = (-30.0, 20.0);

/// A normal distribution with independent components (diffusers' `DiagonalGaussianDistribution`). Both tensors have
/// the latents' shape.
#[derive(Debug, Clone)]
pub struct Moments {
    /// The mean of each component.
    pub mean: Tensor,
    /// The natural logarithm of the variance of each component, from −30 to 20.
    pub log_variance: Tensor,
}

impl Moments {
    /// Splits (batch, height, width, 2 × latent channels).
    pub(super) fn from_channels_last(moments: &Tensor) -> Result<Self> {
        let channels = moments.dim(D::Minus1)? / 2;
        let (lowest, highest) = LOG_VARIANCE_RANGE;
        Ok(Self {
            mean: moments.narrow(D::Minus1, 0, channels)?.contiguous()?,
            log_variance: moments
                .narrow(D::Minus1, channels, channels)?
                .contiguous()?
                .clamp(lowest, highest)?,
        })
    }

    /// The most likely latents: the mean.
    pub fn mode(&self) -> &Tensor {
        &self.mean
    }

    /// Samples mean + standard deviation × noise. `noise` is standard normal; the mean is broadcast to its shape, for
    /// several samples at once.
    pub fn sample(&self, noise: &Tensor) -> Result<Tensor> {
        let deviation = (&self.log_variance * 0.5)?.exp()?;
        self.mean.broadcast_add(&deviation.broadcast_mul(noise)?)
    }

    /// Kullback–Leibler divergence from the standard normal distribution, in nats, summed over each image: (batch).
    pub fn kl(&self) -> Result<Tensor> {
        let terms = ((self.mean.sqr()? + self.log_variance.exp()?)? - &self.log_variance)?;
        ((terms - 1.0)? * 0.5)?.flatten_from(1)?.sum(1)
    }
}
