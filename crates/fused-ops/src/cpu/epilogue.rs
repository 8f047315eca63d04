//! Applies bias, shift, residual and activation to a product while it is still in the L1 cache.

use super::elementwise::{gelu, gelu_tanh, quick_gelu, silu};
use super::microkernel::PANEL;
use crate::shapes::Activation;

/// `activation(product + bias + shift + residual)` on slices; each part is optional.
#[derive(Clone, Copy, Default)]
pub(crate) struct SliceEpilogue<'a> {
    /// (columns)
    pub(crate) bias: Option<&'a [f32]>,
    /// (images, columns): added to all rows of each image.
    pub(crate) shift: Option<Shift<'a>>,
    /// (rows, columns)
    pub(crate) residual: Option<&'a [f32]>,
    pub(crate) activation: Option<Activation>,
}

/// One row per image.
#[derive(Clone, Copy)]
pub(crate) struct Shift<'a> {
    pub(crate) values: &'a [f32],
    /// Rows of the product per image.
    pub(crate) rows_per_image: usize,
}

impl<'a> SliceEpilogue<'a> {
    pub(crate) fn bias(bias: Option<&'a [f32]>) -> Self {
        Self { bias, ..Self::default() }
    }

    /// Panics if a part does not fit a product of this shape, since the kernels would read out of bounds.
    pub(crate) fn check(&self, rows: usize, columns: usize) {
        assert!(self.bias.is_none_or(|bias| bias.len() == columns));
        assert!(self.residual.is_none_or(|residual| residual.len() == rows * columns));
        assert!(self.shift.is_none_or(|shift| shift.values.len() * shift.rows_per_image == rows * columns));
    }

    /// Applies it to `values`, which start at row `row` and column `first` of `columns`.
    #[inline(always)]
    pub(crate) fn finish(&self, row: usize, first: usize, columns: usize, values: &mut [f32]) {
        let mut add = |from: &[f32], start: usize| {
            let from = &from[start..][..values.len()];
            let (chunks, rest) = values.as_chunks_mut::<PANEL>();
            let (more, last) = from.as_chunks::<PANEL>();
            for (chunk, more) in chunks.iter_mut().zip(more) {
                for i in 0..PANEL {
                    chunk[i] += more[i];
                }
            }
            rest.iter_mut().zip(last).for_each(|(value, more)| *value += more);
        };
        if let Some(bias) = self.bias {
            add(bias, first);
        }
        if let Some(shift) = self.shift {
            add(shift.values, row / shift.rows_per_image * columns + first);
        }
        if let Some(residual) = self.residual {
            add(residual, row * columns + first);
        }
        match self.activation {
            None => {}
            Some(Activation::Gelu) => values.iter_mut().for_each(|value| *value = gelu(*value)),
            Some(Activation::GeluTanh) => values.iter_mut().for_each(|value| *value = gelu_tanh(*value)),
            Some(Activation::QuickGelu) => values.iter_mut().for_each(|value| *value = quick_gelu(*value)),
            Some(Activation::Silu) => values.iter_mut().for_each(|value| *value = silu(*value)),
        }
    }
}
