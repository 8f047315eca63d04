//! Defines the errors of starting and running a server.

use std::net::SocketAddr;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a server cannot start or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be listened on.
    #[error("{address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The options contradict each other, or are unsafe.
    #[error("{0}")]
    Options(String),
    /// The runtime or a thread could not be started.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// An index that should be served cannot be opened.
    #[error(transparent)]
    Index(#[from] embedding_index::Error),
}
