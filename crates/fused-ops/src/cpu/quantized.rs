//! Keeps right factors quantized, and unpacks to f32 only the part that a task multiplies by.
//!
//! Unpacking a weight costs about 16 multiply-adds per task: a fifth more time for 77 rows, and little for many.
//! Tasks therefore get more rows than with plain weights.

use super::microkernel::PANEL;
use super::pack::{Factor, FactorPart, FactorSize};
use crate::shapes::BlockType;
use candle_core::Result;
use candle_core::quantized::k_quants::{
    BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0,
    GgmlType,
};
use std::ops::Range;

/// Rows per part of two panels, to fit the L2 cache beside the left rows.
const ROWS_PER_PART: usize = 512;
/// Values of a column unpacked at a time: with the panel's other columns, half of the L1 cache.
const VALUES_AT_A_TIME: usize = 256;

/// A weight (columns, depth, taps) as in the checkpoint, with rows that are a multiple of the block size.
#[derive(Debug, Clone)]
pub(crate) struct QuantizedWeight {
    kind: BlockType,
    /// The blocks' bytes. Their scales are f16, so blocks are aligned to two bytes.
    words: Vec<u16>,
    words_per_column: usize,
    size: FactorSize,
}

impl QuantizedWeight {
    /// Takes the bytes of the rows in order.
    pub(crate) fn new(kind: BlockType, bytes: &[u8], size: FactorSize) -> Result<Self> {
        let bytes_per_column = kind.bytes_of(size.taps * size.depth);
        let expected = bytes_per_column.and_then(|bytes| bytes.checked_mul(size.columns));
        let (Some(bytes_per_column), true) = (bytes_per_column, expected == Some(bytes.len())) else {
            candle_core::bail!("{} bytes of {} are not a weight of {size:?}", bytes.len(), kind.name())
        };
        let words = bytes.as_chunks().0.iter().map(|word| u16::from_ne_bytes(*word)).collect();
        Ok(Self { kind, words, words_per_column: bytes_per_column / 2, size })
    }

    /// Unpacks a column, in the checkpoint's order.
    pub(crate) fn column(&self, column: usize, out: &mut [f32]) {
        to_floats(self.kind, &self.words[column * self.words_per_column..][..self.words_per_column], out);
    }

    /// The weight as a plain (taps, depth, columns) array.
    pub(crate) fn unpack(&self) -> Vec<f32> {
        let FactorSize { taps, depth, columns } = self.size;
        let mut out = vec![0f32; taps * depth * columns];
        let mut values = vec![0f32; taps * depth];
        for column in 0..columns {
            self.column(column, &mut values);
            for (place, value) in values.iter().enumerate() {
                let (k, tap) = (place / taps, place % taps);
                out[(tap * depth + k) * columns + column] = *value;
            }
        }
        out
    }

    /// Writes the rows `depth` of every tap of a panel, (taps, depth.len(), 16).
    #[inline(always)]
    fn write_panel(&self, panel: usize, depth: &Range<usize>, out: &mut [[f32; PANEL]]) {
        let FactorSize { taps, columns, .. } = self.size;
        let block = self.kind.block_values();
        let words_per_block = self.kind.block_bytes() / 2;
        let first_column = panel * PANEL;
        let width = PANEL.min(columns - first_column);
        // Zeros beyond the last column.
        let mut values = [[0f32; VALUES_AT_A_TIME]; PANEL];
        let wanted = depth.start * taps..depth.end * taps;
        // Start at the first block that contains wanted values.
        let mut start = wanted.start / block * block;
        let (mut k, mut tap) = (0, 0);
        while start < wanted.end {
            let end = (start + VALUES_AT_A_TIME).min(wanted.end.next_multiple_of(block));
            for (lane, values) in values.iter_mut().enumerate().take(width) {
                let words = &self.words[(first_column + lane) * self.words_per_column..];
                let words = &words[start / block * words_per_block..end / block * words_per_block];
                to_floats(self.kind, words, &mut values[..end - start]);
            }
            for place in start.max(wanted.start)..end.min(wanted.end) {
                let row = &mut out[tap * depth.len() + k];
                for (lane, values) in row.iter_mut().zip(&values) {
                    *lane = values[(place - start) % VALUES_AT_A_TIME];
                }
                tap += 1;
                if tap == taps {
                    (k, tap) = (k + 1, 0);
                }
            }
            start = end;
        }
    }
}

impl Factor for QuantizedWeight {
    type Value = f32;

    /// Users of quantized weights want little memory.
    const MAY_KEEP_FLOATS: bool = false;
    const ROWS_PER_TASK: usize = 384;

    fn size(&self) -> FactorSize {
        self.size
    }

    fn depth_per_part(&self) -> usize {
        // A multiple of 64, so that parts start at block boundaries of any type.
        (ROWS_PER_PART / self.size.taps.max(1)).next_multiple_of(64)
    }

    #[inline(always)]
    fn part<'a>(
        &'a self,
        panels: &[usize],
        depth: Range<usize>,
        scratch: &'a mut Vec<f32>,
    ) -> FactorPart<'a, f32> {
        let rows = self.size.taps * depth.len();
        scratch.resize(panels.len() * rows * PANEL, 0.);
        let (out, _) = scratch.as_chunks_mut::<PANEL>();
        for (panel, out) in panels.iter().zip(out.chunks_exact_mut(rows.max(1))) {
            self.write_panel(*panel, &depth, out);
        }
        FactorPart { data: scratch, rows_per_tap: depth.len(), panel_stride: rows * PANEL }
    }
}

/// Unpacks blocks to f32 with candle's codecs, in place. `words` hold `values.len()` numbers.
pub(crate) fn to_floats(kind: BlockType, words: &[u16], values: &mut [f32]) {
    match kind {
        BlockType::Q4_0 => decode::<BlockQ4_0>(words, values),
        BlockType::Q4_1 => decode::<BlockQ4_1>(words, values),
        BlockType::Q5_0 => decode::<BlockQ5_0>(words, values),
        BlockType::Q5_1 => decode::<BlockQ5_1>(words, values),
        BlockType::Q8_0 => decode::<BlockQ8_0>(words, values),
        BlockType::Q2K => decode::<BlockQ2K>(words, values),
        BlockType::Q3K => decode::<BlockQ3K>(words, values),
        BlockType::Q4K => decode::<BlockQ4K>(words, values),
        BlockType::Q5K => decode::<BlockQ5K>(words, values),
        BlockType::Q6K => decode::<BlockQ6K>(words, values),
    }
}

fn decode<B: GgmlType>(words: &[u16], values: &mut [f32]) {
    const { assert!(align_of::<B>() <= align_of::<u16>()) };
    let blocks = values.len() / B::BLCK_SIZE;
    assert!(values.len().is_multiple_of(B::BLCK_SIZE) && size_of_val(words) == blocks * size_of::<B>());
    // SAFETY: the words are the bytes of this many blocks, and as aligned as these must be. A block is plain integers and
    // halves, for which any bits will do.
    let blocks = unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<B>(), blocks) };
    B::to_float(blocks, values);
}
