//! Measures what a UNet loses when its weights are quantized: its outputs beside those of the original, for inputs that
//! are the same each time.

use candle_core::{DType, Device, Tensor};

use crate::random::{Noise, TorchCpu};
use crate::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use crate::{PROMPT_TOKENS, PerBlock, Result};

/// Timesteps of a run from its beginning to its end: at some a UNet decides what there is, at others how it looks.
const TIMESTEPS: [usize; 4] = [981, 661, 341, 21];
/// Pixels for each latent.
const PIXELS_PER_LATENT: usize = 8;

/// Inputs for UNets of one shape, which are always the same.
#[derive(Debug, Clone)]
pub struct QuantizationProbe {
    /// (1, in_channels, side, side), as noisy as at any timestep: latents and noise both have a variance of one.
    latents: Tensor,
    /// (1, 77, width)
    hidden_states: Tensor,
}

/// How far an output is from that of the original, at one timestep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OutputError {
    /// The timestep that the UNet was called with.
    pub timestep: usize,
    /// The cosine of the angle between both, 1 for the same direction.
    pub cosine: f64,
    /// ‖output − original‖ / ‖original‖
    pub relative_distance: f64,
}

impl QuantizationProbe {
    /// The sides, in pixels, of the images that [`QuantizationProbe::new`] stands for: small, because outputs of any size
    /// show how exact weights are.
    pub const SIDE: usize = 128;

    /// Random latents and hidden states of the shape that a UNet takes.
    ///
    /// # Errors
    /// When a tensor operation fails.
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

    /// The outputs of a UNet at each of the timesteps, (1, out_channels, side, side) in f32.
    ///
    /// # Errors
    /// When the UNet is of another shape.
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

    /// What [`outputs`](Self::outputs) have lost beside those of the original, timestep by timestep.
    ///
    /// # Errors
    /// When they are of different shapes.
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
