//! Weights as they are published: safetensors in one file or in shards, PyTorch's pickles, and GGUF, whose weights may be in
//! blocks of a few bits a number.
//!
//! Opening a [`Checkpoint`] reads and checks its table of contents. The tensors themselves stay in the memory-mapped
//! files until a model asks for them, by name and shape, through a [`VarBuilder`].

mod backend;
mod contents;
mod convert;
mod element;
mod file;
mod float8;
mod gguf;
mod legacy_names;
mod pickle;
mod safetensors;
mod scales;
mod sharded;
mod stored;
mod survey;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use fused_ops::BlockType;

use crate::error::{Error, Result};
use crate::source::{FileData, ModelSource};

use contents::{Contents, Tables};
use element::ElementType;
pub use sharded::ShardIndex;
use survey::Asked;
pub use survey::{Misshapen, Missing, PartReport, Survey, Unreadable};
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

impl Checkpoint {
    /// Opens the weights in the folder `folder` of a model ("" for its top), in whichever of the published forms they
    /// are: one safetensors file, safetensors shards with an index, `pytorch_model.bin`, or its shards; diffusers'
    /// names for these; GGUF under such names, as models have it that were converted here; and their `fp16` variants if there is nothing else. Of a source
    /// [with a variant](ModelSource::with_variant), that variant alone.
    ///
    /// # Errors
    /// [`Error::MissingFile`] when there are no weights; [`Error::Format`] when they are damaged.
    pub fn open(source: &ModelSource, folder: &str) -> Result<Self> {
        let file = Self::find(source, folder)?;
        match file {
            Some(file) => {
                let checkpoint = Self::from_source(source, &file)?;
                Ok(match source.survey() {
                    Some(survey) => checkpoint.surveyed(survey, folder),
                    None => checkpoint,
                })
            }
            None => {
                let [plain, variants] = names(source, folder);
                let [first, _, _, _, pickle, ..] =
                    if source.variant().is_some() { &variants } else { &plain };
                Err(source.missing(&format!(
                    "{first} (nor another of the names that weights go by, such as {pickle})"
                )))
            }
        }
    }

    /// The file with the weights in `folder` that [`open`](Self::open) would open, which may be an index of shards.
    pub(crate) fn find(source: &ModelSource, folder: &str) -> Result<Option<String>> {
        let [plain, variants] = names(source, folder);
        // One list after the other: of the hub's files the first takes one that was downloaded before, and that is
        // no reason to prefer a variant.
        match source.variant() {
            Some(_) => source.first_of(&variants),
            None => match source.first_of(&plain)? {
                Some(file) => Ok(Some(file)),
                None => source.first_of(&variants),
            },
        }
    }

    /// The files in `folder` that [`find`](Self::find) looks for.
    pub(crate) fn candidates(source: &ModelSource, folder: &str) -> Vec<String> {
        let [plain, variants] = names(source, folder);
        let plain = if source.variant().is_some() { Vec::new() } else { plain.to_vec() };
        plain.into_iter().chain(variants).collect()
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
        let mut tables = Tables::default();
        tables.add(0, file::read(&file)?);
        Ok(Self::of(file.name().to_owned(), vec![file], tables))
    }

    fn of(name: String, files: Vec<FileData>, tables: Tables) -> Self {
        Self { contents: Arc::new(Contents::new(name, files, tables)), asked: None }
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
        let contents = self.contents.part(prefix, Box::new(name_in_file));
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
        self.contents.tables.tensors.keys().map(String::as_str)
    }

    /// The tensors that are there but cannot be read, such as sparse ones, with the reason of each, sorted by name. They are
    /// not among the [`names`](Self::names), and an error to whoever asks for one.
    pub fn unreadable(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.contents.tables.unreadable.iter().map(|(name, problem)| (name.as_str(), problem.as_str()))
    }

    /// Whether there is a tensor of this name, or of the older name that it once had.
    pub fn contains(&self, name: &str) -> bool {
        self.contents.contains(name)
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.contents.find(name).map(|located| located.tensor.shape.as_slice())
    }

    /// The type of a tensor's elements in the file; `None` also if candle has no such type.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        match self.contents.find(name)?.tensor.dtype {
            ElementType::Plain(::safetensors::Dtype::F8_E4M3) => Some(DType::F8E4M3),
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
        write!(f, "Checkpoint({}, {} tensors)", self.contents.name, self.contents.tables.tensors.len())
    }
}

/// The names that weights in `folder` may have, without a variant and with the one that is asked for or half precision.
fn names(source: &ModelSource, folder: &str) -> [[String; FILE_NAMES.len()]; 2] {
    let plain = FILE_NAMES.map(|name| in_folder(folder, name));
    let variant = source.variant().unwrap_or(HALF_PRECISION);
    let variants = plain.each_ref().map(|name| with_variant(name, variant));
    [plain, variants]
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
