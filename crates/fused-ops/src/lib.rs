//! Computes the time-consuming operations of AltCLIP and AltDiffusion, each as a plain function or layer.
//!
//! Every operation has a reference in candle tensors, which runs on any device and defines the result, and a fused
//! CPU kernel, chosen by device. All of them are differentiable.
//!
//! With the feature `cuda`, f16 and bf16 tensors on a GPU have their own kernels (`kernels/`) where no gradients are
//! needed. What they do not cover takes the reference path, and a `tracing` event at level `debug` says why.
//!
//! Images and latents are *channels-last*, `(batch, height, width, channels)`: a pixel's channels are contiguous, so
//! convolutions, linear layers, normalisations and attention all read rows, without transposes. Weights keep the
//! layout of the published checkpoints at the interface.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use fused_ops::{Activation, Epilogue, Linear, attention};
//!
//! let random = |shape: &[usize]| Tensor::randn(0f32, 1., shape, &Device::Cpu);
//! // A transformer's attention with 4 heads of 16: (batch, tokens, width).
//! let x = random(&[2, 77, 64])?;
//! let projection = Linear::from_tensors(random(&[64, 64])?, Some(random(&[64])?))?;
//! let hidden = attention(&x, &x, &x, 4, None)?;
//! // The projection, the residual connection around both, and an activation, in one pass.
//! let epilogue = Epilogue { residual: Some(&x), activation: Some(Activation::Gelu), ..Epilogue::default() };
//! assert_eq!(projection.forward_with(&hidden, &epilogue)?.dims(), [2, 77, 64]);
//! # Ok::<_, candle_core::Error>(())
//! ```
//!
//! The defaults are fast. The CPU kernels run on the current rayon pool, by default one thread per core. To limit
//! them, use your own pool:
//!
//! ```
//! use candle_core::{Device, Tensor};
//!
//! let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
//! let x = Tensor::randn(0f32, 1., (64, 320), &Device::Cpu)?;
//! let y = pool.install(|| fused_ops::silu(&x))?;
//! # assert_eq!(y.dims(), x.dims());
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! On the CPU, set `CANDLE_NUM_THREADS=1` in the environment; candle reads it once and has no other way to set it.
//! Otherwise it adds large tensors on threads of its own, which then spin on the cores that these kernels use: without
//! them training, which sums gradients, is more than twice as fast, and small models embed texts faster.
//!
//! [`Settings`] choose between kernels for the same operation, and what happens to freed memory.

#![warn(missing_docs, unreachable_pub)]
#![allow(unsafe_code, reason = "kernels are this crate's work")]

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod machine;
mod memory;
mod ops;
mod settings;
mod shapes;
mod tensors;

pub use device::cuda_device::cuda_device;
pub use device::readbacks::Readbacks;
pub use device::recording::Recording;
pub use machine::{Bf16Support, Machine, bf16_support, int8_instructions};
pub use ops::activation::{gelu, gelu_tanh, quick_gelu, silu};
pub use ops::adam_step::AdamStep;
pub use ops::attention::{attention, causal_attention};
pub use ops::attention_heads::AttentionHeads;
pub use ops::blend::{blend, blend_square};
pub use ops::conv2d::Conv2d;
pub use ops::dot_products::{RowNumbers, dot_products};
pub use ops::embedding::Embedding;
pub use ops::geglu::geglu;
pub use ops::group_norm::GroupNorm;
pub use ops::input_record::INPUT_RECORD;
pub use ops::int8::{INT8, INT8_SCALE, INT8_SMOOTHING, Int8Rows, smoothing};
pub use ops::layer_norm::LayerNorm;
pub use ops::linear::Linear;
pub use ops::linear_group::LinearGroup;
pub use ops::low_rank::{LORA_DOWN, LORA_UP};
pub use ops::packed_attention::packed_attention;
pub use ops::shift_channels::shift_channels;
pub use ops::timestep_embedding::timestep_embedding;
pub use ops::to_bytes::to_bytes;
pub use settings::{
    AttentionKernels, Bf16Arithmetic, ConvolutionKernels, FreedMemory, Instructions, Settings, SettingsError,
};
pub use shapes::{
    Activation, BlockType, Conv2dOptions, Epilogue, LinearStep, Padding, Sequences, Sinusoids, Stepped,
};
pub use tensors::compute_dtype::{compute_dtype, for_computing};

/// Defines each operation in candle tensors, for any device and dtype. Kernels are tested against these, and shapes
/// that no kernel covers use them.
pub mod reference {
    pub use crate::ops::attention::attention_reference as attention;
    pub use crate::ops::attention::causal_attention_reference as causal_attention;
    pub use crate::ops::conv2d::conv2d_reference as conv2d;
    pub use crate::ops::geglu::geglu_reference as geglu;
    pub use crate::ops::group_norm::group_norm_reference as group_norm;
    pub use crate::ops::layer_norm::layer_norm_reference as layer_norm;
    pub use crate::ops::linear::linear_reference as linear;
    pub use crate::ops::linear_step::linear_step_reference as linear_step;
    pub use crate::ops::packed_attention::packed_attention_reference as packed_attention;
    pub use crate::ops::timestep_embedding::timestep_embedding_reference as timestep_embedding;
    pub use crate::ops::to_bytes::to_bytes_reference as to_bytes;
}
