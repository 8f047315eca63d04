//! Quantizes weights to int8, and reads those that a checkpoint provides so.
//!
//! Layers with such weights quantize their input too, row by row, and multiply integers.

use crate::cpu::int8::{Int8Weight, quantize_row};
use crate::cpu::pack::FactorSize;
use candle_core::{DType, Result};
use candle_nn::{Init, VarBuilder};
use rayon::prelude::*;

/// The name under which a checkpoint provides a layer's weight in int8, beside `weight` for its values: a U8 tensor
/// (out, everything else) of integers in two's complement. [`INT8_SCALE`] must be there too.
pub const INT8: &str = "weight.int8";
/// What each row of [`INT8`] is multiplied by: f32 (out).
pub const INT8_SCALE: &str = "weight.int8_scale";
/// If it is there, what each channel of the layer's input is multiplied by before it is quantized: f32 (in). The
/// weight's columns have been divided by it.
pub const INT8_SMOOTHING: &str = "weight.int8_smoothing";

/// Rows in int8.
#[derive(Debug, Clone, PartialEq)]
pub struct Int8Rows {
    /// Integers of −127 to 127, one row after the other.
    pub values: Vec<i8>,
    /// What each row is multiplied by.
    pub scales: Vec<f32>,
}

impl Int8Rows {
    /// Quantizes rows of `width` values, whose columns are first divided by their [smoothing](INT8_SMOOTHING): each
    /// row's largest absolute value becomes 127.
    ///
    /// # Errors
    /// If the values are not whole rows, one of them is not finite, or the smoothing has another width.
    pub fn quantize(values: &[f32], width: usize, smoothing: Option<&[f32]>) -> Result<Self> {
        if width == 0 || !values.len().is_multiple_of(width) {
            candle_core::bail!("{} numbers are not rows of {width}", values.len());
        }
        if let Some(smoothing) = smoothing.filter(|smoothing| smoothing.len() != width) {
            candle_core::bail!("a smoothing of {} channels does not fit rows of {width}", smoothing.len());
        }
        let divide =
            |values: &[f32], by: &[f32]| values.iter().zip(by).map(|(value, by)| value / by).collect();
        let mut bytes = vec![0; values.len()];
        let rows = bytes.par_chunks_exact_mut(width).zip(values.par_chunks_exact(width));
        let scales: Vec<f32> = rows
            .map(|(out, values)| match smoothing {
                Some(smoothing) => {
                    let divided: Vec<f32> = divide(values, smoothing);
                    quantize_row(&divided, out)
                }
                None => quantize_row(values, out),
            })
            .collect();
        match scales.iter().position(|scale| scale.is_nan()) {
            Some(row) => candle_core::bail!("row {row} has a number that is not finite"),
            None => Ok(Self { values: bytes.into_iter().map(u8::cast_signed).collect(), scales }),
        }
    }

    /// The rows in f32, with the smoothing undone.
    ///
    /// # Errors
    /// If the integers are not a row for each scale, or the smoothing has another width.
    pub fn dequantize(&self, smoothing: Option<&[f32]>) -> Result<Vec<f32>> {
        let width = self.values.len().checked_div(self.scales.len()).unwrap_or(0);
        if width * self.scales.len() != self.values.len()
            || smoothing.is_some_and(|smoothing| smoothing.len() != width)
        {
            candle_core::bail!("{} integers do not fit {} scales", self.values.len(), self.scales.len());
        }
        let rows = self.values.chunks_exact(width.max(1)).zip(&self.scales);
        Ok(rows
            .flat_map(|(row, scale)| {
                row.iter().enumerate().map(move |(column, value)| {
                    f32::from(*value) * scale * smoothing.map_or(1., |smoothing| smoothing[column])
                })
            })
            .collect())
    }
}

/// SmoothQuant's factors for a weight with rows of this many columns (Xiao et al. 2022, arXiv:2211.10438): the input's
/// channels are multiplied by `max|w|^(1 − alpha) / max|x|^alpha`, where `largest` are the inputs' `max|x|`. With an
/// alpha of 0.5, input and weight are equally hard to quantize afterwards.
pub fn smoothing(largest: &[f32], weight: &[f32], alpha: f32) -> Vec<f32> {
    /// Channels that are almost always zero keep a factor that is a normal number.
    const SMALLEST: f32 = 1e-5;
    let mut of_weight = vec![0f32; largest.len()];
    for row in weight.chunks_exact(largest.len().max(1)) {
        of_weight.iter_mut().zip(row).for_each(|(largest, value)| *largest = largest.max(value.abs()));
    }
    let of_input = largest.iter().map(|value| value.max(SMALLEST));
    let both = of_input.zip(of_weight.iter().map(|value| value.max(SMALLEST)));
    both.map(|(input, weight)| weight.powf(1. - alpha) / input.powf(alpha)).collect()
}

/// Reads the weight in int8, if the checkpoint has one and the CPU kernels can use it: that of a linear layer or a 1 × 1
/// convolution.
pub(super) fn read(vb: &VarBuilder, size: FactorSize) -> Result<Option<Int8Weight>> {
    let FactorSize { taps, depth, columns } = size;
    if taps != 1 || !vb.device().is_cpu() || !vb.contains_tensor(INT8) {
        return Ok(None);
    }
    if depth > Int8Weight::MAX_DEPTH {
        candle_core::bail!("{INT8}: rows of {depth} numbers, at most {} expected", Int8Weight::MAX_DEPTH);
    }
    let zero = Init::Const(0.);
    let values = vb.get_with_hints_dtype((columns, depth), INT8, zero, DType::U8)?;
    let values: Vec<i8> = values.flatten_all()?.to_vec1::<u8>()?.into_iter().map(u8::cast_signed).collect();
    let floats = |len: usize, name: &str| -> Result<Vec<f32>> {
        let found = vb.get_with_hints_dtype(len, name, zero, DType::F32)?.to_vec1::<f32>()?;
        match found.iter().find(|value| !value.is_finite()) {
            Some(value) => candle_core::bail!("{name}: expected finite numbers, found {value}"),
            None => Ok(found),
        }
    };
    let scales = floats(columns, INT8_SCALE)?;
    let factors =
        if vb.contains_tensor(INT8_SMOOTHING) { Some(floats(depth, INT8_SMOOTHING)?) } else { None };
    Ok(Some(Int8Weight::new(&values, scales, factors, [columns, depth])))
}
