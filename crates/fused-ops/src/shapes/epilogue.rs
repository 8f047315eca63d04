//! Defines a layer's epilogue.

use super::Activation;
use candle_core::Tensor;

/// `activation(layer(x) + shift + residual)`; each part is optional.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// (batch, channels), added to every pixel of an image, as for timesteps in residual blocks.
    pub shift: Option<&'a Tensor>,
    /// A residual connection, in the shape of the result.
    pub residual: Option<&'a Tensor>,
    /// Applied last.
    pub activation: Option<Activation>,
}

impl<'a> Epilogue<'a> {
    /// `layer(x) + residual`
    pub fn residual(residual: &'a Tensor) -> Self {
        Self { residual: Some(residual), ..Self::default() }
    }

    /// `layer(x) + shift`, different for each image.
    pub fn shift(shift: &'a Tensor) -> Self {
        Self { shift: Some(shift), ..Self::default() }
    }

    /// `activation(layer(x))`
    pub fn activation(activation: Activation) -> Self {
        Self { activation: Some(activation), ..Self::default() }
    }
}
