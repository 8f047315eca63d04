//! Says how to load a model, and what to change in it.

use candle_core::{DType, Device};

use crate::adapters::{Lora, TextualInversion};
use crate::{Error, Result};

/// How to load a model, and what to change in it.
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
/// Each field can be read, and is set by the method of its name.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct LoadOptions {
    /// The type of the weights: f32, f16 or bf16.
    pub dtype: DType,
    /// Where the model computes.
    pub device: Device,
    /// The LoRAs, and how strong each is.
    pub loras: Vec<(Lora, f64)>,
    /// Whether LoRAs are computed beside the weights.
    pub loras_beside_weights: bool,
    /// The learned words.
    pub words: Vec<TextualInversion>,
    /// Whether the models are in memory only while they work.
    pub low_memory: bool,
    /// Whether images are checked.
    pub safety_checker: bool,
}

/// All of the model as it is, in f32 on the CPU.
impl Default for LoadOptions {
    fn default() -> Self {
        Self::new(DType::F32, &Device::Cpu)
    }
}

impl LoadOptions {
    /// All of the model as it is, in `dtype` (f32, f16 or bf16) on `device`.
    pub fn new(dtype: DType, device: &Device) -> Self {
        Self {
            dtype,
            device: device.clone(),
            loras: Vec::new(),
            loras_beside_weights: false,
            words: Vec::new(),
            low_memory: false,
            safety_checker: true,
        }
    }

    /// Adds a LoRA to the weights, `strength` times: 1 as it was trained, 0 not at all. Several add up. The words in its file
    /// are added as well.
    pub fn lora(mut self, lora: Lora, strength: f64) -> Self {
        self.words.extend_from_slice(lora.words());
        self.loras.push((lora, strength));
        self
    }

    /// Computes LoRAs beside the weights, as `up(down(x))`, in place of merging them: exact where weights are stored in half
    /// precision, and slower. Quantized weights, to which nothing can be added, are left as they are by LoRAs that can be
    /// computed so. Other kinds, such as DoRA, are always merged, and what is quantized becomes numbers there.
    pub fn loras_beside_weights(mut self, beside: bool) -> Self {
        self.loras_beside_weights = beside;
        self
    }

    /// The type of the weights.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// Where the model computes.
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Adds a word that was learned by textual inversion.
    pub fn word(mut self, word: TextualInversion) -> Self {
        self.words.push(word);
        self
    }

    /// Holds the text encoder, the UNet and the autoencoder in memory only while each of them works. They are read anew
    /// for every call, which takes seconds.
    pub fn low_memory(mut self, low_memory: bool) -> Self {
        self.low_memory = low_memory;
        self
    }

    /// Whether images are checked, if the model brings a safety checker: they are unless said otherwise.
    pub fn safety_checker(mut self, safety_checker: bool) -> Self {
        self.safety_checker = safety_checker;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        match self.loras.iter().find(|(_, strength)| !strength.is_finite()) {
            Some((lora, strength)) => {
                let problem = format!("{}: {strength}, expected a number", lora.name());
                Err(Error::option("strength of a LoRA", problem))
            }
            None => Ok(()),
        }
    }
}
