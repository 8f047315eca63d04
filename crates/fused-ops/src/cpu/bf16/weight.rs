//! Packs weights in bf16, and rounds left factors.

use super::line::{Line, Pair, round};
use crate::cpu::lines::{Encoding, LineWeight};
use crate::cpu::microkernel::{PANEL, Stored};
use crate::cpu::pack::{FactorSize, Panels};
use half::bf16;

/// A right factor in bf16.
pub(crate) type Bf16Weight = LineWeight<Bf16>;

/// Rounds to bf16, without scales.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bf16;

impl Encoding for Bf16 {
    type Group = Pair;
    type RowScale = ();
    type PanelScale = ();

    const MAY_KEEP_FLOATS: bool = true;
    /// 9 taps take 144 KiB.
    const ROWS_PER_PART: usize = 128;
    const ZEROS: Pair = [bf16::ZERO; 2];

    #[inline(always)]
    fn encode_row(&self, values: &[f32], _: &mut Vec<f32>, out: &mut [Line]) -> Self::RowScale {
        let (whole, rest) = values.as_chunks::<{ Line::VALUES }>();
        for (line, values) in out.iter_mut().zip(whole) {
            for (to, value) in line.0.as_flattened_mut().iter_mut().zip(values) {
                *to = round(*value);
            }
        }
        if let Some(line) = out.get_mut(whole.len()) {
            line.0.as_flattened_mut().iter_mut().zip(rest).for_each(|(to, value)| *to = round(*value));
        }
    }

    fn panel_scale(&self, _: usize) -> Self::PanelScale {}

    #[inline(always)]
    fn decode_sums(sums: &[f32; PANEL], _: Self::RowScale, _: &Self::PanelScale, out: &mut [f32; PANEL]) {
        *out = *sums;
    }

    #[inline(always)]
    fn decode_weights(&self, values: [bf16; PANEL], _: usize, _: usize) -> [f32; PANEL] {
        values.map(bf16::widen)
    }
}

impl Bf16Weight {
    pub(crate) fn new(panels: &Panels<bf16>) -> Self {
        Self::pack(panels, Bf16)
    }

    /// Rounds a factor of one tap whose columns are rows of `source`, `stride` apart: the first `depth` values of
    /// each.
    pub(super) fn round_columns(source: &[f32], columns: usize, depth: usize, stride: usize) -> Self {
        let mut weight = Self::zeros(FactorSize { taps: 1, depth, columns }, Bf16);
        for (column, source) in source.chunks(stride).enumerate().take(columns) {
            let lines = weight.panel_mut(column / PANEL);
            for (line, pair) in lines.iter_mut().zip(source[..depth].chunks(2)) {
                line.0[column % PANEL].iter_mut().zip(pair).for_each(|(to, value)| *to = round(*value));
            }
        }
        weight
    }

    /// Rounds a factor of one tap whose rows are rows of `source`, `stride` apart: the first `columns` values of
    /// each.
    pub(super) fn round_rows(source: &[f32], depth: usize, columns: usize, stride: usize) -> Self {
        let mut weight = Self::zeros(FactorSize { taps: 1, depth, columns }, Bf16);
        for (k, source) in source.chunks(stride).enumerate().take(depth) {
            for (panel, source) in source[..columns].chunks(PANEL).enumerate() {
                let pairs = weight.panel_mut(panel)[k / 2].0.iter_mut();
                pairs.zip(source).for_each(|(pair, value)| pair[k % 2] = round(*value));
            }
        }
        weight
    }
}
