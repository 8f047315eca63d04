//! LoRA merged into weights as a model reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};

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
    /// What `loras` change in the UNet, each with its strength. `other_name` gives for the name of a tensor the one that it
    /// has in latent diffusion, which some LoRAs use.
    pub fn into_unet(
        loras: &[(Lora, f64)],
        other_name: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self::new(UNET, loras, Some(Box::new(other_name)), |lora| Box::new(lora.of_unet()))
    }

    /// What `loras` change in the text encoder, each with its strength.
    pub fn into_text_encoder(loras: &[(Lora, f64)]) -> Self {
        Self::new(TEXT_ENCODER, loras, None, |lora| Box::new(lora.of_text_encoder()))
    }

    fn new<'a>(
        part: &'static str,
        loras: &'a [(Lora, f64)],
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
        Self(Arc::new(Changes { part, layers, met: Mutex::default(), other_name }))
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

impl Merging {
    /// The changes of the layer that a weight belongs to.
    fn changes_of(&self, name: &str) -> Option<&[Change]> {
        let changes = &self.changes;
        let find = |name: &str| {
            let layer = name.strip_suffix(".weight")?.replace('.', "_");
            changes.layers.get_key_value(&layer)
        };
        let (layer, found) = find(name)
            .or_else(|| find(&changes.other_name.as_ref().and_then(|other_name| other_name(name))?))?;
        changes.met.lock().unwrap_or_else(PoisonError::into_inner).insert(layer.clone());
        Some(found)
    }

    /// A weight with its changes, added in f32.
    fn changed(&self, weight: Tensor, changes: &[Change], dtype: DType) -> Result<Tensor> {
        let mut weight = weight;
        for change in changes {
            weight = (&weight + change.of(weight.shape())?.to_device(weight.device())?)?;
        }
        Ok(weight.to_dtype(dtype)?)
    }
}

impl Change {
    /// What is added to a weight of `shape`, (out, in) or (out, in, height, width).
    fn of(&self, shape: &Shape) -> Result<Tensor> {
        let LowRank { down, mid, up, scale } = &self.low_rank;
        let rank = down.dim(0)?;
        let up = up.flatten_from(1)?;
        let change = match mid {
            None => up.matmul(&down.flatten_from(1)?)?,
            // A 1 × 1 convolution, one of the kernel's size, and another 1 × 1.
            Some(mid) => {
                let (_, _, height, width) = mid.dims4()?;
                let taps = height * width;
                let mid = mid.reshape((rank, rank, taps))?.permute((2, 0, 1))?.contiguous()?; // (taps, rank, rank)
                let down = down.flatten_from(1)?; // (rank, in)
                let up = up.unsqueeze(0)?.broadcast_as((taps, up.dim(0)?, rank))?.contiguous()?;
                let down = down.unsqueeze(0)?.broadcast_as((taps, rank, down.dim(1)?))?.contiguous()?;
                up.matmul(&mid)?.matmul(&down)?.permute((1, 2, 0))?.contiguous()?.flatten_from(1)?
            }
        };
        if change.elem_count() != shape.elem_count() || Some(&change.dim(0)?) != shape.dims().first() {
            let problem = format!(
                "the LoRA is for another architecture: it changes a weight of {:?} values, where this model has one of {:?}; \
                 expected a LoRA for this model",
                change.dims(),
                shape.dims()
            );
            return Err(Error::content(&self.file, problem));
        }
        Ok((change.reshape(shape)? * (scale * self.strength))?)
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
        match self.changes_of(name) {
            None => self.weights.get_with_hints_dtype(shape, name, init, dtype),
            Some(changes) => {
                let weight = self.weights.get_with_hints_dtype(shape, name, init, DType::F32)?;
                self.changed(weight, changes, dtype).map_err(candle_core::Error::msg)
            }
        }
    }

    fn get_unchecked(&self, name: &str, dtype: DType, _: &Device) -> candle_core::Result<Tensor> {
        match self.changes_of(name) {
            None => self.weights.get_unchecked_dtype(name, dtype),
            Some(changes) => {
                let weight = self.weights.get_unchecked_dtype(name, DType::F32)?;
                self.changed(weight, changes, dtype).map_err(candle_core::Error::msg)
            }
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.weights.contains_tensor(name)
    }
}
