//! Gives the tensors of one model part by their names.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use fused_ops::BlockType;

use super::contents::Contents;
use super::element::ElementType;
use super::sharded::ShardIndex;
use super::tables::Tables;
use super::{backend, convert, file, find, survey_backend};
use crate::error::{Error, Result};
use crate::file_data::FileData;
use crate::relative_path::{folder_of, in_folder};
use crate::source::ModelSource;
use crate::survey::{Survey, Watched};

/// The tensors of one model part, by name.
///
/// Cheap to clone, and can be read from several threads.
#[derive(Clone)]
pub struct Checkpoint {
    pub(super) contents: Arc<Contents>,
    /// Where a survey notes what is asked for; then no weights are read.
    watched: Option<Watched>,
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
        let file = find::weights_file(source, folder)?;
        let file = file.ok_or_else(|| find::no_weights(source, folder))?;
        let checkpoint = Self::from_source(source, &file)?;
        Ok(match source.survey() {
            Some(survey) => checkpoint.surveyed(survey, folder),
            None => checkpoint,
        })
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
        let folder = folder_of(relative);
        Self::sharded(&file, |shard| source.read(&in_folder(folder, shard)))
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
        Self::sharded(&file, |shard| FileData::open(&folder.join(shard)))
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

    fn sharded(index: &FileData, read: impl Fn(&str) -> Result<FileData>) -> Result<Self> {
        let (files, tables) = ShardIndex::parse(index)?.open(read)?;
        Ok(Self::of(index.name().to_owned(), files, tables))
    }

    fn of(name: String, files: Vec<FileData>, tables: Tables) -> Self {
        Self { contents: Arc::new(Contents::new(name, files, tables)), watched: None }
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
        Self { contents: Arc::new(contents), watched: None }
    }

    /// The same tensors, of which [`var_builder`](Self::var_builder) reads none: `survey` notes what is asked for. `folder`
    /// says in its report which part of the model this is.
    #[must_use]
    pub fn surveyed(self, survey: &Survey, folder: &str) -> Self {
        let watched = survey_backend::watch(survey, folder, &self.contents);
        Self { watched: Some(watched), ..self }
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
            ElementType::Quantized(_) => None,
        }
    }

    /// The type of a tensor's blocks, if it is in such.
    pub fn block_type(&self, name: &str) -> Option<BlockType> {
        match self.contents.find(name)?.tensor.dtype {
            ElementType::Plain(_) => None,
            ElementType::Quantized(kind) => Some(kind),
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
    /// A quantized weight can also be had as its blocks, by [another name](BlockType::blocks_name).
    ///
    /// # Errors
    /// [`Error::Input`] when `dtype` is not one that models compute in.
    pub fn var_builder(&self, dtype: DType, device: &Device) -> Result<VarBuilder<'static>> {
        if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
            return Err(Error::Input(format!("dtype: expected f32, f16 or bf16, found {}", dtype.as_str())));
        }
        let contents = self.contents.clone();
        contents.files.iter().for_each(|file| file.fetch());
        Ok(match &self.watched {
            None => {
                let backend = backend::CheckpointBackend(contents);
                VarBuilder::from_backend(Box::new(backend), dtype, device.clone())
            }
            Some(watched) => {
                let backend = survey_backend::SurveyBackend { contents, watched: watched.clone() };
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
