//! Timesteps as vectors.

use candle_core::{D, DType, Result, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{Activation, Epilogue, Linear};

/// The wavelength of the slowest sinusoid, over 2π.
const MAX_PERIOD: f64 = 10_000.0;

/// Sines and cosines of a timestep at geometrically spaced frequencies (Vaswani et al., 2017,
/// arXiv:1706.03762; diffusers' `get_timestep_embedding`).
#[derive(Debug, Clone)]
pub(crate) struct Timesteps {
    channels: usize,
    flip_sin_to_cos: bool,
    freq_shift: f64,
}

impl Timesteps {
    /// Vectors of `channels` numbers, the sines first unless `flip_sin_to_cos`. Of n frequencies the i-th is
    /// 10000^(−i / (n − `freq_shift`)).
    pub fn new(channels: usize, flip_sin_to_cos: bool, freq_shift: f64) -> Self {
        Self { channels, flip_sin_to_cos, freq_shift }
    }

    /// (batch) → (batch, channels), in f32. An odd number of channels ends in a zero.
    pub fn forward(&self, timesteps: &Tensor) -> Result<Tensor> {
        let half = self.channels / 2;
        let step = (-MAX_PERIOD.ln() / (half as f64 - self.freq_shift)) as f32;
        let frequencies: Vec<f32> = (0..half).map(|i| (i as f32 * step).exp()).collect();
        let frequencies = Tensor::from_vec(frequencies, (1, half), timesteps.device())?;
        let angles = timesteps.to_dtype(DType::F32)?.unsqueeze(1)?.broadcast_mul(&frequencies)?; // (batch, half)
        let (sin, cos) = (angles.sin()?, angles.cos()?);
        let embedding = match self.flip_sin_to_cos {
            true => Tensor::cat(&[cos, sin], D::Minus1)?,
            false => Tensor::cat(&[sin, cos], D::Minus1)?,
        };
        embedding.pad_with_zeros(D::Minus1, 0, self.channels % 2)
    }
}

/// The two-layer perceptron after the sinusoids.
#[derive(Debug, Clone)]
pub(crate) struct TimestepEmbedding {
    linear_1: Linear,
    linear_2: Linear,
}

impl TimestepEmbedding {
    pub fn new(channels: usize, time_embedding_dim: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            linear_1: Linear::new(channels, time_embedding_dim, true, vb.pp("linear_1"))?,
            linear_2: Linear::new(time_embedding_dim, time_embedding_dim, true, vb.pp("linear_2"))?,
        })
    }

    /// (batch, channels) → (batch, time_embedding_dim)
    pub fn forward(&self, sinusoids: &Tensor) -> Result<Tensor> {
        let inner = self.linear_1.forward_with(sinusoids, &Epilogue::activation(Activation::Silu))?;
        self.linear_2.forward(&inner)
    }
}
