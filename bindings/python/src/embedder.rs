//! Turns texts and images into vectors.

use altclip_encoder as encoder;
use altclip_encoder::images::{Background, DecodeOptions};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;

use crate::arrays::Numbers;
use crate::errors::{Failure, Result};
use crate::model::ModelOptions;
use crate::streams::{ImageStream, TextStream};
use crate::work::interruptible;

/// The folders of a dual encoder; "" is the model's root.
const FOLDERS: [&str; 5] = ["", "tokenizer", "text_encoder", "image_encoder", "feature_extractor"];

/// A model with its tokenizer and its image processor.
#[pyclass(frozen)]
pub(crate) struct Embedder(pub(crate) encoder::Embedder);

#[pymethods]
impl Embedder {
    #[new]
    fn new(
        py: Python<'_>,
        model: ModelOptions,
        background: Option<String>,
        max_pixels: Option<u64>,
    ) -> PyResult<Self> {
        interruptible(py, move |_| {
            let source = model.source()?;
            source.prefetch(&FOLDERS)?;
            let dtype = model.arithmetic()?.dtype();
            let embedder = encoder::Embedder::from_source(&source, dtype, &model.device()?)?;
            let default = DecodeOptions::default();
            let max_pixels = max_pixels.unwrap_or(default.max_pixels);
            let embedder = embedder.with_decode_options(DecodeOptions { max_pixels, ..default });
            Ok(Self(match background {
                Some(background) => embedder.with_background(colour(&background)?),
                None => embedder,
            }))
        })
    }

    /// Width of the vectors.
    #[getter]
    fn dim(&self) -> usize {
        self.0.projection_dim()
    }

    /// The number of tokens that texts are cut to.
    #[getter]
    fn max_tokens(&self) -> usize {
        self.0.max_tokens()
    }

    /// The family of the model.
    #[getter]
    fn family(&self) -> String {
        self.0.family().to_string()
    }

    /// A stream of texts, which [`TextStream`] explains.
    fn text_stream(&self) -> TextStream {
        TextStream::new(&self.0)
    }

    /// A stream of images.
    fn image_stream(&self) -> ImageStream {
        ImageStream::new(&self.0)
    }

    /// A unit vector per label, (labels, dim).
    fn embed_labels<'py>(
        &self,
        py: Python<'py>,
        labels: Vec<PyBackedStr>,
        templates: Vec<PyBackedStr>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let embedder = self.0.clone();
        let vectors = interruptible(py, move |_| Numbers::of(&embedder.embed_labels(&labels, &templates)?));
        vectors?.array(py)
    }

    /// Logits per image and text, or the probabilities that the model's family makes of them, (images, texts).
    fn similarity<'py>(
        &self,
        py: Python<'py>,
        images: Numbers,
        texts: Numbers,
        probabilities: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let embedder = self.0.clone();
        let scores = interruptible(py, move |_| {
            let logits = embedder.similarity(&images.tensor()?, &texts.tensor()?)?;
            match probabilities && !logits.dims().contains(&0) {
                true => Numbers::of(&embedder.probabilities(&logits)?),
                false => Numbers::of(&logits),
            }
        });
        scores?.array(py)
    }
}

fn colour(background: &str) -> Result<Background> {
    background.parse().map_err(|problem| Failure::input(format!("background {background}: {problem}")))
}
