//! Computes the operations that take the time of AltCLIP and AltDiffusion, each behind one plain function or layer.
//!
//! Every operation has a reference written in candle tensors, which runs on any device and defines the result, and a
//! fused CPU kernel that a plain call picks by device. All of them can be trained through.
//!
//! With the feature `cuda`, tensors of f16 and bf16 on a GPU have kernels of their own (`kernels/`), where nobody wants
//! gradients; what these do not cover takes the reference path, and a `tracing` event at the level `debug` says why.
//!
//! Images and latents are *channels-last* here, `(batch, height, width, channels)`: a pixel's channels lie side by
//! side, so that convolutions, linear layers, normalisations and attention all read rows, and none needs a transpose.
//! Weights keep the layout of the published checkpoints at the interface.
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
//! Nothing has to be set to be fast. The CPU kernels run on the threads of the rayon pool that they are called from, by
//! default one for each core; a pool is a value with which a program limits them:
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
//! Training has one thing more to know: candle adds gradients up on threads of its own, which then spin while they wait for
//! more, on the cores that these kernels compute on. A program that trains on the CPU is more than twice as fast with
//! `CANDLE_NUM_THREADS=1` in its environment, which candle reads once and offers no other way to say.
//!
//! [`Settings`] choose between several kernels for the same, and say what becomes of freed memory.

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
pub use machine::{Bf16Support, bf16_support};
pub use ops::activation::{gelu, quick_gelu, silu};
pub use ops::adam_step::AdamStep;
pub use ops::attention::{attention, causal_attention};
pub use ops::blend::{blend, blend_square};
pub use ops::conv2d::Conv2d;
pub use ops::embedding::Embedding;
pub use ops::geglu::geglu;
pub use ops::group_norm::GroupNorm;
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

/// The definitions: each operation in candle tensors, for any device and dtype. The kernels are tested against these,
/// and shapes that no kernel covers take this path.
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
