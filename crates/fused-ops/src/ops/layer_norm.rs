//! Normalises rows.

use crate::cpu::layer_norm as kernel;
use crate::tensors::compute_dtype::for_computing;
use crate::tensors::slices::{as_f32, gradient, on_cpu, slice, with_slice};
use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor};
use candle_nn::{Init, VarBuilder};

/// Layer normalisation (Ba et al., arXiv 1607.06450) over the last dimension.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// Reads `weight` and `bias`, both (size), from `vb`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(size: usize, eps: f64, vb: VarBuilder) -> Result<Self> {
        let weight = vb.get_with_hints(size, "weight", Init::Const(1.)).and_then(for_computing)?;
        let bias = vb.get_with_hints(size, "bias", Init::Const(0.)).and_then(for_computing)?;
        Ok(Self { weight, bias, eps })
    }

    /// `(…, size)`, normalised per row.
    ///
    /// # Errors
    /// If the last dimension is another one.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Self { weight, bias, eps } = self;
        if !on_cpu(x) {
            #[cfg(feature = "cuda")]
            if let Some([y]) = crate::cuda::ops::layer_norm(x, None, None, [weight, bias], *eps)? {
                return Ok(y);
            }
            return layer_norm_reference(x, weight, bias, *eps);
        }
        if x.dim(D::Minus1)? != weight.elem_count() {
            candle_core::bail!("a layer normalisation got an input of shape {:?}", x.dims());
        }
        let op = LayerNormOp { eps: *eps };
        as_f32(x)?.apply_op3(&as_f32(weight)?, &as_f32(bias)?, op)?.to_dtype(x.dtype())
    }

    /// Whether [`forward_sum`](Self::forward_sum) has a kernel for tensors like these.
    #[cfg(feature = "cuda")]
    pub(crate) fn fuses_sum<'a>(&'a self, summands: impl IntoIterator<Item = &'a Tensor>) -> bool {
        let tensors = summands.into_iter().chain([&self.weight, &self.bias]);
        crate::cuda::ops::covers_layer_norm(tensors, self.weight.elem_count())
    }

    /// Normalises `x + added + residual` in one pass on a GPU that covers it; returns the sum and the result, or the
    /// result alone.
    #[cfg(feature = "cuda")]
    pub(crate) fn forward_sum<const RESULTS: usize>(
        &self,
        x: &Tensor,
        added: Option<&Tensor>,
        residual: &Tensor,
    ) -> Result<Option<[Tensor; RESULTS]>> {
        crate::cuda::ops::layer_norm(x, added, Some(residual), [&self.weight, &self.bias], self.eps)
    }
}

struct LayerNormOp {
    eps: f64,
}

impl CustomOp3 for LayerNormOp {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (weight, bias) = (slice(weight, weight_layout)?, slice(bias, bias_layout)?);
        let y = kernel::layer_norm(slice(x, x_layout)?, weight, bias, self.eps);
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (grad_x, grad_weight, grad_bias) = with_slice(x, |x| {
            with_slice(weight, |weight| {
                with_slice(grad, |grad| Ok(kernel::layer_norm_gradient(x, weight, self.eps, grad)))
            })
        })?;
        Ok((gradient(grad_x, x)?, gradient(grad_weight, weight)?, gradient(grad_bias, bias)?))
    }
}

/// The definition of [`LayerNorm::forward`], in candle tensors; statistics in f32.
///
/// # Errors
/// If the shapes do not fit together.
pub fn layer_norm_reference(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let dtype = x.dtype();
    let x = x.to_dtype(DType::F32)?;
    let x = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(variance + eps)?.sqrt()?)?
        .broadcast_mul(&weight.to_dtype(DType::F32)?)?
        .broadcast_add(&bias.to_dtype(DType::F32)?)?
        .to_dtype(dtype)
}
