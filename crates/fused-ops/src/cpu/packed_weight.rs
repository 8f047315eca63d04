//! Holds a layer's packed weight in the type it was loaded in.

use super::bf16::{Bf16Weight, Engine};
use super::epilogue::SliceEpilogue;
use super::int8::{Int8Weight, Quad};
use super::linear_geglu;
use super::lines::{self, Kernel};
use super::matmul::gather_product;
use super::pack::{Factor, Panels};
use super::quantized::QuantizedWeight;
use super::window::Window;
use half::f16;

/// A layer's packed weight, in the type it was loaded in: half precision halves the memory and the time to read it,
/// and quantized weights take a quarter or an eighth. Those in int8 are also multiplied as integers.
#[derive(Debug, Clone)]
pub(crate) enum PackedWeight {
    F32(Panels<f32>),
    F16(Panels<f16>),
    Bf16(Panels<half::bf16>),
    /// Multiplied in bf16 by this engine.
    InBf16(Engine, Bf16Weight),
    Quantized(QuantizedWeight),
    /// Multiplied in int8 by this kernel.
    InInt8(&'static Kernel<Quad>, Int8Weight),
}

/// Evaluates a generic expression on the panels of a [`PackedWeight`].
macro_rules! with_panels {
    ($weight:expr, $panels:ident => $body:expr) => {
        match $weight {
            PackedWeight::F32($panels) => $body,
            PackedWeight::F16($panels) => $body,
            PackedWeight::Bf16($panels) => $body,
            PackedWeight::InBf16(_, $panels) => $body,
            PackedWeight::Quantized($panels) => $body,
            PackedWeight::InInt8(_, $panels) => $body,
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

    /// [`gather_product`], computed in the weight's arithmetic.
    pub(crate) fn product(
        &self,
        left: &[f32],
        rows: usize,
        window: &Window,
        epilogue: &SliceEpilogue,
    ) -> Vec<f32> {
        match self {
            Self::InBf16(engine, weight) => {
                lines::product(engine.kernel, left, rows, window, weight, epilogue)
            }
            Self::InInt8(kernel, weight) => lines::product(kernel, left, rows, window, weight, epilogue),
            weight => with_panels!(weight, panels => gather_product(left, rows, window, panels, epilogue)),
        }
    }

    /// [`linear_geglu`](linear_geglu::linear_geglu), computed in the weight's arithmetic.
    pub(crate) fn geglu(&self, left: &[f32], rows: usize, bias: Option<&[f32]>) -> Vec<f32> {
        match self {
            Self::InBf16(engine, weight) => lines::linear_geglu(engine.kernel, left, rows, weight, bias),
            Self::InInt8(kernel, weight) => lines::linear_geglu(kernel, left, rows, weight, bias),
            weight => with_panels!(weight, panels => linear_geglu::linear_geglu(left, rows, panels, bias)),
        }
    }

    /// The weight as a plain (taps, depth, columns) array.
    pub(crate) fn unpack(&self) -> Vec<f32> {
        with_panels!(self, panels => panels.unpack())
    }
}
