//! Defines the errors of reading, embedding and searching, and classifies them.

mod column_error;
mod database_problem;

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};

use model_files::ErrorKind;

pub use self::column_error::ColumnError;
pub use self::database_problem::DatabaseProblem;

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate. Each is displayed as one line that names the file or item.
///
/// A `file` is something a person can find: a path, or the name given to a [`ListFile`](crate::readers::ListFile).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system could not read or write a file or a folder.
    #[error("{file}: {source}")]
    Io {
        /// The file or the folder.
        file: String,
        /// The operating system's error.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{file}: {problem}")]
    Format {
        /// The file.
        file: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// A column of a Parquet file is missing, or one of its rows cannot be read.
    #[error("{file}: {source}")]
    Column {
        /// The file.
        file: String,
        /// What is wrong.
        source: ColumnError,
    },
    /// A path or pattern matches no image.
    #[error("{pattern}: {problem}")]
    Pattern {
        /// The path or the pattern.
        pattern: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// The caller asked for something impossible.
    #[error("{0}")]
    Input(String),
    /// The model failed on an item.
    #[error("{item}: {source}")]
    Item {
        /// The image's name.
        item: String,
        /// The model's error.
        source: Box<altclip_encoder::Error>,
    },
    /// An item's vector is not finite.
    #[error(
        "{item}: its vector is not finite: f16 may have overflowed, use bf16 or f32; or the weights are damaged"
    )]
    NotFinite {
        /// The text, or the image's name.
        item: String,
    },
    /// No item of a job could be embedded, so there is nothing to write.
    #[error("{}: not written, for {}", output.display(), none_of(*.texts, *.images))]
    NothingEmbedded {
        /// The file, or the table, that should have been written.
        output: PathBuf,
        /// The number of rows that should have a text, all without one.
        texts: usize,
        /// The number of images, all unreadable.
        images: usize,
    },
    /// The folder of unfinished work belongs to a job with other inputs or settings.
    #[error(
        "{}: begun with {difference}; run it again as it was begun, or delete this folder to start anew",
        folder.display()
    )]
    OtherJob {
        /// The folder of unfinished work.
        folder: PathBuf,
        /// What differs.
        difference: JobDifference,
    },
    /// Another process is running the same job.
    #[error("{}: another run is at work here, wait until it is done", folder.display())]
    Busy {
        /// The folder of unfinished work.
        folder: PathBuf,
    },
    /// The observer stopped the job. Its work is kept, and the same job resumes from there.
    #[error("{}: stopped; the same job goes on from there", folder.display())]
    Stopped {
        /// The folder of unfinished work, or the table.
        folder: PathBuf,
    },
    /// The index could not be written.
    #[error("{file}: {source}")]
    Output {
        /// The file.
        file: String,
        /// The error of the format's writer.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// An index could not be opened.
    #[error(transparent)]
    Files(#[from] model_files::Error),
    /// The database of a library cannot be used.
    #[error("{}: {problem}", file.display())]
    Database {
        /// The database.
        file: PathBuf,
        /// Why.
        problem: DatabaseProblem,
    },
    /// A table of another program's database cannot be used.
    #[error("{table}: {problem}")]
    Table {
        /// The table's name for people.
        table: String,
        /// What was expected and what was found, or what the server says.
        problem: String,
        /// Who can fix it.
        kind: ErrorKind,
    },
    /// The encoder failed.
    #[error(transparent)]
    Encoder(#[from] altclip_encoder::Error),
}

/// How a job differs from the unfinished one in its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobDifference {
    /// The model's name.
    Model,
    /// The dtype of the weights.
    Dtype,
    /// Whether vectors are normalised.
    Normalization,
    /// The background of transparent images.
    Background,
    /// The texts.
    Texts,
    /// The images.
    Images,
    /// The model's vectors: other weights, or another device.
    Weights,
}

impl std::fmt::Display for JobDifference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Model => "another model",
            Self::Dtype => "another dtype",
            Self::Normalization => "the other choice of normalization",
            Self::Background => "another background",
            Self::Texts => "other texts",
            Self::Images => "other images",
            Self::Weights => "other weights, or on another device",
        })
    }
}

impl Error {
    /// Classifies the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::OutOfMemory => ErrorKind::OutOfMemory,
            Self::Io { .. }
            | Self::Format { .. }
            | Self::Column { .. }
            | Self::Database { .. }
            | Self::NothingEmbedded { .. }
            | Self::Output { .. } => ErrorKind::File,
            Self::Pattern { .. } | Self::Input(_) | Self::OtherJob { .. } => ErrorKind::Input,
            Self::Stopped { .. } => ErrorKind::Cancelled,
            Self::NotFinite { .. } | Self::Busy { .. } => ErrorKind::Other,
            Self::Table { kind, .. } => *kind,
            Self::Item { source, .. } => source.kind(),
            Self::Files(source) => source.kind(),
            Self::Encoder(source) => source.kind(),
        }
    }

    /// For `map_err`: adds the file to an error.
    pub(crate) fn io(file: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { file: shown(file), source }
    }

    pub(crate) fn format(file: impl AsRef<Path>, problem: impl ToString) -> Self {
        Self::Format { file: shown(file), problem: problem.to_string() }
    }

    /// For `map_err`: adds the Parquet file to an error.
    pub(crate) fn column(file: impl AsRef<Path>) -> impl FnOnce(ColumnError) -> Self {
        move |source| Self::Column { file: shown(file), source }
    }
}

fn shown(file: impl AsRef<Path>) -> String {
    file.as_ref().display().to_string()
}

fn none_of(texts: usize, images: usize) -> String {
    match (texts, images) {
        (0, 1) => "the image cannot be read".to_owned(),
        (0, images) => format!("none of the {images} images can be read"),
        (texts, 0) => format!("none of the {texts} rows has a text"),
        (texts, images) => {
            format!("none of the {texts} rows has a text, and none of the {images} images can be read")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_kind() {
        let folder = PathBuf::from("a.npy.partial");
        let input = || altclip_encoder::Error::Input("no texts".to_owned());
        let difference = JobDifference::Texts;
        for (error, kind) in [
            (Error::io("a")(io::ErrorKind::NotFound.into()), ErrorKind::File),
            (Error::io("a")(io::ErrorKind::OutOfMemory.into()), ErrorKind::OutOfMemory),
            (Error::format("a", "cut"), ErrorKind::File),
            (Error::column("a")(ColumnError::Damaged), ErrorKind::File),
            (Error::NothingEmbedded { output: "a.npy".into(), texts: 0, images: 2 }, ErrorKind::File),
            (Error::Pattern { pattern: "*".into(), problem: "none".into() }, ErrorKind::Input),
            (Error::OtherJob { folder: folder.clone(), difference }, ErrorKind::Input),
            (Error::Stopped { folder: folder.clone() }, ErrorKind::Cancelled),
            (Error::Busy { folder }, ErrorKind::Other),
            (
                Error::Table { table: "t".into(), problem: "closed".into(), kind: ErrorKind::Network },
                ErrorKind::Network,
            ),
            (Error::Item { item: "a.png".into(), source: input().into() }, ErrorKind::Input),
            (input().into(), ErrorKind::Input),
            (
                model_files::Error::Hub { problem: "no answer".to_owned(), kind: ErrorKind::Network }.into(),
                ErrorKind::Network,
            ),
        ] {
            assert_eq!(error.kind(), kind, "{error}");
            assert!(!error.to_string().contains('\n'));
        }
    }
}
