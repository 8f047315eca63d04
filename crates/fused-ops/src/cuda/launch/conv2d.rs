//! Chooses a convolution kernel for a shape, and launches it.

use super::description::{Address, Element, Launch, NotCovered, blocks, size};
use super::epilogue::activation_code;
use crate::shapes::Activation;

/// As in `kernels/conv2d.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Conv2dParams {
    pub(crate) x: Address,
    pub(crate) weight: Address,
    pub(crate) bias: Address,
    pub(crate) shift: Address,
    pub(crate) residual: Address,
    pub(crate) out: Address,
    pub(crate) partial: Address,
    pub(crate) height: i32,
    pub(crate) width: i32,
    pub(crate) channels: i32,
    pub(crate) out_height: i32,
    pub(crate) out_width: i32,
    pub(crate) out_channels: i32,
    pub(crate) kernel: i32,
    pub(crate) stride: i32,
    pub(crate) top: i32,
    pub(crate) left: i32,
    pub(crate) upsample: i32,
    pub(crate) rows: i32,
    pub(crate) phase_rows: i32,
    pub(crate) stages: i32,
    pub(crate) splits: i32,
    pub(crate) activation: i32,
}

/// `activation(convolution(x) + bias + shift + residual)` of channels-last images, as in [`crate::Conv2d`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conv2dOperands {
    pub(crate) element: Element,
    pub(crate) batch: usize,
    /// Of the stored input, before any doubling.
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// As stored: padded to a multiple of 8.
    pub(crate) channels: usize,
    pub(crate) out_height: usize,
    pub(crate) out_width: usize,
    pub(crate) out_channels: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) top: usize,
    pub(crate) left: usize,
    /// Whether the image is doubled first; `kernel` is then 3.
    pub(crate) upsample: bool,
    pub(crate) x: Address,
    /// (`out_channels`, kernel, kernel, channels) or, for a doubled image, its four phases (4, `out_channels`, 2, 2,
    /// channels).
    pub(crate) weight: Address,
    /// (`out_channels`)
    pub(crate) bias: Option<Address>,
    /// (batch, `out_channels`)
    pub(crate) shift: Option<Address>,
    /// In the shape of the result.
    pub(crate) residual: Option<Address>,
    pub(crate) activation: Option<Activation>,
    pub(crate) out: Address,
}

/// The part of the result that a block computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tile {
    kernel: &'static str,
    rows: usize,
    columns: usize,
}

/// As in `kernels/conv2d.cu`.
const TILES: [Tile; 3] = [
    Tile { kernel: "wide", rows: 128, columns: 160 },
    Tile { kernel: "large", rows: 128, columns: 128 },
    Tile { kernel: "small", rows: 64, columns: 64 },
];

const THREADS: usize = 128;
/// Columns per stage, the padding between its rows, and the number of stages in shared memory.
const DEPTH: usize = 32;
const STRIDE: usize = DEPTH + 8;
const STAGES: usize = 3;

/// The most blocks that share a tile's depth, and the least number of stages for each.
const MOST_SPLITS: usize = 32;
const FEWEST_STAGES: usize = 8;

/// A tile, and how many blocks share its depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Split {
    tile: Tile,
    splits: usize,
    /// Per block.
    stages: usize,
}

impl Conv2dOperands {
    fn rows(&self) -> usize {
        self.batch * self.out_height * self.out_width
    }

    /// For a doubled image, even and odd rows and columns are computed separately.
    fn phases(&self) -> usize {
        if self.upsample { 4 } else { 1 }
    }

    /// Taps along a side: those of a phase cover two pixels.
    fn taps(&self) -> usize {
        if self.upsample { 2 } else { self.kernel }
    }

    /// The plan with the fewest clocks according to a simple cost model.
    fn plan(&self, multiprocessors: usize) -> Split {
        let all_stages = (self.taps() * self.taps() * self.channels).div_ceil(DEPTH).max(1);
        // Values are added in pairs.
        let most = if self.out_channels.is_multiple_of(2) { MOST_SPLITS } else { 1 };
        let plans = TILES.into_iter().flat_map(|tile| {
            (1..=most).filter_map(move |splits| {
                let stages = all_stages.div_ceil(splits);
                let splits_used = all_stages.div_ceil(stages);
                let worthwhile = splits == 1 || stages >= FEWEST_STAGES;
                (splits_used == splits && worthwhile).then_some(Split { tile, splits, stages })
            })
        });
        let best = plans.min_by_key(|plan| self.clocks(plan, multiprocessors.max(1)));
        best.unwrap_or(Split { tile: TILES[2], splits: 1, stages: all_stages })
    }

    /// Blocks wait for the next free multiprocessor, which does 1 024 multiply-adds per clock and fills its pipeline
    /// in about four stages. Partial sums are written and read through the L2 cache, at 40 bytes per clock and
    /// multiprocessor, by a kernel with an overhead of some 3 000 clocks.
    fn clocks(&self, plan: &Split, multiprocessors: usize) -> usize {
        let Split { tile, splits, stages } = *plan;
        let (rows, columns) = (self.rows(), self.out_channels);
        let row_blocks = self.phases() * (rows / self.phases()).div_ceil(tile.rows);
        let blocks = row_blocks * columns.div_ceil(tile.columns) * splits;
        let block = tile.rows * tile.columns * DEPTH * (stages + 4) / 1024;
        let sums = if splits > 1 { 8 * rows * columns * splits / (40 * multiprocessors) + 3000 } else { 0 };
        blocks.div_ceil(multiprocessors) * block + sums
    }

    /// The number of f32 partial sums between the two launches.
    pub(crate) fn partial_len(&self, multiprocessors: usize) -> usize {
        match self.plan(multiprocessors).splits {
            1 => 0,
            splits => splits * self.rows() * self.out_channels,
        }
    }

    /// The launch and, where blocks share a tile's depth, a second one that adds the parts. `partial` has room for
    /// [`Conv2dOperands::partial_len`] values.
    ///
    /// # Errors
    /// If no kernel covers the shape.
    pub(crate) fn launches(
        &self,
        partial: Address,
        multiprocessors: usize,
    ) -> Result<(Launch<Conv2dParams>, Option<Launch<Conv2dParams>>), NotCovered> {
        if !self.channels.is_multiple_of(8) || self.channels == 0 {
            return Err(NotCovered("channels that are no multiple of 8"));
        }
        if ![self.x, self.weight].iter().all(|address| address.is_multiple_of(16)) {
            return Err(NotCovered("an image or a weight that does not begin at a multiple of 16 bytes"));
        }
        let doubles = (self.kernel, self.stride, self.top, self.left) == (3, 1, 1, 1)
            && [self.out_height, self.out_width] == [2 * self.height, 2 * self.width];
        if self.upsample && !doubles {
            return Err(NotCovered("an image that is doubled for other than 3 × 3 taps that keep its size"));
        }
        let read_in_pairs = [self.bias, self.shift, self.residual, Some(self.out)];
        if !read_in_pairs.iter().flatten().all(|address| address.is_multiple_of(4)) {
            return Err(NotCovered("rows that do not begin at a multiple of 4 bytes"));
        }
        let rows = self.rows();
        let Split { tile, splits, stages } = self.plan(multiprocessors);
        // Rows, depth and pixels are counted in 32 bits, including the padding of the last tile and stage.
        size(rows + tile.rows)?;
        size((splits * stages + STAGES) * DEPTH)?;
        size(self.batch * self.height * self.width)?;
        if splits > 1 {
            size(rows * self.out_channels)?;
        }
        let params = Conv2dParams {
            x: self.x,
            weight: self.weight,
            bias: self.bias.unwrap_or(0),
            shift: self.shift.unwrap_or(0),
            residual: self.residual.unwrap_or(0),
            out: self.out,
            partial: if splits > 1 { partial } else { 0 },
            height: size(self.height)?,
            width: size(self.width)?,
            channels: size(self.channels)?,
            out_height: size(self.out_height)?,
            out_width: size(self.out_width)?,
            out_channels: size(self.out_channels)?,
            kernel: size(self.taps())?,
            stride: size(self.stride)?,
            top: size(self.top)?,
            left: size(self.left)?,
            upsample: self.upsample.into(),
            rows: size(rows)?,
            phase_rows: size(rows / self.phases())?,
            stages: size(stages)?,
            splits: size(splits)?,
            activation: activation_code(self.activation),
        };
        let columns = blocks(self.out_channels, tile.columns)?;
        if columns > 65_535 {
            return Err(NotCovered("more channels than a grid has"));
        }
        let product = Launch {
            kernel: format!("conv2d_{}_{}", tile.kernel, self.element),
            grid: [
                blocks(self.phases() * (rows / self.phases()).div_ceil(tile.rows), 1)?,
                columns,
                blocks(splits, 1)?,
            ],
            threads: THREADS as u32,
            shared_bytes: (STAGES * (tile.rows + tile.columns) * STRIDE * 2) as u32,
            params,
        };
        let sum = (splits > 1).then_some(Launch {
            kernel: format!("conv2d_sum_{}", self.element),
            grid: [blocks((rows * self.out_channels).div_ceil(2), THREADS)?, 1, 1],
            threads: THREADS as u32,
            shared_bytes: 0,
            params,
        });
        Ok((product, sum))
    }
}
