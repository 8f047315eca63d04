//! Reduces an image's tokens to a few, as Wukong does.
//!
//! TokenLearner, <https://arxiv.org/abs/2106.11297>: each of the new tokens is a mean of all, with learned weights.

use candle_core::{D, Result, Tensor, bail};
use candle_nn::VarBuilder;
use fused_ops::{LayerNorm, Linear};

use super::weight_sizes::WeightSizes;

/// `visual.token_learner`. Its convolutions have a kernel of 1 × 1 and no biases, so that they are linear layers.
#[derive(Debug, Clone)]
pub(super) struct TokenReduction {
    norm: LayerNorm,
    attention_maps: [Linear; 2],
    feat_conv: Linear,
}

impl TokenReduction {
    /// Reads `norm.*`, `attention_maps.{0,1}.weight` and `feat_conv.weight` under `vb`, for tokens of `dim` values.
    ///
    /// # Errors
    /// If a weight is missing or has another shape.
    pub(super) fn new(
        sizes: WeightSizes,
        dim: usize,
        layer_norm_eps: f64,
        vb: VarBuilder,
    ) -> crate::Result<Self> {
        let size =
            |name: &str, dimension| sizes.of(&format!("visual.token_learner.{name}.weight"), dimension);
        let of_group = size("feat_conv", 1)?;
        if of_group == 0 || !dim.is_multiple_of(of_group) {
            let problem =
                format!("found visual.token_learner.feat_conv.weight for {of_group} of {dim} channels");
            return Err(sizes.problem(&problem));
        }
        let tokens = size("attention_maps.1", 0)?;
        let weight = |name: &str, shape| vb.pp(name).get(shape, "weight");
        let grouped = |name: &str| -> Result<Linear> {
            Linear::from_tensors(ungrouped(&weight(name, (dim, of_group, 1, 1))?)?, None)
        };
        let last = weight("attention_maps.1", (tokens, dim, 1, 1))?.flatten_from(1)?;
        Ok(Self {
            norm: LayerNorm::new(dim, layer_norm_eps, vb.pp("norm"))?,
            attention_maps: [grouped("attention_maps.0")?, Linear::from_tensors(last, None)?],
            feat_conv: grouped("feat_conv")?,
        })
    }

    /// (images, patches, dim) → (images, tokens, dim)
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut maps = self.norm.forward(x)?;
        for layer in &self.attention_maps {
            maps = layer.forward(&maps)?;
        }
        let maps = candle_nn::ops::softmax(&maps.transpose(1, 2)?.contiguous()?, D::Minus1)?;
        maps.matmul(&self.feat_conv.forward(x)?)
    }
}

/// The matrix, with zeros between the groups, of a convolution of groups of channels: (out, in of a group, 1, 1) →
/// (out, in).
fn ungrouped(weight: &Tensor) -> Result<Tensor> {
    let (out, of_group, ..) = weight.dims4()?;
    if of_group == 0 || !out.is_multiple_of(of_group) {
        bail!("a convolution of {out} channels in groups of {of_group}")
    }
    let weight = weight.reshape((out, of_group))?;
    let block = |group: usize| {
        let before = group * of_group;
        weight.narrow(0, before, of_group)?.pad_with_zeros(1, before, out - before - of_group)
    };
    Tensor::cat(&(0..out / of_group).map(block).collect::<Result<Vec<_>>>()?, 0)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn groups_do_not_mix() {
        let weight = Tensor::arange(1f32, 9., &Device::Cpu).unwrap().reshape((4, 2, 1, 1)).unwrap();
        let expected = [[1f32, 2., 0., 0.], [3., 4., 0., 0.], [0., 0., 5., 6.], [0., 0., 7., 8.]];
        assert_eq!(ungrouped(&weight).unwrap().to_vec2::<f32>().unwrap(), expected);
    }
}
