//! Finds out where vectors are to be written: a file, a pipe, a folder of files, or the table of a database.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, anyhow, ensure};
use embedding_index::{Job, OutputFormat, PostgresTable};
use model_files::{Target, Temporary, write_whole};

use crate::output_files::{check_writable, check_writable_folder};

/// The variable for a database's password, as in PostgreSQL's own programs.
const PASSWORD: &str = "PGPASSWORD";

/// Where vectors go, as `--output` says.
pub enum VectorOutput {
    /// A file, or a folder of files.
    Files(PathBuf),
    /// A pipe or a device, which a job cannot write to, and the file that is copied there at the end.
    Stream { path: PathBuf, file: PathBuf, _folder: Temporary },
    /// A table of a database.
    Table(Box<PostgresTable>),
}

impl VectorOutput {
    /// Checks the output before the work begins. `table` is the name of a table, if one is given.
    ///
    /// # Errors
    /// If it cannot be written, its ending stands for no format, or it has no tables.
    pub fn of(path: &Path, table: Option<&str>) -> Result<Self> {
        if let Some(url) = path.to_str().filter(|text| PostgresTable::is_url(text)) {
            return Self::of_database(url, table);
        }
        // It may have a password, which must not be shown.
        ensure!(
            !path.to_string_lossy().contains("://"),
            "--output: expected a path, or a URL that begins with postgres://"
        );
        ensure!(table.is_none(), "--table: expected a database as --output, found {}", path.display());
        if matches!(OutputFormat::from_path(path), Ok(OutputFormat::ParquetFolder)) {
            check_writable_folder("--output", path)?;
            return Ok(Self::Files(path.to_owned()));
        }
        check_writable("--output", path)?;
        let output = match Target::of(path)? {
            Target::File(_) => Self::Files(path.to_owned()),
            Target::Stream | Target::StandardOutput => {
                let folder = Temporary::folder(&env::temp_dir())?;
                let name = match path.extension() {
                    Some(_) => path.file_name().unwrap_or_default(),
                    None => "vectors.safetensors".as_ref(),
                };
                Self::Stream { path: path.to_owned(), file: folder.path().join(name), _folder: folder }
            }
        };
        if let Self::Files(file) | Self::Stream { file, .. } = &output {
            OutputFormat::from_path(file).map_err(|error| anyhow!("--output {error}"))?;
        }
        Ok(output)
    }

    fn of_database(url: &str, table: Option<&str>) -> Result<Self> {
        let mut database = PostgresTable::new(url).map_err(|error| anyhow!("--output: {error}"))?;
        if let Some(name) = table {
            database = database.table(name).map_err(|error| anyhow!("--table: {error}"))?;
        }
        if let Ok(password) = env::var(PASSWORD) {
            database = database.password(&password);
        }
        Ok(Self::Table(Box::new(database)))
    }

    /// Whether rows have keys.
    pub fn has_keys(&self) -> bool {
        matches!(self, Self::Table(_))
    }

    /// A job that writes there.
    pub fn job(&self) -> Job {
        match self {
            Self::Files(path) => Job::new(path),
            Self::Stream { file, .. } => Job::new(file),
            Self::Table(table) => Job::for_table(table.as_ref().clone()),
        }
    }

    /// Its name for people and in JSON, without a password.
    pub fn name(&self) -> String {
        match self {
            Self::Files(path) | Self::Stream { path, .. } => path.display().to_string(),
            Self::Table(table) => table.name().to_owned(),
        }
    }

    /// Copies what the job wrote into a pipe or a device.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(&self) -> Result<()> {
        match self {
            Self::Stream { path, file, .. } => {
                write_whole(path, |temporary| fs::copy(file, temporary).map(drop)).context("--output")
            }
            Self::Files(_) | Self::Table(_) => Ok(()),
        }
    }
}
