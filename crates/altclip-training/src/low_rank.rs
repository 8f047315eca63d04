//! Trains LoRA (Hu et al., arXiv 2106.09685): beside each adapted weight, which is frozen, a matrix from the layer's
//! input to a small rank and one from there to its output.

use crate::error::{Error, Result};
use crate::parameters::Parameters;
use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use fused_ops::{LORA_DOWN, LORA_UP};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The layers that diffusers' scripts adapt: the projections of all attentions.
const ATTENTION_LAYERS: [&str; 4] = ["to_q", "to_k", "to_v", "to_out.0"];

/// Which layers are adapted, and by how much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LowRankConfig {
    /// The rank of the two matrices. The factor of their product, alpha / rank, is 1.
    pub rank: usize,
    /// The last parts of the adapted layers' paths, such as `to_q` or `ff.net.2`; by default the projections of all
    /// attentions.
    #[serde(default = "attention_layers")]
    pub layers: Vec<String>,
}

fn attention_layers() -> Vec<String> {
    ATTENTION_LAYERS.map(str::to_owned).to_vec()
}

/// Frozen weights with trained matrices beside some of them.
#[derive(Clone)]
pub struct LowRankAdapter {
    config: LowRankConfig,
    weights: VarBuilder<'static>,
    matrices: Parameters,
    /// The shapes of the adapted weights that the model has asked for, by the layer's path.
    shapes: Arc<Mutex<BTreeMap<String, Vec<usize>>>>,
}

impl LowRankAdapter {
    /// Adds matrices beside `weights`. A model built from [`var_builder`](Self::var_builder) is initially unchanged,
    /// as with PEFT: the first matrix is random, by the seed, and the second zero.
    ///
    /// # Errors
    /// If the rank is 0.
    pub fn beside(weights: VarBuilder<'static>, config: &LowRankConfig, seed: u64) -> Result<Self> {
        if config.rank == 0 {
            return Err(Error::Setting("rank: expected at least 1, found 0".to_owned()));
        }
        let matrices = Parameters::new(seed).computing_in(weights.dtype());
        Ok(Self { config: config.clone(), weights, matrices, shapes: Arc::default() })
    }

    /// A builder of the adapted model.
    pub fn var_builder(&self) -> VarBuilder<'static> {
        let (dtype, device) = (self.weights.dtype(), self.weights.device().clone());
        VarBuilder::from_backend(Box::new(self.clone()), dtype, device)
    }

    /// The matrices: `LAYER.lora_down.weight`, (rank, …inputs), and `LAYER.lora_up.weight`, (out, rank).
    ///
    /// # Errors
    /// If the model has none of the layers to adapt.
    pub fn matrices(&self) -> Result<&Parameters> {
        if self.matrices.count() == 0 {
            let layers = self.config.layers.join(", ");
            return Err(Error::Setting(format!(
                "layers: expected ends of the model's paths, found {layers}"
            )));
        }
        Ok(&self.matrices)
    }

    /// The shape of the weight beside a matrix of this name, (out, …inputs); `None` for other names.
    fn beside_weight(&self, name: &str, ending: &str) -> Option<Vec<usize>> {
        let layer = name.strip_suffix(ending)?.strip_suffix('.')?;
        self.shapes.lock().unwrap_or_else(PoisonError::into_inner).get(layer).cloned()
    }

    fn is_adapted(&self, layer: &str) -> bool {
        let ends = |end: &String| layer.strip_suffix(end.as_str()).is_some_and(|path| path.ends_with('.'));
        self.config.layers.iter().any(ends)
    }

    /// The shape and initialisation of a matrix of this name; `None` for other names.
    fn matrix(&self, name: &str) -> Option<(Vec<usize>, Init)> {
        if let Some(shape) = self.beside_weight(name, LORA_DOWN) {
            let inputs = shape.get(1..).unwrap_or_default();
            // PyTorch's default for a linear layer.
            let bound = 1. / (inputs.iter().product::<usize>().max(1) as f64).sqrt();
            return Some(([&[self.config.rank], inputs].concat(), Init::Uniform { lo: -bound, up: bound }));
        }
        let out = self.beside_weight(name, LORA_UP)?.first().copied()?;
        Some((vec![out, self.config.rank], Init::Const(0.)))
    }
}

impl SimpleBackend for LowRankAdapter {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        init: Init,
        dtype: DType,
        _: &Device,
    ) -> candle_core::Result<Tensor> {
        // A layer asks for its weight before the matrices beside it.
        if let Some(layer) = name.strip_suffix(".weight").filter(|layer| self.is_adapted(layer)) {
            let mut shapes = self.shapes.lock().unwrap_or_else(PoisonError::into_inner);
            shapes.insert(layer.to_owned(), shape.dims().to_vec());
        }
        self.weights.get_with_hints_dtype(shape, name, init, dtype)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        match self.matrix(name) {
            Some((shape, init)) => self.matrices.var_builder(device).get_with_hints(shape, name, init),
            None => self.weights.get_unchecked_dtype(name, dtype),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.matrix(name).is_some() || self.weights.contains_tensor(name)
    }
}

/// The matrices of a UNet under PEFT's names, as in diffusers' `save_lora_weights`, in f32: convolutions' second
/// matrices become 1 × 1 convolutions.
///
/// # Errors
/// If a tensor operation fails.
pub fn unet_file(matrices: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    let is_convolution = |layer: &str| {
        matrices.get(&format!("{layer}.{LORA_DOWN}")).is_some_and(|down: &Tensor| down.rank() == 4)
    };
    let renamed = matrices.iter().filter_map(|(name, tensor)| {
        if let Some(layer) = name.strip_suffix(LORA_DOWN) {
            return Some((format!("unet.{layer}lora_A.weight"), tensor.clone(), false));
        }
        let layer = name.strip_suffix(LORA_UP)?;
        let grows = is_convolution(layer.strip_suffix('.').unwrap_or(layer));
        Some((format!("unet.{layer}lora_B.weight"), tensor.clone(), grows))
    });
    let written = |(name, tensor, grows): (String, Tensor, bool)| {
        let tensor = tensor.to_dtype(DType::F32)?;
        let tensor = if grows { tensor.unsqueeze(2)?.unsqueeze(3)? } else { tensor };
        Ok((name, tensor))
    };
    renamed.map(written).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fused_ops::Linear;

    #[test]
    fn only_the_named_layers_are_adapted_and_begin_as_they_were() -> Result<()> {
        let weights = Parameters::new(1).var_builder(&Device::Cpu);
        let config = LowRankConfig { rank: 2, layers: vec!["to_q".to_owned()] };
        let adapted = LowRankAdapter::beside(weights.clone(), &config, 7)?;
        let missing = adapted.matrices().map_or_else(|error| error.to_string(), |_| String::new());
        assert_eq!(missing, "layers: expected ends of the model's paths, found to_q");
        let vb = adapted.var_builder();
        let layer = |vb: &VarBuilder, name: &str| Linear::new(3, 4, true, vb.pp(name));
        let x = Tensor::arange(0f32, 6., &Device::Cpu)?.reshape((2, 3))?;
        for name in ["a.to_q", "a.not_to_q", "a.to_k"] {
            let (found, expected) = (layer(&vb, name)?.forward(&x)?, layer(&weights, name)?.forward(&x)?);
            assert_eq!(found.to_vec2::<f32>()?, expected.to_vec2::<f32>()?);
        }
        let shapes: Vec<_> =
            adapted.matrices()?.iter().map(|(name, matrix)| (name, matrix.dims().to_vec())).collect();
        let expected = [("a.to_q.lora_down.weight", vec![2, 3]), ("a.to_q.lora_up.weight", vec![4, 2])];
        assert_eq!(shapes, expected.map(|(name, shape)| (name.to_owned(), shape)));
        let file = unet_file(adapted.matrices()?.snapshot()?)?;
        let names: Vec<&String> = file.keys().collect();
        assert_eq!(names, ["unet.a.to_q.lora_A.weight", "unet.a.to_q.lora_B.weight"]);
        Ok(())
    }
}
