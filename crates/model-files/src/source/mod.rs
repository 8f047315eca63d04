//! Finds a model's files: in a directory, on the hub, or in the program itself.

#[cfg(feature = "hub")]
pub(crate) mod hub;
#[cfg(not(feature = "hub"))]
#[path = "no_hub.rs"]
mod hub;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::arithmetic::Arithmetic;
use crate::config::{ConfigFile, parse_config, parse_json};
use crate::error::{Error, Result};
pub use crate::file_data::FileData;
use crate::file_data::is_lfs_pointer;
use crate::relative_path::check_relative;
use crate::survey::Survey;

use hub::HubRepository;
#[cfg(feature = "hub")]
pub use hub::{CachedModel, CachedModels, HubOptions, Notice, Proxies};

/// A model's files, by their paths in its repository, such as `text_encoder/config.json`.
///
/// Cheap to clone. Files on the hub are downloaded on demand, one at a time.
#[derive(Clone, Debug)]
pub struct ModelSource {
    kind: Kind,
    survey: Option<Survey>,
    variant: Option<String>,
    is_in_int8: bool,
    is_unpacked: bool,
}

#[derive(Clone, Debug)]
enum Kind {
    Directory(PathBuf),
    Hub(Arc<HubRepository>),
    Embedded { name: &'static str, files: EmbeddedFiles },
}

/// Paths and contents of an embedded model's files.
pub type EmbeddedFiles = &'static [(&'static str, &'static [u8])];

impl ModelSource {
    /// The model called `name`: a directory if there is one, or else a repository on the hub, `org/name` or
    /// `org/name@revision`. Of a repository's folder in the hub's cache, `models--org--name`, it is the snapshot of
    /// `main`. Nothing is downloaded yet. `HubOptions::from_env` lists the environment variables used.
    /// Without the feature `hub`, only directories work.
    ///
    /// # Errors
    /// If `name` can be neither.
    pub fn open(name: &str) -> Result<Self> {
        Self::open_here_or(name, HubRepository::from_environment)
    }

    /// Like [`ModelSource::open`], with the hub's options given instead of read from the environment.
    ///
    /// # Errors
    /// If `name` can be neither a directory nor a repository on the hub.
    #[cfg(feature = "hub")]
    pub fn open_with(name: &str, options: &HubOptions) -> Result<Self> {
        Self::open_here_or(name, |name| HubRepository::open(name, options))
    }

    fn open_here_or(name: &str, repository: impl FnOnce(&str) -> Result<HubRepository>) -> Result<Self> {
        let path = Path::new(name);
        if path.is_dir() {
            return Ok(Self::directory(cached_snapshot(path)?.unwrap_or_else(|| path.to_owned())));
        }
        if path.is_file() {
            return Err(Error::Input(format!(
                "model {name}: expected a directory or a hub id, found a file"
            )));
        }
        Ok(Self::of(Kind::Hub(Arc::new(repository(name)?))))
    }

    /// The model in the directory `path`.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self::of(Kind::Directory(path.into()))
    }

    /// A model whose files are embedded in the program, called `name` in errors.
    pub fn embedded(name: &'static str, files: EmbeddedFiles) -> Self {
        Self::of(Kind::Embedded { name, files })
    }

    fn of(kind: Kind) -> Self {
        Self { kind, survey: None, variant: None, is_in_int8: false, is_unpacked: false }
    }

    /// The same model, but loading reads no weights: `survey` records what it asks for.
    #[must_use]
    pub fn surveyed(&self, survey: &Survey) -> Self {
        Self { survey: Some(survey.clone()), ..self.clone() }
    }

    /// The same model with the weights of the variant `name`, like diffusers' `variant`: with `fp16`,
    /// `model.fp16.safetensors` instead of `model.safetensors`. Every part must have them.
    ///
    /// # Errors
    /// If it cannot be part of a file's name.
    pub fn with_variant(&self, name: &str) -> Result<Self> {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')) {
            return Err(Error::Input(format!("variant: expected a name such as fp16, found {name:?}")));
        }
        Ok(Self { variant: Some(name.to_owned()), ..self.clone() })
    }

    /// The same model, whose linear layers compute in int8 on the CPU, except for the most
    /// [sensitive](crate::checkpoint::is_sensitive_to_int8): their weights are rounded when they are read, unless they
    /// are quantized.
    #[must_use]
    pub fn in_int8(&self) -> Self {
        Self { is_in_int8: true, ..self.clone() }
    }

    /// The same model, [in int8](Self::in_int8) if that is what it computes in.
    #[must_use]
    pub fn computing_in(&self, arithmetic: Arithmetic) -> Self {
        Self { is_in_int8: arithmetic == Arithmetic::Int8, ..self.clone() }
    }

    /// The same model, whose quantized weights are unpacked when they are read, for a model so small that its memory does
    /// not matter: layers need not unpack them in each pass then.
    #[must_use]
    pub fn unpacked(&self) -> Self {
        Self { is_unpacked: true, ..self.clone() }
    }

    /// The repository on the hub, if it is one.
    #[cfg(feature = "hub")]
    pub(crate) fn repository(&self) -> Option<&HubRepository> {
        match &self.kind {
            Kind::Hub(repository) => Some(repository),
            Kind::Directory(_) | Kind::Embedded { .. } => None,
        }
    }

    /// The commit of a repository's files, once one of them was read. Directories have none.
    pub fn commit(&self) -> Option<&str> {
        match &self.kind {
            #[cfg(feature = "hub")]
            Kind::Hub(repository) => repository.commit(),
            _ => None,
        }
    }

    pub(crate) fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    /// Whether its linear layers compute in int8.
    pub fn is_in_int8(&self) -> bool {
        self.is_in_int8
    }

    pub(crate) fn is_unpacked(&self) -> bool {
        self.is_unpacked
    }

    pub(crate) fn survey(&self) -> Option<&Survey> {
        self.survey.as_ref()
    }

    /// Does nothing without the feature `hub`; with it, downloads the files needed of these folders in advance.
    ///
    /// # Errors
    /// None.
    #[cfg(not(feature = "hub"))]
    pub fn prefetch(&self, _folders: &[&str]) -> Result<()> {
        Ok(())
    }

    /// The local path of the file `relative`, downloading it if necessary.
    ///
    /// # Errors
    /// [`Error::MissingFile`] if the model has no such file; [`Error::Hub`] if it cannot be downloaded;
    /// [`Error::Input`] if the model is embedded and its files have no paths (use [`ModelSource::read`]), or
    /// `relative` leads out of the model.
    pub fn file(&self, relative: &str) -> Result<PathBuf> {
        self.optional_file(relative)?.ok_or_else(|| self.missing(relative))
    }

    /// Like [`ModelSource::file`], but `None` if the model has no such file.
    ///
    /// # Errors
    /// Like [`ModelSource::file`], except for a missing file.
    pub fn optional_file(&self, relative: &str) -> Result<Option<PathBuf>> {
        check_relative(relative)?;
        match &self.kind {
            Kind::Directory(directory) => {
                let path = directory.join(relative);
                let exists = path.try_exists().map_err(Error::io(path.display().to_string()))?;
                Ok(exists.then_some(path))
            }
            Kind::Hub(repository) => repository.fetch(relative),
            Kind::Embedded { name, .. } => Err(Error::Input(format!(
                "{name}: its files are part of the program and have no path ({relative})"
            ))),
        }
    }

    /// The content of the file `relative`, memory-mapped if it is a local file.
    ///
    /// # Errors
    /// Like [`ModelSource::file`]; also if the file cannot be read. Embedded models work.
    pub fn read(&self, relative: &str) -> Result<FileData> {
        self.read_optional(relative)?.ok_or_else(|| self.missing(relative))
    }

    /// Like [`ModelSource::read`], but `None` if the model has no such file.
    ///
    /// # Errors
    /// Like [`ModelSource::read`], except for a missing file.
    pub fn read_optional(&self, relative: &str) -> Result<Option<FileData>> {
        match &self.kind {
            Kind::Embedded { name, files } => Ok(files
                .iter()
                .find(|(path, _)| *path == relative)
                .map(|(path, bytes)| FileData::embedded(format!("{name}: {path}"), bytes))),
            Kind::Directory(_) | Kind::Hub(_) => {
                let file = self.optional_file(relative)?.map(|path| FileData::open(&path)).transpose()?;
                match file {
                    // Not only weights: XLM-R's tokenizer is large enough.
                    Some(file) if is_lfs_pointer(&file) => Err(Error::format(
                        file.name(),
                        "is a Git LFS pointer: the file was not downloaded; run git lfs pull",
                    )),
                    file => Ok(file),
                }
            }
        }
    }

    /// The JSON file `relative`, parsed.
    ///
    /// # Errors
    /// Like [`ModelSource::read`]; also [`Error::Config`] with the field, if the content does not fit `T`.
    pub fn read_json<T: DeserializeOwned>(&self, relative: &str) -> Result<T> {
        parse_json(&self.read(relative)?)
    }

    /// The configuration file `relative`, parsed, with its fields checked.
    ///
    /// # Errors
    /// See [`ModelSource::read`] and [`parse_config`].
    pub fn read_config<T: ConfigFile>(&self, relative: &str) -> Result<T> {
        parse_config(&self.read(relative)?)
    }

    /// The first of `candidates` that the model has. On the hub, a cached one is taken without asking.
    ///
    /// # Errors
    /// If the hub cannot be reached, or a name leads out of the model.
    pub fn first_of(&self, candidates: &[String]) -> Result<Option<String>> {
        if let Kind::Hub(repository) = &self.kind {
            for candidate in candidates {
                check_relative(candidate)?;
                if repository.cached(candidate)?.is_some() {
                    return Ok(Some(candidate.clone()));
                }
            }
        }
        for candidate in candidates {
            if self.has(candidate)? {
                return Ok(Some(candidate.clone()));
            }
        }
        Ok(None)
    }

    /// The paths of all files, sorted: those at the root of a directory, and only cached ones for a hub that is not
    /// asked or lists none. `None` if unknown.
    ///
    /// # Errors
    /// If the directory cannot be read, or the hub cannot be reached.
    pub fn files(&self) -> Result<Option<Vec<String>>> {
        let files = match &self.kind {
            Kind::Directory(directory) => Some(files_in(directory)?),
            Kind::Hub(repository) => repository.files()?,
            Kind::Embedded { files, .. } => Some(files.iter().map(|(path, _)| (*path).to_owned()).collect()),
        };
        Ok(files.map(|mut files: Vec<String>| {
            files.sort();
            files
        }))
    }

    /// Whether the model has the file `relative`, without downloading it.
    pub(crate) fn has(&self, relative: &str) -> Result<bool> {
        match &self.kind {
            Kind::Embedded { files, .. } => Ok(files.iter().any(|(path, _)| *path == relative)),
            Kind::Directory(_) => Ok(self.optional_file(relative)?.is_some()),
            Kind::Hub(repository) => check_relative(relative).and_then(|()| repository.has(relative)),
        }
    }

    /// The error for missing `files` (one, or the accepted alternatives).
    pub fn missing(&self, files: &str) -> Error {
        match &self.kind {
            Kind::Hub(repository) => repository.missing(files),
            Kind::Directory(_) | Kind::Embedded { .. } => {
                Error::MissingFile { model: self.to_string(), file: files.to_owned() }
            }
        }
    }
}

/// The snapshot that `refs/main` names, if `folder` is a repository's in the hub's cache.
fn cached_snapshot(folder: &Path) -> Result<Option<PathBuf>> {
    let snapshots = folder.join("snapshots");
    if !snapshots.is_dir() || !folder.join("refs").is_dir() {
        return Ok(None);
    }
    let main = folder.join("refs").join("main");
    let commit = std::fs::read_to_string(&main).map_err(Error::io(main.display().to_string()))?;
    let commit = commit.trim();
    let is_plain = !commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let snapshot = Some(snapshots.join(commit)).filter(|snapshot| is_plain && snapshot.is_dir());
    let problem = || {
        let (main, snapshots) = (main.display(), snapshots.display());
        Error::Input(format!("{main}: expected the name of a directory in {snapshots}, found {commit:?}"))
    };
    snapshot.map(Some).ok_or_else(problem)
}

/// The names of the files in a directory, except those that are not UTF-8.
fn files_in(directory: &Path) -> Result<Vec<String>> {
    let failed = || Error::io(directory.display().to_string());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        // Links count as their targets.
        if entry.path().is_file()
            && let Ok(name) = entry.file_name().into_string()
        {
            files.push(name);
        }
    }
    Ok(files)
}

/// The name that a user knows the model by: its directory, its id on the hub, or its name in the program.
impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Directory(path) => path.display().fmt(f),
            Kind::Hub(repository) => repository.fmt(f),
            Kind::Embedded { name, .. } => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_folder_of_the_cache_is_its_snapshot() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("models--org--name");
        let snapshot = folder.join("snapshots/c0ffee");
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(folder.join("refs")).unwrap();
        fs::write(snapshot.join("config.json"), "{}").unwrap();
        let name = folder.to_str().unwrap();
        assert!(ModelSource::open(name).unwrap_err().to_string().contains("main"));
        for (main, problem) in [("decade", "found \"decade\""), ("../snapshots", "found \"../snapshots\"")] {
            fs::write(folder.join("refs/main"), main).unwrap();
            let error = ModelSource::open(name).unwrap_err().to_string();
            assert!(error.contains(problem) && !error.contains('\n'), "{error}");
        }
        fs::write(folder.join("refs/main"), "c0ffee\n").unwrap();
        assert_eq!(&*ModelSource::open(name).unwrap().read("config.json").unwrap(), b"{}");
    }

    #[test]
    fn a_clone_without_git_lfs_is_told_from_a_damaged_model() {
        let place = tempfile::tempdir().unwrap();
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5069051\n";
        fs::write(place.path().join("sentencepiece.bpe.model"), pointer).unwrap();
        let model = ModelSource::directory(place.path());
        let line = model.read("sentencepiece.bpe.model").unwrap_err().to_string();
        assert!(line.contains("git lfs pull") && !line.contains('\n'), "{line}");
    }

    #[test]
    fn embedded_models_are_read_like_any_other() {
        let model = ModelSource::embedded("built-in model", &[("unet/config.json", b"{\"a\": 1}")]);
        assert_eq!(&*model.read("unet/config.json").unwrap(), b"{\"a\": 1}");
        let json: serde_json::Value = model.read_json("unet/config.json").unwrap();
        assert_eq!(json["a"], 1);
        assert!(model.read_optional("vae/config.json").unwrap().is_none());
        assert_eq!(model.read("x").unwrap_err().to_string(), "built-in model: no file x");
        assert!(matches!(model.file("unet/config.json"), Err(Error::Input(_))));
    }
}
