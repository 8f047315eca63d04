//! Measures what a conversion loses, and prints it.

use altdiffusion_pipeline::{
    Cosines, ModelParts, OutputError, QuantizationProbe, Smoothing, TextStatesLoss, UNet2DConditionModel,
};
use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use serde::Serialize;

use crate::progress::ProgressLine;
use crate::standard_streams::print_line;

/// What a conversion loses.
#[derive(Default)]
pub(super) struct Losses {
    smoothing: Option<Smoothing>,
    texts: Option<TextStatesLoss>,
    unet: Vec<OutputError>,
    /// In int8 without factors for the layers' inputs, if some have factors.
    unet_without_smoothing: Vec<OutputError>,
}

/// What quantization costs the UNet at one timestep.
#[derive(Serialize)]
pub(super) struct Loss {
    timestep: usize,
    cosine: f64,
    relative_distance: f64,
    /// In int8 without SmoothQuant's factors, where some layers have them.
    #[serde(skip_serializing_if = "Option::is_none")]
    without_smoothing: Option<Plain>,
}

#[derive(Serialize)]
struct Plain {
    cosine: f64,
    relative_distance: f64,
}

impl Losses {
    /// Measures the layers of a model that is about to be written in int8, and chooses how each is written.
    pub(super) fn of_layers(
        parts: &mut ModelParts,
        texts: &[String],
        progress: &ProgressLine,
    ) -> Result<Self> {
        let smoothing =
            parts.smooth_int8(texts, |done, total| progress.steps("Measuring inputs", done, total))?;
        let texts = parts.measure_int8(|done, total| progress.steps("Measuring layers", done, total))?;
        Ok(Self { smoothing, texts, ..Self::default() })
    }

    /// Whether layers were measured, which needs a tokenizer.
    pub(super) fn is_measured(&self) -> bool {
        self.smoothing.is_some()
    }

    /// Measures the UNet that was written beside the original.
    pub(super) fn measure_unet(
        &mut self,
        original: &ModelParts,
        written: impl FnOnce() -> Result<ModelParts>,
    ) -> Result<()> {
        // Before a UNet is there beside the text encoder.
        let probe = match self.is_measured() {
            true => Some(original.probe_with_prompt()?),
            false => None,
        };
        let outputs = |unet: UNet2DConditionModel| -> Result<Vec<Tensor>> {
            let probe = match &probe {
                Some(probe) => probe.clone(),
                None => QuantizationProbe::new(unet.config())?,
            };
            Ok(probe.outputs(&unet, &Device::Cpu)?)
        };
        // One UNet at a time: each is dropped before the next is loaded.
        let expected = outputs(original.load_unet(DType::F32, &Device::Cpu)?)?;
        if self.smoothing.as_ref().is_some_and(|smoothing| !smoothing.unet.is_empty()) {
            let found = outputs(original.load_unet_without_smoothing()?)?;
            self.unet_without_smoothing = QuantizationProbe::errors(&expected, &found)?;
        }
        let found = outputs(written()?.load_unet(DType::F32, &Device::Cpu)?)?;
        self.unet = QuantizationProbe::errors(&expected, &found)?;
        Ok(())
    }

    /// The UNet's losses with, where they were measured, those without factors.
    fn pairs(&self) -> impl Iterator<Item = (&OutputError, Option<&OutputError>)> {
        self.unet.iter().enumerate().map(|(index, loss)| (loss, self.unet_without_smoothing.get(index)))
    }

    /// The UNet's losses for programs.
    pub(super) fn of_unet(&self) -> Vec<Loss> {
        let loss = |(loss, without): (&OutputError, Option<&OutputError>)| Loss {
            timestep: loss.timestep,
            cosine: loss.cosine,
            relative_distance: loss.relative_distance,
            without_smoothing: without
                .map(|plain| Plain { cosine: plain.cosine, relative_distance: plain.relative_distance }),
        };
        self.pairs().map(loss).collect()
    }

    /// Prints what was measured of a conversion of `source`.
    pub(super) fn print(&self, source: &str) -> Result<()> {
        if let Some(Smoothing { measured, text_encoder, unet }) = &self.smoothing {
            let smoothed = text_encoder.len() + unet.len();
            print_line(format!("layers with factors by SmoothQuant: {smoothed} of {measured}"))?;
        }
        if let Some(TextStatesLoss { cosines, without_smoothing, left_out }) = &self.texts {
            let Cosines { worst, mean } = cosines;
            let line = format!("hidden states of texts: cosines from {worst:.6}, on average {mean:.6}");
            print_line(match without_smoothing {
                Some(Cosines { worst, mean }) => {
                    format!("{line}; without factors from {worst:.6}, on average {mean:.6}")
                }
                None => line,
            })?;
            if !left_out.is_empty() {
                print_line(format!("layers of the text encoder in bf16: {}", left_out.join(", ")))?;
            }
        }
        if !self.unet.is_empty() {
            let side = QuantizationProbe::SIDE;
            print_line(format!("the UNet's output beside that of {source}, at {side}×{side} pixels:"))?;
        }
        for (OutputError { timestep, cosine, relative_distance }, without) in self.pairs() {
            let distance = 100. * relative_distance;
            let line = format!("  timestep {timestep:>3}: cosine {cosine:.6}, distance {distance:.2} %");
            print_line(match without {
                Some(OutputError { cosine, relative_distance, .. }) => {
                    let distance = 100. * relative_distance;
                    format!("{line}; without factors cosine {cosine:.6}, distance {distance:.2} %")
                }
                None => line,
            })?;
        }
        Ok(())
    }
}
