//! Adds what another model found to the UNet (`down_block_additional_residuals` and
//! `mid_block_additional_residual` of diffusers).

use candle_core::Tensor;

use crate::layers::layout::to_channels_first;
use crate::{Error, Result};

/// What a guessing ControlNet's first residual is multiplied by; the others lie between it and 1 (section 3.5 of
/// arXiv:2302.05543, and `guess_mode` of diffusers).
const FADED_FROM: f64 = 0.1;

/// One tensor for each skip of the UNet, in the order of the downsampling path, and one for its middle: (batch, height, width,
/// channels), or (batch, 1, 1, channels) for the same everywhere.
#[derive(Debug, Clone)]
pub struct AdditionalResiduals {
    down: Vec<Tensor>,
    mid: Tensor,
}

impl AdditionalResiduals {
    pub(crate) fn new(down: Vec<Tensor>, mid: Tensor) -> Self {
        Self { down, mid }
    }

    /// For the skips, (batch, channels, height, width) each.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn down(&self) -> Result<Vec<Tensor>> {
        Ok(self.down.iter().map(to_channels_first).collect::<candle_core::Result<_>>()?)
    }

    /// For the middle, (batch, channels, height, width).
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn mid(&self) -> Result<Tensor> {
        Ok(to_channels_first(&self.mid)?)
    }

    /// All of them times `scale`.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn scaled(&self, scale: f64) -> Result<Self> {
        if scale == 1.0 { Ok(self.clone()) } else { self.map(|_, residual| residual * scale) }
    }

    /// Times `scale`, and the higher the resolution, the weaker: geometrically from a tenth of it on the first skip to all
    /// of it in the middle.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn faded(&self, scale: f64) -> Result<Self> {
        let skips = self.down.len() as f64;
        self.map(|place, residual| residual * (scale * FADED_FROM.powf(1.0 - place as f64 / skips)))
    }

    /// The sum with those of another model for the same UNet.
    ///
    /// # Errors
    /// When they are of other sizes.
    pub fn plus(&self, other: &Self) -> Result<Self> {
        let down = self.down.iter().zip(&other.down).map(|(a, b)| a.broadcast_add(b));
        let down = down.collect::<candle_core::Result<_>>()?;
        Ok(Self { down, mid: self.mid.broadcast_add(&other.mid)? })
    }

    /// Those of (images) for a guided batch (2 · images), of which the first half, the unconditioned one, gets nothing.
    pub(crate) fn for_conditioned_half(&self) -> Result<Self> {
        self.map(|_, residual| residual.pad_with_zeros(0, residual.dim(0)?, 0))
    }

    /// Adds them to the skips that the downsampling path left, and to what came out of the middle.
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

    /// Each of them changed, with its place: those of the skips from 0, then that of the middle.
    fn map(&self, change: impl Fn(usize, &Tensor) -> candle_core::Result<Tensor>) -> Result<Self> {
        let down = self.down.iter().enumerate().map(|(place, residual)| change(place, residual));
        let down = down.collect::<candle_core::Result<_>>()?;
        Ok(Self { down, mid: change(self.down.len(), &self.mid)? })
    }
}
