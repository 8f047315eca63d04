//! Gates a feed-forward layer (GEGLU).

use crate::cpu::geglu as kernel;
use crate::tensors::slices::{as_f32, gradient, on_cpu, slice, with_slice};
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};

/// GEGLU's gate (Shazeer, arXiv 2002.05202): `(…, 2 n)` to `(…, n)`, the first half times the GELU of the second.
///
/// # Errors
/// If the last dimension is odd.
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    if on_cpu(x) {
        return as_f32(x)?.apply_op1(Geglu)?.to_dtype(x.dtype());
    }
    #[cfg(feature = "cuda")]
    if let Some(y) = crate::cuda::ops::geglu(x, None)? {
        return Ok(y);
    }
    geglu_reference(x)
}

/// The definition of [`geglu`], in candle tensors.
///
/// # Errors
/// If the last dimension is odd.
pub fn geglu_reference(x: &Tensor) -> Result<Tensor> {
    let n = x.dim(D::Minus1)? / 2;
    x.narrow(D::Minus1, 0, n)? * x.narrow(D::Minus1, n, n)?.gelu_erf()?
}

struct Geglu;

impl CustomOp1 for Geglu {
    fn name(&self) -> &'static str {
        "geglu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut dims = layout.dims().to_vec();
        let n = match dims.last_mut() {
            Some(last) if last.is_multiple_of(2) => {
                *last /= 2;
                *last
            }
            _ => candle_core::bail!("a gate needs an even number of features, got shape {:?}", layout.dims()),
        };
        Ok((CpuStorage::F32(kernel::geglu(slice(x, layout)?, n)), Shape::from(dims)))
    }

    fn bwd(&self, x: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let n = res.dim(D::Minus1)?;
        let values = with_slice(x, |x| with_slice(grad, |grad| Ok(kernel::geglu_gradient(x, grad, n))))?;
        gradient(values, x)
    }
}
