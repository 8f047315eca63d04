//! Measures the error of a quantized UNet against the original, on fixed inputs.

use candle_core::{DType, Device, Tensor};

use crate::random::{Noise, TorchCpu};
use crate::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use crate::{PROMPT_TOKENS, PerBlock, Result};

/// Timesteps throughout a run: early ones decide the content of an image, late ones its look.
const TIMESTEPS: [usize; 4] = [981, 661, 341, 21];
/// Pixels per latent, along each side.
const PIXELS_PER_LATENT: usize = 8;

/// Fixed inputs for UNets of one shape.
#[derive(Debug, Clone)]
pub struct QuantizationProbe {
    /// (1, in_channels, side, side), valid at any timestep, because latents and noise both have a variance of one.
    latents: Tensor,
    /// (1, 77, width)
    hidden_states: Tensor,
}

/// The error of an output at one timestep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OutputError {
    /// The UNet's timestep.
    pub timestep: usize,
    /// The cosine of the angle between output and original.
    pub cosine: f64,
    /// ‖output − original‖ / ‖original‖
    pub relative_distance: f64,
}

impl QuantizationProbe {
    /// The side, in pixels, of the images that [`QuantizationProbe::new`] probes. Small ones suffice to measure the
    /// error.
    pub const SIDE: usize = 128;

    /// Random latents and hidden states of the UNet's input shapes.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn new(config: &UNet2DConditionConfig) -> Result<Self> {
        let width = match &config.cross_attention_dim {
            PerBlock::Same(width) => *width,
            PerBlock::Each(widths) => widths.first().copied().unwrap_or_default(),
        };
        let side = Self::SIDE / PIXELS_PER_LATENT;
        let mut noise = TorchCpu::new(0);
        Ok(Self {
            latents: noise.normal(&[1, config.in_channels, side, side])?,
            hidden_states: noise.normal(&[1, PROMPT_TOKENS, width])?,
        })
    }

    /// The same latents, with other hidden states, (1, tokens, width).
    #[must_use]
    pub fn with_hidden_states(self, hidden_states: Tensor) -> Self {
        Self { hidden_states, ..self }
    }

    /// The UNet's output at each timestep, (1, out_channels, side, side) in f32.
    ///
    /// # Errors
    /// If the UNet has another shape.
    pub fn outputs(&self, unet: &UNet2DConditionModel, device: &Device) -> Result<Vec<Tensor>> {
        let latents = self.latents.to_device(device)?;
        let context = unet.project_context(&self.hidden_states.to_device(device)?, None)?;
        TIMESTEPS
            .into_iter()
            .map(|timestep| {
                let timestep = Tensor::new(&[timestep as f32], device)?;
                let output = unet.forward(&latents, &timestep, &context)?;
                Ok(output.to_dtype(DType::F32)?.to_device(&Device::Cpu)?)
            })
            .collect()
    }

    /// Compares [`outputs`](Self::outputs) with those of the original, timestep by timestep.
    ///
    /// # Errors
    /// If their shapes differ.
    pub fn errors(original: &[Tensor], outputs: &[Tensor]) -> Result<Vec<OutputError>> {
        let dot = |a: &Tensor, b: &Tensor| -> Result<f64> {
            Ok((a.to_dtype(DType::F64)? * b.to_dtype(DType::F64)?)?.sum_all()?.to_scalar::<f64>()?)
        };
        let error = |(timestep, (original, output)): (usize, (&Tensor, &Tensor))| -> Result<OutputError> {
            let difference = (output - original)?;
            let original_square = dot(original, original)?;
            Ok(OutputError {
                timestep,
                cosine: dot(output, original)? / (original_square * dot(output, output)?).sqrt(),
                relative_distance: (dot(&difference, &difference)? / original_square).sqrt(),
            })
        };
        TIMESTEPS.into_iter().zip(original.iter().zip(outputs)).map(error).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_those_of_plane_geometry() -> Result<()> {
        let tensor = |values: [f32; 2]| Tensor::new(&values, &Device::Cpu);
        let original = [tensor([3., 4.])?, tensor([1., 0.])?, tensor([1., 1.])?];
        let outputs = [tensor([3., 4.])?, tensor([1., 1.])?, tensor([-1., -1.])?];
        let errors = QuantizationProbe::errors(&original, &outputs)?;
        let expected = [(981, 1., 0.), (661, 0.5f64.sqrt(), 1.), (341, -1., 2.)];
        assert_eq!(errors.len(), expected.len());
        for (error, (timestep, cosine, distance)) in errors.into_iter().zip(expected) {
            assert_eq!(error.timestep, timestep);
            assert!(
                (error.cosine - cosine).abs() < 1e-12 && (error.relative_distance - distance).abs() < 1e-12
            );
        }
        Ok(())
    }
}
