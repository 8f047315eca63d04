//! Loads a model that draws, and what is added to it.

use std::sync::Arc;

use altclip_encoder::PromptEncoder;
use altdiffusion_pipeline::{AltDiffusion, LoadOptions, Lora, TextualInversion};
use candle_core::DType;
use pyo3::prelude::*;

use crate::controlnet::ControlNet;
use crate::errors::Failure;
use crate::generate::{Drawn, Inputs, generate};
use crate::model::ModelOptions;
use crate::text_encoder::TextEncoder;
use crate::work::interruptible;

/// The folders of a pipeline; "" is the model's root.
const FOLDERS: [&str; 8] = [
    "tokenizer",
    "text_encoder",
    "unet",
    "vae",
    "upscaler",
    "scheduler",
    "safety_checker",
    "feature_extractor",
];

/// A model that draws.
#[pyclass(frozen)]
pub(crate) struct Pipeline {
    model: Arc<AltDiffusion>,
    dtype: DType,
}

/// LoRAs, learned words and another autoencoder, and how the model is kept.
#[derive(Debug, FromPyObject)]
#[pyo3(from_item_all)]
struct Additions {
    /// Files, directories or repositories, with strengths.
    loras: Vec<(String, f64)>,
    /// Files, directories or repositories, with words, unless those in the file.
    words: Vec<(String, Option<String>)>,
    /// A file, a directory or a repository.
    vae: Option<String>,
    low_memory: bool,
    safety_checker: bool,
}

#[pymethods]
impl Pipeline {
    #[new]
    fn new(py: Python<'_>, model: ModelOptions, additions: Additions) -> PyResult<Self> {
        interruptible(py, move |_| {
            let arithmetic = model.arithmetic()?;
            let mut options = LoadOptions::computing_in(arithmetic, &model.device()?)
                .low_memory(additions.low_memory)
                .safety_checker(additions.safety_checker);
            for (name, strength) in &additions.loras {
                options = options.lora(Lora::open(name)?, *strength);
            }
            for (name, word) in &additions.words {
                let words = match word {
                    Some(word) => vec![TextualInversion::open(name)?.called(word)?],
                    None => TextualInversion::open_all(name)?,
                };
                options = words.into_iter().fold(options, LoadOptions::word);
            }
            let parts = model.parts(&FOLDERS)?;
            let parts = match &additions.vae {
                Some(name) => parts.with_vae(name)?,
                None => parts,
            };
            let dtype = arithmetic.dtype();
            Ok(Self { model: Arc::new(AltDiffusion::load(parts, options)?), dtype })
        })
    }

    /// Loads a ControlNet for this model.
    fn load_controlnet(&self, py: Python<'_>, name: String) -> PyResult<ControlNet> {
        let (model, dtype) = (Arc::clone(&self.model), self.dtype);
        interruptible(py, move |_| Ok(ControlNet(Arc::new(model.load_controlnet(&name, dtype)?))))
    }

    /// Width and height of the images that the model was trained on, in pixels.
    #[getter]
    fn default_size(&self, py: Python<'_>) -> PyResult<(usize, usize)> {
        self.model.default_size().map_err(|error| Failure::from(error).exception(py))
    }

    /// The text encoder, which shares its weights.
    fn text_encoder(&self, py: Python<'_>) -> PyResult<TextEncoder> {
        let model = Arc::clone(&self.model);
        interruptible(py, move |_| {
            Ok(TextEncoder(PromptEncoder::new(model.tokenizer()?.clone(), model.text_encoder()?)))
        })
    }

    /// Draws what `options`, as JSON, and `inputs` say.
    fn generate<'py>(&self, py: Python<'py>, options: &str, inputs: Inputs<'py>) -> PyResult<Drawn<'py>> {
        generate(py, Arc::clone(&self.model), options, inputs)
    }
}
