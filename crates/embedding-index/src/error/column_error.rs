//! Says why a column of a Parquet file cannot be read.

use parquet::errors::ParquetError;

/// What is wrong with a column or with one of its rows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ColumnError {
    /// Not a Parquet file, or damaged.
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    /// The file makes its decoder panic.
    #[error("damaged: it cannot be decoded")]
    Damaged,
    /// There is no such column.
    #[error("{0}")]
    NoColumn(String),
    /// A row cannot be read, or has a value of another type.
    #[error("row {row}: {problem}")]
    Row {
        /// Counted from 1.
        row: usize,
        /// What was expected and what was found.
        problem: String,
    },
}

impl From<model_files::Error> for ColumnError {
    fn from(_: model_files::Error) -> Self {
        Self::Damaged
    }
}
