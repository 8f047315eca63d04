//! Holds a component of a model all the time, or only while it works.

use std::borrow::Cow;
use std::fmt;

use crate::Result;

/// A model such as the UNet, whose clones share their weights.
pub(super) enum Component<T> {
    /// In memory from the beginning.
    Resident(T),
    /// Read whenever it is needed, and given back after that.
    OnDemand(Box<dyn Fn() -> Result<T> + Send + Sync>),
}

impl<T: Clone> Component<T> {
    /// A component that `read` reads, now or later.
    pub(super) fn new(kept: bool, read: impl Fn() -> Result<T> + Send + Sync + 'static) -> Result<Self> {
        Ok(if kept { Self::Resident(read()?) } else { Self::OnDemand(Box::new(read)) })
    }

    /// The component itself, for as long as the caller keeps it.
    pub(super) fn get(&self) -> Result<Cow<'_, T>> {
        match self {
            Self::Resident(part) => Ok(Cow::Borrowed(part)),
            Self::OnDemand(read) => read().map(Cow::Owned),
        }
    }
}

impl<T> fmt::Debug for Component<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resident(_) => "Resident",
            Self::OnDemand(_) => "OnDemand",
        })
    }
}
