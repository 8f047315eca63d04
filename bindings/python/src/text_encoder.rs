//! Turns prompts into hidden states.

use altclip_encoder::PromptEncoder;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;

use crate::arrays::Numbers;
use crate::model::ModelOptions;
use crate::work::interruptible;

/// The text encoder of a diffusion model, with its tokenizer.
#[pyclass(frozen)]
pub(crate) struct TextEncoder(pub(crate) PromptEncoder);

#[pymethods]
impl TextEncoder {
    #[new]
    fn new(py: Python<'_>, model: ModelOptions) -> PyResult<Self> {
        interruptible(py, move |_| {
            let source = model.source()?;
            source.prefetch(&["tokenizer", "text_encoder"])?;
            let dtype = model.arithmetic()?.dtype();
            Ok(Self(PromptEncoder::from_source(&source, dtype, &model.device()?)?))
        })
    }

    /// The number of tokens that prompts are padded and cut to.
    #[getter]
    fn length(&self) -> usize {
        self.0.length()
    }

    /// Width of the hidden states.
    #[getter]
    fn width(&self) -> usize {
        self.0.width()
    }

    /// Hidden states, (prompts, length, width), and the number of tokens cut off from each prompt.
    fn encode<'py>(
        &self,
        py: Python<'py>,
        prompts: Vec<PyBackedStr>,
        clip_skip: usize,
    ) -> PyResult<(Bound<'py, PyAny>, Vec<usize>)> {
        let encoder = self.0.clone();
        let (states, truncated) = interruptible(py, move |_| {
            let encoded = encoder.skipping_layers(clip_skip)?.encode(&prompts)?;
            Ok((Numbers::of(&encoded.hidden_states)?, encoded.truncated))
        })?;
        Ok((states.array(py)?, truncated))
    }
}
