//! Names the device that a plan is made for.

use super::descriptor::{Attribute, Descriptor, Kind, Values};
use super::library::{Failure, Handle, Library};

/// A GPU that is there, or one that is only described, for which plans can be made but not run.
pub(crate) enum Target {
    Present(Handle),
    /// From cuDNN 9.8 on.
    #[allow(dead_code, reason = "for tests, which have no GPU")]
    Described(Descriptor),
}

impl Target {
    /// A GPU with these properties, in the JSON that cuDNN itself writes of a device.
    #[allow(dead_code, reason = "for tests, which have no GPU")]
    pub(crate) fn described(library: &'static Library, properties: &str) -> Result<Self, Failure> {
        let attributes = [(Attribute::DevicePropertiesJson, Values::Characters(properties.as_bytes()))];
        Descriptor::new(library, Kind::DeviceProperties, &attributes).map(Self::Described)
    }

    /// How a graph of operations says where it runs, if it says so.
    pub(super) fn of_graph(&self) -> Option<(Attribute, Values<'_>)> {
        match self {
            Self::Present(handle) => Some((Attribute::GraphHandle, Values::Handle(handle))),
            Self::Described(_) => None,
        }
    }

    /// The same of the heuristics, which otherwise ask the graph.
    pub(super) fn of_heuristics(&self) -> Option<(Attribute, Values<'_>)> {
        match self {
            Self::Present(_) => None,
            Self::Described(device) => {
                Some((Attribute::HeuristicsDeviceProperties, Values::Descriptor(device)))
            }
        }
    }

    /// The same of a plan.
    pub(super) fn of_plan(&self) -> (Attribute, Values<'_>) {
        match self {
            Self::Present(handle) => (Attribute::PlanHandle, Values::Handle(handle)),
            Self::Described(device) => (Attribute::PlanDeviceProperties, Values::Descriptor(device)),
        }
    }
}
