//! Reads the tensors of a part of a model by name.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;
use fused_ops::BlockType;

use super::contents::Contents;
use super::element::ElementType;
use super::int8::is_sensitive_to_int8;
use super::sharded::ShardIndex;
use super::survey_backend::SurveyBackend;
use super::tables::Tables;
use super::{backend, convert, find, format, survey_backend};
use crate::arithmetic::Arithmetic;
use crate::error::{Error, Result};
use crate::file_data::FileData;
use crate::relative_path::{folder_of, in_folder};
use crate::source::ModelSource;
use crate::survey::{Survey, Watched};

/// The tensors of a part of a model, by name.
///
/// Cheap to clone, and readable from several threads.
#[derive(Clone)]
pub struct Checkpoint {
    pub(super) contents: Arc<Contents>,
    /// The survey that records requests, if there is one; no weights are read then.
    watched: Option<Watched>,
}

impl Checkpoint {
    /// Opens the weights in the folder `folder` of a model ("" for its root), in any published form: one safetensors
    /// file, safetensors shards with an index, `pytorch_model.bin` or its shards; diffusers' names for these; GGUF
    /// under such names, as written by this project's conversion; or their `fp16` variants if there is nothing else.
    /// For a source [with a variant](ModelSource::with_variant), only that variant.
    ///
    /// # Errors
    /// [`Error::MissingFile`] if there are no weights; [`Error::Format`] if they are damaged.
    pub fn open(source: &ModelSource, folder: &str) -> Result<Self> {
        let file = find::weights_file(source, folder)?;
        Self::open_file(source, &file.ok_or_else(|| find::no_weights(source, folder))?)
    }

    /// Like [`open`](Self::open), for weights under a name of their own.
    ///
    /// # Errors
    /// Like [`Checkpoint::open`].
    pub fn open_file(source: &ModelSource, relative: &str) -> Result<Self> {
        let checkpoint = Self::from_source(source, relative)?;
        let checkpoint = if source.is_unpacked() { checkpoint.unpacked() } else { checkpoint };
        let checkpoint = if source.is_in_int8() {
            checkpoint.in_int8(|name| !is_sensitive_to_int8(name))
        } else {
            checkpoint
        };
        Ok(match source.survey() {
            Some(survey) => checkpoint.surveyed(survey, folder_of(relative)),
            None => checkpoint,
        })
    }

    /// Opens the weights in the file `relative` of a model, which may be an index of shards.
    ///
    /// # Errors
    /// Like [`Checkpoint::open`].
    pub fn from_source(source: &ModelSource, relative: &str) -> Result<Self> {
        let file = source.read(relative)?;
        if !relative.ends_with(".json") {
            return Self::from_data(file);
        }
        let folder = folder_of(relative);
        Self::sharded(&file, |shard| source.read(&in_folder(folder, shard)))
    }

    /// Opens the weights in the file at `path`, which may be an index of shards.
    ///
    /// # Errors
    /// Like [`Checkpoint::open`]; also [`Error::Io`] if there is no such file.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = FileData::open(path)?;
        if path.extension().is_none_or(|extension| extension != "json") {
            return Self::from_data(file);
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::sharded(&file, |shard| FileData::open(&folder.join(shard)))
    }

    /// Opens weights in one file, safetensors, pickle or GGUF, that is already in memory.
    ///
    /// # Errors
    /// [`Error::Format`] if the file is damaged.
    pub fn from_data(file: FileData) -> Result<Self> {
        let mut tables = Tables::default();
        tables.add(0, format::read(&file)?);
        Ok(Self::of(file.name().to_owned(), vec![file], tables))
    }

    fn sharded(index: &FileData, read: impl Fn(&str) -> Result<FileData>) -> Result<Self> {
        let (files, tables) = ShardIndex::parse(index)?.open(read)?;
        Ok(Self::of(index.name().to_owned(), files, tables))
    }

    fn of(name: String, files: Vec<FileData>, tables: Tables) -> Self {
        Self { contents: Arc::new(Contents::new(name, files, tables)), watched: None }
    }

    /// The tensors whose names start with `prefix`, for a model that uses other names: `name_in_file` maps each of
    /// these to the name in the file, or to `None` if there is none. [`names`](Self::names) and errors use the names
    /// in the file.
    #[must_use]
    pub fn part(
        &self,
        prefix: &str,
        name_in_file: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let contents = self.contents.part(prefix, Arc::new(name_in_file));
        Self { contents: Arc::new(contents), watched: self.watched.clone() }
    }

    /// The same tensors, but some of them in parts, or under other names: `parts` maps a tensor's name to those of equal
    /// groups of its rows, to its new name if it is only renamed, or to none to leave it alone. Names and errors have
    /// the parts only.
    #[must_use]
    pub fn with_rows_split(&self, parts: impl Fn(&str) -> Vec<String>) -> Self {
        let contents = self.contents.with_rows_split(parts);
        Self { contents: Arc::new(contents), watched: self.watched.clone() }
    }

    /// The same tensors, of which the weights that `chosen` accepts, by the names that a model asks for, are also given
    /// in [int8](fused_ops::INT8): a layer on the CPU that has an int8 kernel then computes with it. Embeddings, norms
    /// and larger convolutions have none, so they may be accepted too. Quantized weights stay as they are.
    #[must_use]
    pub fn in_int8(&self, chosen: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        let contents = self.contents.in_int8(Arc::new(chosen));
        Self { contents: Arc::new(contents), watched: self.watched.clone() }
    }

    /// The same tensors, but layers get quantized weights as numbers only, never as blocks.
    #[must_use]
    pub fn unpacked(&self) -> Self {
        Self { contents: Arc::new(self.contents.unpacked()), watched: self.watched.clone() }
    }

    /// The same tensors, with factors for the weights that are rounded to int8, by the names that a model asks for: what
    /// the [channels of their inputs](fused_ops::INT8_SMOOTHING) are multiplied by, and their columns divided.
    #[must_use]
    pub fn smoothed(&self, factors: BTreeMap<String, Vec<f32>>) -> Self {
        let contents = self.contents.smoothed(Arc::new(factors));
        Self { contents: Arc::new(contents), watched: self.watched.clone() }
    }

    /// Whether there are such factors.
    pub fn is_smoothed(&self) -> bool {
        self.contents.has_factors()
    }

    /// The same tensors, but none is read: `survey` records what is asked for, of this checkpoint and of its parts.
    /// `folder` names this part of the model in its report.
    #[must_use]
    pub fn surveyed(self, survey: &Survey, folder: &str) -> Self {
        let watched = survey_backend::watch(survey, folder, &self.contents);
        Self { watched: Some(watched), ..self }
    }

    /// The checkpoint's name in errors: the one file, or the index of the shards.
    pub fn file_name(&self) -> &str {
        &self.contents.name
    }

    /// The files of the weights.
    pub fn files(&self) -> impl Iterator<Item = &FileData> {
        self.contents.files.iter()
    }

    /// The metadata of a safetensors file (`__metadata__`), or the strings in that of a GGUF file; empty for other
    /// formats.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        match &*self.contents.files {
            [file] => format::metadata(file),
            _ => BTreeMap::new(),
        }
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.contents.tables.tensors.keys().map(String::as_str)
    }

    /// Tensors that cannot be read, such as sparse ones, with the reasons, sorted by name. They are not among the
    /// [`names`](Self::names), and asking for one is an error.
    pub fn unreadable(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.contents.tables.unreadable.iter().map(|(name, problem)| (name.as_str(), problem.as_str()))
    }

    /// Whether there is a tensor of this name, or of its older name.
    pub fn contains(&self, name: &str) -> bool {
        self.contents.contains(name)
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.contents.find(name).map(|located| located.tensor.shape.as_slice())
    }

    /// The element type of a tensor in the file; `None` also if candle does not have it.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        match self.contents.find(name)?.tensor.dtype {
            ElementType::Plain(::safetensors::Dtype::F8_E4M3) => Some(DType::F8E4M3),
            ElementType::Plain(dtype) => convert::candle_dtype(dtype),
            ElementType::Quantized(_) => None,
        }
    }

    /// The quantized type of a tensor, if it is quantized.
    pub fn block_type(&self, name: &str) -> Option<BlockType> {
        match self.contents.find(name)?.tensor.dtype {
            ElementType::Plain(_) => None,
            ElementType::Quantized(kind) => Some(kind),
        }
    }

    /// Reads a tensor in its own shape, unpacking it if quantized.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if there is none of this name, and [`Error::Format`] if its element type cannot be
    /// converted to `dtype`.
    pub fn tensor(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        if let Some(watched) = &self.watched {
            let backend = SurveyBackend { contents: self.contents.clone(), watched: watched.clone() };
            return Ok(backend.get_unchecked(name, dtype, device)?);
        }
        self.contents.load(self.contents.get(name)?, name, dtype, device)
    }

    /// A builder that gives a model its weights, converted to `dtype` (f32, f16 or bf16) and moved to `device` one by
    /// one as the model asks for them. `Error::from` recovers this crate's errors from its own.
    ///
    /// A quantized weight can also be had as its blocks, by [another name](BlockType::blocks_name), and one that is stored
    /// in int8 with a scale for each row as [integers](fused_ops::INT8).
    ///
    /// # Errors
    /// [`Error::Input`] if models cannot compute in `dtype`, or the device not in int8.
    pub fn var_builder(&self, dtype: DType, device: &Device) -> Result<VarBuilder<'static>> {
        if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
            return Err(Error::Input(format!("dtype: expected f32, f16 or bf16, found {}", dtype.as_str())));
        }
        if self.contents.int8.is_some() {
            Arithmetic::Int8.check(device)?;
        }
        let contents = self.contents.clone();
        contents.files.iter().for_each(|file| file.fetch());
        Ok(match &self.watched {
            None => {
                let backend = backend::CheckpointBackend::new(contents);
                VarBuilder::from_backend(Box::new(backend), dtype, device.clone())
            }
            Some(watched) => {
                let backend = SurveyBackend { contents, watched: watched.clone() };
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
