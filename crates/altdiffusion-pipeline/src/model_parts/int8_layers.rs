//! Measures which layers of a text encoder lose too much in int8.

use std::collections::{BTreeMap, BTreeSet};

use altclip_encoder::PromptEncoder;
use altclip_encoder::conditioner::ConditionerConfig;
use altclip_encoder::tokenizer::Tokenizer;
use candle_core::{D, DType, Device, Tensor};
use model_files::checkpoint::{Checkpoint, NumberType};

use super::number_types::choose_int8;
use super::{ModelParts, PartKind};
use crate::Result;

/// Prompts of the usual kind, in several languages.
pub(super) const PROMPTS: [&str; 8] = [
    "",
    "一只戴帽子的小狗",
    "a photo of an old harbour at night, rain, neon lights",
    "un gato negro sobre una mesa",
    "eine Blume im Schnee, Aquarell",
    "夕方の海と灯台",
    "портрет улыбающейся девушки",
    "a red cube on a blue sphere",
];
/// The least cosine of a token's hidden states with the original's.
const LEAST_COSINE: f64 = 0.999;

/// Cosines of tokens' hidden states with the original's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cosines {
    /// That of the token that loses most.
    pub worst: f64,
    /// The mean.
    pub mean: f64,
}

/// What a text encoder loses in int8.
#[derive(Debug, Clone, PartialEq)]
pub struct TextStatesLoss {
    /// As it is written.
    pub cosines: Cosines,
    /// With the same layers in int8, but no factors for their inputs, if some have factors.
    pub without_smoothing: Option<Cosines>,
    /// The layers that are left in bf16, because without them the worst would be below 0.999.
    pub left_out: Vec<String>,
}

impl ModelParts {
    /// Measures what the text encoder loses in int8. Layers that lose most, each alone, are left out until no token's
    /// cosine is below 0.999, and are then also left out when the model is written. `None` if there is no tokenizer.
    ///
    /// `on_layer` gets the number of layers measured, and of all.
    ///
    /// # Errors
    /// If the text encoder or the tokenizer is damaged or not supported.
    pub fn measure_int8(&mut self, mut on_layer: impl FnMut(usize, usize)) -> Result<Option<TextStatesLoss>> {
        let Some(tokenizer) = &self.tokenizer else { return Ok(None) };
        let tokenizer = Tokenizer::from_source(tokenizer, "tokenizer")?;
        let config = ConditionerConfig::read(&self.text_encoder.config)?;
        let weights = &self.text_encoder.weights;
        let states = |weights: &Checkpoint, chosen: BTreeSet<String>| -> Result<Tensor> {
            let weights = weights.in_int8(move |name| chosen.contains(name));
            let encoder = config.build(weights.var_builder(DType::F32, &Device::Cpu)?)?;
            let encoded = PromptEncoder::new(tokenizer.clone(), encoder).encode(&PROMPTS)?;
            Ok(encoded.hidden_states.to_dtype(DType::F64)?)
        };
        let original = states(weights, BTreeSet::new())?;
        let loss = |chosen| -> Result<Cosines> { worst_and_mean(&original, &states(weights, chosen)?) };

        let mut layers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for entry in self.entries()?.text_encoder {
            if choose_int8(PartKind::TextEncoder, &entry.name, entry.shape) == NumberType::Int8 {
                layers.entry(layer_of(&entry.name).to_owned()).or_default().insert(entry.name);
            }
        }
        let mut chosen: BTreeSet<String> = layers.values().flatten().cloned().collect();
        let mut cosines = loss(chosen.clone())?;
        let (mut left_out, mut names) = (Vec::new(), BTreeSet::new());
        if cosines.worst < LEAST_COSINE {
            let total = layers.len();
            let mut alone = Vec::with_capacity(total);
            for (done, (layer, of_layer)) in layers.into_iter().enumerate() {
                on_layer(done, total);
                alone.push((loss(of_layer.clone())?.worst, layer, of_layer));
            }
            alone.sort_by(|a, b| a.0.total_cmp(&b.0));
            for (_, layer, of_layer) in alone {
                chosen.retain(|name| !of_layer.contains(name));
                names.extend(of_layer);
                left_out.push(layer);
                cosines = loss(chosen.clone())?;
                if cosines.worst >= LEAST_COSINE {
                    break;
                }
            }
        }
        let without_smoothing = match weights.is_smoothed() {
            true => {
                let plain = states(&weights.smoothed(BTreeMap::new()), chosen)?;
                Some(worst_and_mean(&original, &plain)?)
            }
            false => None,
        };
        self.not_in_int8 = names;
        Ok(Some(TextStatesLoss { cosines, without_smoothing, left_out }))
    }
}

/// The transformer layer that a weight belongs to, or else its own name.
fn layer_of(name: &str) -> &str {
    let mut end = 0;
    for segment in name.split('.') {
        end += segment.len();
        if !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit()) {
            return &name[..end];
        }
        end += 1;
    }
    name
}

/// The least cosine of two rows, and the mean.
fn worst_and_mean(original: &Tensor, found: &Tensor) -> Result<Cosines> {
    let dot = |a: &Tensor, b: &Tensor| a.mul(b)?.sum(D::Minus1);
    let lengths = (dot(original, original)? * dot(found, found)?)?.sqrt()?;
    let cosines = (dot(original, found)? / lengths)?.flatten_all()?;
    Ok(Cosines { worst: cosines.min(0)?.to_scalar()?, mean: cosines.mean_all()?.to_scalar()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_has_a_number() {
        assert_eq!(layer_of("roberta.encoder.layer.11.output.dense.weight"), "roberta.encoder.layer.11");
        assert_eq!(layer_of("text_model.encoder.layers.2.mlp.fc1.weight"), "text_model.encoder.layers.2");
        assert_eq!(layer_of("transformation.weight"), "transformation.weight");
    }

    #[test]
    fn cosines_are_of_rows() -> Result<()> {
        let tensor = |values: [[f64; 2]; 2]| Tensor::new(&values, &Device::Cpu);
        let found = worst_and_mean(&tensor([[3., 4.], [1., 0.]])?, &tensor([[6., 8.], [0., 2.]])?)?;
        assert_eq!(found, Cosines { worst: 0., mean: 0.5 });
        Ok(())
    }
}
