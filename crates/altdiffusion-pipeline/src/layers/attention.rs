//! Multi-head attention between projections (diffusers' `Attention`).

use std::collections::HashMap;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{Epilogue, Linear, attention};

/// Keys and values, projected: (batch, tokens, heads × head dimension) each.
#[derive(Debug, Clone)]
pub(crate) struct KeyValue {
    pub key: Tensor,
    pub value: Tensor,
}

/// The sizes of an [`Attention`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttentionConfig {
    /// Width of what asks, and of the result. The heads share it equally.
    pub query_dim: usize,
    /// Width of what is looked at: the same as `query_dim` in self-attention.
    pub context_dim: usize,
    pub heads: usize,
    /// Whether the projections of queries, keys and values have biases. The one of the result always has.
    pub bias: bool,
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

/// Scaled dot-product attention over `heads` heads.
#[derive(Debug, Clone)]
pub(crate) struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
}

impl Attention {
    pub fn new(config: AttentionConfig, vb: VarBuilder) -> Result<Self> {
        let AttentionConfig { query_dim, context_dim, heads, bias } = config;
        let old = vb.pp(OLD_NAMES.query).contains_tensor("weight");
        let names = if old { OLD_NAMES } else { NAMES };
        Ok(Self {
            to_q: pointwise(query_dim, query_dim, bias, vb.pp(names.query))?,
            to_k: pointwise(context_dim, query_dim, bias, vb.pp(names.key))?,
            to_v: pointwise(context_dim, query_dim, bias, vb.pp(names.value))?,
            to_out: pointwise(query_dim, query_dim, true, vb.pp(names.out))?,
            heads,
        })
    }

    /// The keys and values of what is looked at, (batch, tokens, context_dim).
    pub fn project(&self, context: &Tensor) -> Result<KeyValue> {
        Ok(KeyValue { key: self.to_k.forward(context)?, value: self.to_v.forward(context)? })
    }

    /// Self-attention of (batch, tokens, query_dim), plus what is carried around it, of the same shape.
    pub fn forward(&self, hidden: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.forward_with(hidden, &self.project(hidden)?, None, &[], residual)
    }

    /// Attention of (batch, tokens, query_dim) to given keys and values, plus what is carried around it. `key_bias`,
    /// (batch, keys), is added to each key's scores. Attention to each of `others` is added to that to `context`.
    pub fn forward_with(
        &self,
        hidden: &Tensor,
        context: &KeyValue,
        key_bias: Option<&Tensor>,
        others: &[&KeyValue],
        residual: &Tensor,
    ) -> Result<Tensor> {
        let query = self.to_q.forward(hidden)?;
        let mut attended = attention(&query, &context.key, &context.value, self.heads, key_bias)?;
        for KeyValue { key, value } in others {
            attended = (attended + attention(&query, key, value, self.heads, None)?)?;
        }
        self.to_out.forward_with(&attended, &Epilogue::residual(residual))
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
