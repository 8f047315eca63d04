//! Computes multi-head attention with its projections (diffusers' `Attention`).

use std::collections::HashMap;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{AttentionHeads, Epilogue, LORA_DOWN, LORA_UP, LayerNorm, Linear, LinearGroup, attention};

/// Projected keys and values, each (batch, tokens, heads × head dimension).
#[derive(Debug, Clone)]
pub(crate) struct KeyValue {
    pub key: Tensor,
    pub value: Tensor,
}

/// The names of the four projections in a checkpoint.
struct ProjectionNames {
    query: &'static str,
    key: &'static str,
    value: &'static str,
    out: &'static str,
}

const NAMES: ProjectionNames = ProjectionNames { query: "to_q", key: "to_k", value: "to_v", out: "to_out.0" };

/// The names before diffusers 0.17, still found in the published VAEs.
const OLD_NAMES: ProjectionNames =
    ProjectionNames { query: "query", key: "key", value: "value", out: "proj_attn" };

impl ProjectionNames {
    /// Those that the checkpoint uses.
    fn of(vb: &VarBuilder) -> Self {
        if vb.pp(OLD_NAMES.query).contains_tensor("weight") { OLD_NAMES } else { NAMES }
    }
}

/// Self-attention over `heads` heads of equal width.
#[derive(Debug, Clone)]
pub(crate) struct SelfAttention {
    to_qkv: LinearGroup<3>,
    to_out: Linear,
    heads: AttentionHeads,
}

impl SelfAttention {
    /// Reads the weights for hidden states of this width. `bias` says whether the projections of queries, keys and
    /// values have biases; the output projection always has one.
    pub(crate) fn new(width: usize, heads: usize, bias: bool, vb: VarBuilder) -> Result<Self> {
        let names = ProjectionNames::of(&vb);
        let projection = |name: &str| pointwise(width, width, bias, vb.pp(name));
        Ok(Self {
            to_qkv: LinearGroup::new([
                projection(names.query)?,
                projection(names.key)?,
                projection(names.value)?,
            ])?,
            to_out: pointwise(width, width, true, vb.pp(names.out))?,
            heads: AttentionHeads::new(heads, &vb),
        })
    }

    /// (batch, tokens, width) → the same, added to `residual`.
    pub(crate) fn forward(&self, hidden: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.to_out.forward_with(&self.attend(hidden)?, &Epilogue::residual(residual))
    }

    /// Returns the sum, and the sum normalised.
    pub(crate) fn forward_then_norm(
        &self,
        hidden: &Tensor,
        residual: &Tensor,
        norm: &LayerNorm,
    ) -> Result<[Tensor; 2]> {
        self.to_out.forward_then_norm(&self.attend(hidden)?, residual, norm)
    }

    fn attend(&self, hidden: &Tensor) -> Result<Tensor> {
        let [query, key, value] = self.to_qkv.forward(hidden)?;
        attention(&query, &key, &value, self.heads, None)
    }
}

/// Cross-attention over `heads` heads of equal width.
#[derive(Debug, Clone)]
pub(crate) struct CrossAttention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: AttentionHeads,
}

impl CrossAttention {
    /// Reads the weights for hidden states and a context of these widths.
    pub(crate) fn new(width: usize, context_width: usize, heads: usize, vb: VarBuilder) -> Result<Self> {
        let names = ProjectionNames::of(&vb);
        Ok(Self {
            to_q: pointwise(width, width, false, vb.pp(names.query))?,
            to_k: pointwise(context_width, width, false, vb.pp(names.key))?,
            to_v: pointwise(context_width, width, false, vb.pp(names.value))?,
            to_out: pointwise(width, width, true, vb.pp(names.out))?,
            heads: AttentionHeads::new(heads, &vb),
        })
    }

    /// Projects a context (batch, tokens, context_width) to keys and values.
    pub(crate) fn project(&self, context: &Tensor) -> Result<KeyValue> {
        Ok(KeyValue { key: self.to_k.forward(context)?, value: self.to_v.forward(context)? })
    }

    /// Attends from (batch, tokens, width) to `context` and to each of `others`, and adds the results to `residual`.
    /// Returns that sum, and the sum normalised. `key_bias`, (batch, keys), is added to the scores of each key of
    /// `context`.
    pub(crate) fn forward_then_norm(
        &self,
        hidden: &Tensor,
        context: &KeyValue,
        key_bias: Option<&Tensor>,
        others: &[&KeyValue],
        (residual, norm): (&Tensor, &LayerNorm),
    ) -> Result<[Tensor; 2]> {
        let query = self.to_q.forward(hidden)?;
        let mut attended = attention(&query, &context.key, &context.value, self.heads, key_bias)?;
        for KeyValue { key, value } in others {
            attended = (attended + attention(&query, key, value, self.heads, None)?)?;
        }
        self.to_out.forward_then_norm(&attended, residual, norm)
    }
}

/// A linear layer whose weight is stored as (out, in) or, in checkpoints that made it a convolution, as (out, in, 1,
/// 1).
fn pointwise(input: usize, output: usize, bias: bool, vb: VarBuilder) -> Result<Linear> {
    let missing = match Linear::new(input, output, bias, vb.clone()) {
        Ok(linear) => return Ok(linear),
        Err(error) => error,
    };
    let Ok(weight) = vb.get((output, input, 1, 1), "weight") else { return Err(missing) };
    let mut tensors = HashMap::from([("weight".to_string(), weight.reshape((output, input))?)]);
    if bias {
        tensors.insert("bias".to_string(), vb.get(output, "bias")?);
    }
    // A LoRA may be computed beside the weight.
    for name in [LORA_DOWN, LORA_UP].into_iter().filter(|name| vb.contains_tensor(name)) {
        tensors.insert(name.to_string(), vb.get_unchecked(name)?);
    }
    Linear::new(input, output, bias, VarBuilder::from_tensors(tensors, vb.dtype(), vb.device()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_support::{TestResult, normal, relative_error, var_builder};

    /// A projection stored as a convolution is the same layer, with a LoRA beside it too.
    #[test]
    fn convolutions_are_the_same_projections() -> TestResult {
        let (weight, bias) = (normal(1, &[6, 4]), normal(2, &[6]));
        let (down, up) = (normal(3, &[2, 4]), normal(4, &[6, 2]));
        let lora = [("bias", &bias), (LORA_DOWN, &down), (LORA_UP, &up)];
        let project = |weight: &Tensor| -> TestResult<Tensor> {
            let vb = var_builder(&[&[("weight", weight)], &lora[..]].concat());
            Ok(pointwise(4, 6, true, vb)?.forward(&normal(5, &[3, 4]))?)
        };
        let expected = project(&weight)?;
        assert_eq!(relative_error(&project(&weight.reshape((6, 4, 1, 1))?)?, &expected), 0.0);
        let merged = (weight + up.matmul(&down)?)?;
        let plain = Linear::from_tensors(merged, Some(bias.clone()))?.forward(&normal(5, &[3, 4]))?;
        assert!(relative_error(&expected, &plain) < 1e-5);
        Ok(())
    }
}
