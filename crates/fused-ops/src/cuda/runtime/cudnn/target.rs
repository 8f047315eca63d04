//! Identifies the device that a plan is made for.

use super::descriptor::{Attribute, Descriptor, Kind, Values};
use super::library::{Failure, Handle, Library};

/// A GPU, or the description of one for which plans can be made but not run.
pub(crate) enum Target {
    Present(Handle),
    /// Requires cuDNN 9.8.
    #[allow(dead_code, reason = "for tests, which have no GPU")]
    Described(Descriptor),
}

impl Target {
    /// A GPU's properties, in cuDNN's JSON format.
    #[allow(dead_code, reason = "for tests, which have no GPU")]
    pub(crate) fn described(library: &'static Library, properties: &str) -> Result<Self, Failure> {
        let attributes = [(Attribute::DevicePropertiesJson, Values::Characters(properties.as_bytes()))];
        Descriptor::new(library, Kind::DeviceProperties, &attributes).map(Self::Described)
    }

    /// The attribute with which a graph names its device, if any.
    pub(super) fn of_graph(&self) -> Option<(Attribute, Values<'_>)> {
        match self {
            Self::Present(handle) => Some((Attribute::GraphHandle, Values::Handle(handle))),
            Self::Described(_) => None,
        }
    }

    /// The same for the heuristics, which otherwise take the graph's.
    pub(super) fn of_heuristics(&self) -> Option<(Attribute, Values<'_>)> {
        match self {
            Self::Present(_) => None,
            Self::Described(device) => {
                Some((Attribute::HeuristicsDeviceProperties, Values::Descriptor(device)))
            }
        }
    }

    /// The same for a plan.
    pub(super) fn of_plan(&self) -> (Attribute, Values<'_>) {
        match self {
            Self::Present(handle) => (Attribute::PlanHandle, Values::Handle(handle)),
            Self::Described(device) => (Attribute::PlanDeviceProperties, Values::Descriptor(device)),
        }
    }
}
