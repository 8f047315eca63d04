//! Passes launch parameters to kernels.

use super::super::launch::attention::AttentionParams;
use super::super::launch::conv2d::Conv2dParams;
use super::super::launch::epilogue::EpilogueParams;
use super::super::launch::geglu::GegluParams;
use super::super::launch::group_norm::GroupNormParams;
use super::super::launch::layer_norm::LayerNormParams;
use super::super::launch::linear_step::LinearStepParams;
use super::super::launch::timestep_embedding::TimestepEmbeddingParams;
use super::super::launch::to_bytes::ToBytesParams;
use candle_core::cuda::cudarc::driver::DeviceRepr;

/// Declares that a struct has the layout of its kernel's parameters: `repr(C)`, plain numbers, in the same order.
/// Tests that run the kernels on the host pass the same structs.
macro_rules! params {
    ($($name:ty),*) => {
        $(
            // SAFETY: the struct is laid out so.
            unsafe impl DeviceRepr for $name {}
        )*
    };
}

params!(
    AttentionParams,
    Conv2dParams,
    EpilogueParams,
    GegluParams,
    GroupNormParams,
    LayerNormParams,
    LinearStepParams,
    TimestepEmbeddingParams,
    ToBytesParams
);
