//! Attends with several heads, between projections (diffusers' `Attention`).

use std::collections::HashMap;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{Epilogue, LayerNorm, Linear, LinearGroup, attention};

/// Keys and values, projected: (batch, tokens, heads × head dimension) each.
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

/// The names before diffusers 0.17, which the published VAEs still have.
const OLD_NAMES: ProjectionNames =
    ProjectionNames { query: "query", key: "key", value: "value", out: "proj_attn" };

impl ProjectionNames {
    /// Those of the checkpoint.
    fn of(vb: &VarBuilder) -> Self {
        if vb.pp(OLD_NAMES.query).contains_tensor("weight") { OLD_NAMES } else { NAMES }
    }
}

/// Attention of hidden states to themselves, over `heads` heads that share their width equally.
#[derive(Debug, Clone)]
pub(crate) struct SelfAttention {
    to_qkv: LinearGroup<3>,
    to_out: Linear,
    heads: usize,
}

impl SelfAttention {
    /// Of hidden states of this width. `bias` says whether the projections of queries, keys and values have biases; the one
    /// of the result always has.
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
            heads,
        })
    }

    /// (batch, tokens, width), plus what is carried around it, of the same shape.
    pub(crate) fn forward(&self, hidden: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.to_out.forward_with(&self.attend(hidden)?, &Epilogue::residual(residual))
    }

    /// The same, and that sum normalised.
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

/// Attention of hidden states to a context, over `heads` heads that share their width equally.
#[derive(Debug, Clone)]
pub(crate) struct CrossAttention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
}

impl CrossAttention {
    /// Of hidden states of a width to a context of another one.
    pub(crate) fn new(width: usize, context_width: usize, heads: usize, vb: VarBuilder) -> Result<Self> {
        let names = ProjectionNames::of(&vb);
        Ok(Self {
            to_q: pointwise(width, width, false, vb.pp(names.query))?,
            to_k: pointwise(context_width, width, false, vb.pp(names.key))?,
            to_v: pointwise(context_width, width, false, vb.pp(names.value))?,
            to_out: pointwise(width, width, true, vb.pp(names.out))?,
            heads,
        })
    }

    /// The keys and values of a context, (batch, tokens, context_width).
    pub(crate) fn project(&self, context: &Tensor) -> Result<KeyValue> {
        Ok(KeyValue { key: self.to_k.forward(context)?, value: self.to_v.forward(context)? })
    }

    /// Attention of (batch, tokens, width) to given keys and values, plus what is carried around it; and that sum normalised.
    /// `key_bias`, (batch, keys), is added to each key's scores. Attention to each of `others` is added to that to `context`.
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

/// A linear layer whose weight is stored as (out, in) or, by checkpoints that made it a convolution, as (out,
/// in, 1, 1).
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
    Linear::new(input, output, bias, VarBuilder::from_tensors(tensors, vb.dtype(), vb.device()))
}
