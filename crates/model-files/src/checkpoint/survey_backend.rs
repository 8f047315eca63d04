//! Returns placeholders for weights, and records requests in a survey.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Shape, Tensor, Var};
use candle_nn::Init;
use candle_nn::var_builder::SimpleBackend;

use super::contents::Contents;
use super::element::element_count;
use crate::error::Error;
use crate::survey::{Availability, PartReport, Question, Survey, Watched};

/// The most missing tensors to record: enough for a model whose weights have other names, and an end to a
/// configuration with countless layers.
const MOST_MISSING: usize = 10_000;
/// More elements than any tensor has, so that products with element sizes cannot overflow.
const MOST_ELEMENTS: u64 = 1 << 48;

/// Starts recording what is asked of the checkpoint in the folder `folder` of its model.
pub(super) fn watch(survey: &Survey, folder: &str, contents: &Contents) -> Watched {
    survey.watch(folder, &contents.name, || {
        let mut report =
            PartReport { folder: folder.to_owned(), file: contents.name.clone(), ..PartReport::default() };
        // As they are in the file, whatever they were split into.
        let mut names = BTreeSet::new();
        for (stored, located) in &contents.tables.tensors {
            let tensor = &located.tensor;
            let elements = element_count(&tensor.shape).unwrap_or_default();
            report.parameters = report.parameters.saturating_add(elements as u64);
            report.bytes += tensor.bytes.len() as u64;
            if names.insert(contents.origin(stored).to_owned()) {
                *report.dtypes.entry(tensor.dtype.to_string()).or_insert(0) += 1;
            }
        }
        report.tensors = names.len();
        report.unexpected = names.into_iter().collect();
        Watched::new(report)
    })
}

/// A checkpoint that records requests without reading tensors.
pub(super) struct SurveyBackend {
    pub contents: Arc<Contents>,
    pub watched: Watched,
}

impl SurveyBackend {
    /// Records that a tensor was asked for.
    fn note(&self, name: &str, shape: &[usize]) -> crate::Result<()> {
        if element_count(shape).is_none_or(|elements| elements as u64 > MOST_ELEMENTS) {
            let problem =
                format!("tensor {name}: the configuration asks for shape {shape:?}, which no file holds");
            return Err(Error::format(&self.contents.name, problem));
        }
        let question = Question { expected: shape.to_vec(), answer: self.answer(name) };
        // Parts of a checkpoint may ask for different tensors by the same name.
        let in_file = self.contents.name_in_file(name).unwrap_or(Cow::Borrowed(name));
        if !self.watched.note(&in_file, question, self.contents.tables.tensors.len() + MOST_MISSING) {
            let problem =
                format!("the configuration asks for more than {MOST_MISSING} tensors that are not there");
            return Err(Error::format(&self.contents.name, problem));
        }
        Ok(())
    }

    /// What the checkpoint has for the tensor `name`.
    fn answer(&self, name: &str) -> Availability {
        let entry = self.contents.find_entry(name);
        let entry = entry.map(|(stored, located)| (self.contents.origin(stored).to_owned(), located));
        match (self.contents.problem(name), entry) {
            (Some(problem), entry) => {
                Availability::Unreadable { stored: entry.map(|(stored, _)| stored), problem }
            }
            (None, None) => Availability::Missing,
            (None, Some((stored, located))) => {
                Availability::Found { stored, shape: located.tensor.shape.clone() }
            }
        }
    }
}

impl SimpleBackend for SurveyBackend {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        // Where a matrix is requested and a 1 × 1 convolution is stored, some layers accept that and ask again.
        let stored = self.contents.find(name).map(|located| located.tensor.shape.as_slice());
        if let Some([matrix @ .., 1, 1]) = stored
            && matrix == shape.dims()
        {
            self.contents.get_shaped(name, shape.dims())?;
        }
        self.note(name, shape.dims())?;
        // One value, broadcast, which suits also what must be positive. A variable, because layers pack anything else.
        let value = Var::ones(vec![1; shape.rank()], dtype, device)?;
        value.as_tensor().broadcast_as(shape)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let shape = self.contents.get(name)?.tensor.shape.clone();
        self.get(Shape::from(shape), name, Init::Const(0.), dtype, device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.contents.contains(name)
    }
}
