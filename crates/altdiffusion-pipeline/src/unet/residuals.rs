//! Adds another model's outputs to the UNet (diffusers' `down_block_additional_residuals` and
//! `mid_block_additional_residual`).

use candle_core::Tensor;

use crate::layers::layout::to_channels_first;
use crate::{Error, Result};

/// The factor of a ControlNet's first residual in guess mode; the others rise to 1 (section 3.5 of arXiv:2302.05543,
/// and diffusers' `guess_mode`).
const FADED_FROM: f64 = 0.1;

/// One tensor per skip of the UNet, in the order of the downsampling path, and one for the middle: (batch, height,
/// width, channels), or (batch, 1, 1, channels) if constant over the image.
#[derive(Debug, Clone)]
pub struct AdditionalResiduals {
    down: Vec<Tensor>,
    mid: Tensor,
}

impl AdditionalResiduals {
    pub(crate) fn new(down: Vec<Tensor>, mid: Tensor) -> Self {
        Self { down, mid }
    }

    /// The residuals of the skips, (batch, channels, height, width) each.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn down(&self) -> Result<Vec<Tensor>> {
        Ok(self.down.iter().map(to_channels_first).collect::<candle_core::Result<_>>()?)
    }

    /// The residual of the middle, (batch, channels, height, width).
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn mid(&self) -> Result<Tensor> {
        Ok(to_channels_first(&self.mid)?)
    }

    /// Multiplies all of them by `scale`.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn scaled(&self, scale: f64) -> Result<Self> {
        if scale == 1.0 { Ok(self.clone()) } else { self.map(|_, residual| residual * scale) }
    }

    /// Multiplies them by `scale`, less at higher resolutions: geometrically from a tenth on the first skip to the
    /// whole in the middle.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn faded(&self, scale: f64) -> Result<Self> {
        let skips = self.down.len() as f64;
        self.map(|place, residual| residual * (scale * FADED_FROM.powf(1.0 - place as f64 / skips)))
    }

    /// Adds those of another model for the same UNet.
    ///
    /// # Errors
    /// If their sizes differ.
    pub fn plus(&self, other: &Self) -> Result<Self> {
        let down = self.down.iter().zip(&other.down).map(|(a, b)| a.broadcast_add(b));
        let down = down.collect::<candle_core::Result<_>>()?;
        Ok(Self { down, mid: self.mid.broadcast_add(&other.mid)? })
    }

    /// Extends those for a batch of images to a guided batch (2 · images), with nothing for the unconditional half.
    pub(crate) fn for_conditioned_half(&self) -> Result<Self> {
        self.map(|_, residual| residual.pad_with_zeros(0, residual.dim(0)?, 0))
    }

    /// Adds them to the downsampling path's skips and the middle's output.
    pub(super) fn add_to(&self, skips: &mut [Tensor], middle: &mut Tensor) -> Result<()> {
        if self.down.len() != skips.len() {
            return Err(Error::Shape {
                tensor: "residuals",
                expected: format!("{} tensors for the skips of this UNet", skips.len()),
                found: format!("{} tensors", self.down.len()),
            });
        }
        for (skip, residual) in skips.iter_mut().zip(&self.down) {
            *skip = skip.broadcast_add(&residual.to_dtype(skip.dtype())?)?;
        }
        *middle = middle.broadcast_add(&self.mid.to_dtype(middle.dtype())?)?;
        Ok(())
    }

    /// Maps each of them with its index: the skips from 0, then the middle.
    fn map(&self, change: impl Fn(usize, &Tensor) -> candle_core::Result<Tensor>) -> Result<Self> {
        let down = self.down.iter().enumerate().map(|(place, residual)| change(place, residual));
        let down = down.collect::<candle_core::Result<_>>()?;
        Ok(Self { down, mid: change(self.down.len(), &self.mid)? })
    }
}
