//! Finds and reads the tensors of a checkpoint, of one file or of several.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use fused_ops::{BlockType, INT8, INT8_SCALE, INT8_SMOOTHING, Int8Rows};

use super::element::{ElementType, element_count};
use super::scales::{self, Scales};
use super::tables::{Located, Tables};
use super::{convert, legacy_names};
use crate::error::{Error, Result};
use crate::file_data::FileData;

pub(super) struct Contents {
    /// The checkpoint's name in errors: the one file, or the index of the shards.
    pub name: String,
    pub files: Arc<[FileData]>,
    pub tables: Tables,
    /// Maps the names that a model asks for to those in the file, if they differ.
    name_in_file: Option<NameInFile>,
    /// The weights to give in int8 too, by the names that a model asks for.
    pub int8: Option<ChosenNames>,
    /// Whether weights are never given as blocks.
    is_unpacked: bool,
    /// What the channels of these weights' inputs are multiplied by where they are rounded to int8, by the names that a
    /// model asks for.
    smoothing: Smoothing,
    /// The name in the file of what was split or renamed, by its new name.
    origins: BTreeMap<String, String>,
}

pub(super) type ChosenNames = Arc<dyn Fn(&str) -> bool + Send + Sync>;

pub(super) type Smoothing = Arc<BTreeMap<String, Vec<f32>>>;

/// A tensor of a weight in int8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Int8Tensor {
    Integers,
    Scales,
    Smoothing,
}

pub(super) type NameInFile = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

impl Contents {
    pub(super) fn new(name: String, files: Vec<FileData>, mut tables: Tables) -> Self {
        scales::attach(&mut tables);
        Self {
            name,
            files: files.into(),
            tables,
            name_in_file: None,
            int8: None,
            is_unpacked: false,
            smoothing: Arc::default(),
            origins: BTreeMap::new(),
        }
    }

    /// The tensors whose names start with `prefix`, for a model that uses other names.
    pub(super) fn part(&self, prefix: &str, name_in_file: NameInFile) -> Self {
        fn those<T: Clone>(all: &BTreeMap<String, T>, prefix: &str) -> BTreeMap<String, T> {
            let of_part = all.iter().filter(|(name, _)| name.starts_with(prefix));
            of_part.map(|(name, value)| (name.clone(), value.clone())).collect()
        }
        let tensors = those(&self.tables.tensors, prefix);
        let tables = Tables { tensors, unreadable: those(&self.tables.unreadable, prefix) };
        Self { name_in_file: Some(name_in_file), ..self.with_tables(tables) }
    }

    /// The same tensors, of which those that `chosen` accepts are also given in int8.
    pub(super) fn in_int8(&self, chosen: ChosenNames) -> Self {
        Self { int8: Some(chosen), ..self.same() }
    }

    /// The same tensors, but never as blocks.
    pub(super) fn unpacked(&self) -> Self {
        Self { is_unpacked: true, ..self.same() }
    }

    /// The same tensors, with these factors for the inputs of those that are rounded to int8.
    pub(super) fn smoothed(&self, smoothing: Smoothing) -> Self {
        Self { smoothing, ..self.same() }
    }

    pub(super) fn has_factors(&self) -> bool {
        !self.smoothing.is_empty()
    }

    fn same(&self) -> Self {
        let tables =
            Tables { tensors: self.tables.tensors.clone(), unreadable: self.tables.unreadable.clone() };
        Self { name_in_file: self.name_in_file.clone(), ..self.with_tables(tables) }
    }

    fn with_tables(&self, tables: Tables) -> Self {
        Self {
            name: self.name.clone(),
            files: self.files.clone(),
            tables,
            name_in_file: None,
            int8: self.int8.clone(),
            is_unpacked: self.is_unpacked,
            smoothing: self.smoothing.clone(),
            origins: self.origins.clone(),
        }
    }

    /// The same tensors, but with those that `parts` names in equal groups of rows, or renamed.
    pub(super) fn with_rows_split(&self, parts: impl Fn(&str) -> Vec<String>) -> Self {
        let mut tables = Tables { tensors: BTreeMap::new(), unreadable: BTreeMap::new() };
        let mut origins = self.origins.clone();
        let mut parts = |name: &str| {
            let names = parts(name);
            let origin = self.origin(name);
            origins.extend(names.iter().map(|part| (part.clone(), origin.to_owned())));
            names
        };
        for (name, problem) in &self.tables.unreadable {
            let names = Some(parts(name)).filter(|names| !names.is_empty());
            let names = names.unwrap_or_else(|| vec![name.clone()]);
            tables.unreadable.extend(names.into_iter().map(|name| (name, problem.clone())));
        }
        for (name, located) in &self.tables.tensors {
            let names = parts(name);
            if names.is_empty() {
                tables.tensors.insert(name.clone(), located.clone());
                continue;
            }
            let count = names.len();
            if let [renamed] = names.as_slice() {
                tables.tensors.insert(renamed.clone(), located.clone());
                continue;
            }
            for (group, part) in names.into_iter().enumerate() {
                match located.rows(group, count) {
                    Ok(rows) => drop(tables.tensors.insert(part, rows)),
                    Err(problem) => drop(tables.unreadable.insert(part, problem)),
                }
            }
        }
        Self { origins, ..self.with_tables(tables) }
    }

    /// The name in the file of the tensor `stored`, which may be a part of one or renamed.
    pub(super) fn origin<'n>(&'n self, stored: &'n str) -> &'n str {
        self.origins.get(stored).map_or(stored, String::as_str)
    }

    pub(super) fn find(&self, name: &str) -> Option<&Located> {
        self.find_entry(name).map(|(_, located)| located)
    }

    /// A tensor with its name in the file.
    pub(super) fn find_entry(&self, name: &str) -> Option<(&String, &Located)> {
        let name = self.name_in_file(name)?;
        let entry = self.tables.tensors.get_key_value(&*name);
        entry.or_else(|| self.tables.tensors.get_key_value(&legacy_names::legacy_name(&name)?))
    }

    pub(super) fn name_in_file<'n>(&self, name: &'n str) -> Option<Cow<'n, str>> {
        match &self.name_in_file {
            Some(name_in_file) => name_in_file(name).map(Cow::Owned),
            None => Some(Cow::Borrowed(name)),
        }
    }

    /// Whether there is a tensor of this name, readable or not.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.find(name).is_some() || self.problem(name).is_some()
    }

    /// Why an existing tensor cannot be read, if it cannot.
    pub(super) fn problem(&self, name: &str) -> Option<String> {
        if let Some(located) = self.find(name) {
            let ElementType::Plain(dtype) = located.tensor.dtype else { return None };
            return convert::problem(dtype);
        }
        let name = self.name_in_file(name)?;
        let problem = self.tables.unreadable.get(&*name);
        problem.or_else(|| self.tables.unreadable.get(&legacy_names::legacy_name(&name)?)).cloned()
    }

    pub(super) fn get(&self, name: &str) -> Result<&Located> {
        self.find(name).ok_or_else(|| {
            let problem = self.problem(name);
            let name = self.name_in_file(name).unwrap_or(Cow::Borrowed(name));
            if let Some(problem) = problem {
                return Error::format(&self.name, format!("tensor {name}: {problem}"));
            }
            let nearest = nearest(&name, self.tables.tensors.keys());
            Error::MissingTensor { name: name.into_owned(), file: self.name.clone(), nearest }
        })
    }

    /// The weight whose quantized bytes `name` asks for, with its type and name, if it exists and its rows are a
    /// multiple of the block size.
    pub(super) fn find_blocks<'n>(&self, name: &'n str) -> Option<(BlockType, &'n str, &Located)> {
        let (weight, kind) = name.rsplit_once('.')?;
        let kind = kind.parse::<BlockType>().ok()?;
        let located = self.find(weight)?;
        let [_, row @ ..] = located.tensor.shape.as_slice() else { return None };
        let is_in_rows = element_count(row).and_then(|row| kind.bytes_of(row)).is_some();
        let is_given = !self.is_unpacked && located.tensor.dtype == ElementType::Quantized(kind);
        (is_given && is_in_rows).then_some((kind, weight, located))
    }

    /// The weight of which `name` asks for a tensor in int8, with its name, if it exists and is given so: because it
    /// was chosen, or is stored in int8 with a scale for each row.
    pub(super) fn find_int8<'n>(&self, name: &'n str) -> Option<(Int8Tensor, &'n str, &Located)> {
        let which = match name {
            name if name.ends_with(INT8) => Int8Tensor::Integers,
            name if name.ends_with(INT8_SCALE) => Int8Tensor::Scales,
            name if name.ends_with(INT8_SMOOTHING) => Int8Tensor::Smoothing,
            _ => return None,
        };
        // All are the weight's own name with more behind it.
        let (weight, _) = name.rsplit_once('.')?;
        let located = self.find(weight)?;
        let is_matrix = match located.tensor.shape.as_slice() {
            [_, _, more @ ..] => more.iter().all(|side| *side == 1),
            _ => false,
        };
        let is_chosen = || {
            // 1 × 1 convolutions lose more, as shortcuts around others.
            let is_linear = located.tensor.shape.len() == 2;
            let is_plain = matches!(located.tensor.dtype, ElementType::Plain(_));
            let is_number = located.tensor.dtype.is_float() || located.scale.is_some();
            is_linear && is_plain && is_number && self.int8.as_ref().is_some_and(|chosen| chosen(weight))
        };
        let is_there = which != Int8Tensor::Smoothing || self.is_smoothed(located, weight);
        (is_matrix && is_there && (located.is_in_int8() || is_chosen())).then_some((which, weight, located))
    }

    pub(super) fn get_shaped(&self, name: &str, shape: &[usize]) -> Result<&Located> {
        let located = self.get(name)?;
        if located.tensor.shape != shape {
            return Err(Error::ShapeMismatch {
                name: self.name_in_file(name).unwrap_or(Cow::Borrowed(name)).into_owned(),
                file: self.file(located).name().to_owned(),
                found: located.tensor.shape.clone(),
                expected: shape.to_vec(),
            });
        }
        Ok(located)
    }

    pub(super) fn load(
        &self,
        located: &Located,
        name: &str,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let file = self.file(located);
        let tensor = match self.scales(located, name)? {
            None => convert::read_tensor(file, &located.tensor, dtype, device),
            Some(scales) => scales.read_tensor(file, &located.tensor, dtype, device),
        };
        file.release(&located.tensor.bytes);
        tensor.map_err(|error| match error {
            convert::Unreadable::Type(problem) => {
                Error::format(file.name(), format!("tensor {name}: {problem}"))
            }
            convert::Unreadable::Candle(error) => error.into(),
        })
    }

    /// A weight in int8: as stored, or rounded.
    pub(super) fn int8_rows(&self, located: &Located, name: &str) -> Result<Int8Rows> {
        let (file, tensor) = (self.file(located), &located.tensor);
        if located.is_in_int8()
            && let Some(scales) = self.scales(located, name)?
        {
            let bytes = tensor.element_bytes(file);
            let values = bytes.iter().map(|byte| byte.cast_signed()).collect();
            file.release(&tensor.bytes);
            return Ok(Int8Rows { values, scales: scales.into_values() });
        }
        let numbers = self.load(located, name, DType::F32, &Device::Cpu)?.flatten_all()?;
        let width = tensor.shape.iter().skip(1).product();
        let smoothing = self.smoothing.get(name).map(Vec::as_slice);
        Int8Rows::quantize(&numbers.to_vec1::<f32>()?, width, smoothing)
            .map_err(|error| Error::format(file.name(), format!("tensor {name}: {}", Error::from(error))))
    }

    /// Whether the input's channels of a weight in int8 are multiplied by factors.
    pub(super) fn is_smoothed(&self, located: &Located, name: &str) -> bool {
        match located.is_in_int8() {
            true => located.smoothing.is_some(),
            false => self.smoothing.contains_key(name),
        }
    }

    /// Those factors: as stored, or as given for rounding.
    pub(super) fn smoothing(&self, located: &Located, name: &str) -> Result<Option<Vec<f32>>> {
        match located.is_in_int8() {
            true => self.stored_smoothing(located, name),
            false => Ok(self.smoothing.get(name).cloned()),
        }
    }

    fn stored_smoothing(&self, located: &Located, name: &str) -> Result<Option<Vec<f32>>> {
        let Some(stored) = &located.smoothing else { return Ok(None) };
        let Some(file) = self.files.get(stored.file) else { return Ok(None) };
        let columns = located.tensor.shape.get(1..).and_then(element_count);
        let found = scales::read_smoothing(file, stored, columns);
        found.map(Some).map_err(|problem| Error::format(file.name(), format!("tensor {name}: {problem}")))
    }

    /// Reads a tensor's scales from their file.
    pub(super) fn scales(&self, located: &Located, name: &str) -> Result<Option<Scales>> {
        let Some(scale) = &located.scale else { return Ok(None) };
        let Some(file) = self.files.get(scale.file) else { return Ok(None) };
        let scales = Scales::read(file, scale, &located.tensor.shape);
        let scales =
            scales.map_err(|problem| Error::format(file.name(), format!("tensor {name}: {problem}")))?;
        Ok(Some(scales.with_smoothing(self.stored_smoothing(located, name)?)))
    }

    pub(super) fn file(&self, located: &Located) -> &FileData {
        // The index comes from this list.
        &self.files[located.file]
    }
}

/// The one of `names` most similar to `name`, if it is similar enough to suggest.
fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a String>) -> Option<String> {
    // A checkpoint of billions of parameters has thousands of names, none longer than a line. More is no genuine
    // file.
    const MOST_NAMES: usize = 20_000;
    const LONGEST_NAME: usize = 200;
    names
        .take(MOST_NAMES)
        .filter(|other| other.len() <= LONGEST_NAME)
        .map(|other| (strsim::levenshtein(name, other), other))
        // Also suggest names that differ only in a prefix: `text_model.`, `module.`.
        .filter(|(distance, other)| {
            *distance <= name.len() / 3 || other.ends_with(name) || name.ends_with(other.as_str())
        })
        .min()
        .map(|(_, other)| other.clone())
}
