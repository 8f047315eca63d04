//! The small operations around a UNet, each in one pass: timesteps as vectors, guidance with a scheduler's update, and
//! pictures as bytes.

use crate::custom::{on_cpu, with_slice};
use candle_core::{D, DType, Result, Tensor};

/// The wavelength of the slowest sinusoid, over 2π.
const MAX_PERIOD: f64 = 10_000.;

/// How a timestep becomes a vector.
#[derive(Debug, Clone, Copy)]
pub struct Sinusoids {
    /// The size of the vector; an odd one ends in a zero.
    pub channels: usize,
    /// Whether the cosines come first.
    pub flip_sin_to_cos: bool,
    /// Of n frequencies the i-th is 10000^(−i / (n − `freq_shift`)).
    pub freq_shift: f64,
}

/// Sines and cosines of timesteps at geometrically spaced frequencies (Vaswani et al., arXiv 1706.03762; diffusers'
/// `get_timestep_embedding`): (batch) to (batch, channels) of type `dtype`.
///
/// # Errors
/// If `timesteps` is not a vector.
pub fn timestep_embedding(timesteps: &Tensor, sinusoids: Sinusoids, dtype: DType) -> Result<Tensor> {
    timesteps.dims1()?;
    #[cfg(feature = "cuda")]
    if let Some(embedding) = crate::cuda::timestep_embedding(timesteps, sinusoids, dtype)? {
        return Ok(embedding);
    }
    timestep_embedding_reference(timesteps, sinusoids, dtype)
}

/// The definition, in candle tensors; sines and cosines in f32.
pub fn timestep_embedding_reference(
    timesteps: &Tensor,
    sinusoids: Sinusoids,
    dtype: DType,
) -> Result<Tensor> {
    let Sinusoids { channels, flip_sin_to_cos, freq_shift } = sinusoids;
    let half = channels / 2;
    let step = (-MAX_PERIOD.ln() / (half as f64 - freq_shift)) as f32; // rounded where PyTorch rounds
    let frequencies: Vec<f32> = (0..half).map(|i| (i as f32 * step).exp()).collect();
    let frequencies = Tensor::from_vec(frequencies, (1, half), timesteps.device())?;
    let angles = timesteps.to_dtype(DType::F32)?.unsqueeze(1)?.broadcast_mul(&frequencies)?; // (batch, half)
    let (sin, cos) = (angles.sin()?, angles.cos()?);
    let halves = if flip_sin_to_cos { [cos, sin] } else { [sin, cos] };
    Tensor::cat(&halves, D::Minus1)?.pad_with_zeros(D::Minus1, 0, channels % 2)?.to_dtype(dtype)
}

/// A step of a sampler that is linear in the sample and the model's outputs, as those of DDIM, Euler and PNDM are.
#[derive(Debug, Clone, Copy)]
pub struct LinearStep<'a> {
    /// f32, (7), on the device of the sample, where nothing has to wait for the host: the scale of guidance, the weights of
    /// the sample, of this output and of the history, and what the next sample is multiplied by before the model sees it.
    pub coefficients: &'a Tensor,
    /// What else goes into it, such as the guided outputs of up to three steps before; each as the sample.
    pub history: &'a [&'a Tensor],
    /// Whether the output has two halves, the one without the prompt first (Ho & Salimans, arXiv 2207.12598).
    pub guided: bool,
}

/// What a [`LinearStep`] gives.
#[derive(Debug, Clone)]
pub struct Stepped {
    /// The next sample: f32, (batch, channels, height, width).
    pub sample: Tensor,
    /// This step's output after guidance, for the history: f32, as the sample.
    pub output: Tensor,
    /// What the model reads next, of the shape and type of its output.
    pub model_input: Tensor,
}

/// The numbers of a [`LinearStep`].
const COEFFICIENTS: usize = 7;

impl LinearStep<'_> {
    /// The most tensors of its history.
    pub const MOST_HISTORY: usize = 3;

    /// From the model's `output`, (batch, height, width, channels) or twice as many, and the `sample` that it was given,
    /// f32, (batch, channels, height, width).
    ///
    /// # Errors
    /// If shapes do not fit together.
    pub fn apply(&self, output: &Tensor, sample: &Tensor) -> Result<Stepped> {
        let (batch, channels, height, width) = sample.dims4()?;
        let halves = if self.guided { 2 } else { 1 };
        let fits = output.dims() == [halves * batch, height, width, channels]
            && self.coefficients.dims() == [COEFFICIENTS]
            && self.history.len() <= Self::MOST_HISTORY
            && self.history.iter().all(|earlier| earlier.dims() == sample.dims());
        if !fits {
            candle_core::bail!(
                "a step of samples {:?} cannot take an output {:?}, coefficients {:?} and a history {:?}",
                sample.dims(),
                output.dims(),
                self.coefficients.dims(),
                self.history.iter().map(|earlier| earlier.dims()).collect::<Vec<_>>()
            );
        }
        #[cfg(feature = "cuda")]
        if let Some(stepped) = crate::cuda::linear_step(self, output, sample)? {
            return Ok(stepped);
        }
        linear_step_reference(self, output, sample)
    }
}

/// The definition, in candle tensors; all of it in f32.
pub fn linear_step_reference(step: &LinearStep, output: &Tensor, sample: &Tensor) -> Result<Stepped> {
    let coefficient = |i: usize| step.coefficients.narrow(0, i, 1)?.reshape((1, 1, 1, 1));
    let all = output.to_dtype(DType::F32)?.permute((0, 3, 1, 2))?;
    let batch = sample.dim(0)?;
    let guided = match step.guided {
        true => {
            let (without, with) = (all.narrow(0, 0, batch)?, all.narrow(0, batch, batch)?);
            (&without + (with - &without)?.broadcast_mul(&coefficient(0)?)?)?
        }
        false => all,
    };
    let mut next = (sample.broadcast_mul(&coefficient(1)?)? + guided.broadcast_mul(&coefficient(2)?)?)?;
    for (i, earlier) in step.history.iter().enumerate() {
        next = (next + earlier.broadcast_mul(&coefficient(3 + i)?)?)?;
    }
    let input = next.broadcast_mul(&coefficient(6)?)?.permute((0, 2, 3, 1))?.to_dtype(output.dtype())?;
    let model_input = if step.guided { Tensor::cat(&[&input, &input], 0)? } else { input.contiguous()? };
    Ok(Stepped { sample: next, output: guided.contiguous()?, model_input })
}

/// Values from −1 to 1 as bytes from 0 to 255, rounded to nearest, ties to even; those outside are cut off.
///
/// # Errors
/// If a tensor operation fails.
pub fn to_bytes(x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(bytes) = crate::cuda::to_bytes(x)? {
        return Ok(bytes);
    }
    if on_cpu(x) {
        let bytes = with_slice(x, |values| Ok(values.iter().copied().map(to_byte).collect()))?;
        return Tensor::from_vec(bytes, x.shape(), x.device());
    }
    to_bytes_reference(x)
}

fn to_byte(value: f32) -> u8 {
    ((value / 2. + 0.5).clamp(0., 1.) * 255.).round_ties_even() as u8
}

/// The definition, in candle tensors.
pub fn to_bytes_reference(x: &Tensor) -> Result<Tensor> {
    let x = (x.to_dtype(DType::F32)?.affine(0.5, 0.5)?.clamp(0f32, 1f32)? * 255.)?;
    // candle's rounding takes ties away from zero.
    let floor = x.floor()?;
    let (rest, odd) = ((&x - &floor)?, (&floor - ((&floor * 0.5)?.floor()? * 2.)?)?);
    let up = rest.gt(0.5)?.to_dtype(DType::F32)?;
    let tie = (rest.eq(0.5)?.to_dtype(DType::F32)? * odd)?;
    (floor + (up + tie)?)?.to_dtype(DType::U8)
}
