//! Finds factors for the inputs of layers in int8, as in SmoothQuant (Xiao et al. 2022, arXiv:2211.10438): channels that
//! are much larger than others are made smaller before they are rounded, and the weight's columns larger.

use std::collections::{BTreeMap, HashMap};

use altclip_encoder::PromptEncoder;
use altclip_encoder::conditioner::ConditionerConfig;
use altclip_encoder::tokenizer::Tokenizer;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{INT8, INT8_SCALE, INT8_SMOOTHING, Int8Rows, Linear, smoothing};
use model_files::Checkpoint;
use model_files::checkpoint::NumberType;
use model_files::config::parse_config;

use super::input_records::InputRecords;
use super::int8_layers::PROMPTS;
use super::number_types::choose_int8;
use super::{ModelParts, PartKind};
use crate::quantization_error::QuantizationProbe;
use crate::unet::UNet2DConditionModel;
use crate::{Error, Result};

/// The exponents to try: larger ones make the inputs easier to round, and the weights harder.
const ALPHAS: [f32; 4] = [0.3, 0.5, 0.7, 0.85];
/// Factors cost a multiplication for each input, so they must lower the error to this share of what it was.
const LARGEST_SHARE: f64 = 0.9;
/// The most texts to measure inputs on.
const MOST_TEXTS: usize = 256;
/// The forward passes to spread the texts over, since each leaves some rows of its inputs.
const PASSES: usize = 8;
/// The most texts per pass.
const BATCH: usize = 16;
/// The texts whose hidden states the UNet is measured with.
const TEXTS_OF_UNET: usize = 2;

/// A layer whose inputs get factors.
#[derive(Debug, Clone, PartialEq)]
pub struct SmoothedLayer {
    /// The name of its weight.
    pub name: String,
    /// The exponent that was best.
    pub alpha: f32,
    /// ‖output in int8 − output‖ / ‖output‖ without factors.
    pub error_without: f64,
    /// The same with them.
    pub error: f64,
}

/// Which layers get factors for their inputs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Smoothing {
    /// The number of layers that were measured.
    pub measured: usize,
    /// Those of the text encoder.
    pub text_encoder: Vec<SmoothedLayer>,
    /// Those of the UNet.
    pub unet: Vec<SmoothedLayer>,
}

impl ModelParts {
    /// Measures the inputs of the layers that are written in int8, while `texts` are encoded and denoising begins, and gives
    /// those layers factors that lose clearly less so. They are then used by [`measure_int8`](Self::measure_int8) and
    /// written with the model. Without texts, some of the usual kind are taken. `None` if there is no tokenizer.
    ///
    /// `on_layer` gets the number of layers measured, and of all.
    ///
    /// # Errors
    /// If a part is damaged or not supported.
    pub fn smooth_int8(
        &mut self,
        texts: &[String],
        mut on_layer: impl FnMut(usize, usize),
    ) -> Result<Option<Smoothing>> {
        let Some(tokenizer) = &self.tokenizer else { return Ok(None) };
        let tokenizer = Tokenizer::from_source(tokenizer, "tokenizer")?;
        let texts: Vec<&str> = match texts {
            [] => PROMPTS.to_vec(),
            texts => texts.iter().take(MOST_TEXTS).map(String::as_str).collect(),
        };
        let text_layers = self.layers_in_int8(PartKind::TextEncoder)?;
        let unet_layers = self.layers_in_int8(PartKind::UNet)?;
        let measured = text_layers.len() + unet_layers.len();
        let mut done = 0;
        let mut on_layer = || {
            done += 1;
            on_layer(done, measured);
        };

        let records = InputRecords::new(&text_layers)?;
        let states = self.encode_recorded(tokenizer, &texts, &records)?;
        let weights = &self.text_encoder.weights;
        let (text_encoder, text_factors) = choose(weights, &text_layers, &records, &mut on_layer)?;

        let records = InputRecords::new(&unet_layers)?;
        self.denoise_recorded(&states, &records)?;
        let (unet, unet_factors) = choose(&self.unet.weights, &unet_layers, &records, &mut on_layer)?;

        self.text_encoder.weights = self.text_encoder.weights.smoothed(text_factors);
        self.unet.weights = self.unet.weights.smoothed(unet_factors);
        Ok(Some(Smoothing { measured, text_encoder, unet }))
    }

    /// Loads the UNet in f32, with the weights that are written in int8 rounded, but no factors for their inputs.
    ///
    /// # Errors
    /// If the part is damaged or not supported.
    pub fn load_unet_without_smoothing(&self) -> Result<UNet2DConditionModel> {
        let layers = self.layers_in_int8(PartKind::UNet)?;
        let weights = self.unet.weights.smoothed(BTreeMap::new());
        let weights = weights.in_int8(move |name| layers.contains_key(name));
        let config = parse_config(&self.unet.config)?;
        UNet2DConditionModel::new(&config, weights.var_builder(DType::F32, &Device::Cpu)?)
    }

    /// A probe of the UNet with the hidden states of a prompt, for which factors are chosen; random ones have channels
    /// of other sizes. With random ones if there is no tokenizer.
    ///
    /// # Errors
    /// If a part is damaged or not supported.
    pub fn probe_with_prompt(&self) -> Result<QuantizationProbe> {
        let probe = QuantizationProbe::new(&parse_config(&self.unet.config)?)?;
        let Some(tokenizer) = &self.tokenizer else { return Ok(probe) };
        let tokenizer = Tokenizer::from_source(tokenizer, "tokenizer")?;
        let config = ConditionerConfig::read(&self.text_encoder.config)?;
        let weights = self.text_encoder.weights.var_builder(DType::F32, &Device::Cpu)?;
        let encoder = PromptEncoder::new(tokenizer, config.build(weights)?);
        Ok(probe.with_hidden_states(encoder.encode(&PROMPTS[..1])?.hidden_states))
    }

    /// The weights of a part that are rounded when it is written in int8, with their numbers of input channels.
    fn layers_in_int8(&self, part: PartKind) -> Result<BTreeMap<String, usize>> {
        let entries = self.entries()?;
        let entries = match part {
            PartKind::TextEncoder => entries.text_encoder,
            _ => entries.unet,
        };
        let is_number =
            |dtype: Option<DType>| matches!(dtype, Some(DType::F32 | DType::F16 | DType::BF16 | DType::F64));
        let rounded = entries.into_iter().filter(|entry| {
            choose_int8(part, &entry.name, entry.shape) == NumberType::Int8
                && is_number(entry.checkpoint.dtype(&entry.source))
        });
        Ok(rounded.filter_map(|entry| Some((entry.source, *entry.shape.get(1)?))).collect())
    }

    /// Encodes the texts, and returns the hidden states of the first.
    fn encode_recorded(
        &self,
        tokenizer: Tokenizer,
        texts: &[&str],
        records: &InputRecords,
    ) -> Result<Vec<Tensor>> {
        let config = ConditionerConfig::read(&self.text_encoder.config)?;
        let weights = self.text_encoder.weights.var_builder(DType::F32, &Device::Cpu)?;
        let encoder = PromptEncoder::new(tokenizer, config.build(records.over(weights))?);
        let mut states = Vec::new();
        for texts in texts.chunks(texts.len().div_ceil(PASSES).clamp(1, BATCH)) {
            let of_texts = encoder.encode(texts)?.hidden_states;
            for text in 0..texts.len() {
                if states.len() < TEXTS_OF_UNET {
                    states.push(of_texts.narrow(0, text, 1)?.contiguous()?);
                }
            }
        }
        Ok(states)
    }

    /// Runs the UNet on noise at several timesteps, with each of these hidden states.
    fn denoise_recorded(&self, states: &[Tensor], records: &InputRecords) -> Result<()> {
        let weights = self.unet.weights.var_builder(DType::F32, &Device::Cpu)?;
        let unet = UNet2DConditionModel::new(&parse_config(&self.unet.config)?, records.over(weights))?;
        let probe = QuantizationProbe::new(unet.config())?;
        for states in states {
            probe.clone().with_hidden_states(states.clone()).outputs(&unet, &Device::Cpu)?;
        }
        Ok(())
    }
}

/// Factors of layers' inputs, by the names of the weights.
type Factors = BTreeMap<String, Vec<f32>>;

/// The layers that lose clearly less with factors, and these factors.
fn choose(
    weights: &Checkpoint,
    layers: &BTreeMap<String, usize>,
    records: &InputRecords,
    on_layer: &mut impl FnMut(),
) -> Result<(Vec<SmoothedLayer>, Factors)> {
    let (mut smoothed, mut factors) = (Vec::new(), BTreeMap::new());
    for name in layers.keys() {
        if let Some((largest, rows)) = records.of_layer(name)? {
            let weight = weights.tensor(name, DType::F32, &Device::Cpu)?;
            let found = best(&weight, &largest, &rows).map_err(|error| named(weights, name, error))?;
            if let Some(Best { alpha, factors: of_layer, error_without, error }) = found {
                smoothed.push(SmoothedLayer { name: name.clone(), alpha, error_without, error });
                factors.insert(name.clone(), of_layer);
            }
        }
        on_layer();
    }
    Ok((smoothed, factors))
}

/// An error about a weight that cannot be rounded.
fn named(weights: &Checkpoint, name: &str, error: Error) -> Error {
    Error::content(weights.file_name(), format!("tensor {name}: {error}"))
}

/// The factors that lose least.
struct Best {
    alpha: f32,
    factors: Vec<f32>,
    error_without: f64,
    error: f64,
}

/// Tries factors for a weight (out, in) on rows of its input, of which these are the largest absolute values. `None` if no
/// factors are clearly better than none.
fn best(weight: &Tensor, largest: &[f32], rows: &Tensor) -> Result<Option<Best>> {
    let sides = weight.dims2()?;
    let values = weight.flatten_all()?.to_vec1::<f32>()?;
    let expected = Linear::from_tensors(weight.clone(), None)?.forward(rows)?;
    let error = |factors: Option<&[f32]>| -> Result<f64> {
        relative_distance(&in_int8(&values, sides, factors)?.forward(rows)?, &expected)
    };
    let error_without = error(None)?;
    let mut best: Option<Best> = None;
    for alpha in ALPHAS {
        let factors = smoothing(largest, &values, alpha);
        let error = error(Some(&factors))?;
        let most = best.as_ref().map_or(LARGEST_SHARE * error_without, |best| best.error);
        // A layer that was not run has no errors, which are no numbers.
        if error < most {
            best = Some(Best { alpha, factors, error_without, error });
        }
    }
    Ok(best)
}

/// A layer with rounded weights.
fn in_int8(values: &[f32], (out, width): (usize, usize), factors: Option<&[f32]>) -> Result<Linear> {
    let rows = Int8Rows::quantize(values, width, factors)?;
    let bytes: Vec<u8> = rows.values.into_iter().map(i8::cast_unsigned).collect();
    let device = &Device::Cpu;
    let mut tensors = HashMap::from([
        (INT8.to_owned(), Tensor::from_vec(bytes, (out, width), device)?),
        (INT8_SCALE.to_owned(), Tensor::from_vec(rows.scales, out, device)?),
    ]);
    if let Some(factors) = factors {
        tensors.insert(INT8_SMOOTHING.to_owned(), Tensor::new(factors, device)?);
    }
    Ok(Linear::new(width, out, false, VarBuilder::from_tensors(tensors, DType::F32, device))?)
}

fn relative_distance(found: &Tensor, expected: &Tensor) -> Result<f64> {
    let square = |tensor: &Tensor| -> Result<f64> {
        Ok(tensor.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>()?)
    };
    Ok((square(&(found - expected)?)? / square(expected)?).sqrt())
}

#[cfg(test)]
mod tests {
    use test_support::{Random, TestResult};

    use super::*;

    /// Rows of 64 channels, one of which is `large` times as large as the others, and counts as much less.
    fn layer(large: f32) -> TestResult<(Tensor, Vec<f32>, Tensor)> {
        let mut random = Random::new(1);
        let (rows, weight) = (random.uniform(&[128, 64]), random.uniform(&[48, 64]));
        let scaled = |tensor: &Tensor, by: f32| -> candle_core::Result<Tensor> {
            let mut factors = [1f32; 64];
            factors[7] = by;
            tensor.broadcast_mul(&Tensor::new(&factors, &Device::Cpu)?)
        };
        let (rows, weight) = (scaled(&rows, large)?, scaled(&weight, 1. / large)?);
        let largest = rows.abs()?.max(0)?.to_vec1()?;
        Ok((weight, largest, rows))
    }

    #[test]
    fn a_channel_that_is_larger_than_others_gets_a_factor() -> TestResult {
        let (weight, largest, rows) = layer(100.)?;
        let found = best(&weight, &largest, &rows)?.ok_or("no factors")?;
        // Without factors, the other channels have one or two steps.
        assert!(found.error < 0.02 && found.error_without > 10. * found.error, "{}", found.error_without);
        let others = found.factors.iter().enumerate().filter(|(channel, _)| *channel != 7);
        let least = others.map(|(_, factor)| *factor).fold(f32::INFINITY, f32::min);
        assert!(found.factors[7] < 0.1 * least, "{} beside {least}", found.factors[7]);
        Ok(())
    }

    #[test]
    fn channels_of_one_size_get_none() -> TestResult {
        let (weight, largest, rows) = layer(1.)?;
        assert!(best(&weight, &largest, &rows)?.is_none());
        assert!(best(&weight, &[0.; 64], &rows.zeros_like()?)?.is_none());
        Ok(())
    }
}
