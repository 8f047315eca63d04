//! Converts between the reference's layout (batch, channels, height, width) and the channels-last one used here.

use candle_core::{Result, Tensor};
use fused_ops::{Conv2dOptions, Padding};

/// (batch, channels, height, width) → (batch, height, width, channels)
pub(crate) fn to_channels_last(images: &Tensor) -> Result<Tensor> {
    images.permute((0, 2, 3, 1))?.contiguous()
}

/// (batch, height, width, channels) → (batch, channels, height, width)
pub(crate) fn to_channels_first(images: &Tensor) -> Result<Tensor> {
    images.permute((0, 3, 1, 2))?.contiguous()
}

/// Options for stride 1 and the padding that keeps the size under a square kernel of this (odd) width.
pub(crate) fn same_size(kernel: usize) -> Conv2dOptions {
    Conv2dOptions { stride: 1, padding: Padding::same(kernel / 2), upsample: false }
}
