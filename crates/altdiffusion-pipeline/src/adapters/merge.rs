//! LoRA in weights as a model reads them: merged into them, or beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use fused_ops::{BlockType, LORA_DOWN, LORA_UP};

use super::lora::{Lora, LowRank};
use crate::{Error, Result};

const UNET: &str = "UNet";
const TEXT_ENCODER: &str = "text encoder";

/// The changes of one part of a model, by all LoRAs together.
#[derive(Clone)]
pub(crate) struct Merge(Arc<Changes>);

struct Changes {
    /// What errors call it.
    part: &'static str,
    /// By the layer's path with `_` for `.`.
    layers: BTreeMap<String, Vec<Change>>,
    /// The layers that the model has asked for.
    met: Mutex<BTreeSet<String>>,
    /// Whether weights stay as they are, and the changes are computed beside them.
    beside: bool,
    /// Another path that a layer may go by.
    other_name: Option<OtherName>,
}

type OtherName = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

struct Change {
    /// The LoRA's file, for errors.
    file: String,
    low_rank: LowRank,
    strength: f64,
}

impl Merge {
    /// What `loras` change in the UNet, each with its strength: beside its weights, or
    /// merged into them where they are not in blocks. `other_name` gives for the name of a tensor the one that it
    /// has in latent diffusion, which some LoRAs use.
    pub fn into_unet(
        loras: &[(Lora, f64)],
        beside: bool,
        other_name: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self::new(UNET, loras, beside, Some(Box::new(other_name)), |lora| Box::new(lora.of_unet()))
    }

    /// What `loras` change in the text encoder, in the same way.
    pub fn into_text_encoder(loras: &[(Lora, f64)], beside: bool) -> Self {
        Self::new(TEXT_ENCODER, loras, beside, None, |lora| Box::new(lora.of_text_encoder()))
    }

    fn new<'a>(
        part: &'static str,
        loras: &'a [(Lora, f64)],
        beside: bool,
        other_name: Option<OtherName>,
        layers_of: impl Fn(&'a Lora) -> Box<dyn Iterator<Item = (&'a String, &'a LowRank)> + 'a>,
    ) -> Self {
        let mut layers: BTreeMap<String, Vec<Change>> = BTreeMap::new();
        for (lora, strength) in loras {
            for (layer, low_rank) in layers_of(lora) {
                let change =
                    Change { file: lora.name().to_owned(), low_rank: low_rank.clone(), strength: *strength };
                layers.entry(layer.clone()).or_default().push(change);
            }
        }
        Self(Arc::new(Changes { part, layers, met: Mutex::default(), beside, other_name }))
    }

    /// `weights` with the changes.
    pub fn over(&self, weights: VarBuilder<'static>) -> VarBuilder<'static> {
        if self.0.layers.is_empty() {
            return weights;
        }
        let (dtype, device) = (weights.dtype(), weights.device().clone());
        VarBuilder::from_backend(Box::new(Merging { weights, changes: self.0.clone() }), dtype, device)
    }

    /// Every change has met its layer.
    ///
    /// # Errors
    /// When there is one for a layer that the model, which has been read by now, does not have.
    pub fn check(&self) -> Result<()> {
        let met = self.0.met.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = self.0.layers.iter().filter(|(layer, _)| !met.contains(*layer));
        let Some((layer, changes)) = left.next() else { return Ok(()) };
        let (part, count) = (self.0.part, left.count() + 1);
        let file = changes.first().map_or("", |change| change.file.as_str());
        let problem = format!(
            "the LoRA is for another architecture: the {part} of this model has no layer {layer}, one of {count} that are not \
             there; expected a LoRA for this model"
        );
        let hint = if part == TEXT_ENCODER { ", or only what it changes in the UNet" } else { "" };
        Err(Error::content(file, problem + hint))
    }
}

/// Weights with changes, as candle reads them.
struct Merging {
    weights: VarBuilder<'static>,
    changes: Arc<Changes>,
}

/// What a model asks for.
enum Asked<'a> {
    /// A weight that LoRAs are merged into.
    Merged(&'a [Change]),
    /// From a layer's input to the ranks of its LoRAs.
    Down(&'a [Change]),
    /// From there to its output.
    Up(&'a [Change]),
    /// Whatever it is as it is.
    Plain,
}

impl Merging {
    fn asked(&self, name: &str) -> Asked<'_> {
        let of_layer = |ending: &str| {
            let layer = name.strip_suffix(ending)?.strip_suffix('.')?;
            Some((self.changes_of(layer)?, self.is_beside(layer)))
        };
        if let Some((changes, true)) = of_layer(LORA_DOWN) {
            Asked::Down(changes)
        } else if let Some((changes, true)) = of_layer(LORA_UP) {
            Asked::Up(changes)
        } else if let Some((changes, false)) = of_layer("weight") {
            Asked::Merged(changes)
        } else {
            Asked::Plain
        }
    }

    /// The changes of a layer.
    fn changes_of(&self, layer: &str) -> Option<&[Change]> {
        let changes = &self.changes;
        let find = |layer: &str| changes.layers.get_key_value(&layer.replace('.', "_"));
        let other = || {
            let name =
                changes.other_name.as_ref().and_then(|other_name| other_name(&format!("{layer}.weight")))?;
            find(name.strip_suffix(".weight")?)
        };
        let (layer, found) = find(layer).or_else(other)?;
        changes.met.lock().unwrap_or_else(PoisonError::into_inner).insert(layer.clone());
        Some(found)
    }

    /// Whether the changes of a layer are computed beside its weight: to blocks nothing can be added.
    fn is_beside(&self, layer: &str) -> bool {
        let weight = format!("{layer}.weight");
        let in_blocks = |kind: BlockType| self.weights.contains_tensor(&kind.blocks_name(&weight));
        self.changes.beside || BlockType::ALL.into_iter().any(in_blocks)
    }

    fn changed(
        &self,
        asked: Asked<'_>,
        weight: impl FnOnce(DType) -> candle_core::Result<Tensor>,
        dtype: DType,
    ) -> Result<Tensor> {
        // Sums are in f32, whatever the weights are stored as.
        let sum = match asked {
            Asked::Plain => return Ok(weight(dtype)?),
            Asked::Merged(changes) => {
                let mut weight = weight(DType::F32)?;
                for change in changes {
                    weight = (&weight + change.of(weight.shape())?.to_device(weight.device())?)?;
                }
                weight
            }
            Asked::Down(changes) => {
                let downs =
                    changes.iter().map(|change| change.low_rank.whole_down()).collect::<Result<Vec<_>>>()?;
                Tensor::cat(&downs, 0)?
            }
            Asked::Up(changes) => {
                let up = |change: &Change| Ok((change.low_rank.up.flatten_from(1)? * change.factor())?);
                Tensor::cat(&changes.iter().map(up).collect::<Result<Vec<_>>>()?, 1)?
            }
        };
        Ok(sum.to_device(self.weights.device())?.to_dtype(dtype)?)
    }
}

impl LowRank {
    /// From the input to the rank in one step, (rank, everything else).
    fn whole_down(&self) -> Result<Tensor> {
        let down = self.down.flatten_from(1)?;
        let Some(mid) = &self.mid else { return Ok(down) };
        // A 1 × 1 convolution and then one of the kernel's size: (rank, rank, taps) · (rank, in) to (rank, in, taps).
        let (rank, _, height, width) = mid.dims4()?;
        let mid = mid.reshape((rank, rank, height * width))?.permute((0, 2, 1))?.reshape(((), rank))?;
        let whole = mid.contiguous()?.matmul(&down)?.reshape((rank, height * width, down.dim(1)?))?;
        Ok(whole.permute((0, 2, 1))?.contiguous()?.flatten_from(1)?)
    }
}

impl Change {
    fn factor(&self) -> f64 {
        self.low_rank.scale * self.strength
    }

    /// What is added to a weight of `shape`, (out, in) or (out, in, height, width).
    fn of(&self, shape: &Shape) -> Result<Tensor> {
        let change = self.low_rank.up.flatten_from(1)?.matmul(&self.low_rank.whole_down()?)?;
        if change.elem_count() != shape.elem_count() || Some(&change.dim(0)?) != shape.dims().first() {
            let problem = format!(
                "the LoRA is for another architecture: it changes a weight of {:?} values, where this model has one of {:?}; \
                 expected a LoRA for this model",
                change.dims(),
                shape.dims()
            );
            return Err(Error::content(&self.file, problem));
        }
        Ok((change.reshape(shape)? * self.factor())?)
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
        matches!(self.asked(name), Asked::Down(_) | Asked::Up(_)) || self.weights.contains_tensor(name)
    }
}
