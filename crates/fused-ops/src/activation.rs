//! Activations of the transformer and residual blocks.

use candle_core::{D, Result, Tensor};

/// `x · Φ(x)` with the error function, the exact GELU (Hendrycks & Gimpel, arXiv 1606.08415).
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    x.gelu_erf()
}

/// `x · sigmoid(1.702 x)`, OpenAI CLIP's approximation of GELU.
pub fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    x * candle_nn::ops::sigmoid(&(x * 1.702)?)?
}

/// `x · sigmoid(x)`.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    x.silu()
}

/// The gate of a gated feed-forward (Shazeer, arXiv 2002.05202): `(…, 2 n)` to `(…, n)`, the first half times the GELU
/// of the second.
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    let n = x.dim(D::Minus1)? / 2;
    x.narrow(D::Minus1, 0, n)? * gelu(&x.narrow(D::Minus1, n, n)?)?
}
