//! Weights as they are published: safetensors in one file or in shards, PyTorch's pickles, and GGUF, whose weights may be in
//! blocks of a few bits a number.
//!
//! Opening a [`Checkpoint`] reads and checks its table of contents. The tensors themselves stay in the memory-mapped
//! files until a model asks for them, by name and shape, through a [`VarBuilder`].

mod backend;
mod convert;
mod element;
mod file;
mod gguf;
mod legacy_names;
mod pickle;
mod safetensors;
mod sharded;
mod survey;
mod write;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use fused_ops::BlockType;

use crate::error::{Error, Result};
use crate::source::{FileData, ModelSource};

use element::{ElementType, element_count};
pub use sharded::ShardIndex;
use survey::Asked;
pub use survey::{Misshapen, Missing, PartReport, Survey};
pub use write::{NumberType, TensorToWrite, write_gguf, write_safetensors};

/// The names that weights go by, in the order in which they are looked for. `pytorch_model` is transformers' name and
/// `diffusion_pytorch_model` diffusers'.
const FILE_NAMES: [&str; 10] = [
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors.index.json",
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "diffusion_pytorch_model.bin.index.json",
    "model.gguf",
    "diffusion_pytorch_model.gguf",
];

/// The variant that is taken when there is nothing else: half precision.
const HALF_PRECISION: &str = "fp16";

/// The tensors of one model part, by name.
///
/// Cheap to clone, and can be read from several threads.
#[derive(Clone)]
pub struct Checkpoint {
    contents: Arc<Contents>,
    /// Where a survey notes what is asked for; then no weights are read.
    asked: Option<Asked>,
}

struct Contents {
    /// What to call the whole in an error: the one file, or the index of the shards.
    name: String,
    files: Arc<[FileData]>,
    tensors: BTreeMap<String, Located>,
    /// From the name that a model asks for to the name in the file, where they differ.
    name_in_file: Option<NameInFile>,
}

type NameInFile = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// A tensor and the number of its file in [`Contents::files`].
#[derive(Clone)]
struct Located {
    file: usize,
    tensor: StoredTensor,
}

/// One tensor as it lies in its file. What it says about the file has been checked against the file.
#[derive(Clone, Debug, PartialEq)]
struct StoredTensor {
    dtype: ElementType,
    shape: Vec<usize>,
    /// Distances between neighbours along each dimension, in elements; `None` if the elements lie one after the other
    /// in row-major order.
    strides: Option<Vec<usize>>,
    /// From the first to the last byte in the file.
    bytes: std::ops::Range<usize>,
}

impl Checkpoint {
    /// Opens the weights in the folder `folder` of a model ("" for its top), in whichever of the published forms they
    /// are: one safetensors file, safetensors shards with an index, `pytorch_model.bin`, or its shards; diffusers'
    /// names for these; GGUF under such names, as models have it that were converted here; and their `fp16` variants if there is nothing else. Of a source
    /// [with a variant](ModelSource::with_variant), that variant alone.
    ///
    /// # Errors
    /// [`Error::MissingFile`] when there are no weights; [`Error::Format`] when they are damaged.
    pub fn open(source: &ModelSource, folder: &str) -> Result<Self> {
        let plain = FILE_NAMES.map(|name| in_folder(folder, name));
        let variant = |variant| plain.each_ref().map(|name| with_variant(name, variant));
        let (candidates, file) = match source.variant() {
            Some(name) => (variant(name), source.first_of(&variant(name))?),
            // One list after the other: of the hub's files the first takes one that was downloaded before, and that is
            // no reason to prefer a variant.
            None => match source.first_of(&plain)? {
                Some(file) => (plain, Some(file)),
                None => {
                    let half = source.first_of(&variant(HALF_PRECISION))?;
                    (plain, half)
                }
            },
        };
        match file {
            Some(file) => {
                let checkpoint = Self::from_source(source, &file)?;
                Ok(match source.survey() {
                    Some(survey) => checkpoint.surveyed(survey, folder),
                    None => checkpoint,
                })
            }
            None => {
                let [first, _, _, _, pickle, ..] = &candidates;
                Err(source.missing(&format!(
                    "{first} (nor another of the names that weights go by, such as {pickle})"
                )))
            }
        }
    }

    /// Opens the weights in the file `relative` of a model, which may be an index of shards.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn from_source(source: &ModelSource, relative: &str) -> Result<Self> {
        let file = source.read(relative)?;
        if !relative.ends_with(".json") {
            return Self::from_data(file);
        }
        let index = ShardIndex::parse(&file)?;
        let folder = relative.rsplit_once('/').map_or("", |(folder, _)| folder);
        index.open(file.name(), |shard| source.read(&in_folder(folder, shard)))
    }

    /// Opens the weights in the file at `path`, which may be an index of shards.
    ///
    /// # Errors
    /// As [`Checkpoint::open`], and [`Error::Io`] when there is no such file.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = FileData::open(path)?;
        if path.extension().is_none_or(|extension| extension != "json") {
            return Self::from_data(file);
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        ShardIndex::parse(&file)?.open(file.name(), |shard| FileData::open(&folder.join(shard)))
    }

    /// Opens the weights in one file, safetensors, pickle or GGUF, that has been read already.
    ///
    /// # Errors
    /// [`Error::Format`] when the file is damaged.
    pub fn from_data(file: FileData) -> Result<Self> {
        let tensors = file::read(&file)?
            .into_iter()
            .map(|(name, tensor)| (name, Located { file: 0, tensor }))
            .collect();
        Ok(Self::of(file.name().to_owned(), vec![file], tensors))
    }

    fn of(name: String, files: Vec<FileData>, tensors: BTreeMap<String, Located>) -> Self {
        let contents = Contents { name, files: files.into(), tensors, name_in_file: None };
        Self { contents: Arc::new(contents), asked: None }
    }

    /// The tensors whose names begin with `prefix`, for a model that knows them by other names: `name_in_file` gives for
    /// each of these the name in the file, or `None` where there can be none. [`names`](Self::names) and errors tell the
    /// names in the file, where a person can find them.
    #[must_use]
    pub fn part(
        &self,
        prefix: &str,
        name_in_file: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let of_part = self.contents.tensors.iter().filter(|(name, _)| name.starts_with(prefix));
        let contents = Contents {
            name: self.contents.name.clone(),
            files: self.contents.files.clone(),
            tensors: of_part.map(|(name, located)| (name.clone(), located.clone())).collect(),
            name_in_file: Some(Box::new(name_in_file)),
        };
        Self { contents: Arc::new(contents), asked: None }
    }

    /// The same tensors, of which [`var_builder`](Self::var_builder) reads none: `survey` notes what is asked for. `folder`
    /// says in its report which part of the model this is.
    #[must_use]
    pub fn surveyed(self, survey: &Survey, folder: &str) -> Self {
        let asked = survey.watch(folder, &self.contents);
        Self { asked: Some(asked), ..self }
    }

    /// What to call the whole in an error: the one file, or the index of the shards.
    pub fn file_name(&self) -> &str {
        &self.contents.name
    }

    /// The files that the weights are in.
    pub fn files(&self) -> impl Iterator<Item = &FileData> {
        self.contents.files.iter()
    }

    /// What a safetensors file says about itself beside its tensors (`__metadata__`), and the texts among what a GGUF file
    /// does; nothing for other forms.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        match &*self.contents.files {
            [file] => file::metadata(file),
            _ => BTreeMap::new(),
        }
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.contents.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name, or of the older name that it once had.
    pub fn contains(&self, name: &str) -> bool {
        self.contents.find(name).is_some()
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.contents.find(name).map(|located| located.tensor.shape.as_slice())
    }

    /// The type of a tensor's elements in the file; `None` also if candle has no such type.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        match self.contents.find(name)?.tensor.dtype {
            ElementType::Plain(dtype) => convert::candle_dtype(dtype),
            ElementType::Blocks(_) => None,
        }
    }

    /// The type of a tensor's blocks, if it is in such.
    pub fn block_type(&self, name: &str) -> Option<BlockType> {
        match self.contents.find(name)?.tensor.dtype {
            ElementType::Plain(_) => None,
            ElementType::Blocks(kind) => Some(kind),
        }
    }

    /// Reads a tensor of whatever shape. Blocks are read as their numbers.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] when there is none of this name, and [`Error::Format`] when its elements are of a type
    /// that has no conversion to `dtype`.
    pub fn tensor(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        self.contents.load(self.contents.get(name)?, name, dtype, device)
    }

    /// A builder that gives a model its weights, converted to `dtype` (f32, f16 or bf16) and put on `device` one by one
    /// as the model asks for them. Its errors become this crate's again by `Error::from`.
    ///
    /// A weight that is in blocks can also be had as these, by [another name](BlockType::blocks_name).
    ///
    /// # Errors
    /// [`Error::Input`] when `dtype` is not one that models compute in.
    pub fn var_builder(&self, dtype: DType, device: &Device) -> Result<VarBuilder<'static>> {
        if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
            return Err(Error::Input(format!("dtype: expected f32, f16 or bf16, found {}", dtype.as_str())));
        }
        let contents = self.contents.clone();
        contents.files.iter().for_each(|file| file.fetch());
        Ok(match &self.asked {
            None => {
                let backend = backend::CheckpointBackend(contents);
                VarBuilder::from_backend(Box::new(backend), dtype, device.clone())
            }
            Some(asked) => {
                let backend = survey::SurveyBackend { contents, asked: asked.clone() };
                VarBuilder::from_backend(Box::new(backend), dtype, device.clone())
            }
        })
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({}, {} tensors)", self.contents.name, self.contents.tensors.len())
    }
}

impl Contents {
    fn find(&self, name: &str) -> Option<&Located> {
        self.find_entry(name).map(|(_, located)| located)
    }

    /// A tensor with the name that it has in the file.
    fn find_entry(&self, name: &str) -> Option<(&String, &Located)> {
        let name = self.name_in_file(name)?;
        let entry = self.tensors.get_key_value(&*name);
        entry.or_else(|| self.tensors.get_key_value(&legacy_names::legacy_name(&name)?))
    }

    fn name_in_file<'n>(&self, name: &'n str) -> Option<Cow<'n, str>> {
        match &self.name_in_file {
            Some(name_in_file) => name_in_file(name).map(Cow::Owned),
            None => Some(Cow::Borrowed(name)),
        }
    }

    fn get(&self, name: &str) -> Result<&Located> {
        self.find(name).ok_or_else(|| {
            let name = self.name_in_file(name).unwrap_or(Cow::Borrowed(name));
            let nearest = nearest(&name, self.tensors.keys());
            Error::MissingTensor { name: name.into_owned(), file: self.name.clone(), nearest }
        })
    }

    /// The weight whose blocks `name` asks for, with their type and its name, if there is one and its rows are whole blocks.
    fn find_blocks<'n>(&self, name: &'n str) -> Option<(BlockType, &'n str, &Located)> {
        let (weight, kind) = name.rsplit_once('.')?;
        let kind = kind.parse::<BlockType>().ok()?;
        let located = self.find(weight)?;
        let [_, row @ ..] = located.tensor.shape.as_slice() else { return None };
        let is_in_rows = element_count(row).and_then(|row| kind.bytes_of(row)).is_some();
        (located.tensor.dtype == ElementType::Blocks(kind) && is_in_rows).then_some((kind, weight, located))
    }

    fn get_shaped(&self, name: &str, shape: &[usize]) -> Result<&Located> {
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

    fn load(&self, located: &Located, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let file = self.file(located);
        let tensor = convert::read_tensor(file, &located.tensor, dtype, device);
        file.release(&located.tensor.bytes);
        tensor?.ok_or_else(|| {
            Error::format(
                file.name(),
                format!(
                    "tensor {name}: its elements are of type {}, which has no conversion",
                    located.tensor.dtype
                ),
            )
        })
    }

    fn file(&self, located: &Located) -> &FileData {
        // The numbers come from this very list.
        &self.files[located.file]
    }
}

fn in_folder(folder: &str, file: &str) -> String {
    if folder.is_empty() { file.to_owned() } else { format!("{folder}/{file}") }
}

/// The name of a variant's file, as diffusers and transformers make it: `model.safetensors` becomes
/// `model.fp16.safetensors`, and `model.safetensors.index.json` becomes `model.safetensors.index.fp16.json`.
fn with_variant(file: &str, variant: &str) -> String {
    match file.rsplit_once('.') {
        Some((stem, ending)) => format!("{stem}.{variant}.{ending}"),
        None => format!("{file}.{variant}"),
    }
}

/// The one of `names` most like `name`, if it is alike enough to be worth telling.
fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a String>) -> Option<String> {
    // A checkpoint of billions of parameters has thousands of names, none longer than a line. More is no honest file.
    const MOST_NAMES: usize = 20_000;
    const LONGEST_NAME: usize = 200;
    names
        .take(MOST_NAMES)
        .filter(|other| other.len() <= LONGEST_NAME)
        .map(|other| (strsim::levenshtein(name, other), other))
        // Very different names, too, when one has only lost or gained what stands before: `text_model.`, `module.`.
        .filter(|(distance, other)| {
            *distance <= name.len() / 3 || other.ends_with(name) || name.ends_with(other.as_str())
        })
        .min()
        .map(|(_, other)| other.clone())
}
