//! A part of a model that is in memory all the time, or only while it works.

use std::borrow::Cow;
use std::fmt;

use crate::Result;

/// A model such as the UNet, whose clones share their weights.
pub(super) enum Part<T> {
    /// In memory from the beginning.
    Kept(T),
    /// Read whenever it is needed, and given back after that.
    Read(Box<dyn Fn() -> Result<T> + Send + Sync>),
}

impl<T: Clone> Part<T> {
    /// A part that `read` reads, now or later.
    pub fn new(kept: bool, read: impl Fn() -> Result<T> + Send + Sync + 'static) -> Result<Self> {
        Ok(if kept { Self::Kept(read()?) } else { Self::Read(Box::new(read)) })
    }

    /// The part itself, for as long as the caller keeps it.
    pub fn get(&self) -> Result<Cow<'_, T>> {
        match self {
            Self::Kept(part) => Ok(Cow::Borrowed(part)),
            Self::Read(read) => read().map(Cow::Owned),
        }
    }
}

impl<T> fmt::Debug for Part<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kept(_) => "Kept",
            Self::Read(_) => "Read",
        })
    }
}
