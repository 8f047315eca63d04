//! The hot operations of AltCLIP and AltDiffusion, each behind one plain function or layer.
//!
//! Every operation has a reference written in candle tensors, which runs on any device and defines the result, and a
//! fused CPU kernel that a plain call picks by device. All of them can be trained through.
//!
//! Pictures and latents are *channels-last* here, `(batch, height, width, channels)`: a pixel's channels lie side by
//! side, so that convolutions, linear layers, normalisations and attention all read rows, and none needs a transpose.
//! Weights keep the layout of the published checkpoints at the interface.

mod activation;
mod attention;
mod conv2d;
mod cpu;
mod group_norm;
mod layer_norm;
mod linear;

pub use activation::{geglu, gelu, quick_gelu, silu};
pub use attention::attention;
pub use conv2d::{Conv2d, Conv2dOptions, Padding};
pub use group_norm::GroupNorm;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
