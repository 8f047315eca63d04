//! Applies one layer after another, as in the feed-forward blocks of transformers.

use super::{Linear, out_shape};
use crate::cpu::epilogue::SliceEpilogue;
use crate::cpu::lines::two_products;
use crate::cpu::pack::Factor;
use crate::cpu::packed_weight::PackedWeight;
use crate::ops::epilogue;
use crate::ops::layer_norm::LayerNorm;
use crate::ops::weight::{Weight, packed_bias};
use crate::shapes::{Activation, Epilogue};
use candle_core::{Result, Tensor};

impl Linear {
    /// Another layer's [`forward_with`](Self::forward_with) of this one's, with an activation between them and a residual
    /// of the result's shape: a feed-forward block. Where a CPU computes in bf16, what is between the layers is kept in
    /// bf16 alone, as it is multiplied, and the result is the same.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn forward_through(
        &self,
        x: &Tensor,
        activation: Activation,
        next: &Self,
        residual: &Tensor,
    ) -> Result<Tensor> {
        if let Some(sum) = self.through_in_bf16(x, activation, next, residual)? {
            return Ok(sum);
        }
        let inner = self.forward_with(x, &Epilogue::activation(activation))?;
        next.forward_with(&inner, &Epilogue::residual(residual))
    }

    /// Like [`forward_through`](Self::forward_through), normalised, as at the end of a post-norm layer.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn forward_through_normalised(
        &self,
        x: &Tensor,
        activation: Activation,
        next: &Self,
        residual: &Tensor,
        norm: &LayerNorm,
    ) -> Result<Tensor> {
        if let Some(sum) = self.through_in_bf16(x, activation, next, residual)? {
            return norm.forward(&sum);
        }
        let inner = self.forward_with(x, &Epilogue::activation(activation))?;
        next.forward_normalised(&inner, residual, norm)
    }

    /// [`forward_through`](Self::forward_through), if both layers are multiplied in bf16 and nothing is between them.
    fn through_in_bf16(
        &self,
        x: &Tensor,
        activation: Activation,
        next: &Self,
        residual: &Tensor,
    ) -> Result<Option<Tensor>> {
        let (Weight::Packed(weight), Weight::Packed(next_weight)) = (&self.weight, &next.weight) else {
            return Ok(None);
        };
        let (PackedWeight::InBf16(engine, weight), PackedWeight::InBf16(_, next_weight)) =
            (&**weight, &**next_weight)
        else {
            return Ok(None);
        };
        let epilogue = Epilogue::residual(residual);
        let is_plain = |layer: &Self| layer.low_rank.is_none() && layer.record.is_none();
        if !is_plain(self) || !is_plain(next) || !epilogue::is_fusible(&epilogue, x) {
            return Ok(None);
        }
        let (rows, inner) = out_shape(x.dims(), weight.size().depth, weight.size().columns)?;
        let (_, shape) = out_shape(inner.dims(), next_weight.size().depth, next_weight.size().columns)?;
        let (bias, next_bias) = (packed_bias(self.bias.as_ref())?, packed_bias(next.bias.as_ref())?);
        let first = SliceEpilogue { activation: Some(activation), ..SliceEpilogue::bias(bias.as_deref()) };
        let sum = epilogue::run(&epilogue, x, shape.dims(), next_bias.as_deref(), |x, second| {
            two_products(engine.kernel, x, rows, (weight, &first), (next_weight, second))
        });
        sum.map(Some)
    }
}
