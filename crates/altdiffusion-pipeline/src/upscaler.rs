//! Enlarges images by a network of a few convolutions, which computes the pixels of a square at each pixel (Shi et al.,
//! 2016, arXiv:1609.05158): a part of some models, trained on what their autoencoders decode.

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{Activation, Conv2d, Epilogue, compute_dtype};
use model_files::config::{ConfigFile, FieldTable};
use serde::{Deserialize, Serialize};

use crate::config::ConfigCheck;
use crate::layers::layout::{same_size, to_channels_first, to_channels_last};
use crate::{Error, Result};

/// Red, green and blue.
const CHANNELS: usize = 3;

/// The configuration of a [`PixelShuffleUpscaler`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpscalerConfig {
    /// Channels between the first and the last convolution.
    pub hidden_channels: usize,
    /// Convolutions between the first and the last.
    pub num_hidden_layers: usize,
    /// How many times larger images get along each side.
    pub scale_factor: usize,
}

impl ConfigFile for UpscalerConfig {
    const FIELDS: FieldTable = FieldTable {
        used: &["hidden_channels", "num_hidden_layers", "scale_factor"],
        harmless: &[],
        fixed: &[],
        nested: &[],
    };
}

impl Default for UpscalerConfig {
    fn default() -> Self {
        Self { hidden_channels: 32, num_hidden_layers: 3, scale_factor: 4 }
    }
}

impl UpscalerConfig {
    /// The largest factor: a larger one needs another kind of network.
    const LARGEST_FACTOR: usize = 8;

    fn check(&self) -> Result<()> {
        let check = ConfigCheck { model: "PixelShuffleUpscaler" };
        check.size("hidden_channels", self.hidden_channels)?;
        check.layers("num_hidden_layers", self.num_hidden_layers)?;
        match (2..=Self::LARGEST_FACTOR).contains(&self.scale_factor) {
            true => Ok(()),
            false => {
                let expected = format!("a number from 2 to {}", Self::LARGEST_FACTOR);
                Err(check.error("scale_factor", expected, self.scale_factor.to_string()))
            }
        }
    }
}

/// 3 × 3 convolutions with SiLU between them. The last computes how the pixels of a square differ from the one that they
/// replace, with channels in the order of PyTorch's `PixelShuffle`.
#[derive(Debug, Clone)]
pub struct PixelShuffleUpscaler {
    conv_in: Conv2d,
    convs: Vec<Conv2d>,
    conv_out: Conv2d,
    dtype: DType,
    config: UpscalerConfig,
}

impl PixelShuffleUpscaler {
    /// Reads the weights from `vb`, which may hold trainable variables.
    ///
    /// # Errors
    /// A configuration that is not supported, or a weight that is missing or has another shape.
    pub fn new(config: &UpscalerConfig, vb: VarBuilder) -> Result<Self> {
        config.check()?;
        let hidden = config.hidden_channels;
        let out_channels = CHANNELS * config.scale_factor * config.scale_factor;
        let conv = |from, to, vb| Conv2d::new(from, to, 3, same_size(3), vb);
        Ok(Self {
            conv_in: conv(CHANNELS, hidden, vb.pp("conv_in"))?,
            convs: (0..config.num_hidden_layers)
                .map(|layer| conv(hidden, hidden, vb.pp("convs").pp(layer)))
                .collect::<candle_core::Result<_>>()?,
            conv_out: conv(hidden, out_channels, vb.pp("conv_out"))?,
            dtype: compute_dtype(vb.dtype(), vb.device()),
            config: config.clone(),
        })
    }

    /// The model's configuration.
    pub fn config(&self) -> &UpscalerConfig {
        &self.config
    }

    /// Enlarges pixels (batch, 3, height, width), −1 to 1, to (batch, 3, height × factor, width × factor). Computes in
    /// [`compute_dtype`] and returns the pixels' dtype.
    ///
    /// # Errors
    /// If the pixels have another rank or number of channels.
    pub fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let &[_, CHANNELS, _, _] = pixels.dims() else {
            return Err(Error::Shape {
                tensor: "pixels",
                expected: format!("(batch, {CHANNELS}, height, width)"),
                found: format!("{:?}", pixels.dims()),
            });
        };
        let enlarged = self.forward_channels_last(&to_channels_last(&pixels.to_dtype(self.dtype)?)?)?;
        Ok(to_channels_first(&enlarged)?.to_dtype(pixels.dtype())?)
    }

    /// Like [`forward`](Self::forward), for whole images: beyond their edges are the pixels of the edges, not the zeros of a
    /// convolution, which would show.
    ///
    /// # Errors
    /// Like [`forward`](Self::forward).
    pub fn enlarge(&self, pixels: &Tensor) -> Result<Tensor> {
        let factor = self.config.scale_factor;
        // As far as an output pixel sees.
        let margin = self.convs.len() + 2;
        let mut padded = pixels.clone();
        for side in [2, 3] {
            padded = padded.pad_with_same(side, margin, margin)?;
        }
        let mut enlarged = self.forward(&padded)?;
        for side in [2, 3] {
            enlarged = enlarged.narrow(side, margin * factor, pixels.dim(side)? * factor)?;
        }
        Ok(enlarged.contiguous()?)
    }

    /// Like [`forward`](Self::forward), channels-last on both sides and in [`compute_dtype`].
    ///
    /// # Errors
    /// Like [`forward`](Self::forward).
    pub fn forward_channels_last(&self, pixels: &Tensor) -> Result<Tensor> {
        let (batch, height, width, channels) = pixels.dims4()?;
        let factor = self.config.scale_factor;
        let square = factor * factor;
        let silu = Epilogue::activation(Activation::Silu);
        let mut hidden = self.conv_in.forward_with(pixels, &silu)?;
        for conv in &self.convs {
            hidden = conv.forward_with(&hidden, &silu)?;
        }
        let same = pixels.unsqueeze(4)?.broadcast_as((batch, height, width, channels, square))?;
        let same = same.reshape((batch, height, width, channels * square))?;
        let squares = self.conv_out.forward_with(&hidden, &Epilogue::residual(&same))?;
        // (batch, height, width, channel, row, column) to (batch, height, row, width, column, channel)
        let squares = squares.reshape((batch, height, width, channels, factor, factor))?;
        let pixels = squares.permute((0, 1, 4, 2, 5, 3))?.contiguous()?;
        Ok(pixels.reshape((batch, height * factor, width * factor, channels))?)
    }
}
