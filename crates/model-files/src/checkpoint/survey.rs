//! What a model asks its checkpoints for, found out by loading it without reading any weights.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Result, Shape, Tensor, Var};
use candle_nn::Init;
use candle_nn::var_builder::SimpleBackend;
use serde::Serialize;

use super::contents::Contents;
use super::element::element_count;
use crate::error::Error;

/// Notes which tensors the loading of a model asks for, and with which shapes.
///
/// A model that is loaded from [`ModelSource::surveyed`](crate::source::ModelSource::surveyed) gets placeholders that
/// take no memory in place of its weights, so that this is quick however large it is. Such a model computes nothing.
#[derive(Clone, Default)]
pub struct Survey(Arc<Mutex<BTreeMap<(Folder, FileName), Watched>>>);

type Folder = String;
/// Several parts can be in one file.
type FileName = String;

/// Names and shapes that were asked for.
pub(super) type Asked = Arc<Mutex<BTreeMap<String, Vec<usize>>>>;

/// One checkpoint that was opened.
struct Watched {
    folder: String,
    contents: Arc<Contents>,
    asked: Asked,
}

/// What one checkpoint holds, beside what the loading asked of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartReport {
    /// The folder in the model, "" for its top.
    pub folder: String,
    /// The file, or the index of the shards.
    pub file: String,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of values of all tensors together.
    pub parameters: u64,
    /// Bytes of all tensors together in the files.
    pub bytes: u64,
    /// Number of tensors of each type, by the name that safetensors has for it.
    pub dtypes: BTreeMap<String, usize>,
    /// Tensors that were asked for and are not there.
    pub missing: Vec<Missing>,
    /// Tensors that are there with another shape.
    pub misshapen: Vec<Misshapen>,
    /// Tensors that were asked for and are there, but cannot be read.
    pub unreadable: Vec<Unreadable>,
    /// Names of tensors that nothing asked for.
    pub unexpected: Vec<String>,
}

/// A tensor that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    pub name: String,
    pub expected: Vec<usize>,
}

/// A tensor of another shape than the configuration says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Misshapen {
    pub name: String,
    pub expected: Vec<usize>,
    pub found: Vec<usize>,
}

/// A tensor that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    pub name: String,
    /// Why, such as a type of elements that has no conversion.
    pub problem: String,
}

impl Survey {
    /// Begins to watch a checkpoint; one that is opened again is watched on.
    pub(super) fn watch(&self, folder: &str, contents: &Arc<Contents>) -> Asked {
        let watched =
            || Watched { folder: folder.to_owned(), contents: contents.clone(), asked: Asked::default() };
        lock(&self.0).entry((folder.to_owned(), contents.name.clone())).or_insert_with(watched).asked.clone()
    }

    /// What was found out so far, a report for each checkpoint.
    pub fn reports(&self) -> Vec<PartReport> {
        lock(&self.0).values().map(Watched::report).collect()
    }
}

impl fmt::Debug for Survey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(lock(&self.0).keys()).finish()
    }
}

impl Watched {
    fn report(&self) -> PartReport {
        let tensors = &self.contents.tables.tensors;
        let (mut parameters, mut bytes, mut dtypes) = (0u64, 0, BTreeMap::new());
        for located in tensors.values() {
            let tensor = &located.tensor;
            let elements = element_count(&tensor.shape).unwrap_or_default();
            parameters = parameters.saturating_add(elements as u64);
            bytes += tensor.bytes.len() as u64;
            *dtypes.entry(tensor.dtype.to_string()).or_insert(0) += 1;
        }
        let (mut missing, mut misshapen, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
        let mut used = BTreeSet::new();
        for (name, expected) in lock(&self.asked).iter() {
            if let Some(problem) = self.contents.problem(name) {
                unreadable.push(Unreadable { name: name.clone(), problem });
                used.extend(self.contents.find_entry(name).map(|(stored, _)| stored));
                continue;
            }
            match self.contents.find_entry(name) {
                None => missing.push(Missing { name: name.clone(), expected: expected.clone() }),
                Some((stored, located)) => {
                    used.insert(stored);
                    let found = &located.tensor.shape;
                    if found != expected {
                        misshapen.push(Misshapen {
                            name: name.clone(),
                            expected: expected.clone(),
                            found: found.clone(),
                        });
                    }
                }
            }
        }
        let unexpected = tensors.keys().filter(|name| !used.contains(name)).cloned().collect();
        PartReport {
            folder: self.folder.clone(),
            file: self.contents.name.clone(),
            tensors: tensors.len(),
            parameters,
            bytes,
            dtypes,
            missing,
            misshapen,
            unreadable,
            unexpected,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many tensors may be asked for beyond those that are there: enough for the list of what a model lacks whose weights
/// have other names, and an end to a configuration of layers without number.
const MOST_MISSING: usize = 10_000;
/// More elements than any tensor has. Products of such counts with the size of an element cannot overflow.
const MOST_ELEMENTS: usize = 1 << 48;

/// Gives placeholders for the weights, and notes what was asked for.
pub(super) struct SurveyBackend {
    pub contents: Arc<Contents>,
    pub asked: Asked,
}

impl SurveyBackend {
    /// Notes that a tensor was asked for.
    fn note(&self, name: &str, shape: &[usize]) -> crate::Result<()> {
        if element_count(shape).is_none_or(|elements| elements > MOST_ELEMENTS) {
            let problem =
                format!("tensor {name}: the configuration asks for shape {shape:?}, which no file holds");
            return Err(Error::format(&self.contents.name, problem));
        }
        let mut asked = lock(&self.asked);
        if asked.len() > self.contents.tables.tensors.len() + MOST_MISSING {
            let problem =
                format!("the configuration asks for more than {MOST_MISSING} tensors that are not there");
            return Err(Error::format(&self.contents.name, problem));
        }
        asked.insert(name.to_owned(), shape.to_vec());
        Ok(())
    }
}

impl SimpleBackend for SurveyBackend {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        // Where a matrix is asked for and a 1×1 convolution is there, some layers take that and ask again.
        let stored = self.contents.find(name).map(|located| located.tensor.shape.as_slice());
        if let Some([matrix @ .., 1, 1]) = stored
            && matrix == shape.dims()
        {
            self.contents.get_shaped(name, shape.dims())?;
        }
        self.note(name, shape.dims())?;
        // One value, seen as many. Layers leave a variable as it is, where they would lay out a weight anew.
        let value = Var::zeros(vec![1; shape.rank()], dtype, device)?;
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
