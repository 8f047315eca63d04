//! Computes the UNet's spatial transformers (diffusers' `Transformer2DModel`).

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{Conv2d, Epilogue, GroupNorm, LayerNorm, Linear};

use super::context::{ContextCursor, ContextProjector};
use crate::layers::attention::{CrossAttention, SelfAttention};
use crate::layers::layout::same_size;

/// Added to the variance in the group norm before the transformer, whatever the UNet's `norm_eps`.
const GROUP_NORM_EPS: f64 = 1e-6;
/// Added to the variance in the layer norms.
const LAYER_NORM_EPS: f64 = 1e-5;
/// The width of the feed-forward, as a multiple of its input.
const FEED_FORWARD_FACTOR: usize = 4;

/// The sizes of a [`Transformer2DModel`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct TransformerConfig {
    pub channels: usize,
    pub heads: usize,
    pub layers: usize,
    pub cross_attention_dim: usize,
    pub groups: usize,
    pub use_linear_projection: bool,
}

/// Transformer blocks between two projections, with a residual connection.
#[derive(Debug, Clone)]
pub(super) struct Transformer2DModel {
    norm: GroupNorm,
    proj_in: Projection,
    transformer_blocks: Vec<BasicTransformerBlock>,
    proj_out: Projection,
}

impl Transformer2DModel {
    pub(super) fn new(config: TransformerConfig, vb: VarBuilder) -> Result<Self> {
        let projection = |vb: VarBuilder| Projection::new(config.channels, config.use_linear_projection, vb);
        let mut transformer_blocks = Vec::new();
        for layer in 0..config.layers {
            let vb = vb.pp("transformer_blocks").pp(layer);
            transformer_blocks.push(BasicTransformerBlock::new(config, vb)?);
        }
        Ok(Self {
            norm: GroupNorm::new(config.groups, config.channels, GROUP_NORM_EPS, vb.pp("norm"))?,
            proj_in: projection(vb.pp("proj_in"))?,
            transformer_blocks,
            proj_out: projection(vb.pp("proj_out"))?,
        })
    }

    /// Projects the prompt for each block's cross-attention.
    pub(super) fn project_context(&self, projector: &mut ContextProjector) -> Result<()> {
        self.transformer_blocks.iter().try_for_each(|block| projector.project(&block.attn2))
    }

    /// (batch, height, width, channels) → the same
    pub(super) fn forward(&self, input: &Tensor, context: &mut ContextCursor) -> Result<Tensor> {
        let (batch, height, width, channels) = input.dims4()?;
        let mut hidden = self.proj_in.forward(&self.norm.forward(input)?)?;
        hidden = hidden.reshape((batch, height * width, channels))?;
        for block in &self.transformer_blocks {
            hidden = block.forward(hidden, context)?;
        }
        hidden = hidden.reshape((batch, height, width, channels))?;
        self.proj_out.forward_with(&hidden, &Epilogue::residual(input))
    }
}

/// A projection of each position's channels: a 1 × 1 convolution in SD 1.x, a linear layer in SD 2.x. Channels-last
/// they are the same, but weights are stored in other shapes.
#[derive(Debug, Clone)]
enum Projection {
    Conv2d(Conv2d),
    Linear(Linear),
}

impl Projection {
    fn new(channels: usize, linear: bool, vb: VarBuilder) -> Result<Self> {
        let convolution = |vb| Conv2d::new(channels, channels, 1, same_size(1), vb).map(Self::Conv2d);
        if !linear {
            return convolution(vb);
        }
        match Linear::new(channels, channels, true, vb.clone()) {
            Ok(linear) => Ok(Self::Linear(linear)),
            // stable-diffusion.cpp stores both kinds as convolutions.
            Err(error) => convolution(vb).map_err(|_| error),
        }
    }

    /// (batch, height, width, channels) → the same
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.forward_with(input, &Epilogue::default())
    }

    fn forward_with(&self, input: &Tensor, epilogue: &Epilogue) -> Result<Tensor> {
        match self {
            Self::Conv2d(conv) => conv.forward_with(input, epilogue),
            Self::Linear(linear) => linear.forward_with(input, epilogue),
        }
    }
}

/// Self-attention, cross-attention to the prompt and a feed-forward, each after a layer norm.
#[derive(Debug, Clone)]
struct BasicTransformerBlock {
    norm1: LayerNorm,
    attn1: SelfAttention,
    norm2: LayerNorm,
    attn2: CrossAttention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl BasicTransformerBlock {
    fn new(config: TransformerConfig, vb: VarBuilder) -> Result<Self> {
        let TransformerConfig { channels, heads, cross_attention_dim, .. } = config;
        let norm = |name: &str| LayerNorm::new(channels, LAYER_NORM_EPS, vb.pp(name));
        Ok(Self {
            norm1: norm("norm1")?,
            attn1: SelfAttention::new(channels, heads, false, vb.pp("attn1"))?,
            norm2: norm("norm2")?,
            attn2: CrossAttention::new(channels, cross_attention_dim, heads, vb.pp("attn2"))?,
            norm3: norm("norm3")?,
            ff: FeedForward::new(channels, vb.pp("ff"))?,
        })
    }

    /// (batch, positions, channels) → the same
    fn forward(&self, hidden: Tensor, context: &mut ContextCursor) -> Result<Tensor> {
        let normalised = self.norm1.forward(&hidden)?;
        let [hidden, normalised] = self.attn1.forward_then_norm(&normalised, &hidden, &self.norm2)?;
        let [hidden, normalised] = context.attend(&self.attn2, &normalised, &hidden, &self.norm3)?;
        self.ff.forward(&normalised, &hidden)
    }
}

/// A feed-forward with GEGLU (Shazeer, 2020, arXiv:2002.05202).
#[derive(Debug, Clone)]
struct FeedForward {
    /// `net.0.proj`: the values, followed by the gates
    proj: Linear,
    /// `net.2`
    out: Linear,
}

impl FeedForward {
    fn new(channels: usize, vb: VarBuilder) -> Result<Self> {
        let inner = FEED_FORWARD_FACTOR * channels;
        Ok(Self {
            proj: Linear::new(channels, 2 * inner, true, vb.pp("net.0.proj"))?,
            out: Linear::new(inner, channels, true, vb.pp("net.2"))?,
        })
    }

    fn forward(&self, hidden: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.out.forward_with(&self.proj.forward_geglu(hidden)?, &Epilogue::residual(residual))
    }
}
