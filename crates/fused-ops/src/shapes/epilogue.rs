//! Says what follows a layer.

use super::Activation;
use candle_core::Tensor;

/// `activation(layer(x) + shift + residual)`, each of which may be missing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// (batch, channels), added at every pixel of an image: how a timestep reaches the residual blocks.
    pub shift: Option<&'a Tensor>,
    /// Of the shape of the result: what a residual connection carries around the layer.
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
