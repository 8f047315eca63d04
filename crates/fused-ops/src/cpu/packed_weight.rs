//! Holds the packed weight of a layer in the type that it was loaded as.

use super::pack::{Factor, Panels};
use super::quantized::QuantizedWeight;
use half::{bf16, f16};

/// The packed weight of a layer, in the type that it was loaded as: half the bytes take half the memory, and half the
/// time to read. Quantized ones stay as they are, and take a quarter or an eighth.
#[derive(Debug, Clone)]
pub(crate) enum PackedWeight {
    F32(Panels<f32>),
    F16(Panels<f16>),
    Bf16(Panels<bf16>),
    Quantized(QuantizedWeight),
}

/// Runs a generic expression on the panels of a [`PackedWeight`].
macro_rules! with_panels {
    ($weight:expr, $panels:ident => $body:expr) => {
        match $weight {
            PackedWeight::F32($panels) => $body,
            PackedWeight::F16($panels) => $body,
            PackedWeight::Bf16($panels) => $body,
            PackedWeight::Quantized($panels) => $body,
        }
    };
}
pub(crate) use with_panels;

impl PackedWeight {
    pub(crate) fn depth(&self) -> usize {
        with_panels!(self, panels => panels.size().depth)
    }

    pub(crate) fn columns(&self) -> usize {
        with_panels!(self, panels => panels.size().columns)
    }

    /// The weight as a plain (taps, depth, columns) array.
    pub(crate) fn unpack(&self) -> Vec<f32> {
        with_panels!(self, panels => panels.unpack())
    }
}
