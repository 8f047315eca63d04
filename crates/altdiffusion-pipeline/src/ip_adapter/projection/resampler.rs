//! Condenses all of the encoder's vectors into a few tokens by attention (diffusers' `IPAdapterPlusImageProjection`,
//! after the Perceiver Resampler of Flamingo, Alayrac et al., 2022, arXiv:2204.14198).

use candle_core::{D, Result, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{Activation, AttentionHeads, Epilogue, LayerNorm, Linear, attention, for_computing};

use super::layer_norm::LAYER_NORM_EPS;

/// The width of each head, in all published adapters.
pub(super) const HEAD_DIM: usize = 64;

/// The sizes of a [`Resampler`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub image_width: usize,
    /// The number of tokens returned.
    pub queries: usize,
    pub hidden: usize,
    /// Width of all heads together.
    pub inner: usize,
    pub layers: usize,
    pub width: usize,
}

/// Learned tokens that attend, layer by layer, to an image and to themselves.
#[derive(Debug, Clone)]
pub(crate) struct Resampler {
    /// (1, queries, hidden)
    latents: Tensor,
    proj_in: Linear,
    layers: Vec<Layer>,
    proj_out: Linear,
    norm_out: LayerNorm,
}

impl Resampler {
    pub(crate) fn new(sizes: Sizes, vb: VarBuilder) -> Result<Self> {
        let Sizes { image_width, queries, hidden, layers, width, .. } = sizes;
        Ok(Self {
            latents: for_computing(vb.get((1, queries, hidden), "latents")?)?,
            proj_in: Linear::new(image_width, hidden, true, vb.pp("proj_in"))?,
            layers: (0..layers).map(|i| Layer::new(sizes, vb.pp("layers").pp(i))).collect::<Result<_>>()?,
            proj_out: Linear::new(hidden, width, true, vb.pp("proj_out"))?,
            norm_out: LayerNorm::new(width, LAYER_NORM_EPS, vb.pp("norm_out"))?,
        })
    }

    /// (images, rows, image_width) → (images, queries, width)
    pub(crate) fn forward(&self, hidden_states: &Tensor) -> Result<Tensor> {
        let image = self.proj_in.forward(hidden_states)?;
        let mut latents = self.latents.repeat((image.dim(0)?, 1, 1))?;
        for layer in &self.layers {
            latents = layer.forward(&image, &latents)?;
        }
        self.norm_out.forward(&self.proj_out.forward(&latents)?)
    }
}

/// Attention and feed-forward, each with a residual connection.
#[derive(Debug, Clone)]
struct Layer {
    /// `0.norm1`, for the image
    norm1: LayerNorm,
    /// `0.norm2`, for the tokens
    norm2: LayerNorm,
    to_q: Linear,
    /// The keys' projection, followed by the values'.
    to_kv: Linear,
    to_out: Linear,
    heads: AttentionHeads,
    /// `1.0`
    norm: LayerNorm,
    /// `1.1`
    inner: Linear,
    /// `1.3`
    out: Linear,
}

/// The width of the feed-forward, as a multiple of its input.
const FEED_FORWARD_FACTOR: usize = 4;

impl Layer {
    fn new(sizes: Sizes, vb: VarBuilder) -> Result<Self> {
        let Sizes { hidden, inner, .. } = sizes;
        let norm = |name: &str| LayerNorm::new(hidden, LAYER_NORM_EPS, vb.pp(name));
        let linear = |input, output, name: &str| Linear::new(input, output, false, vb.pp(name));
        Ok(Self {
            norm1: norm("0.norm1")?,
            norm2: norm("0.norm2")?,
            to_q: linear(hidden, inner, "0.to_q")?,
            to_kv: linear(hidden, 2 * inner, "0.to_kv")?,
            to_out: linear(inner, hidden, "0.to_out")?,
            heads: AttentionHeads::new(inner / HEAD_DIM, &vb),
            norm: norm("1.0")?,
            inner: linear(hidden, FEED_FORWARD_FACTOR * hidden, "1.1")?,
            out: linear(FEED_FORWARD_FACTOR * hidden, hidden, "1.3")?,
        })
    }

    /// Updates the tokens (images, queries, hidden) from an image (images, rows, hidden).
    fn forward(&self, image: &Tensor, latents: &Tensor) -> Result<Tensor> {
        let (image, asking) = (self.norm1.forward(image)?, self.norm2.forward(latents)?);
        let query = self.to_q.forward(&asking)?;
        let key_value = self.to_kv.forward(&Tensor::cat(&[&image, &asking], 1)?)?;
        let inner = key_value.dim(D::Minus1)? / 2;
        let key = key_value.narrow(D::Minus1, 0, inner)?.contiguous()?;
        let value = key_value.narrow(D::Minus1, inner, inner)?.contiguous()?;
        let found = attention(&query, &key, &value, self.heads, None)?;
        let latents = self.to_out.forward_with(&found, &Epilogue::residual(latents))?;
        let inner = self
            .inner
            .forward_with(&self.norm.forward(&latents)?, &Epilogue::activation(Activation::Gelu))?;
        self.out.forward_with(&inner, &Epilogue::residual(&latents))
    }
}
