//! Adds image towers, from pixels to one state.

use super::graph::{Graph, IMAGE, Setting, signed};
use super::weights::Weights;
use crate::error::Result;
use crate::vision::VisionConfig;

impl Graph {
    /// CLIP's image tower: the normalised state of the class token, (images, width).
    pub(crate) fn clip_image(&mut self, config: &VisionConfig, weights: &Weights) -> Result<String> {
        let (hidden, shape) = (config.hidden_size, config.layer_shape());
        let embeddings = weights.at("embeddings");
        let size = [hidden, config.num_channels, config.patch_size];
        let patches = self.patches(size, false, &embeddings.at("patch_embedding"))?;
        let images = self.node("Shape", &[IMAGE], &[("start", Setting::Int(0)), ("end", Setting::Int(1))]);
        let row = self.integers(&[1, signed(hidden)]);
        let rows = self.node("Concat", &[&images, &row], &[("axis", Setting::Int(0))]);
        let class = self.weight(&embeddings, "class_embedding", &[hidden])?;
        let class = self.node("Expand", &[&class, &rows], &[]);
        let x = self.node("Concat", &[&class, &patches], &[("axis", Setting::Int(1))]);
        let positions =
            self.weight(&embeddings.at("position_embedding"), "weight", &[config.positions(), hidden])?;
        let x = self.node("Add", &[&x, &positions], &[]);
        // Spelled like this in every checkpoint.
        let mut x = self.layer_norm(&x, hidden, config.layer_norm_eps, &weights.at("pre_layrnorm"))?;
        let layers = weights.at("encoder.layers");
        for layer in 0..config.num_hidden_layers {
            x = self.pre_norm_layer(&x, &shape, None, &layers.at(layer))?;
        }
        let class = self.row(&x, 0);
        self.layer_norm(&class, hidden, config.layer_norm_eps, &weights.at("post_layernorm"))
    }

    /// SigLIP's image tower: what its learned query reads, (images, width).
    pub(crate) fn siglip_image(&mut self, config: &VisionConfig, weights: &Weights) -> Result<String> {
        let (hidden, eps, shape) = (config.hidden_size, config.layer_norm_eps, config.layer_shape());
        let embeddings = weights.at("embeddings");
        let size = [hidden, config.num_channels, config.patch_size];
        let patches = self.patches(size, true, &embeddings.at("patch_embedding"))?;
        let positions =
            self.weight(&embeddings.at("position_embedding"), "weight", &[config.patches(), hidden])?;
        let mut x = self.node("Add", &[&patches, &positions], &[]);
        let layers = weights.at("encoder.layers");
        for layer in 0..config.num_hidden_layers {
            x = self.pre_norm_layer(&x, &shape, None, &layers.at(layer))?;
        }
        let x = self.layer_norm(&x, hidden, eps, &weights.at("post_layernorm"))?;

        let head = weights.at("head");
        let own = head.at("attention");
        let probe = self.weight(&head, "probe", &[1, 1, hidden])?;
        let query = self.linear(&probe, hidden, hidden, &own.at("q_proj"))?;
        let key = self.linear(&x, hidden, hidden, &own.at("k_proj"))?;
        let value = self.linear(&x, hidden, hidden, &own.at("v_proj"))?;
        let read = self.attention([&query, &key, &value], &shape, None);
        let read = self.linear(&read, hidden, hidden, &own.at("out_proj"))?;
        let normalised = self.layer_norm(&read, hidden, eps, &head.at("layernorm"))?;
        let read = self.mlp(&normalised, &read, &shape, &head.at("mlp"))?;
        Ok(self.row(&read, 0))
    }

    /// One row per patch: (images, patches, width).
    fn patches(
        &mut self,
        [width, channels, side]: [usize; 3],
        has_bias: bool,
        weights: &Weights,
    ) -> Result<String> {
        let weight = self.weight(weights, "weight", &[width, channels, side, side])?;
        let bias = if has_bias { Some(self.weight(weights, "bias", &[width])?) } else { None };
        let mut inputs = vec![IMAGE, weight.as_str()];
        inputs.extend(bias.as_deref());
        let sides = [signed(side); 2];
        let settings = [("kernel_shape", Setting::Ints(&sides)), ("strides", Setting::Ints(&sides))];
        let patches = self.node("Conv", &inputs, &settings); // (images, width, rows, columns)
        let sizes = self.integers(&[0, signed(width), -1]);
        let patches = self.node("Reshape", &[&patches, &sizes], &[]);
        Ok(self.node("Transpose", &[&patches], &[("perm", Setting::Ints(&[0, 2, 1]))]))
    }
}
