//! Holds a component of a model permanently, or only while it runs.

use std::borrow::Cow;
use std::fmt;

use crate::Result;

/// A component such as the UNet. Clones share their weights.
pub(super) enum Component<T> {
    /// Loaded once and kept.
    Resident(T),
    /// Loaded on each use, and dropped afterwards.
    OnDemand(Box<dyn Fn() -> Result<T> + Send + Sync>),
}

impl<T: Clone> Component<T> {
    /// A component that `read` loads, now if it is `kept`, or on use.
    pub(super) fn new(kept: bool, read: impl Fn() -> Result<T> + Send + Sync + 'static) -> Result<Self> {
        Ok(if kept { Self::Resident(read()?) } else { Self::OnDemand(Box::new(read)) })
    }

    /// The component, alive for as long as the caller holds it.
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
