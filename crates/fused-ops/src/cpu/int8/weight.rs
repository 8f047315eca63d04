//! Packs weights in int8, and quantizes left factors, each row with a scale of its own.

use super::line::{Line, Quad, SHIFT};
use super::quantize::RowScale;
use crate::cpu::lines::{Encoding, LineWeight};
use crate::cpu::microkernel::PANEL;
use crate::cpu::pack::{Panels, Strides};

/// A right factor of one tap in int8.
pub(crate) type Int8Weight = LineWeight<Int8>;

/// Quantizes to int8.
#[derive(Debug, Clone)]
pub(crate) struct Int8 {
    /// What each column's integers are multiplied by.
    scales: Vec<f32>,
    /// What the shift of the left factor adds to each column's product.
    excess: Vec<i32>,
    /// What the left factor's columns are multiplied by.
    factors: Option<Vec<f32>>,
}

impl Encoding for Int8 {
    type Group = Quad;
    type RowScale = f32;
    /// Scales and excess; zeros after the last column.
    type PanelScale = ([f32; PANEL], [i32; PANEL]);

    /// Users of quantized weights want little memory.
    const MAY_KEEP_FLOATS: bool = false;
    /// One tap takes 128 KiB.
    const ROWS_PER_PART: usize = 1024;
    const ZEROS: Quad = [SHIFT; 4];

    #[inline(always)]
    fn encode_row(&self, values: &[f32], smoothed: &mut Vec<f32>, out: &mut [Line]) -> f32 {
        let mut values = values;
        if let Some(factors) = &self.factors {
            smoothed.resize(values.len(), 0.);
            let all = values.iter().zip(factors).zip(smoothed.iter_mut());
            all.for_each(|((value, factor), to)| *to = value * factor);
            values = smoothed;
        }
        let row = RowScale::of(values);
        row.round(values, SHIFT, bytes_of(out));
        row.scale
    }

    fn panel_scale(&self, panel: usize) -> Self::PanelScale {
        let (mut scales, mut excess) = ([0f32; PANEL], [0i32; PANEL]);
        let columns = self.scales.iter().zip(&self.excess).skip(panel * PANEL);
        let to = scales.iter_mut().zip(&mut excess);
        to.zip(columns).for_each(|(to, from)| (*to.0, *to.1) = (*from.0, *from.1));
        (scales, excess)
    }

    #[inline(always)]
    fn decode_sums(
        sums: &[i32; PANEL],
        row_scale: f32,
        (scales, excess): &Self::PanelScale,
        out: &mut [f32; PANEL],
    ) {
        for lane in 0..PANEL {
            let product = sums[lane].wrapping_sub(excess[lane]);
            out[lane] = product as f32 * (row_scale * scales[lane]);
        }
    }

    #[inline(always)]
    fn decode_weights(&self, values: [i8; PANEL], panel: usize, k: usize) -> [f32; PANEL] {
        let factor = self.factors.as_ref().map_or(1., |factors| factors[k]);
        let mut out = [0f32; PANEL];
        for ((out, value), scale) in out.iter_mut().zip(values).zip(&self.scales[panel * PANEL..]) {
            *out = f32::from(value) * scale * factor;
        }
        out
    }
}

/// The bytes of lines, in order.
#[inline(always)]
fn bytes_of(lines: &mut [Line]) -> &mut [u8] {
    const { assert!(size_of::<Line>() == Line::VALUES) };
    // SAFETY: lines are bytes without padding.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), size_of_val(lines)) }
}

impl Int8Weight {
    /// The largest depth whose products fit into i32.
    pub(crate) const MAX_DEPTH: usize = i32::MAX as usize / (128 * 128);

    /// Packs integers (columns, depth), with a scale for each column and perhaps a factor for each value of the depth.
    /// The integers must be at least −127.
    pub(crate) fn new(
        values: &[i8],
        scales: Vec<f32>,
        factors: Option<Vec<f32>>,
        [columns, depth]: [usize; 2],
    ) -> Self {
        assert!(depth <= Self::MAX_DEPTH && values.len() == columns * depth && scales.len() == columns);
        assert!(factors.as_ref().is_none_or(|factors| factors.len() == depth));
        let sum = |values: &[i8]| values.iter().map(|value| i32::from(*value)).sum::<i32>();
        let mut excess = vec![0; columns];
        let rows = excess.iter_mut().zip(values.chunks_exact(depth.max(1)));
        rows.for_each(|(excess, values)| *excess = sum(values) * i32::from(SHIFT));
        let panels = Panels::pack(values, 1, depth, columns, Strides { tap: 0, depth: 1, column: depth });
        Self::pack(&panels, Int8 { scales, excess, factors })
    }
}
