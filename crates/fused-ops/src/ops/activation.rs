//! Applies the activations of transformer and residual blocks.

use crate::cpu::elementwise;
use crate::shapes::Activation;
#[cfg(feature = "cuda")]
use crate::shapes::Epilogue;
use crate::tensors::slices::{as_f32, gradient, on_cpu, slice, with_slice};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

/// `x · Φ(x)` with the error function, the exact GELU (Hendrycks & Gimpel, arXiv 1606.08415). Any shape.
///
/// # Errors
/// If a tensor operation fails.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    if on_cpu(x) { apply(x, Activation::Gelu) } else { x.gelu_erf() }
}

/// `½ x · (1 + tanh(√(2/π) · (x + 0.044715 x³)))`, the approximation of GELU by tanh (Hendrycks & Gimpel, arXiv
/// 1606.08415), `gelu_pytorch_tanh` of transformers. Any shape.
///
/// # Errors
/// If a tensor operation fails.
pub fn gelu_tanh(x: &Tensor) -> Result<Tensor> {
    if on_cpu(x) { apply(x, Activation::GeluTanh) } else { x.gelu() }
}

/// `x · sigmoid(1.702 x)`, OpenAI CLIP's approximation of GELU. Any shape.
///
/// # Errors
/// If a tensor operation fails.
pub fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    if on_cpu(x) {
        return apply(x, Activation::QuickGelu);
    }
    #[cfg(feature = "cuda")]
    if let Some(y) = crate::cuda::ops::epilogue(x, None, &Epilogue::activation(Activation::QuickGelu))? {
        return Ok(y);
    }
    x * candle_nn::ops::sigmoid(&(x * 1.702)?)?
}

/// `x · sigmoid(x)` (Elfwing et al., arXiv 1702.03118). Any shape.
///
/// # Errors
/// If a tensor operation fails.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    if on_cpu(x) { apply(x, Activation::Silu) } else { x.silu() }
}

fn apply(x: &Tensor, activation: Activation) -> Result<Tensor> {
    as_f32(x)?.apply_op1(activation)?.to_dtype(x.dtype())
}

impl Activation {
    /// Applies the activation to every value.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Gelu => gelu(x),
            Self::GeluTanh => gelu_tanh(x),
            Self::QuickGelu => quick_gelu(x),
            Self::Silu => silu(x),
        }
    }
}

impl CustomOp1 for Activation {
    fn name(&self) -> &'static str {
        match self {
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_tanh",
            Self::QuickGelu => "quick_gelu",
            Self::Silu => "silu",
        }
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(x, layout)?;
        let y = match self {
            Self::Gelu => elementwise::map(x, elementwise::gelu),
            Self::GeluTanh => elementwise::map(x, elementwise::gelu_tanh),
            Self::QuickGelu => elementwise::map(x, elementwise::quick_gelu),
            Self::Silu => elementwise::map(x, elementwise::silu),
        };
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let values = with_slice(x, |x| {
            with_slice(grad, |grad| {
                Ok(match self {
                    Self::Gelu => elementwise::map2(x, grad, |x, g| g * elementwise::gelu_derivative(x)),
                    Self::GeluTanh => {
                        elementwise::map2(x, grad, |x, g| g * elementwise::gelu_tanh_derivative(x))
                    }
                    Self::QuickGelu => {
                        elementwise::map2(x, grad, |x, g| g * elementwise::quick_gelu_derivative(x))
                    }
                    Self::Silu => elementwise::map2(x, grad, |x, g| g * elementwise::silu_derivative(x)),
                })
            })
        })?;
        gradient(values, x)
    }
}
