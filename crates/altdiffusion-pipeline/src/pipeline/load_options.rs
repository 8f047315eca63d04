//! Defines the options for loading a model.

use candle_core::{DType, Device};
use model_files::Arithmetic;

use crate::adapters::{Lora, TextualInversion};
use crate::{Error, Result};

/// How to load a model, and what to add to it.
///
/// ```no_run
/// use altdiffusion_pipeline::{AltDiffusion, LoadOptions, Lora, ModelParts, TextualInversion};
/// use model_files::source::ModelSource;
/// use candle_core::{DType, Device};
///
/// # fn main() -> altdiffusion_pipeline::Result<()> {
/// let parts = ModelParts::in_folders(&ModelSource::open("BAAI/AltDiffusion-m9")?)?;
/// let options = LoadOptions::new(DType::F32, &Device::Cpu)
///     .lora(Lora::open("watercolour.safetensors")?, 0.8)
///     .word(TextualInversion::open("my-cat.safetensors")?);
/// let pipeline = AltDiffusion::load(parts, options)?;
/// # Ok(())
/// # }
/// ```
///
/// Every field can be read, and has a setter of the same name.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct LoadOptions {
    /// The dtype of the weights: f32, f16 or bf16.
    pub dtype: DType,
    /// The device to compute on.
    pub device: Device,
    /// Whether linear layers of the text encoder and the UNet compute in int8.
    pub int8: bool,
    /// LoRAs with their strengths.
    pub loras: Vec<(Lora, f64)>,
    /// Whether LoRAs are computed beside the weights instead of merged.
    pub loras_beside_weights: bool,
    /// Textual inversions.
    pub words: Vec<TextualInversion>,
    /// Whether components are in memory only while they run.
    pub low_memory: bool,
    /// Whether the safety checker runs.
    pub safety_checker: bool,
}

/// The unchanged model, in f32 on the CPU.
impl Default for LoadOptions {
    fn default() -> Self {
        Self::new(DType::F32, &Device::Cpu)
    }
}

impl LoadOptions {
    /// The unchanged model, in `dtype` (f32, f16 or bf16) on `device`.
    pub fn new(dtype: DType, device: &Device) -> Self {
        Self {
            dtype,
            device: device.clone(),
            int8: false,
            loras: Vec::new(),
            loras_beside_weights: false,
            words: Vec::new(),
            low_memory: false,
            safety_checker: true,
        }
    }

    /// The unchanged model, computing in `arithmetic` on `device`.
    pub fn computing_in(arithmetic: Arithmetic, device: &Device) -> Self {
        Self::new(arithmetic.dtype(), device).int8(arithmetic == Arithmetic::Int8)
    }

    /// Adds a LoRA at a strength: 1 as trained, 0 not at all. Several add up. Words in its file are added too.
    pub fn lora(mut self, lora: Lora, strength: f64) -> Self {
        self.words.extend_from_slice(lora.words());
        self.loras.push((lora, strength));
        self
    }

    /// Computes LoRAs beside the weights, as `up(down(x))`, instead of merging them: exact where weights are stored
    /// in half precision, but slower. Quantized weights, to which nothing can be added, stay quantized wherever LoRAs
    /// can be computed like this. Other kinds, such as DoRA, are always merged, into unpacked weights if they were
    /// quantized.
    pub fn loras_beside_weights(mut self, beside: bool) -> Self {
        self.loras_beside_weights = beside;
        self
    }

    /// Sets the dtype of the weights.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// Sets the device to compute on.
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Rounds the weights of linear layers in the text encoder and the UNet to int8, in which they then compute, except
    /// for the most [sensitive](model_files::checkpoint::is_sensitive_to_int8). Only the CPU can. Quantized weights stay
    /// as they are.
    pub fn int8(mut self, int8: bool) -> Self {
        self.int8 = int8;
        self
    }

    /// Adds a textual inversion.
    pub fn word(mut self, word: TextualInversion) -> Self {
        self.words.push(word);
        self
    }

    /// Keeps the text encoder, the UNet and the autoencoder in memory only while each of them runs. Reloading them
    /// takes seconds per call.
    pub fn low_memory(mut self, low_memory: bool) -> Self {
        self.low_memory = low_memory;
        self
    }

    /// Sets whether images are checked, if the model has a safety checker. On by default.
    pub fn safety_checker(mut self, safety_checker: bool) -> Self {
        self.safety_checker = safety_checker;
        self
    }

    /// What most of the model computes in, by its name.
    pub fn arithmetic_name(&self) -> &'static str {
        match self.int8 {
            true => Arithmetic::Int8.name(),
            false => self.dtype.as_str(),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.int8 {
            Arithmetic::Int8.check(&self.device)?;
        }
        match self.loras.iter().find(|(_, strength)| !strength.is_finite()) {
            Some((lora, strength)) => {
                let problem = format!("{}: {strength}, expected a number", lora.name());
                Err(Error::option("strength of a LoRA", problem))
            }
            None => Ok(()),
        }
    }
}
