//! Finds the database of an index, and the model that made it.

use std::path::{Path, PathBuf};

use altclip_encoder::embedder::Embedder;
use anyhow::{Context, Result, anyhow};
use clap::Args;
use embedding_index::Error;
use embedding_index::library::{DatabaseProblem, ImageLibrary, MadeWith, Precision};
use etcetera::BaseStrategy;
use model_files::ModelSource;

use crate::image_args::ImageArgs;
use crate::model::{ModelArgs, at_revision};

#[derive(Debug, Clone, Args)]
pub struct DatabaseArgs {
    /// The index: a SQLite database. By default index.db in the user's data directory.
    #[arg(long, value_name = "FILE", env = "ALTDIFFUSION_INDEX")]
    database: Option<PathBuf>,
}

impl DatabaseArgs {
    /// The file.
    ///
    /// # Errors
    /// If there is no home directory.
    pub fn file(&self) -> Result<PathBuf> {
        match &self.database {
            Some(file) => Ok(file.clone()),
            None => {
                let directories = etcetera::choose_base_strategy()
                    .context("--database: expected a file, for there is no home directory")?;
                Ok(directories.data_dir().join("altdiffusion").join("index.db"))
            }
        }
    }

    /// Opens the index for searching.
    ///
    /// # Errors
    /// If there is none, or it cannot be used.
    pub fn open(&self) -> Result<ImageLibrary> {
        ImageLibrary::open(&self.file()?).map_err(reworded)
    }

    /// Opens the index for changing.
    ///
    /// # Errors
    /// Like [`open`](Self::open); also if another program is changing it.
    pub fn open_to_change(&self) -> Result<ImageLibrary> {
        ImageLibrary::open_to_change(&self.file()?).map_err(reworded)
    }

    /// Makes the index, and the directory of the default one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create(&self, made_with: MadeWith) -> Result<ImageLibrary> {
        let file = self.file()?;
        if let (None, Some(folder)) = (&self.database, file.parent()) {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        ImageLibrary::create(&file, made_with).map_err(reworded)
    }
}

/// The options for the model of an index.
pub struct IndexModel<'a> {
    pub model: &'a ModelArgs,
    pub reading: &'a ImageArgs,
}

impl IndexModel<'_> {
    /// Loads the model that made an index. Without --model, that is known from the index.
    ///
    /// # Errors
    /// If --model is another model, or it cannot be loaded.
    pub fn load_for(&self, library: &ImageLibrary) -> Result<Embedder> {
        let made_with = library.made_with();
        let given = self.model.source()?;
        let source = match self.model.is_shipped() {
            true if made_with.model == given.to_string() => given,
            true => {
                let name = at_revision(&made_with.model, made_with.revision.as_deref());
                ModelSource::open(&name)?.computing_in(self.model.arithmetic())
            }
            false => {
                self.check_name(library)?;
                given
            }
        };
        let embedder = self.reading.apply(self.model.embedder_of(&source)?);
        let embedder = embedder.with_background(made_with.background);
        library.check_embedder(&embedder).map_err(reworded)?;
        Ok(embedder)
    }

    /// Checks that --model is the model of an index.
    ///
    /// # Errors
    /// If it is another.
    pub fn check_name(&self, library: &ImageLibrary) -> Result<()> {
        let checked = library.made_with().check_name(&name(&self.model.source()?));
        checked.map_err(|problem| reworded(Error::Database { file: library.file().to_owned(), problem }))
    }

    /// Loads the model of a new index, and describes it.
    ///
    /// # Errors
    /// If it cannot be loaded.
    pub fn load_new(&self, precision: Precision) -> Result<(Embedder, MadeWith)> {
        let source = self.model.source()?;
        let embedder = self.reading.apply(self.model.embedder_of(&source)?);
        let made_with = MadeWith::new(&embedder, name(&source), source.commit(), precision)?;
        Ok((embedder, made_with))
    }
}

/// The model's name in an index: a directory's whole path, so that it is found from everywhere.
fn name(source: &ModelSource) -> String {
    let name = source.to_string();
    let path = Path::new(&name);
    match path.is_dir().then(|| path.canonicalize().ok()).flatten() {
        Some(path) => path.display().to_string(),
        None => name,
    }
}

/// Words an error in terms of the options.
pub fn reworded(error: Error) -> anyhow::Error {
    match error {
        Error::Database { file, problem: DatabaseProblem::OtherModel { made_with, given } } => {
            let file = file.display();
            anyhow!(
                "{file}: made with {made_with}, and --model is {given}; expected the same, or another --database"
            )
        }
        other => other.into(),
    }
}
