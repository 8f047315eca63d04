//! Finishes a product while its results are still in the first cache: bias, shift, residual, activation.

use super::elementwise::{gelu, quick_gelu, silu};
use super::microkernel::PANEL;
use crate::shapes::Activation;

/// `activation(product + bias + shift + residual)` on slices, each of which may be missing.
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

/// A row for each image.
#[derive(Clone, Copy)]
pub(crate) struct Shift<'a> {
    pub(crate) values: &'a [f32],
    /// Rows of the product that belong to an image.
    pub(crate) rows_per_image: usize,
}

impl<'a> SliceEpilogue<'a> {
    pub(crate) fn bias(bias: Option<&'a [f32]>) -> Self {
        Self { bias, ..Self::default() }
    }

    /// Panics where something does not fit a product of this shape: the kernels would read outside of it.
    pub(crate) fn check(&self, rows: usize, columns: usize) {
        assert!(self.bias.is_none_or(|bias| bias.len() == columns));
        assert!(self.residual.is_none_or(|residual| residual.len() == rows * columns));
        assert!(self.shift.is_none_or(|shift| shift.values.len() * shift.rows_per_image == rows * columns));
    }

    /// Finishes `values`, which are those of row `row` from column `first` on, of `columns`.
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
            Some(Activation::QuickGelu) => values.iter_mut().for_each(|value| *value = quick_gelu(*value)),
            Some(Activation::Silu) => values.iter_mut().for_each(|value| *value = silu(*value)),
        }
    }
}
