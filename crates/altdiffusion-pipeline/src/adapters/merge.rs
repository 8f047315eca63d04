//! Applies LoRAs while a model reads its weights: merged into the weights, or computed beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use fused_ops::{BlockType, INT8, INT8_SCALE, INT8_SMOOTHING, LORA_DOWN, LORA_UP};

use super::change::{Change, ScaledProduct};
use super::layer_tensors::{LayerChanges, Parameter};
use super::lora::Lora;
use super::product::{LowRank, Product};
use super::unsupported;
use crate::{Error, Result};

const UNET: &str = "UNet";
const TEXT_ENCODER: &str = "text encoder";

/// All LoRAs' changes to one part of a model.
#[derive(Clone)]
pub(crate) struct Merge(Arc<Changes>);

struct Changes {
    /// What to call the part in errors.
    part: &'static str,
    /// Keyed by the layer's path, with `_` for `.`.
    layers: BTreeMap<String, Vec<Applied>>,
    /// The parameters that the model has asked for.
    met: Mutex<BTreeSet<(String, Parameter)>>,
    /// Whether to leave the weights alone and compute the changes beside them.
    beside: bool,
    /// Another path for the same layer.
    other_name: Option<OtherName>,
}

type OtherName = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// One LoRA's change to a layer.
struct Applied {
    /// The LoRA's file and the model it was made for, for errors.
    file: String,
    made_for: Option<String>,
    changes: LayerChanges,
    strength: f64,
}

impl Merge {
    /// Collects the changes of `loras`, each with its strength, to the UNet. They are computed beside the weights if
    /// `beside` is set, and otherwise only where a weight is quantized. `other_name` maps a tensor's name to its name
    /// in latent diffusion, which some LoRAs use.
    pub(crate) fn into_unet(
        loras: &[(Lora, f64)],
        beside: bool,
        other_name: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self::new(UNET, loras, beside, Some(Box::new(other_name)), |lora| Box::new(lora.of_unet()))
    }

    /// Collects the changes to the text encoder, as [`into_unet`](Self::into_unet) does.
    pub(crate) fn into_text_encoder(loras: &[(Lora, f64)], beside: bool) -> Self {
        Self::new(TEXT_ENCODER, loras, beside, None, |lora| Box::new(lora.of_text_encoder()))
    }

    fn new<'a>(
        part: &'static str,
        loras: &'a [(Lora, f64)],
        beside: bool,
        other_name: Option<OtherName>,
        layers_of: impl Fn(&'a Lora) -> Box<dyn Iterator<Item = (&'a String, &'a LayerChanges)> + 'a>,
    ) -> Self {
        let mut layers: BTreeMap<String, Vec<Applied>> = BTreeMap::new();
        for (lora, strength) in loras {
            for (layer, changes) in layers_of(lora) {
                let applied = Applied {
                    file: lora.name().to_owned(),
                    made_for: lora.made_for().map(str::to_owned),
                    changes: changes.clone(),
                    strength: *strength,
                };
                layers.entry(layer.clone()).or_default().push(applied);
            }
        }
        Self(Arc::new(Changes { part, layers, met: Mutex::default(), beside, other_name }))
    }

    /// Wraps `weights` so that reading them applies the changes.
    pub(crate) fn over(&self, weights: VarBuilder<'static>) -> VarBuilder<'static> {
        if self.0.layers.is_empty() {
            return weights;
        }
        let (dtype, device) = (weights.dtype(), weights.device().clone());
        VarBuilder::from_backend(Box::new(Merging { weights, changes: self.0.clone() }), dtype, device)
    }

    /// Checks that every change was applied.
    ///
    /// # Errors
    /// If there is a change to a layer that the model, which must be fully loaded by now, does not have.
    pub(crate) fn check(&self) -> Result<()> {
        let met = self.0.met.lock().unwrap_or_else(PoisonError::into_inner);
        let is_met = |layer: &String, kind: Parameter| met.contains(&(layer.clone(), kind));
        let lacks = |layer: &String, applied: &Applied| {
            let changes = |kind| !applied.changes.of(kind).is_empty() && !is_met(layer, kind);
            if changes(Parameter::Weight) {
                return Some("layer");
            }
            (applied.changes.needs_bias && changes(Parameter::Bias)).then_some("bias in the layer")
        };
        let mut left = self.0.layers.iter().flat_map(|(layer, all)| {
            all.iter().filter_map(move |applied| Some((layer, applied, lacks(layer, applied)?)))
        });
        let Some((layer, applied, what)) = left.next() else { return Ok(()) };
        let (part, count) = (self.0.part, left.count() + 1);
        let problem = format!(
            "the LoRA is for another architecture{}: the {part} of this model has no {what} {layer}, one of {count} that are \
             not there; expected a LoRA for this model",
            applied.said_model()
        );
        let hint = match (unsupported::is_of_clip(layer), part) {
            (true, _) => ", or only what it changes in the UNet: the layer is one of CLIP's text encoder",
            (false, TEXT_ENCODER) => ", or only what it changes in the UNet",
            (false, _) => "",
        };
        Err(Error::content(&applied.file, problem + hint))
    }
}

/// A candle backend that applies changes to the weights it reads.
struct Merging {
    weights: VarBuilder<'static>,
    changes: Arc<Changes>,
}

/// How to answer a request for a tensor.
enum Asked<'a> {
    /// A weight or bias, with LoRAs merged into it.
    Merged(&'a [Applied], Parameter),
    /// The matrix from a layer's input to the ranks of its LoRAs.
    Down(Vec<Beside<'a>>),
    /// The matrix from those ranks to the layer's output.
    Up(Vec<Beside<'a>>),
    /// The model's own tensor.
    Plain,
}

/// A change computed beside a weight, and its factor.
struct Beside<'a> {
    low_rank: &'a LowRank,
    factor: f64,
}

impl Merging {
    fn asked(&self, name: &str) -> Asked<'_> {
        let layer_of = |ending: &str| name.strip_suffix(ending)?.strip_suffix('.');
        let beside = |ending: &str| self.beside(layer_of(ending)?);
        if let Some(changes) = beside(LORA_DOWN) {
            return Asked::Down(changes);
        }
        if let Some(changes) = beside(LORA_UP) {
            return Asked::Up(changes);
        }
        for (ending, kind) in [("weight", Parameter::Weight), ("bias", Parameter::Bias)] {
            let Some((layer, changes)) =
                layer_of(ending).and_then(|layer| Some((layer, self.changes_of(layer, kind)?)))
            else {
                continue;
            };
            return match kind {
                Parameter::Weight if self.beside(layer).is_some() => Asked::Plain,
                _ => Asked::Merged(changes, kind),
            };
        }
        Asked::Plain
    }

    /// The changes to one parameter of a layer.
    fn changes_of(&self, layer: &str, kind: Parameter) -> Option<&[Applied]> {
        let changes = &self.changes;
        let find = |layer: &str| changes.layers.get_key_value(&layer.replace('.', "_"));
        let other = || {
            let name =
                changes.other_name.as_ref().and_then(|other_name| other_name(&format!("{layer}.weight")))?;
            find(name.strip_suffix(".weight")?)
        };
        let (layer, found) = find(layer).or_else(other)?;
        found.iter().any(|applied| !applied.changes.of(kind).is_empty()).then_some(())?;
        changes.met.lock().unwrap_or_else(PoisonError::into_inner).insert((layer.clone(), kind));
        Some(found)
    }

    /// The changes to compute beside a layer's weight: only if all are products of two matrices, and the weight is
    /// quantized (nothing can be added to it) or this was asked for.
    fn beside(&self, layer: &str) -> Option<Vec<Beside<'_>>> {
        let changes = self.changes_of(layer, Parameter::Weight)?;
        (self.changes.beside || self.is_quantized(layer)).then_some(())?;
        let mut all = Vec::new();
        for applied in changes {
            for change in &applied.changes.weight {
                match change {
                    Change::Product(ScaledProduct {
                        product: Product::LowRank(low_rank),
                        scale,
                        magnitude: None,
                    }) => all.push(Beside { low_rank, factor: scale * applied.strength }),
                    _ => return None,
                }
            }
        }
        Some(all)
    }

    /// Whether `name` is a quantized weight that something is merged into.
    fn is_hidden(&self, name: &str) -> bool {
        let Some((weight, kind)) = name.rsplit_once('.') else { return false };
        let is_int8 = [INT8, INT8_SCALE, INT8_SMOOTHING].into_iter().any(|ending| name.ends_with(ending));
        let layer = weight.strip_suffix(".weight");
        let layer = layer.filter(|_| is_int8 || kind.parse::<BlockType>().is_ok());
        layer.is_some_and(|layer| {
            self.changes_of(layer, Parameter::Weight).is_some() && self.beside(layer).is_none()
        })
    }

    fn is_quantized(&self, layer: &str) -> bool {
        let weight = format!("{layer}.weight");
        let mut blocks = BlockType::ALL.into_iter().map(|kind| kind.blocks_name(&weight));
        blocks.any(|name| self.weights.contains_tensor(&name))
            || self.weights.contains_tensor(&format!("{layer}.{INT8}"))
    }

    fn changed(
        &self,
        asked: Asked<'_>,
        weight: impl FnOnce(DType) -> candle_core::Result<Tensor>,
        dtype: DType,
    ) -> Result<Tensor> {
        // Sums are in f32, whatever dtype the weights are stored in.
        let sum = match asked {
            Asked::Plain => return Ok(weight(dtype)?),
            Asked::Merged(changes, kind) => {
                let weight = weight(DType::F32)?;
                // Each change is computed from the model's own weight, so that their order does not matter.
                let mut sum = weight.clone();
                for applied in changes {
                    sum = applied.add_to(sum, &weight, kind)?;
                }
                sum
            }
            Asked::Down(changes) => {
                let downs =
                    changes.iter().map(|change| change.low_rank.whole_down()).collect::<Result<Vec<_>>>()?;
                Tensor::cat(&downs, 0)?
            }
            Asked::Up(changes) => {
                let up = |change: &Beside<'_>| Ok((change.low_rank.up.flatten_from(1)? * change.factor)?);
                Tensor::cat(&changes.iter().map(up).collect::<Result<Vec<_>>>()?, 1)?
            }
        };
        Ok(sum.to_device(self.weights.device())?.to_dtype(dtype)?)
    }
}

impl Applied {
    /// Adds the change that it makes to `weight`.
    fn add_to(&self, sum: Tensor, weight: &Tensor, kind: Parameter) -> Result<Tensor> {
        // DoRA would set the norms even at strength 0.
        if self.strength == 0.0 {
            return Ok(sum);
        }
        self.changes.of(kind).iter().try_fold(sum, |sum, change| {
            match change.delta(weight, self.strength)? {
                Ok(delta) => Ok((sum + delta)?),
                Err(problem) => {
                    let problem = format!(
                        "the LoRA is for another architecture{}: {problem}; expected a LoRA for this model",
                        self.said_model()
                    );
                    Err(Error::content(&self.file, problem))
                }
            }
        })
    }

    /// The model that the file was made for, for errors.
    fn said_model(&self) -> String {
        self.made_for.as_ref().map(|model| format!(" (its file says {model})")).unwrap_or_default()
    }
}

impl SimpleBackend for Merging {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        init: Init,
        dtype: DType,
        _: &Device,
    ) -> candle_core::Result<Tensor> {
        let weight = |dtype| self.weights.get_with_hints_dtype(shape, name, init, dtype);
        self.changed(self.asked(name), weight, dtype).map_err(candle_core::Error::msg)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, _: &Device) -> candle_core::Result<Tensor> {
        let weight = |dtype| self.weights.get_unchecked_dtype(name, dtype);
        self.changed(self.asked(name), weight, dtype).map_err(candle_core::Error::msg)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        match self.asked(name) {
            Asked::Down(_) | Asked::Up(_) => true,
            // A quantized weight that something is added to is read unpacked.
            Asked::Merged(..) | Asked::Plain => self.weights.contains_tensor(name) && !self.is_hidden(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use candle_core::safetensors;
    use model_files::checkpoint::Checkpoint;

    use super::*;
    use test_support::TestResult;

    const ROWS: usize = 3;
    const COLUMNS: usize = 96;

    /// A quantized weight as the model's `layer`, and a LoRA with the tensors `more`.
    fn weights_with(more: &[(&str, Tensor)]) -> TestResult<VarBuilder<'static>> {
        let blocks = Checkpoint::from_file(test_support::golden("gguf/reference.gguf"))?
            .part("", |name| (name == "layer.weight").then(|| "q8_0".to_owned()))
            .var_builder(DType::F32, &Device::Cpu)?;
        let ones = |shape: (usize, usize)| Tensor::ones(shape, DType::F32, &Device::Cpu);
        let mut tensors = HashMap::from([
            ("layer.lora_A.weight".to_owned(), (ones((2, COLUMNS))? * 0.1)?),
            ("layer.lora_B.weight".to_owned(), ones((ROWS, 2))?),
        ]);
        tensors.extend(more.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())));
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("lora.safetensors");
        safetensors::save(&tensors, &file)?;
        let lora = Lora::open(file.to_str().ok_or("a path that is no text")?)?;
        Ok(Merge::into_unet(&[(lora, 1.0)], false, |_| None).over(blocks))
    }

    #[test]
    fn a_lora_is_computed_beside_a_quantized_weight() -> TestResult {
        let weights = weights_with(&[])?;
        let layer = weights.pp("layer");
        assert!(weights.contains_tensor(&BlockType::Q8_0.blocks_name("layer.weight")));
        assert!(layer.contains_tensor(LORA_DOWN) && layer.contains_tensor(LORA_UP));
        assert_eq!(layer.get_unchecked(LORA_DOWN)?.dims(), [2, COLUMNS]);
        Ok(())
    }

    /// DoRA needs the norms of the whole weight, so it has to be unpacked.
    #[test]
    fn what_cannot_be_beside_is_merged_into_the_numbers_of_blocks() -> TestResult {
        let magnitudes = [0.5f32, 1.0, 2.0];
        let vector = Tensor::new(&magnitudes, &Device::Cpu)?;
        let weights = weights_with(&[("layer.lora_magnitude_vector", vector)])?;
        let layer = weights.pp("layer");
        assert!(!weights.contains_tensor(&BlockType::Q8_0.blocks_name("layer.weight")));
        assert!(!layer.contains_tensor(LORA_DOWN));
        let norms = layer.get((ROWS, COLUMNS), "weight")?.sqr()?.sum(1)?.sqrt()?.to_vec1::<f32>()?;
        for (norm, magnitude) in norms.iter().zip(magnitudes) {
            assert!((norm - magnitude).abs() < 1e-5, "{norms:?}");
        }
        Ok(())
    }
}
