//! Chooses how an attention's heads are computed.

use crate::cpu::bf16::engine;
use candle_core::DType;
use candle_nn::VarBuilder;

/// The number of an attention's heads, and whether a CPU computes it in bf16. A plain number means f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionHeads {
    pub(crate) count: usize,
    pub(crate) in_bf16: bool,
}

impl AttentionHeads {
    /// The heads of a model with the weights of `vb`: computed in bf16 if they are bf16, on a CPU that is faster that
    /// way.
    pub fn new(count: usize, vb: &VarBuilder) -> Self {
        Self { count, in_bf16: vb.device().is_cpu() && vb.dtype() == DType::BF16 && engine().is_some() }
    }
}

impl From<usize> for AttentionHeads {
    fn from(count: usize) -> Self {
        Self { count, in_bf16: false }
    }
}
