//! Applies a sampler's step: guidance and the scheduler's update.

use crate::shapes::{LinearStep, Stepped};
use candle_core::{DType, Result, Tensor};

impl LinearStep<'_> {
    /// Computes the next sample from the model's `output`, (batch, height, width, channels) or twice as many, for
    /// `sample`, f32, (batch, channels, height, width).
    ///
    /// # Errors
    /// If shapes do not fit together.
    pub fn apply(&self, output: &Tensor, sample: &Tensor) -> Result<Stepped> {
        let (batch, channels, height, width) = sample.dims4()?;
        let halves = if self.guided { 2 } else { 1 };
        let fits = output.dims() == [halves * batch, height, width, channels]
            && self.coefficients.dims() == [Self::COEFFICIENTS]
            && self.history.len() <= Self::MAX_HISTORY
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
        if let Some(stepped) = crate::cuda::ops::linear_step(self, output, sample)? {
            return Ok(stepped);
        }
        linear_step_reference(self, output, sample)
    }
}

/// The definition of [`LinearStep::apply`] in candle tensors, all in f32.
///
/// # Errors
/// If shapes do not fit together.
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
