//! Embeds timesteps as sinusoids.

use crate::shapes::Sinusoids;
use candle_core::{D, DType, Result, Tensor};

/// Sines and cosines of timesteps at geometrically spaced frequencies (Vaswani et al., arXiv 1706.03762; diffusers'
/// `get_timestep_embedding`): (batch) to (batch, channels) of type `dtype`.
///
/// # Errors
/// If `timesteps` is not a vector.
pub fn timestep_embedding(timesteps: &Tensor, sinusoids: Sinusoids, dtype: DType) -> Result<Tensor> {
    timesteps.dims1()?;
    #[cfg(feature = "cuda")]
    if let Some(embedding) = crate::cuda::ops::timestep_embedding(timesteps, sinusoids, dtype)? {
        return Ok(embedding);
    }
    timestep_embedding_reference(timesteps, sinusoids, dtype)
}

/// The definition of [`timestep_embedding`], in candle tensors; sines and cosines in f32.
///
/// # Errors
/// If `timesteps` is not a vector.
pub fn timestep_embedding_reference(
    timesteps: &Tensor,
    sinusoids: Sinusoids,
    dtype: DType,
) -> Result<Tensor> {
    let Sinusoids { channels, flip_sin_to_cos, freq_shift } = sinusoids;
    let half = channels / 2;
    let step = (-Sinusoids::MAX_PERIOD.ln() / (half as f64 - freq_shift)) as f32; // rounded where PyTorch rounds
    let frequencies: Vec<f32> = (0..half).map(|i| (i as f32 * step).exp()).collect();
    let frequencies = Tensor::from_vec(frequencies, (1, half), timesteps.device())?;
    let angles = timesteps.to_dtype(DType::F32)?.unsqueeze(1)?.broadcast_mul(&frequencies)?; // (batch, half)
    let (sin, cos) = (angles.sin()?, angles.cos()?);
    let halves = if flip_sin_to_cos { [cos, sin] } else { [sin, cos] };
    Tensor::cat(&halves, D::Minus1)?.pad_with_zeros(D::Minus1, 0, channels % 2)?.to_dtype(dtype)
}
