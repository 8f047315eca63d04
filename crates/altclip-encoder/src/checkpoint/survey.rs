//! What a model asks its checkpoints for, found out by loading it without reading any weights.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Result, Shape, Tensor, Var};
use candle_nn::Init;
use candle_nn::var_builder::SimpleBackend;
use serde::Serialize;

use super::Contents;

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
        let tensors = &self.contents.tensors;
        let (mut parameters, mut bytes, mut dtypes) = (0, 0, BTreeMap::new());
        for located in tensors.values() {
            let tensor = &located.tensor;
            parameters += tensor.shape.iter().map(|&n| n as u64).product::<u64>();
            bytes += tensor.bytes.len() as u64;
            *dtypes.entry(tensor.dtype.to_string()).or_insert(0) += 1;
        }
        let (mut missing, mut misshapen, mut used) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (name, expected) in lock(&self.asked).iter() {
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
            unexpected,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives placeholders for the weights, and notes what was asked for.
pub(super) struct SurveyBackend {
    pub contents: Arc<Contents>,
    pub asked: Asked,
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
        lock(&self.asked).insert(name.to_owned(), shape.dims().to_vec());
        // One value, seen as many. Layers leave a variable as it is, where they would lay out a weight anew.
        let value = Var::zeros(vec![1; shape.rank()], dtype, device)?;
        value.as_tensor().broadcast_as(shape)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let shape = self.contents.get(name)?.tensor.shape.clone();
        self.get(Shape::from(shape), name, Init::Const(0.), dtype, device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.contents.find(name).is_some()
    }
}
