//! What follows a linear layer or a convolution, computed while its results are still in the cache.

use crate::activation::Activation;
use crate::cpu::epilogue;
use crate::custom::{on_cpu, with_slices};
use crate::shift::shift_channels;
use candle_core::{Result, Tensor};

/// `activation(layer(x) + shift + residual)`, each of which may be missing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// (batch, channels), added at every place of a picture: how a timestep reaches the residual blocks.
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

    /// `layer(x) + shift`, different for each picture.
    pub fn shift(shift: &'a Tensor) -> Self {
        Self { shift: Some(shift), ..Self::default() }
    }

    /// `activation(layer(x))`
    pub fn activation(activation: Activation) -> Self {
        Self { activation: Some(activation), ..Self::default() }
    }

    /// Whether a kernel can finish its results itself: nobody will ask for the gradients of what comes in.
    pub(crate) fn is_fusible(&self, x: &Tensor) -> bool {
        let fits = |tensor: &Tensor| on_cpu(tensor) && !tensor.track_op();
        fits(x) && self.shift.is_none_or(fits) && self.residual.is_none_or(fits)
    }

    /// The definition: one operation after the other.
    pub(crate) fn apply(&self, mut y: Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Some(y) = crate::cuda::epilogue(&y, None, self)? {
            return Ok(y);
        }
        if let Some(shift) = self.shift {
            y = shift_channels(&y, shift)?;
        }
        if let Some(residual) = self.residual {
            y = (y + residual)?;
        }
        match self.activation {
            Some(activation) => activation.forward(&y),
            None => Ok(y),
        }
    }

    /// Runs a kernel on the values of `x` and of this epilogue, whose result has the shape `dims`.
    pub(crate) fn run(
        &self,
        x: &Tensor,
        dims: &[usize],
        bias: Option<&[f32]>,
        kernel: impl FnOnce(&[f32], &epilogue::Epilogue) -> Vec<f32>,
    ) -> Result<Tensor> {
        // A single row, (channels), is no picture and takes no shift.
        let (pictures, rows_per_picture, columns) = match dims {
            [pictures, places @ .., columns] => (*pictures, places.iter().product(), *columns),
            [columns] => (0, 1, *columns),
            [] => candle_core::bail!("a layer got a scalar"),
        };
        if let Some(shift) = self.shift.filter(|shift| shift.dims() != [pictures, columns]) {
            candle_core::bail!("a shift of shape {:?} does not fit {dims:?}", shift.dims());
        }
        if let Some(residual) = self.residual.filter(|residual| residual.dims() != dims) {
            candle_core::bail!("a residual of shape {:?} does not fit {dims:?}", residual.dims());
        }
        let nothing = Tensor::zeros(0, candle_core::DType::F32, x.device())?;
        let tensors = [x, self.shift.unwrap_or(&nothing), self.residual.unwrap_or(&nothing)];
        let values = with_slices(tensors, |[x, shift, residual]| {
            let epilogue = epilogue::Epilogue {
                bias,
                shift: self.shift.map(|_| epilogue::Shift { values: shift, rows_per_picture }),
                residual: self.residual.map(|_| residual),
                activation: self.activation,
            };
            kernel(x, &epilogue)
        })?;
        Tensor::from_vec(values, dims, x.device())?.to_dtype(x.dtype())
    }
}
