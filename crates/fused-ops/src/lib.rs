//! The hot operations of AltCLIP and AltDiffusion, each behind one plain function or layer.
//!
//! Every operation has a reference written in candle tensors, which runs on any device and defines the result, and a
//! fused CPU kernel that a plain call picks by device. All of them can be trained through.
//!
//! With the feature `cuda`, tensors of f16 and bf16 on a GPU have kernels of their own (`kernels/`), where nobody wants
//! gradients; what these do not cover takes the reference path, and a `tracing` event at the level `debug` says why.
//!
//! Pictures and latents are *channels-last* here, `(batch, height, width, channels)`: a pixel's channels lie side by
//! side, so that convolutions, linear layers, normalisations and attention all read rows, and none needs a transpose.
//! Weights keep the layout of the published checkpoints at the interface.

mod activation;
mod attention;
mod blend;
#[cfg(any(feature = "cuda", test))]
mod channels_last;
mod conv2d;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod cuda_device;
mod custom;
mod embedding;
mod epilogue;
mod group_norm;
mod layer_norm;
mod linear;
mod linear_group;
mod low_rank;
mod memory;
mod packed_attention;
mod quantized;
mod readback;
mod recording;
mod shift;
mod step;

pub use activation::{Activation, geglu, gelu, quick_gelu, silu};
pub use attention::{attention, causal_attention};
pub use blend::{AdamStep, blend, blend_square};
pub use conv2d::{Conv2d, Conv2dOptions, Padding};
pub use cuda_device::cuda_device;
pub use custom::{compute_dtype, for_computing};
pub use embedding::Embedding;
pub use epilogue::Epilogue;
pub use group_norm::GroupNorm;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use linear_group::LinearGroup;
pub use low_rank::{LORA_DOWN, LORA_UP};
pub use memory::keep_freed_memory;
pub use packed_attention::{Sequences, packed_attention};
pub use quantized::BlockType;
pub use readback::Readbacks;
pub use recording::Recording;
pub use shift::shift_channels;
pub use step::{LinearStep, Sinusoids, Stepped, timestep_embedding, to_bytes};

/// The definitions: each operation in candle tensors, for any device and dtype. The kernels are tested against these,
/// and shapes that no kernel covers take this path.
pub mod reference {
    pub use crate::activation::geglu_reference as geglu;
    pub use crate::attention::attention_reference as attention;
    pub use crate::attention::causal_attention_reference as causal_attention;
    pub use crate::conv2d::conv2d_reference as conv2d;
    pub use crate::group_norm::group_norm_reference as group_norm;
    pub use crate::layer_norm::layer_norm_reference as layer_norm;
    pub use crate::linear::linear_reference as linear;
    pub use crate::packed_attention::packed_attention_reference as packed_attention;
    pub use crate::step::linear_step_reference as linear_step;
    pub use crate::step::timestep_embedding_reference as timestep_embedding;
    pub use crate::step::to_bytes_reference as to_bytes;
}
